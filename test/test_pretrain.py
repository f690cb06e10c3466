"""Supervised training of the attention network and of its encoder, and what train.fit makes of it."""

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from small_training import FileSizeLimit, arguments, assert_same_run, checkpoint, write_squares

from monet_perception.checkpoint import load_checkpoint
from train import fit, pretrain
from train.assignment import IGNORED, SMALLEST_AREA, assign_slots, instance_targets, matched_loss, matching_cost
from train.cli import RunError, main
from train.data.layout import StoreLayout
from train.data.store import Store
from train.data.store_writer import StoreWriter
from train.supervised import UNKNOWN, PixelClasses

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("stores") / "squares")


def random_masks(rng: np.random.Generator, slots: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(2, slots, 4, 4))).float().mul(3).log_softmax(dim=1)


@given(
    seed=st.integers(0, 10_000),
    slots=st.integers(2, 5),
    objects=st.integers(1, 5),
    dice_weight=st.sampled_from([0.0, 3.0]),
)
def test_assignment_is_the_best_of_all(seed: int, slots: int, objects: int, dice_weight: float) -> None:
    rng = np.random.default_rng(seed)
    log_masks = random_masks(rng, slots)
    targets = torch.from_numpy(rng.integers(0, objects + 1, (2, 4, 4)))
    cost, area = matching_cost(log_masks, targets, dice_weight)
    matched = assign_slots(cost, area > 0, fixed=1)
    for image in range(2):
        present = [t for t in targets[image].unique().tolist() if t > 0]
        given_slots = {t: int(matched[image, t]) for t in present if matched[image, t] != IGNORED}
        assert len(set(given_slots.values())) == len(given_slots) == min(len(present), slots - 1)
        assert matched[image, 0] == 0
        assert 0 not in given_slots.values()
        if len(present) > slots - 1:
            continue
        ways = (dict(zip(present, way, strict=True)) for way in itertools.permutations(range(1, slots), len(present)))
        best = min(_cost(log_masks[image], targets[image], way, dice_weight) for way in ways)
        assert _cost(log_masks[image], targets[image], given_slots, dice_weight) == pytest.approx(best, abs=1e-3)


def _cost(log_masks: torch.Tensor, targets: torch.Tensor, slots: dict[int, int], dice_weight: float) -> float:
    cost = 0.0
    for target, slot in slots.items():
        here, mask = targets == target, log_masks[slot].exp()
        dice = 2 * mask[here].sum() / (here.sum() + mask.sum())
        cost += float(-log_masks[slot][here].mean() + dice_weight * (1 - dice))
    return cost


