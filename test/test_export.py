"""`python -m train.export`: the published file holds the network that was read, and says the same about itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_scenes import CONFIG, save_network
from safetensors.torch import load_file

from monet_perception.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.shipped import DEFAULT_CHECKPOINT
from train.export import main


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a run leaves it, with metrics."""
    path = save_network(tmp_path_factory.mktemp("run") / "best.safetensors", seed=3)
    monet, _ = load_checkpoint(path)
    save_checkpoint(path, monet, dataset="painted/train", steps=1234, metrics={"ari": 0.5, "mse": 1e-3})
    return path


def decompose(path: Path) -> dict[str, np.ndarray]:
    frame = np.random.default_rng(0).integers(0, 256, (CONFIG.image_size, CONFIG.image_size, 3), np.uint8)
    scene = Decomposer(path, device="cpu", backend="torch", precision="fp32")(frame, reconstruct=True)
    assert scene.reconstructions is not None
    return {"masks": scene.masks, "latents": scene.latent_mean, "reconstructions": scene.reconstructions}


def said(path: Path) -> CheckpointInfo:
    """What a file says about itself, but for the code that wrote it: somebody may commit in between."""
    return dataclasses.replace(read_info(path), code_version="")


def test_half_precision_keeps_the_network_and_what_it_says(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "published" / "network.safetensors"
    assert main([str(network), str(half), "--half"]) == 0
    before, after = said(network), said(half)
    assert dataclasses.replace(after, model_id=before.model_id) == before
    assert half.stat().st_size < 0.6 * network.stat().st_size
    assert {value.dtype for value in load_file(half).values() if value.ndim > 1} == {torch.float16}
    assert after.model_id != before.model_id
    told = capsys.readouterr().out
    assert told == (
        f"wrote {half}: {half.stat().st_size / 1e6:.2f} MB (read: {network.stat().st_size / 1e6:.2f} MB), "
        f"model {after.model_id}, before {before.model_id}: rounding changed the weights\n"
    )
    exact, rounded = decompose(network), decompose(half)
    for name, value in exact.items():
        np.testing.assert_allclose(rounded[name], value, atol=5e-3, err_msg=name)
        assert np.ptp(value) > 0.02  # not what any network gives


def test_rounded_once_the_weights_stay(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half, again, whole = (tmp_path / f"{name}.safetensors" for name in ("half", "again", "whole"))
    assert main([str(network), str(half), "--half"]) == 0
    capsys.readouterr()
    assert main([str(half), str(again), "--half"]) == 0
    assert main([str(half), str(whole)]) == 0
    assert capsys.readouterr().out.count("as before") == 2
    assert said(half) == said(again) == said(whole)
    first, second = load_file(half), load_file(again)
    assert all(value.dtype == second[name].dtype and torch.equal(value, second[name]) for name, value in first.items())
    assert whole.stat().st_size > 1.6 * half.stat().st_size
    for name, value in decompose(half).items():
        np.testing.assert_array_equal(decompose(whole)[name], value)


def test_the_shipped_file_is_one_that_the_command_writes(tmp_path: Path) -> None:
    target = tmp_path / "network.safetensors"
    assert main([str(DEFAULT_CHECKPOINT), str(target), "--half"]) == 0
    assert read_info(target).model_id == read_info(DEFAULT_CHECKPOINT).model_id
    shipped, written = load_file(DEFAULT_CHECKPOINT), load_file(target)
    assert all(
        value.dtype == written[name].dtype and torch.equal(value, written[name]) for name, value in shipped.items()
    )


def test_what_exists_stays_unless_asked(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "network.safetensors"
    target.write_text("precious")
    assert main([str(network), str(target)]) == 1
    assert capsys.readouterr().err == f"error: {target} exists; choose another name, or --overwrite it\n"
    assert target.read_text() == "precious"
    assert main([str(network), str(target), "--overwrite"]) == 0
    assert said(target) == said(network)
    assert main([str(target), str(target), "--half", "--overwrite"]) == 0  # in place
    assert read_info(target).steps == 1234


def test_errors_name_the_cause(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.safetensors"), str(tmp_path / "a.safetensors")]) == 1
    assert "no such file" in capsys.readouterr().err
    monet, _ = load_checkpoint(network)
    with torch.no_grad():
        monet.component.decoder.convolutions[-1].weight[0] = 1e6
    large = tmp_path / "large.safetensors"
    save_checkpoint(large, monet, dataset="painted", steps=0)
    assert main([str(large), str(tmp_path / "b.safetensors"), "--half"]) == 1
    assert "too large for float16" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [large]
