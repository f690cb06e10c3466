"""The Decomposer: every backend gives what the network gives, for frames of every shape, and bad input is named."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from monet_perception.backends import graphs
from monet_perception.backends.graphs import GraphError, export_graph, graph_name, shipped_configs
from monet_perception.backends.quantisation import SubPixel
from monet_perception.backends.quantisation import main as quantise
from monet_perception.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from monet_perception.decomposer import Decomposer, DeviceError
from monet_perception.decomposition import Decomposition
from monet_perception.networks import PRESETS, Monet, MonetConfig
from monet_perception.networks.segmentation import TransposedConvolution
from monet_perception.region import Region, resize

CONFIG = PRESETS["monet_rn18_star"]
SIZE = CONFIG.image_size
TINY = MonetConfig(attention="unet", slots=3, image_size=16, unet_channels=(4, 4), latent_size=2)
ARRAYS = ("masks", "latent_mean", "latent_log_sigma", "reconstructions", "decoded_masks")


def save(path: Path, config: MonetConfig) -> Path:
    """A network that was never trained, but whose norms have seen something, so that no two of its layers commute."""
    torch.manual_seed(0)
    monet = Monet(config)
    for module in monet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    save_checkpoint(path, monet, dataset="none", steps=0)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("decomposer") / "monet.safetensors", CONFIG)


@pytest.fixture(scope="module")
def decomposer(checkpoint: Path):
    with Decomposer(checkpoint, device="cpu", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def by_crop(checkpoint: Path):
    """Decomposers that differ in `crop`."""
    with (
        Decomposer(checkpoint, device="cpu", threads=1) as centre,
        Decomposer(checkpoint, device="cpu", threads=1, crop="whole") as whole,
    ):
        yield {"centre": centre, "whole": whole}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "monet_perception"


def frames(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def assert_close(left: Decomposition, right: Decomposition, tolerance: float = 1e-5) -> None:
    for name in ARRAYS:
        first, second = getattr(left, name), getattr(right, name)
        if first is None or second is None:
            assert first is second
        else:
            np.testing.assert_allclose(first, second, atol=tolerance, rtol=0, err_msg=name)
    assert np.array_equal(left.image, right.image)
    assert (left.roi, left.source_height, left.source_width) == (right.roi, right.source_height, right.source_width)


def test_a_cpu_runs_onnx_runtime_from_the_shipped_graphs(decomposer: Decomposer) -> None:
    assert (decomposer.backend, decomposer.device, decomposer.precision) == ("onnx", "cpu", "fp32")


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_it_gives_what_the_network_gives(checkpoint: Path, backend) -> None:
    images = frames(2, SIZE, SIZE)
    monet, info = load_checkpoint(checkpoint)
    with torch.no_grad():
        expected = monet(torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0)
    with Decomposer(checkpoint, device="cpu", backend=backend, precision="fp32") as decomposer:
        scene = decomposer(images, reconstruct=True)
        assert (decomposer.backend, decomposer.info) == (backend, info)
        latents = expected.latent_mean.flatten(0, 1).numpy()
        reconstructions, mask_logits = decomposer.decode(latents)
    pixels = expected.reconstructions.clamp(0, 1).movedim(2, -1).numpy()
    assert scene.reconstructions is not None
    for value, reference in [
        (scene.masks, expected.log_masks.exp().numpy()),
        (scene.latent_mean, expected.latent_mean.numpy()),
        (scene.latent_log_sigma, expected.latent_log_sigma.numpy()),
        (scene.reconstructions, pixels),
        (scene.decoded_masks, expected.mask_logits.softmax(dim=1).numpy()),
        (reconstructions, pixels.reshape(-1, SIZE, SIZE, 3)),
        (mask_logits, expected.mask_logits.flatten(0, 1).numpy()),
    ]:
        assert value.dtype == np.float32
        assert value.flags.c_contiguous
        np.testing.assert_allclose(value, reference, atol=2e-5, rtol=0)
    mixture = (scene.masks[..., None] * scene.reconstructions).sum(axis=1)
    np.testing.assert_allclose(scene.reconstruction(), mixture, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_sharp_masks_stay_finite(checkpoint: Path, tmp_path: Path, backend) -> None:
    monet, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        monet.attention.head.weight.normal_(std=1e4)  # logits of a thousand and more, as of a diverged training
    save_checkpoint(tmp_path / "sharp.safetensors", monet, dataset="none", steps=0)
    images = frames(2, SIZE, SIZE)
    with torch.no_grad():
        expected = monet.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0)
    assert expected.log_masks.min() < -1000
    sharp = tmp_path / "sharp.safetensors"
    with Decomposer(sharp, device="cpu", backend=backend, precision="fp32") as decomposer:
        scene = decomposer(images)
    np.testing.assert_allclose(scene.masks.sum(axis=1), 1.0, atol=1e-5)
    # A rounding in the network can be a whole logit here; the posteriors have to be finite and of the same kind.
    np.testing.assert_allclose(scene.masks.mean(axis=(2, 3)), expected.log_masks.exp().mean(dim=(2, 3)), atol=0.02)
    assert np.isfinite(scene.latent_mean).all()
    assert np.isfinite(scene.latent_log_sigma).all()


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_stays_near_and_its_masks_sum_to_one(
    checkpoint: Path, decomposer: Decomposer, precision: str, tolerance: float
) -> None:
    with Decomposer(checkpoint, device="cpu", precision=precision) as low:
        assert (low.backend, low.precision) == ("torch", precision)
        scene = low(frames(3, SIZE, SIZE), reconstruct=True)
    assert_close(scene, decomposer(frames(3, SIZE, SIZE), reconstruct=True), tolerance)
    np.testing.assert_allclose(scene.masks.sum(axis=1), 1.0, atol=1e-5)


@settings(max_examples=25)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    batch=st.integers(0, 3),
    crop=st.sampled_from(["centre", "whole"]),
)
def test_frames_of_every_shape(by_crop: dict[str, Decomposer], height: int, width: int, batch: int, crop: str) -> None:
    decomposer = by_crop[crop]
    image = frames(*([batch] if batch else []), height, width)
    scene = decomposer(image)
    leading = image.shape[:-3]
    assert scene.masks.shape == (*leading, CONFIG.slots, SIZE, SIZE)
    assert scene.latent_mean.shape == scene.latent_log_sigma.shape == (*leading, CONFIG.slots, CONFIG.latent_size)
    assert scene.image.shape == (*leading, SIZE, SIZE, 3)
    np.testing.assert_allclose(scene.masks.sum(axis=-3), 1.0, atol=1e-5)
    assert (scene.source_height, scene.source_width) == (height, width)
    side = min(height, width)
    assert scene.roi == (
        Region((width - side) // 2, (height - side) // 2, side, side)
        if crop == "centre"
        else Region(0, 0, width, height)
    )


def test_openvino_backend() -> None:
    """In a process of its own: after a DataLoader has forked workers, OpenVINO's threads crash the parent."""
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        Path(__file__).with_name("on_openvino.py"),
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_batch_is_its_frames_one_by_one(decomposer: Decomposer) -> None:
    images = frames(3, 90, 120)
    batch = decomposer(images, reconstruct=True)
    for index, image in enumerate(images):
        single = decomposer(image, reconstruct=True)
        arrays = {name: getattr(batch, name)[index] for name in (*ARRAYS, "image")}
        assert_close(single, dataclasses.replace(batch, **arrays))