def loss_of(log_masks: torch.Tensor, targets: torch.Tensor, object_weight: float = 0.0) -> torch.Tensor:
    cost, area = matching_cost(log_masks, targets)
    matched = assign_slots(cost, area > 0, fixed=1)
    return matched_loss(log_masks, targets, matched, area, 1, object_weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_masks_that_are_not_finite_make_a_loss_that_is_not(value: float) -> None:
    log_masks = random_masks(np.random.default_rng(0), 4)
    log_masks[1, 2] = value
    targets = torch.arange(4).repeat_interleave(4).view(1, 4, 4).repeat(2, 1, 1)
    assert loss_of(log_masks, targets).isfinite().tolist() == [True, False]


@given(seed=st.integers(0, 10_000), object_weight=st.sampled_from([0.0, 100.0]))
def test_loss_does_not_know_the_order_of_objects_or_slots(seed: int, object_weight: float) -> None:
    rng = np.random.default_rng(seed)
    log_masks = random_masks(rng, 5)
    targets = torch.from_numpy(rng.integers(0, 5, (2, 4, 4)))
    order = torch.tensor([0, *(1 + rng.permutation(4))])
    slots = torch.tensor([0, *(1 + rng.permutation(4))])
    torch.testing.assert_close(
        loss_of(log_masks, targets, object_weight), loss_of(log_masks[:, slots], order[targets], object_weight)
    )


def test_perfect_masks_cost_nothing_and_left_out_objects_do_not_count() -> None:
    targets = torch.arange(4).repeat_interleave(4).view(1, 4, 4)
    log_masks = torch.nn.functional.one_hot(targets, 4).permute(0, 3, 1, 2).float().mul(50).log_softmax(dim=1)
    shuffled = log_masks[:, [0, 3, 1, 2]]
    assert loss_of(shuffled, targets).item() == pytest.approx(0, abs=1e-6)
    few = torch.cat([log_masks[:, :2], log_masks[:, 2:].logsumexp(dim=1, keepdim=True)], dim=1)  # one slot too few
    assert loss_of(few, targets).item() == pytest.approx(0, abs=1e-6)


def test_object_weight_counts_each_object_as_so_many_pixels_more_and_specks_as_fewer() -> None:
    targets = torch.zeros(1, 16, 16, dtype=torch.int64)
    targets[0, 0, :5], targets[0, 8:, 8:] = 1, 2  # 5 and 64 pixels, 187 of background
    likelihood = torch.tensor([0.9, 0.2, 0.5])  # of background and objects in their slots
    log_masks = ((1 - likelihood) / 2)[targets].unsqueeze(1).repeat(1, 3, 1, 1)
    log_masks.scatter_(1, targets.unsqueeze(1), likelihood[targets].unsqueeze(1)).log_()
    matched = torch.tensor([[0, 1, 2]])
    area = torch.tensor([[187.0, 5.0, 64.0]])
    counted = torch.tensor([187.0, 5.0 + 30 * 5 / SMALLEST_AREA, 64.0 + 30])
    expected = -(counted * likelihood.log()).sum() / counted.sum()
    loss = matched_loss(log_masks, targets, matched, area, fixed=1, object_weight=30.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_backgrounds_share_a_slot_or_have_their_own() -> None:
    labels = torch.tensor([[[0, 1, 3, 4, 6]]], dtype=torch.uint8)
    assert instance_targets(labels, 4, one_background=True).flatten().tolist() == [0, 0, 0, 1, 3]
    assert instance_targets(labels, 4, one_background=False).flatten().tolist() == [0, 1, 3, 4, 6]


def pretrained(what: str, store: Path, run: Path, steps: int, **changes: object) -> int:
    return main(pretrain.make_cli, [what, *arguments(store, run, steps, **changes)])


def test_masks_are_learnt_and_fit_starts_from_them(store: Path, tmp_path: Path) -> None:
    settings = {
        "model__optimiser__attention_lr": 5e-3,
        "model__object_weight": 20,
        "model__dice_weight": 3,
        "trainer__val_check_interval": 60,
        "data__val_fraction": 0.2,
    }
    assert pretrained("masks", store, tmp_path / "masks", 120, **settings) == 0
    first, last = [json.loads(line) for line in (tmp_path / "masks/validation.jsonl").read_text().splitlines()]
    assert last["total"] < first["total"]
    assert last["ari"] > 0.2  # chance is zero
    monet, info = load_checkpoint(tmp_path / "masks/last.safetensors")
    assert info.dataset == "squares/train (instance masks)"
    assert "mse" not in info.metrics

    start = {"model__pretrained": tmp_path / "masks/last.safetensors", "model__hold_attention_steps": 9}
    assert main(fit.make_cli, arguments(store, tmp_path / "fit", 2, **start)) == 0
    trained = load_checkpoint(tmp_path / "fit/last.safetensors")[0]
    for (name, a), b in zip(monet.attention.named_parameters(), trained.attention.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_killed_run_goes_on_exactly(store: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    settings = {
        "model__object_weight": 20,
        "model__dice_weight": 3,
        "model__optimiser__schedule": "constant",  # a cosine would depend on the number of steps
        "checkpoint_steps": 5,
        "trainer__val_check_interval": 50,
    }
    command = [sys.executable, "-m", "train.pretrain", "masks", *arguments(store, killed, 100_000, **settings)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and not (killed / "last.ckpt").exists():
        time.sleep(0.02)
    process.kill()
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output

    steps = checkpoint(killed)["global_step"] + 8
    resume = ["masks", "--run", str(killed), "--resume", "--trainer.max_steps", str(steps)]
    assert main(pretrain.make_cli, resume) == 0
    assert pretrained("masks", store, tmp_path / "whole", steps, **settings) == 0
    assert_same_run(tmp_path / "whole", killed)


@pytest.mark.parametrize(("what", "changes"), [("masks", {}), ("classes", {"model__classes": "[tone]"})])
def test_resumed_run_needs_no_start_and_its_network_may_be_one(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, what: str, changes: dict[str, Any]
) -> None:
    assert pretrained(what, store, tmp_path / "first", 1, **changes) == 0
    start, run = tmp_path / "first" / "last.safetensors", tmp_path / "run"
    assert pretrained(what, store, run, 1, model__pretrained=start, **changes) == 0
    start.unlink()
    resume = [what, "--run", str(run), "--resume", "--trainer.max_steps"]
    assert main(pretrain.make_cli, [*resume, "2"]) == 0
    assert checkpoint(run)["global_step"] == 2
    (run / "last.ckpt").write_bytes(b"")
    assert main(pretrain.make_cli, [*resume, "3"]) == 1
    assert f"--model.pretrained {run / 'last.safetensors'}" in capsys.readouterr().err


def test_validation_counts_objects_by_its_own_stores_backgrounds(store: Path, tmp_path: Path) -> None:
    lines = []
    for background_labels in (1, 3):
        val_store = write_squares(
            tmp_path / f"val_{background_labels}", count=20, seed=1, background_labels=background_labels
        )
        run = tmp_path / f"run_{background_labels}"
        assert pretrained("masks", store, run, 3, data__val_store=val_store) == 0
        lines.append(json.loads((run / "validation.jsonl").read_text()))
    for name in ("total", "ari", "msc"):
        assert lines[0][name] == lines[1][name], name


def test_recurrent_attention_learns_masks_too(store: Path, tmp_path: Path) -> None:
    recurrent = {"model__preset": "monet", "model__background": "own", "model__optimiser__attention_lr": 5e-3}
    assert pretrained("masks", store, tmp_path, 12, trainer__val_check_interval=4, **recurrent) == 0
    values = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert values[-1]["total"] < values[0]["total"]
    assert load_checkpoint(tmp_path / "last.safetensors")[0].config.attention == "unet"


def test_classes_are_learnt_and_fit_starts_from_the_encoder(store: Path, tmp_path: Path) -> None:
    settings = {"model__classes": "[tone]", "model__optimiser__attention_lr": 3e-3, "trainer__val_check_interval": 20}
    assert pretrained("classes", store, tmp_path / "classes", 40, **settings) == 0
    values = [json.loads(line) for line in (tmp_path / "classes/validation.jsonl").read_text().splitlines()]
    assert values[-1]["accuracy"] > 0.8
    assert values[-1]["total"] < values[0]["total"]
    path = tmp_path / "classes/last.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata()["encoder"] == "resnet18"
    tensors = load_file(path)
    assert all(name.startswith("attention.encoder.") for name in tensors)

    start = {"model__pretrained": path, "model__hold_attention_steps": 9, "trainer__limit_val_batches": 0}
    assert main(fit.make_cli, arguments(store, tmp_path / "fit", 1, **start)) == 0
    trained = load_file(tmp_path / "fit/last.safetensors")
    assert torch.equal(trained["attention.encoder.conv1.weight"], tensors["attention.encoder.conv1.weight"])

    cli = pretrain.make_cli(["classes", "--run", str(path.parent), "--resume", "--trainer.max_steps", "41"])
    cli.trainer.callbacks.insert(0, FileSizeLimit(1 << 16, 40, 100))
    with pytest.warns(UserWarning, match="last.safetensors was not written"), pytest.raises(RunError):
        cli.fit()
    assert load_file(path).keys() == tensors.keys()


def test_pixels_get_their_objects_categories(store: Path) -> None:
    opened = Store.open(store)
    labels, index = torch.from_numpy(opened.labels[[3, 5]]), torch.tensor([3, 5])
    classes = PixelClasses(opened, ["tone"])
    assert classes.names == ["background 0", "dark", "bright"]
    for image, place in enumerate((3, 5)):
        for entity in range(3):
            of_object = classes(labels, index)[image][labels[image] == 1 + entity]
            assert (of_object == 1 + opened.factors["tone"][place, entity]).all()
    objects = PixelClasses(opened, [])
    assert objects.names == ["background 0", "object"]
    assert objects(labels, index).unique().tolist() == [0, 1]


def test_classes_of_two_factors_are_their_combinations(tmp_path: Path) -> None:
    shapes, colours = ["ball", "box"], ["red", "green", "blue"]
    layout = StoreLayout(
        "pairs", "train", "test", "CC0-1.0", height=7, width=7, labels=True, entities=6,
        factors={
            "shape": {"kind": "categorical", "values": shapes, "unit": None},
            "colour": {"kind": "categorical", "values": colours, "unit": None},
        },
    )  # fmt: skip
    labels = np.tile(np.arange(7, dtype=np.uint8), (1, 7, 1))  # a column of background, then one an object
    shape, colour = np.divmod(np.arange(6, dtype=np.int16)[None], 3)
    with StoreWriter(tmp_path / "pairs", layout, 1) as writer:
        images = np.zeros((1, 7, 7, 3), np.uint8)
        writer.write(0, images=images, labels=labels, factors={"shape": shape, "colour": colour})
    classes = PixelClasses(Store.open(tmp_path / "pairs"), ["shape", "colour"])
    columns = classes(torch.from_numpy(labels), torch.tensor([0]))[0, 0]
    pairs = [f"{one} {other}" for one, other in itertools.product(shapes, colours)]
    assert [classes.names[column] for column in columns] == ["background 0", *pairs]
    shape[0, 1], colour[0, 4] = -1, -1  # not known
    with StoreWriter(tmp_path / "gaps", layout, 1) as writer:
        writer.write(0, images=images, labels=labels, factors={"shape": shape, "colour": colour})
    classes = PixelClasses(Store.open(tmp_path / "gaps"), ["shape", "colour"])
    columns = classes(torch.from_numpy(labels), torch.tensor([0]))[0, 0]
    assert columns.tolist() == [0, 1, UNKNOWN, 3, 4, UNKNOWN, 6]


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        ("masks", {"data__store": "unlabelled"}, "has no labels"),
        ("masks", {"model__background": "own", "data__store": "walls"}, "4 slots leave none for objects"),
        ("masks", {"data__val_store": "unlabelled"}, "has no labels"),
        ("masks", {"model__background": "own", "data__val_store": "wall"}, "as many backgrounds"),
        ("masks", {"model__network": "{image_size: 32}"}, "are 16 x 16, the network takes 32 x 32"),
        ("classes", {"model__classes": "[colour]"}, "no categorical factor 'colour'; it has: tone"),
        ("classes", {"model__preset": "monet"}, "no encoder"),
    ],
)
def test_error_names_its_cause(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, what: str, changes: dict[str, Any], message: str
) -> None:
    special: dict[str, dict[str, Any]] = {
        "unlabelled": {"labels": False},
        "walls": {"background_labels": 4},
        "wall": {"background_labels": 2},
    }
    for name, value in changes.items():
        if value in special:
            changes = {**changes, name: write_squares(tmp_path / "store", count=20, **special[value])}
    assert pretrained(what, store, tmp_path / "run", 1, **changes) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["--help"], ["boxes"]])
def test_help_says_what_can_be_trained(args: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        pretrain.make_cli(args)
    assert "python -m train.pretrain masks" in capsys.readouterr().out
