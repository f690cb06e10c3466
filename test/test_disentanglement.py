"""Slots matched to objects, their latents scored, and traversals of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from painted_scenes import BACKGROUND, CONFIG, paint_store, save_network

from monet_perception.assessment import kl_per_latent
from monet_perception.decomposer import Decomposer
from monet_perception.labels import match_objects
from train import disentanglement, traverse
from train.composition import compose, sweep
from train.data.store import Store
from train.disentanglement import match_slots


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="module")
def decomposer(network: Path) -> Decomposer:
    return Decomposer(network, device="cpu", backend="torch", precision="fp32", crop="whole")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return paint_store(tmp_path_factory.mktemp("stores") / "painted", count=160)


def test_shuffled_slots_find_their_objects(store: Store) -> None:
    """Perfect segments under other numbers in every image: each object is paired with its own."""
    assert store.labels is not None
    labels = np.array(store.labels)
    for number, image in enumerate(labels):
        slots = np.random.default_rng(number).permutation(8)
        pairs, objects = match_objects(image, slots[image], BACKGROUND, min_iou=1.0)
        assert objects == len(pairs) == len(np.unique(image[image >= BACKGROUND]))
        assert all(slots[label] == slot for label, slot in pairs)


def test_a_slot_speaks_for_one_object() -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2], [1, 1, 2]], np.uint8)
    merged = np.zeros_like(labels, dtype=np.int64)
    assert match_objects(labels, merged, 1, min_iou=0.5) == ([(1, 0)], 2)
    assert match_objects(labels, merged, 1, min_iou=0.7) == ([], 2)
    assert match_objects(labels, merged, 1, min_iou=0.5, min_share=0.4) == ([(1, 0)], 1)


def test_codes_are_those_of_the_matched_slots_and_factors_those_of_their_objects(
    decomposer: Decomposer, store: Store
) -> None:
    slots = match_slots(decomposer, store, min_iou=0.1, batch_size=32)
    assert store.labels is not None
    factors = {factor.name: factor.values for factor in slots.factors}
    row = 0
    for image, labels in zip(store.images, store.labels, strict=True):
        alone = decomposer(np.array(image))
        pairs, _ = match_objects(labels, alone.masks.argmax(axis=0), BACKGROUND, min_iou=0.1)
        index = int(np.flatnonzero((store.images == image).all(axis=(1, 2, 3)))[0])
        for label, slot in pairs:
            np.testing.assert_allclose(slots.latent_mean[row], alone.latent_mean[slot], atol=2e-5)
            for name in ("x", "size", "shape"):
                assert factors[name][row] == store.factors[name][index, label - BACKGROUND]
            own = np.argwhere(labels == label)
            assert factors["image_y"][row] == pytest.approx((own[:, 0].mean() + 0.5) / labels.shape[0])
            assert factors["image_area"][row] == pytest.approx(len(own) / labels.size)
            row += 1
    assert row == len(slots.latent_mean) > 50


def test_only_slots_that_overlap_count(store: Store, decomposer: Decomposer) -> None:
    few = match_slots(decomposer, store, min_iou=0.0)
    fewer = match_slots(decomposer, store, min_iou=0.1)
    assert len(fewer.latent_mean) < len(few.latent_mean) <= few.objects == fewer.objects


def test_command_scores_and_draws(
    network: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(network), "--store", str(store.path), "--min-iou", "0", "--backend", "torch"]
    argv += ["--factors", "x", "image_area", "shape", "--json", str(tmp_path / "s.json"), "--figures", str(tmp_path)]
    assert disentanglement.main(argv) == 0
    assert "InfoM" in capsys.readouterr().out
    entry = json.loads((tmp_path / "s.json").read_text())["networks"][0]
    assert entry["factors"] == ["x", "image_area", "shape"]
    assert len(entry["latent_kl"]) == CONFIG.latent_size
    assert np.array(entry["dci"]["importance"]).shape == (CONFIG.latent_size, 3)
    assert 0 <= entry["mig"] <= 1
    assert imread(tmp_path / "importance_painted_net.png").std() > 0.05


def test_runs_whose_networks_share_a_name_keep_their_figures(
    network: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / run / "best.safetensors" for run in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(network, path)
    argv = [*map(str, paths), "--store", str(store.path), "--min-iou", "0", "--backend", "torch"]
    argv += ["--factors", "x", "shape", "--json", str(tmp_path / "s.json"), "--figures", str(tmp_path / "figures")]
    assert disentanglement.main(argv) == 0
    screen = capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["importance_painted_a_best.png", "importance_painted_b_best.png"]
    tables = " ".join(line for line in screen.splitlines() if not line.startswith("wrote"))
    assert "a_best" in tables
    assert "b_best" in tables
    entries = json.loads((tmp_path / "s.json").read_text())["networks"]
    assert [entry["checkpoint"] for entry in entries] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--min-iou", "0.999"], "no slot reaches"), (["--min-iou", "0", "--factors", "hue"], "no factor hue; there are")],
)
def test_errors_name_the_cause(
    options: list[str], message: str, network: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disentanglement.main([str(network), "--backend", "torch", "--store", str(store.path), *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("least", ["-1", "2", "nan"])
def test_an_iou_is_a_fraction(least: str, network: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        disentanglement.main([str(network), "--store", str(store.path), "--min-iou", least])
    assert f"it has to be from 0 to 1, not {least}" in capsys.readouterr().err


def test_composition_of_the_encoded_latents_is_the_reconstruction(decomposer: Decomposer, store: Store) -> None:
    seen = decomposer(np.array(store.images[3]), reconstruct=True)
    composition = compose(decomposer, seen.latent_mean)
    np.testing.assert_allclose(composition.masks, seen.decoded_masks, atol=1e-5)
    np.testing.assert_allclose(composition.reconstructions, seen.reconstructions, atol=1e-5)
    np.testing.assert_allclose(composition.masks.sum(axis=0), 1, atol=1e-5)


def test_sweep_is_what_decoding_each_step_alone_gives(decomposer: Decomposer, store: Store) -> None:
    latents = decomposer(np.array(store.images[7])).latent_mean
    values = np.array([-2.0, 0.5], np.float32)
    for one in sweep(decomposer, latents, 2, [4, 1], values):
        for step, value in enumerate(values):
            moved = latents.copy()
            moved[2, one.latent] = value
            alone = compose(decomposer, moved)
            np.testing.assert_allclose(one.reconstructions[step], alone.reconstructions[2], atol=1e-5)
            np.testing.assert_allclose(one.masks[step], alone.masks[2], atol=1e-5)
            np.testing.assert_allclose(one.scenes[step], alone.image, atol=1e-5)


def test_traversal_orders_rows_by_activity(decomposer: Decomposer, store: Store) -> None:
    seen = decomposer(np.array(store.images[3]))
    figure = traverse.traverse(decomposer, seen, 1, latents=3, extent=2.0, steps=5)
    rows = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    kl = kl_per_latent(seen.latent_mean[1], seen.latent_log_sigma[1])
    assert [row.split("\n")[0] for row in rows] == [f"z{i + 1}" for i in np.argsort(-kl)[:3]]
    columns = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert columns == ["-2.0", "-1.0", "+0.0", "+1.0", "+2.0"]


def test_a_traversal_is_of_an_object_unless_told_otherwise(decomposer: Decomposer, store: Store) -> None:
    masks = np.zeros((4, 32, 32), np.float32)
    masks[1, 8:12, 8:12] = masks[2, 16:24, 16:24] = 1
    masks[0] = 1 - masks.sum(axis=0)
    seen = replace(decomposer(np.array(store.images[3])), masks=masks)
    assert traverse.default_slot(seen) == 2  # not the wall around it
    assert traverse.default_slot(replace(seen, masks=masks[[0, 3]])) == 0


def test_traverse_command(network: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(network), "--store", str(store.path), "--image", "7", "--output", str(tmp_path), "--steps", "3"]
    argv += ["--backend", "torch"]
    assert traverse.main([*argv, "--slot", "2", "5", "--show", "masked", "unmasked", "scene"]) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [
        f"traversal_painted_net_image7_slot{slot}_{show}.png"
        for slot in (2, 5)
        for show in ("masked", "scene", "unmasked")
    ]
    assert traverse.main([*argv, "--slot", "2", "--range", "1.5", "--format", "svg"]) == 0
    assert "<!-- +1.5 -->" in (tmp_path / "traversal_painted_net_image7_slot2_masked.svg").read_text()
    assert traverse.main([*argv, "--slot", "6"]) == 1
    assert "this network has 1 to 5" in capsys.readouterr().err
    assert traverse.main([*argv, "--image", "160"]) == 1
    assert "0 to 159" in capsys.readouterr().err