@pytest.mark.parametrize("portrait", [False, True])
def test_the_roi_is_what_the_network_saw(checkpoint: Path, portrait: bool) -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = (200, 100, 50)
    image = image.swapaxes(0, 1) if portrait else image
    with Decomposer(checkpoint, device="cpu", threads=1) as decomposer:
        assert (decomposer(image).image == (200, 100, 50)).all()
    with Decomposer(checkpoint, device="cpu", threads=1, crop="whole") as decomposer:
        seen = decomposer(image).image[..., 0]
    along = seen[:, SIZE // 2] if portrait else seen[SIZE // 2]
    assert (along[: SIZE // 3] == 0).all()
    assert (along[SIZE // 3 + 2 : 2 * SIZE // 3 - 1] == 200).all()


def test_large_frames_are_averaged_and_not_sampled(decomposer: Decomposer) -> None:
    lines = np.zeros((8 * SIZE, 8 * SIZE, 3), np.uint8)
    lines[:, ::8] = 255
    assert np.abs(decomposer(lines).image - 255 / 8).max() <= 1


def test_views_are_taken_and_results_do_not_alias(decomposer: Decomposer) -> None:
    bgr = frames(SIZE, SIZE)
    scene = decomposer(bgr[..., ::-1])
    assert_close(scene, decomposer(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    masks, image = scene.masks.copy(), scene.image.copy()
    bgr[:] = 0
    decomposer(bgr)
    assert np.array_equal(scene.masks, masks)
    assert np.array_equal(scene.image, image)


def test_inference_is_deterministic_and_decodes_only_on_request(decomposer: Decomposer) -> None:
    image = frames(SIZE, SIZE)
    first, second = decomposer(image), decomposer(image)
    assert_close(first, second, tolerance=0.0)
    assert first.reconstructions is None
    assert first.decoded_masks is None
    with pytest.raises(ValueError, match="reconstruct=True"):
        first.reconstruction()


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), r"\[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"\[8, 8, 4\]"),
        (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\[0, 8, 8, 3\]"),
        ([[[0, 0, 0]]], "list"),
    ],
)
def test_bad_frames_are_named(decomposer: Decomposer, wrong, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        decomposer(wrong)


def test_bad_latents_are_named(decomposer: Decomposer) -> None:
    for wrong, cause in [
        (np.zeros((2, 3)), r"\[2, 3\]; \[N, 16\]"),
        (np.zeros(16), r"\[16\]"),
        (np.zeros((0, 16)), r"\[0, 16\]"),
        (np.full((1, 16), np.nan), "not finite"),
    ]:
        with pytest.raises(ValueError, match=cause):
            decomposer.decode(wrong.astype(np.float32))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_named_with_the_remedy(checkpoint: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=rf"{device}.*Use device auto or cpu"):
        Decomposer(checkpoint, device=device)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"device": "gpu"}, "device 'gpu' is unknown"),
        ({"device": "cpu:1"}, "device 'cpu:1' is unknown"),
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"crop": "left"}, "crop is 'left'"),
        ({"backend": "tensorrt"}, "backend is 'tensorrt'"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "cpu", "precision": "bf16", "backend": "onnx"}, "backend onnx runs on a CPU in precision fp32"),
        ({"device": "cpu", "precision": "bf16", "quantised": True}, "quantised runs on a CPU in precision fp32"),
        ({"device": "cpu", "backend": "torch", "quantised": True}, "not torch"),
    ],
)
def test_options_that_do_not_go_together_are_refused(checkpoint: Path, options, cause: str) -> None:
    with pytest.raises((ValueError, DeviceError), match=cause):
        Decomposer(checkpoint, **options)


