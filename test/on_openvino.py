"""The Decomposer on OpenVINO; `test_decomposer.py` runs this file in a process of its own."""

import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import test_decomposer
from test_decomposer import SIZE, TINY, assert_close, cache, checkpoint, decomposer, frames, save

from monet_perception.backends.openvino_backend import OpenVinoError, resolve_cpu_precision
from monet_perception.backends.quantisation import main as quantise
from monet_perception.decomposer import Decomposer

__all__ = ["cache", "checkpoint", "decomposer"]  # fixtures


def test_it_gives_what_the_network_gives(checkpoint: Path) -> None:
    test_decomposer.test_it_gives_what_the_network_gives(checkpoint, "openvino")


def test_sharp_masks_stay_finite(checkpoint: Path, tmp_path: Path) -> None:
    test_decomposer.test_sharp_masks_stay_finite(checkpoint, tmp_path, "openvino")


def test_openvino_takes_the_cpus_own_precision(checkpoint: Path, decomposer: Decomposer) -> None:
    with Decomposer(checkpoint, device="cpu", backend="openvino") as quick:
        assert quick.backend == "openvino"
        assert quick.precision == resolve_cpu_precision("auto")
        for count in (1, 3, 2, 1):  # the first size has a network of its own, others share one
            scene = quick(frames(count, SIZE, SIZE), reconstruct=True)
            assert_close(scene, decomposer(frames(count, SIZE, SIZE), reconstruct=True), 0.05)
            np.testing.assert_allclose(scene.masks.sum(axis=1), 1.0, atol=1e-5)


def test_openvino_runs_the_recurrent_attention(tmp_path: Path, cache: Path) -> None:
    path = save(tmp_path / "tiny.safetensors", TINY)
    image = frames(16, 16)
    with Decomposer(path, device="cpu", backend="openvino", precision="fp32") as quick:
        assert_close(quick(image, reconstruct=True), Decomposer(path, backend="torch")(image, reconstruct=True))


def test_openvino_missing_or_without_the_precision_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "FP16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(OpenVinoError, match=r"does not compute in fp16, only in fp32.*choose precision auto"):
            Decomposer(checkpoint, backend="openvino", precision="fp16")
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(OpenVinoError, match="pip install openvino"):
        Decomposer(checkpoint, backend="openvino")


def test_quantised_masks_stay_near(checkpoint: Path, tmp_path: Path, cache: Path, decomposer: Decomposer) -> None:
    path = tmp_path / "monet.safetensors"
    path.symlink_to(checkpoint)
    images = frames(24, SIZE // 8, SIZE // 8).repeat(8, axis=1).repeat(8, axis=2)
    np.save(tmp_path / "frames.npy", images[:16])
    quantise([str(path), str(tmp_path / "frames.npy")])
    with Decomposer(path, backend="openvino", threads=1, quantised=True) as quick:
        assert (quick.backend, quick.precision) == ("openvino", "int8")
        scene = quick(images[16:])
    assert np.abs(scene.masks - decomposer(images[16:]).masks).max() < 0.05
    np.testing.assert_allclose(scene.masks.sum(axis=1), 1.0, atol=1e-5)


def test_an_unknown_precision_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="precision 'fp8'"):
        Decomposer(checkpoint, backend="openvino", precision="fp8")
