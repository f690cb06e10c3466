"""The thesis's tables from runs: one command trains a network, one command makes the table of all of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_training import arguments, write_squares

from train import curves, evaluate, fit
from train.cli import main
from train.runs import read_training, read_validations

STEPS, BATCH_SIZE = 6, 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("stores") / "squares", count=40)


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by the name of their run: two seeds, another initialisation, another network, other starts."""
    folder = tmp_path_factory.mktemp("runs")
    settings: dict[str, dict[str, Any]] = {
        "star_0": {"seed_everything": 0},
        "star_1": {"seed_everything": 1},
        "star_default": {"model__initialisation": "default"},
        "monet": {"model__preset": "monet"},
        "star_pretrained": {"model__pretrained": folder / "star_0" / "last.safetensors"},
        "star_fine_tuned": {"model__fine_tune": folder / "star_0" / "last.safetensors"},
    }
    for name, changes in settings.items():
        assert main(fit.make_cli, arguments(store, folder / name, STEPS, **changes)) == 0
    return {name: folder / name / "last.safetensors" for name in settings}


def table(checkpoints: list[Path], store: Path, folder: Path, layout: str) -> tuple[list[list[str]], dict[str, Any]]:
    """The cells of every row of the Markdown, and the JSON."""
    markdown, scores = folder / "table.md", folder / "scores.json"
    argv = [*(str(path) for path in checkpoints), "--store", str(store), "--table", layout, "--bootstrap", "20"]
    argv += ["--backend", "torch", "--markdown", str(markdown), "--json", str(scores)]
    assert evaluate.main(argv) == 0
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines], json.loads(scores.read_text())


def test_one_command_makes_table_5_2_of_runs(runs: dict[str, Path], store: Path, tmp_path: Path) -> None:
    rows, scores = table(list(runs.values()), store, tmp_path, "5.2")
    networks = {row[0]: row[1] for row in rows if len(row) == 5}
    assert networks["MONet"] == "1"
    assert networks["MONet-RN18\\*"] == "2", "seeds of one model share a row"
    assert networks["MONet-RN18\\*, pre-trained"] == networks["MONet-RN18\\*, default initialisation"] == "1"
    assert networks["MONet-RN18\\*, fine-tuned"] == "1"
    assert "*MONet-RN50\\* (thesis)*" in networks

    trained = [row for row in rows if len(row) == 7 and "safetensors" in row[0]]
    assert [row[3] for row in trained] == ["0", "1", "0", "0", "0", "0"]
    assert {row[4] for row in trained} == {str(STEPS * BATCH_SIZE)}
    assert all(float(row[5]) >= 0 for row in trained)
    assert [row[2] for row in trained] == ["scratch"] * 4 + [str(runs["star_0"])] * 2
    assert scores["networks"][2]["training"]["images"] == STEPS * BATCH_SIZE


def test_one_command_makes_table_5_1_of_runs(runs: dict[str, Path], store: Path, tmp_path: Path) -> None:
    rows, _ = table(list(runs.values()), store, tmp_path, "5.1")
    networks = {(row[0], row[1]): row[2] for row in rows if len(row) == 6}
    assert networks["MONet-RN18\\*", "Kaiming"] == "2"
    assert networks["MONet-RN18\\*", "Default"] == networks["MONet-RN18\\*, pre-trained", "Kaiming"] == "1"