def test_a_bad_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.safetensors: no such file"):
        Decomposer(tmp_path / "missing.safetensors")


def test_a_closed_decomposer_says_so(checkpoint: Path) -> None:
    decomposer = Decomposer(checkpoint, device="cpu", threads=1)
    decomposer.warm_up()
    decomposer.close()
    decomposer.close()
    with pytest.raises(RuntimeError, match="closed"):
        decomposer(frames(8, 8))


def test_the_shipped_graphs_are_those_of_the_presets_and_of_the_shipped_checkpoint() -> None:
    """If this fails: `python -m monet_perception.backends.graphs`."""
    expected = {graph_name(config, part) for config in shipped_configs() for part in ("encoder", "decoder")}
    assert {path.name for path in graphs.SHIPPED_GRAPHS.iterdir()} == expected


def test_other_networks_are_exported_once(tmp_path: Path, cache: Path) -> None:
    path, image = save(tmp_path / "tiny.safetensors", TINY), frames(16, 16)
    scene = Decomposer(path, device="cpu", backend="onnx")(image, reconstruct=True)
    assert_close(scene, Decomposer(path, device="cpu", backend="torch")(image, reconstruct=True))
    kept = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert kept.keys() == {graph_name(TINY, "encoder"), graph_name(TINY, "decoder")}
    assert all(file.stat().st_size < 100_000 for file in cache.iterdir())
    # A graph belongs to a configuration, not to weights: another checkpoint of it takes the same file.
    with torch.no_grad():
        other = Monet(TINY)
    save_checkpoint(path, other, dataset="none", steps=1)
    scene = Decomposer(path, device="cpu", backend="onnx")(image, reconstruct=True)
    assert_close(scene, Decomposer(path, device="cpu", backend="torch")(image, reconstruct=True))
    assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == kept


