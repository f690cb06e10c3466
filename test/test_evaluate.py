"""`python -m train.evaluate`: what it reports is what the robot's decomposer does, counted by the book."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from painted_scenes import BACKGROUND, CONFIG, paint_store, save_network
from sklearn.metrics import adjusted_rand_score

from monet_perception.checkpoint import load_checkpoint, save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.labels import fit_labels
from monet_perception.networks import PRESETS, Monet, MonetConfig
from monet_perception.region import Region
from train import disentanglement, explore, export, profile, samples, traverse
from train.data.store import Store
from train.evaluate import main
from train.evaluation import Evaluation, evaluate
from train.inference import decompose_store
from train.metrics.headings import SCORES
from train.model_names import model_name
from train.report import Score, unique_names


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return paint_store(tmp_path_factory.mktemp("stores") / "painted")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("networks")
    return [save_network(folder / f"seed{seed}.safetensors", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def decomposer(networks: list[Path]) -> Decomposer:
    return Decomposer(networks[0], device="cpu", backend="torch", precision="fp32", crop="whole")


def test_evaluates_what_the_robot_runs(decomposer: Decomposer, store: Store) -> None:
    """Batches of a store give the masks and latents of frames that come one by one, as they come to the node."""
    batches = list(decompose_store(decomposer, store, batch_size=7))
    assert sum(len(batch.index) for batch in batches) == len(store)
    for batch in batches:
        for i, index in enumerate(batch.index):
            alone = decomposer(np.array(store.images[index]), reconstruct=True)
            for name in ("masks", "latent_mean", "latent_log_sigma", "reconstructions", "decoded_masks"):
                np.testing.assert_allclose(
                    getattr(batch.decomposition, name)[i], getattr(alone, name), atol=2e-5, err_msg=name
                )


def test_evaluates_what_was_trained(decomposer: Decomposer, networks: list[Path], store: Store) -> None:
    """The network as training runs it and the decomposer get the same scores."""
    monet, _ = load_checkpoint(networks[0])
    images = torch.from_numpy(np.array(store.images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        output = monet(images)
    clipped = output._replace(reconstructions=output.reconstructions.clamp(0, 1))  # as pictures are
    by_decoded_masks = clipped._replace(log_masks=output.mask_logits.log_softmax(dim=1))
    predicted = output.log_masks.argmax(dim=1).numpy()
    scores, objects = evaluate(decomposer, store, batch_size=10)
    for name, mixed in (("mse", clipped), ("mse_decoded", by_decoded_masks)):
        expected_mse = (mixed.mixture() - images).square().mean(dim=(1, 2, 3)).numpy()
        np.testing.assert_allclose(scores[name], expected_mse, rtol=1e-3, err_msg=name)
    assert np.abs(scores["mse_decoded"] / scores["mse"] - 1).min() > 0.01  # the two can be told apart
    assert store.labels is not None
    for i, labels in enumerate(store.labels):
        foreground = labels >= BACKGROUND
        assert objects[i] == len(np.unique(labels[foreground]))
        expected = adjusted_rand_score(labels[foreground], predicted[i][foreground]) if foreground.any() else math.nan
        assert scores["ari"][i] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_command_writes_tables_json_and_figures(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(path) for path in networks[:2]] + [f"Third={networks[2]}"]
    argv += ["--store", str(store.path), "--backend", "torch", "--bootstrap", "50", "--examples", "2"]
    argv += ["--json", str(tmp_path / "out" / "scores.json"), "--markdown", str(tmp_path / "table.md")]
    argv += ["--figures", str(tmp_path / "figures")]
    assert main(argv) == 0
    screen = capsys.readouterr().out
    assert "MONet" in screen
    assert "by number of visible objects" in screen

    result = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert result["command"].startswith("python -m train.evaluate ")
    assert "threads, PyTorch" in result["machine"]
    seeds, third = result["models"]
    assert (seeds["model"], seeds["networks"], seeds["images"]) == ("MONet", 2, len(store))
    values = [one["scores"]["ari"] for one in result["networks"][:2]]
    assert seeds["scores"]["ari"]["value"] == pytest.approx(np.mean(values))
    assert seeds["scores"]["ari"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert third["model"] == "Third"
    for name, score in third["scores"].items():
        assert score["low"] < score["value"] < score["high"], name
    table = result["networks"][2]["by_objects"]
    assert sum(row["images"] for row in table.values()) == len(store)
    assert table["0"]["ari"] is None  # no foreground, no score; JSON has no NaN

    rows = (tmp_path / "table.md").read_text().splitlines()
    cells = rows[2].strip("|").split("|")
    assert [cell.strip() for cell in cells] == ["Model", "Networks", "ARI ↑", "MSC ↑", "MSE × 10⁻³ ↓"]
    ours = next(row for row in rows if "Third" in row)
    assert f"{third['scores']['ari']['value'] * 100:.2f} [" in ours
    assert any("(thesis)" in row and "86.88 ± 1.23" in row for row in rows)

    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == [
        "decomposition_painted_image0.png",
        "decomposition_painted_image1.png",
        "scores_by_objects_painted.png",
    ]
    assert imread(tmp_path / "figures" / written[0]).std() > 0.05  # not an empty page
    assert imread(tmp_path / "figures" / written[0]).shape[1] > 3 * 200  # three networks side by side


def test_seeds_are_networks_of_one_structure(networks: list[Path], store: Store, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, component_decoder="upsampling")
    other = tmp_path / "upsampling.safetensors"
    save_checkpoint(other, Monet(config, initialisation=None), dataset="painted", steps=0)

    def rows(*checkpoints: str) -> list[tuple[str, int]]:
        argv = [*checkpoints, "--store", str(store.path), "--limit", "4", "--backend", "torch", "--bootstrap", "20"]
        assert main([*argv, "--json", str(tmp_path / "s.json")]) == 0
        return [(row["model"], row["networks"]) for row in json.loads((tmp_path / "s.json").read_text())["models"]]

    first, second = map(str, networks[:2])
    assert rows(first, str(other), second) == [
        ("MONet, component_decoder=broadcast", 2),
        ("MONet, component_decoder=upsampling", 1),
    ]
    assert rows(first, f"Budget={other}", second) == [("MONet", 2), ("Budget", 1)]
    assert rows(f"Any={first}", f"Any={other}") == [("Any", 2)]


def test_stores_and_networks_of_one_name_keep_their_figures(networks: list[Path], store: Store, tmp_path: Path) -> None:
    for folder in ("near", "far"):
        shutil.copytree(store.path, tmp_path / folder / "painted")
    argv = [str(networks[0]), "--store", *(str(tmp_path / folder / "painted") for folder in ("near", "far"))]
    argv += ["--limit", "4", "--backend", "torch", "--bootstrap", "20", "--examples", "1"]
    assert main([*argv, "--figures", str(tmp_path / "figures"), "--markdown", str(tmp_path / "t.md")]) == 0
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "decomposition_far_painted_seed0.png",
        "decomposition_near_painted_seed0.png",
        "scores_by_objects_far_painted.png",
        "scores_by_objects_near_painted.png",
    ]
    titles = [line.split("**")[1] for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("**")]
    assert titles == ["near_painted", "far_painted"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/net.safetensors"], ["net"]),
        (["runs/a/best.safetensors"], ["a_best"]),  # every run has one of that name
        (["runs/a/best.safetensors", "runs/a/last.safetensors"], ["a_best", "a_last"]),
        (["runs/a/best.safetensors", "runs/b/best.safetensors"], ["a_best", "b_best"]),
        (
            ["x/0/best.safetensors", "y/0/best.safetensors", "y/1/best.safetensors"],
            ["x_0_best", "y_0_best", "y_1_best"],
        ),
        (["rooms_0.5", "rooms_0.7"], ["rooms_0.5", "rooms_0.7"]),
        (["data/rooms", "data/rooms"], ["rooms", "rooms"]),
        (["a/test", "b/test"], ["a_test", "b_test"]),
        (["rooms", "/rooms"], [f"{Path.cwd().name}_rooms", "rooms"]),
    ],
)
def test_names_tell_paths_apart(paths: list[str], names: list[str]) -> None:
    assert unique_names([Path(path) for path in paths]) == names


def test_multi_object_images_are_reported_apart(decomposer: Decomposer, store: Store) -> None:
    scores, objects = evaluate(decomposer, store)
    one = Evaluation("m", Path("c"), decomposer.info, store.path, "cpu", 0.0, scores, objects)
    assert one.means()["ari_multi"] == pytest.approx(scores["ari"][objects >= 2].mean())
    assert one.by_objects()[2]["msc"] == pytest.approx(scores["msc"][objects == 2].mean())
    assert one.means()["mbo"] == pytest.approx(scores["best_overlap"].sum() / objects.sum())


def test_objects_of_few_pixels_do_not_count(networks: list[Path], store: Store, tmp_path: Path) -> None:
    argv = [str(networks[0]), "--store", str(store.path), "--backend", "torch", "--bootstrap", "20"]
    assert store.labels is not None
    pixels = np.stack([np.bincount(labels.ravel(), minlength=BACKGROUND + 3) for labels in store.labels])
    for least in (1, 50):
        assert main([*argv, "--min-pixels", str(least), "--json", str(tmp_path / "s.json")]) == 0
        rows = json.loads((tmp_path / "s.json").read_text())["networks"][0]["by_objects"]
        objects, images = np.unique((pixels[:, BACKGROUND:] >= least).sum(axis=1), return_counts=True)
        assert {int(n): row["images"] for n, row in rows.items()} == dict(zip(objects, images, strict=True))


def test_intervals_hold_the_mean_and_shrink_with_the_images() -> None:
    random = np.random.default_rng(0)

    def interval(count: int) -> tuple[float, float]:
        values = random.uniform(size=count)
        names = ("ari", "ari_all", "msc", "covering", "mse", "mse_decoded", "best_overlap")
        one = Evaluation("m", Path(), None, Path(), "", 0, dict.fromkeys(names, values), np.ones(count, int))  # type: ignore[arg-type]
        return one.intervals(500, 0)["msc"]

    low, high = interval(1000)
    assert low < 0.5 < high
    # The standard error of a mean of uniforms is known.
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(12 * 1000), rel=0.2)
    assert np.ptp(interval(100)) > 2 * (high - low)


def test_store_without_labels_still_gets_its_mse(
    networks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint_store(tmp_path / "bare", count=4, labels=False)
    argv = [str(networks[0]), "--store", str(tmp_path / "bare"), "--backend", "torch"]
    assert main([*argv, "--json", str(tmp_path / "s.json")]) == 0
    assert "no labels" in capsys.readouterr().out
    scores = json.loads((tmp_path / "s.json").read_text())["networks"][0]["scores"]
    assert scores["ari"] is None
    assert scores["mse"] > 0


def test_initialisation_table_has_two_name_columns(networks: list[Path], store: Store, tmp_path: Path) -> None:
    target = tmp_path / "t.md"
    argv = [f"MONet/Kaiming={networks[0]}", f"MONet/Default={networks[1]}", "--store", str(store.path)]
    argv += ["--limit", "4", "--backend", "torch"]
    argv += ["--markdown", str(target), "--json", str(tmp_path / "s.json")]
    assert main([*argv, "--table", "5.1", "--bootstrap", "20"]) == 0
    rows = target.read_text().splitlines()
    assert rows[2].startswith("| Architecture | Initialisation |")
    assert "10⁻⁴" in rows[2]
    assert rows[4].startswith("| MONet | Kaiming | 1 |")
    mse = json.loads((tmp_path / "s.json").read_text())["networks"][0]["scores"]["mse"]
    assert rows[4].split("|")[-2].split()[0] == f"{mse * 1e4:.3f}"


def test_figures_of_scenes_with_so_many_objects(networks: list[Path], store: Store, tmp_path: Path) -> None:
    argv = [str(networks[0]), "--store", str(store.path), "--limit", "2", "--figures", str(tmp_path)]
    argv += ["--backend", "torch"]
    assert main([*argv, "--example-objects", "3", "--examples", "1", "--format", "svg"]) == 0
    assert (tmp_path / "decomposition_painted_seed0_3_objects.svg").exists()
    assert main([*argv, "--example-objects", "9"]) == 1
    without = [argument for argument in argv if argument not in ("--figures", str(tmp_path))]
    with pytest.raises(SystemExit, match="2"):
        main([*without, "--example-objects", "3"])


def test_a_store_given_twice_is_refused(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(store.path)
    for again in (store.path, store.path.parent / "." / store.path.name, link):
        assert main([str(networks[0]), "--store", str(store.path), str(again), "--backend", "torch"]) == 1
        assert f"--store names one store twice, {store.path} and {again}" in capsys.readouterr().err


def test_a_checkpoint_given_twice_is_refused(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(networks[0])
    for again in (str(networks[0]), f"another={link}"):
        assert main([str(networks[0]), again, "--store", str(store.path), "--backend", "torch"]) == 1
        assert f"given twice, {networks[0]} and {again.removeprefix('another=')}" in capsys.readouterr().err


def test_networks_of_one_training_do_not_count_as_seeds(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(networks[0].read_bytes())
    argv = ["--store", str(store.path), "--backend", "torch", "--limit", "4", "--bootstrap", "20"]
    assert main([str(networks[0]), str(copy), *argv]) == 1
    assert "are the same network and would count as two seeds" in capsys.readouterr().err

    best, last = tmp_path / "run" / "best.safetensors", tmp_path / "run" / "last.safetensors"
    best.parent.mkdir()
    (best.parent / "config.yaml").write_text("")
    for path, network in ((best, networks[0]), (last, networks[1])):
        path.write_bytes(network.read_bytes())
    assert main([str(best), str(last), *argv]) == 1
    assert f"give each a name (run_best={best} run_last={last})" in capsys.readouterr().err
    assert main([f"best={best}", f"last={last}", *argv]) == 0


def put_in_run(network: Path, run: Path, name: str, seed: int, validated: int, pretrained: str | None = None) -> Path:
    """A network as a training of train.fit leaves it, with one image a step, validated last after so many."""
    run.mkdir()
    config = {
        "seed_everything": seed,
        "trainer": {"accumulate_grad_batches": 1, "devices": 1, "num_nodes": 1},
        "model": {"initialisation": "kaiming", "pretrained": pretrained},
        "data": {"batch_size": 1},
    }
    (run / "config.yaml").write_text(json.dumps(config))  # which is YAML as well
    (run / "validation.jsonl").write_text(json.dumps({"step": validated}))
    return Path(shutil.copy(network, run / name))


def test_trainings_of_one_seed_or_of_different_length_do_not_share_a_row(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = put_in_run(networks[0], tmp_path / "first", "best.safetensors", seed=0, validated=8000)
    again = put_in_run(networks[1], tmp_path / "again", "best.safetensors", seed=0, validated=8000)
    short = put_in_run(networks[1], tmp_path / "short", "last.safetensors", seed=1, validated=4000)
    second = put_in_run(networks[1], tmp_path / "second", "best.safetensors", seed=1, validated=8000)
    longer = put_in_run(networks[1], tmp_path / "longer", "best.safetensors", seed=1, validated=8000)
    save_checkpoint(longer.parent / "last.safetensors", Monet(CONFIG), dataset="painted", steps=9000)
    started = put_in_run(networks[1], tmp_path / "started", "best.safetensors", seed=0, validated=8000, pretrained="a")

    other = put_in_run(networks[0], tmp_path / "other", "best.safetensors", seed=1, validated=8000)
    config = json.loads((other.parent / "config.yaml").read_text())
    config["model"]["objective"] = {"beta": 8.0}
    (other.parent / "config.yaml").write_text(json.dumps(config))
    config["model"]["objective"] = {"beta": 0.5}
    (second.parent / "config.yaml").write_text(json.dumps(config | {"seed_everything": 2}))

    def refusal(*checkpoints: str) -> str:
        argv = [*checkpoints, "--store", str(store.path), "--backend", "torch", "--limit", "4", "--bootstrap", "20"]
        status, error = main(argv), capsys.readouterr().err
        assert (status, error == "") in ((1, False), (0, True))
        return error

    assert "were both trained with seed 0 and would count as two seeds" in refusal(str(first), str(again))
    assert f"(first_best={first} again_best={again})" in refusal(f"MONet={first}", f"MONet={again}")
    assert "different numbers of images (8,000 and 4,000)" in refusal(str(first), str(short))
    assert "different numbers of images (8,000 and 9,000)" in refusal(str(first), str(longer))
    assert "different settings (model.objective.beta: 8.0 and 0.5)" in refusal(str(other), str(second))
    assert refusal(f"MONet={other}", f"MONet={second}") == "", "on purpose"
    assert refusal(str(first), str(second)) == "", "the best network of a training may come before its end"
    assert refusal(f"MONet={first}", f"MONet={short}") == "", "on purpose"
    assert refusal(f"MONet={first}", f"MONet={started}") == "", "another start, another network"
    assert refusal(f"first={first}", f"again={again}") == ""
    assert refusal(str(first), str(networks[1])) == "", "this one's folder says nothing"


def test_networks_of_different_image_size_do_not_share_a_row(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.safetensors"
    save_checkpoint(large, Monet(dataclasses.replace(CONFIG, image_size=64)), dataset="painted", steps=0)
    argv = [f"X={networks[0]}", f"X={large}", "--store", str(store.path), "--backend", "torch"]
    assert main([*argv, "--min-pixels", "60"]) == 1
    assert f"{networks[0]} and {large} take images of different sizes (32 and 64 pixels)" in capsys.readouterr().err


def test_a_score_has_one_heading_everywhere(
    networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(networks[0]), "--store", str(store.path), "--backend", "torch", "--bootstrap", "20", "--format", "svg"]
    assert main([*argv, "--figures", str(tmp_path)]) == 0
    screen = capsys.readouterr().out
    drawn = (tmp_path / "scores_by_objects_painted.svg").read_text()
    for name in ("ari", "msc", "mse"):
        assert screen.count(SCORES[name].title) >= 2, "in both tables"
        assert f"<!-- {SCORES[name].title} -->" in drawn


@pytest.mark.parametrize(
    "content", ["model:\n", "model: {initialisation: kaiming}\n", "model: !Sensor {range: 3}\n", "- a\n", "a: [\n"]
)
def test_a_foreign_configuration_beside_a_checkpoint_does_no_harm(
    content: str, networks: list[Path], store: Store, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(content)
    (tmp_path / "validation.jsonl").write_text('{"step": 1, "minutes": 0.5}\n{"st')
    checkpoint = shutil.copy(networks[0], tmp_path / "net.safetensors")
    argv = [str(checkpoint), "--store", str(store.path), "--backend", "torch", "--bootstrap", "20", "--limit", "4"]
    assert main([*argv, "--json", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["networks"][0]["training"] is None


@pytest.mark.parametrize(
    ("checkpoint", "store_name", "message"),
    [("missing.safetensors", "painted", "no such file"), ("good", "nowhere", "there is no store at")],
)
def test_errors_name_the_cause(
    checkpoint: str,
    store_name: str,
    message: str,
    networks: list[Path],
    store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = networks[0] if checkpoint == "good" else store.path.parent / checkpoint
    assert main([str(path), "--store", str(store.path.parent / store_name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.filterwarnings("ignore:invalid value")  # SciPy's, of logits that overflow
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_network_that_overflows_is_not_scored(
    part: str, networks: list[Path], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monet, _ = load_checkpoint(networks[0])
    layers = monet.component.encoder.mlp if part == "encoder" else monet.component.decoder.convolutions
    with torch.no_grad():
        for layer in (layers[-3], layers[-1]):  # either alone stays within float32
            layer.weight.mul_(1e25)
    save_checkpoint(tmp_path / "broken.safetensors", monet, dataset="painted", steps=0)
    argv = [str(tmp_path / "broken.safetensors"), "--store", str(store.path), "--limit", "4", "--bootstrap", "20"]
    argv += ["--backend", "torch", "--device", "cpu"]
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert "not finite for 4 of 4 images, the first being image 0" in error
    assert "its weights are at fault" in error
    swept = [str(tmp_path / "broken.safetensors"), "--store", str(store.path), "--output", str(tmp_path)]
    assert traverse.main([*swept, "--backend", "torch", "--device", "cpu"]) == 1
    assert "not finite" in capsys.readouterr().err
    assert main([*argv, "--precision", "bf16"]) == 1
    assert "compare with --backend torch --precision fp32" in capsys.readouterr().err


def test_labels_follow_the_crop_of_the_masks() -> None:
    labels = np.zeros((6, 10), np.uint8)
    labels[:, 2:8] = 7  # exactly the centre square
    fitted = fit_labels(labels, Region(x=2, y=0, width=6, height=6), 12, 12)
    assert fitted.shape == (12, 12)
    assert (fitted == 7).all()
    whole = fit_labels(labels, Region(x=0, y=0, width=10, height=6), 12, 20)
    np.testing.assert_array_equal(whole[0], np.repeat(labels[0], 2))
    assert set(np.unique(whole)) == {0, 7}


def test_models_are_named_as_in_the_thesis() -> None:
    assert model_name(MonetConfig(attention="unet")) == "MONet"
    assert model_name(MonetConfig(skip_connections=False)) == "MONet-RN50"
    assert model_name(MonetConfig()) == "MONet-RN50*"
    assert model_name(PRESETS["monet_rn18_star"]) == "MONet-RN18*"


def test_scores_read_like_the_tables() -> None:
    assert Score(0.8688, deviation=0.0123).text(100) == "86.88 ± 1.23"
    assert Score(0.8688, 0.86, 0.875).text(100) == "86.88 [86.00, 87.50]"
    assert Score(math.nan).text() == "-"


def test_samples_of_a_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert samples.main([str(store.path), "--rows", "2", "--columns", "5", "--output", str(tmp_path)]) == 0
    assert imread(tmp_path / "samples_painted.png").std() > 0.05
    # In reading order: empty rooms, which have black labels only below the dark room, come before full ones.
    axis = samples.samples_figure(store, 1, len(store)).axes[0]
    canvas = np.asarray(axis.images[0].get_array())
    bright = [canvas[:32, place * 35 : place * 35 + 32].max() for place in range(len(store))]
    assert max(bright[:6]) < 0.35 < min(bright[6:])  # a quarter of the rooms has no object; walls are dark
    assert samples.main([str(tmp_path)]) == 1
    assert "no store" in capsys.readouterr().err
    for wrong, message in (("0", "at least 1, not 0"), ("two", "invalid whole number value: 'two'")):
        with pytest.raises(SystemExit):
            samples.main([str(store.path), "--rows", wrong])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [main, disentanglement.main, traverse.main, samples.main, explore.main, export.main, profile.main]
)
def test_help_is_enough_to_begin(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    text = capsys.readouterr().out
    example = next(line.strip() for line in text.splitlines() if line.strip().startswith("python -m train."))
    assert command.__module__ in example