def test_command_in_the_table_trains_the_network_anew(runs: dict[str, Path], tmp_path: Path) -> None:
    training = read_training(runs["star_1"], STEPS)
    assert training is not None
    options = training.command.removeprefix("python -m train.fit ").split()
    assert main(fit.make_cli, [*options[:-1], str(tmp_path / "again")]) == 0
    first, again = load_file(runs["star_1"]), load_file(tmp_path / "again" / "last.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"accumulate_grad_batches": 3}, 3 * STEPS * BATCH_SIZE),
        ({"devices": 4, "num_nodes": 2}, 8 * STEPS * BATCH_SIZE),
        ({"devices": [0, 1]}, 2 * STEPS * BATCH_SIZE),
        ({"devices": "0,1"}, 2 * STEPS * BATCH_SIZE),
        ({"devices": "3,"}, STEPS * BATCH_SIZE),
    ],
)
def test_images_seen_count_every_process(
    runs: dict[str, Path], tmp_path: Path, changes: dict[str, Any], images: int
) -> None:
    config = yaml.safe_load((runs["star_0"].parent / "config.yaml").read_text())
    config["trainer"].update(changes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    training = read_training(tmp_path / "last.safetensors", STEPS)
    assert training is not None
    assert (training.images, training.minutes) == (images, None)


def test_images_seen_hold_after_a_run_went_on_with_another_batch_size(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["star_0"].parent, tmp_path / "run")
    more = ["--run", str(run), "--resume", f"--data.batch_size={3 * BATCH_SIZE}", f"--trainer.max_steps={STEPS + 3}"]
    assert main(fit.make_cli, more) == 0
    images = [3 * BATCH_SIZE, 6 * BATCH_SIZE, (STEPS + 3 * 3) * BATCH_SIZE]
    assert curves.read_curve(run).images == images
    trainings = [read_training(run / "last.safetensors", STEPS + steps) for steps in (0, 3)]
    assert [training and training.images for training in trainings] == images[1:]


def add_minutes(checkpoint: Path, more: float) -> None:
    """Makes it look as if the run had trained for so much longer."""
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"]["ValidationReport"]["minutes"] += more
    torch.save(content, checkpoint)


def test_minutes_of_a_resumed_run_hold_those_before(store: Path, tmp_path: Path) -> None:
    settings = {"trainer__val_check_interval": 2, "data__val_fraction": 0.5, "data__batch_size": 4}
    assert main(fit.make_cli, arguments(store, tmp_path, 2, **settings)) == 0
    validations = tmp_path / "validation.jsonl"
    add_minutes(tmp_path / "last.ckpt", 5)
    assert main(fit.make_cli, [*arguments(store, tmp_path, 4, **settings), "--resume"]) == 0
    assert json.loads(validations.read_text().splitlines()[-1])["minutes"] >= 5


def test_checkpoint_without_a_run_has_no_training(tmp_path: Path) -> None:
    assert read_training(tmp_path / "monet.safetensors", STEPS) is None


@pytest.mark.parametrize(
    "content",
    [
        b"model:\n",
        b"model: {initialisation: x}\n",
        b"model: {initialisation: x, pretrained: null}\ndata: {batch_size: [8]}\ntrainer: 3\n",
        b"model: !Sensor {range: 3}\n",
        b"- a list\n",
        b"a: [\n",
        b"\xff\xfe\x00",
        b"day: 2026-13-45\n",
    ],
)
def test_a_configuration_of_something_else_is_no_training(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    (tmp_path / "validation.jsonl").write_text('{"step": 3, "minutes": 0.1, "mse": 0.5}\n')
    assert read_training(tmp_path / "last.safetensors", STEPS) is None
    assert curves.main([str(tmp_path), "--output", str(tmp_path / "curves.png")]) == 1
    assert "no validation of a run of train.fit is here" in capsys.readouterr().err


def test_half_a_line_of_validations_is_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["monet"].parent, tmp_path / "monet")
    path = run / "validation.jsonl"
    whole = read_validations(run)
    assert len(whole) == 2
    path.write_text(path.read_text()[:-20])
    assert read_validations(run) == whole[:1]
    training = read_training(run / "last.safetensors", STEPS)
    assert training is not None
    assert training.minutes == whole[0]["minutes"]
    assert curves.main([str(run), "--output", str(tmp_path / "curves.png")]) == 0
    path.write_text(f'[1]\n7\n{{"stop": 3}}\n{path.read_text()}')
    assert read_validations(run) == whole[:1]


def test_a_run_of_an_unknown_network_has_to_be_named(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs["monet"].parent, tmp_path / "monet")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["preset"] = "monet_rn9"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["--output", str(tmp_path / "curves.png")]
    assert curves.main([str(run), *argv]) == 1
    assert f"name the run, NAME={run}" in capsys.readouterr().err
    assert curves.main([f"RN9={run}", *argv]) == 0


def test_a_picture_of_no_known_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        curves.main(["run", "--output", "c.banana"])
    assert "c.banana has to end in .png, .pdf, .svg" in capsys.readouterr().err


def test_one_command_draws_what_the_validations_of_runs_said(runs: dict[str, Path], tmp_path: Path) -> None:
    folders = {name: checkpoint.parent for name, checkpoint in runs.items()}
    said = [json.loads(line) for line in (folders["monet"] / "validation.jsonl").read_text().splitlines()]
    curve = curves.read_curve(folders["monet"])
    assert curve.images == [line["step"] * BATCH_SIZE for line in said] == [3 * BATCH_SIZE, 6 * BATCH_SIZE]
    assert curve.values["mse"] == [line["mse"] for line in said]
    assert curve.name == "MONet, seed 0"
    assert curves.read_curve(folders["star_pretrained"]).name == "MONet-RN18*, pre-trained, seed 0"

    figure = curves.curves_figure([curve, curves.read_curve(folders["star_1"], "mine")], ["mse", "mask_entropy"])
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == [0.001 * images for images in curve.images]
    assert list(y) == pytest.approx([1000 * line["mse"] for line in said])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MONet, seed 0", "mine"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["MSE (1e-3)", "Mask entropy (nats)"]
    four = curves.curves_figure([curve], ["ari", "msc", "mse", "active_slots"])
    assert four.axes[0].get_gridspec().get_geometry() == (2, 2)

    output = tmp_path / "curves.png"
    assert curves.main([f"other={folders['monet']}", str(folders["star_0"]), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("values", "reason"), [([], "no validation"), (["--values", "dice"], "have no dice")])
def test_what_cannot_be_drawn_is_told(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, values: list[str], reason: str
) -> None:
    run = runs["monet"].parent if values else tmp_path
    assert curves.main([str(run), *values, "--output", str(tmp_path / "curves.png")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error:")
    assert reason in error
    assert not (tmp_path / "curves.png").exists()