WITHOUT_ONNX = """
import sys, warnings
sys.modules["onnx"] = sys.modules["onnxscript"] = None  # as if they were not installed
from importlib import util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name in ("onnx", "onnxscript") else find(name, *rest)
import numpy as np
from monet_perception.backends.graphs import GraphError
from monet_perception.decomposer import Decomposer
shipped, other = sys.argv[1:]
assert Decomposer(shipped, device="cpu").backend == "onnx"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    decomposer = Decomposer(other, device="cpu")
assert decomposer.backend == "torch"
assert any("pip install onnx onnxscript" in str(warning.message) for warning in caught), caught
decomposer(np.zeros((16, 16, 3), np.uint8))
assert not {"torchvision", "torch._dynamo"} & sys.modules.keys()  # they take two seconds and 160 MB
try:
    Decomposer(other, device="cpu", backend="onnx")
except GraphError as error:
    assert "pip install" in str(error)
else:
    raise AssertionError("no GraphError")
"""


def test_a_robot_needs_no_onnx_package_and_loads_no_compiler(checkpoint: Path, tmp_path: Path, cache: Path) -> None:
    other = save(tmp_path / "tiny.safetensors", TINY)
    subprocess.run([sys.executable, "-c", WITHOUT_ONNX, str(checkpoint), str(other)], check=True, timeout=200)


def test_exported_graphs_hold_no_weights() -> None:
    import onnx

    model = onnx.load_from_string(export_graph(TINY, "encoder"))
    shapes = {name: tuple(value.shape) for name, value in Monet(TINY).state_dict().items() if "decoder" not in name}
    outside = {tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == shapes.keys()


def test_sub_pixel_convolution_equals_the_transposed_one() -> None:
    torch.manual_seed(0)
    layer = TransposedConvolution(5, 3)
    x = torch.randn(2, 5, 4, 6)
    torch.testing.assert_close(SubPixel(layer)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_files_that_hold_no_frames_are_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "archive.npz", np.zeros(3))
    np.save(tmp_path / "flat.npy", np.zeros((4, 0, 8, 3), np.uint8))
    for name, fault in {"empty.npy": "No data left", "archive.npz": "an archive", "flat.npy": r"[4, 0, 8, 3]"}.items():
        with pytest.raises(SystemExit):
            quantise([str(checkpoint), str(tmp_path / name)])
        assert fault in (told := capsys.readouterr().err)
        assert name in told


@pytest.mark.parametrize("height", [40, 63, 64])
def test_a_side_that_shrinks_is_averaged_also_where_the_other_one_grows(height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, 1280, 3), dtype=np.uint8)
    assert resize(noise, Region(0, 0, 1280, height), 64).std() < 20, "single pixels were taken: those have 74"


def test_a_service_without_a_home_runs_the_shipped_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # nobody's
    Decomposer(device="cpu", threads=1, backend="onnx").close()


def test_quantised_masks_stay_near(checkpoint: Path, tmp_path: Path, cache: Path, decomposer: Decomposer) -> None:
    path = tmp_path / "monet.safetensors"
    path.symlink_to(checkpoint)
    with pytest.raises(GraphError, match=r"quantisation .*monet\.safetensors FRAMES\.npy"):
        Decomposer(path, device="cpu", quantised=True)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in frames(24, 96, 96)])
    np.save(tmp_path / "frames.npy", images[:16])
    quantise([str(path), str(tmp_path / "frames.npy")])
    made = next(tmp_path.glob("monet.*.int8.*.onnx"))
    assert made.stat().st_size < 0.4 * checkpoint.stat().st_size
    with Decomposer(path, device="cpu", threads=1, quantised=True) as quick:
        assert (quick.backend, quick.precision) == ("onnx", "int8")
        scene, reference = quick(images[16:]), decomposer(images[16:])
    assert np.abs(scene.masks - reference.masks).max() < 0.05
    np.testing.assert_allclose(scene.masks.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.01), ("bf16", 0.05), ("fp16", 0.01)])
def test_a_gpu_gives_what_the_cpu_gives(checkpoint: Path, decomposer: Decomposer, precision, tolerance) -> None:
    with Decomposer(checkpoint, device="cuda", precision=precision) as gpu:
        gpu.warm_up()
        for image in (frames(SIZE, SIZE), frames(3, SIZE, SIZE), frames(SIZE, SIZE, seed=1)):
            assert_close(gpu(image, reconstruct=True), decomposer(image, reconstruct=True), tolerance)
