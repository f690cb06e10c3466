"""8-bit encoders for CPUs: static quantisation, per channel, calibrated on frames.

    python -m monet_perception.backends.quantisation best.safetensors frames.npy

writes `best.<model id>.int8.<structure>.encoder.v<version>.onnx` beside the checkpoint, where
`Decomposer(..., quantised=True)` finds it.
Making it needs the packages `onnx` and `onnxscript`; running it does not, so a robot only needs the file.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from monet_perception.backends.graphs import (
    GraphError,
    cache_folders,
    check_export_packages,
    export_program,
    graph_name,
    keep,
)
from monet_perception.backends.stages import FrameEncoder
from monet_perception.checkpoint import CheckpointInfo, build_network, read_tensors
from monet_perception.networks import Monet
from monet_perception.networks.segmentation import SegmentationAttention, TransposedConvolution
from monet_perception.region import centre_square, resize
from monet_perception.shipped import SHIPPED, checkpoint_path

CALIBRATION_FRAMES = 128
# The heads' logits decide the masks. The first layer of the component encoder sees log masks, from zero to minus
# eighty: in 256 steps nothing would be left of what matters, near zero.
HEADS = ("attention.head.weight", "attention.unet.head.weight")
KEPT_IN_FLOAT = (*HEADS, "component.encoder.convolutions.0.weight")
QUANTISED_OPERATIONS = [
    *("Conv", "Relu", "MaxPool", "Add", "Gemm", "MatMul"),
    *("Concat", "Unsqueeze", "Reshape", "DepthToSpace"),  # what puts the parities of `SubPixel` together
]

log = logging.getLogger(__name__)


def quantised_paths(checkpoint: Path, info: CheckpointInfo) -> list[Path]:
    """Where a checkpoint's quantised encoder may be: beside it, or in the cache if that folder can't be written to."""
    name = f"{info.model_id}.int8.{graph_name(info.config, 'encoder')}"
    return [checkpoint.with_name(f"{checkpoint.stem}.{name}"), *(folder / name for folder in cache_folders())]


def obtain_quantised(checkpoint: Path, info: CheckpointInfo, weights: Mapping[str, Tensor]) -> bytes:
    """The quantised encoder that was kept, or one made from `<checkpoint>.calibration.npy` and kept.

    Raises:
        GraphError: there is none, and no frames to make one with, or no `onnx`.
        ValueError: the file of frames holds none.
    """
    for path in quantised_paths(checkpoint, info):
        if path.is_file():
            return path.read_bytes()
    calibration = checkpoint.with_suffix(".calibration.npy")
    if not calibration.is_file():
        raise GraphError(
            f"{checkpoint} has no 8-bit encoder yet, and it takes frames to make one. Run `python -m {__spec__.name} "
            f"{checkpoint} FRAMES.npy` with some frames of what the camera sees (uint8 [N, H, W, 3])"
        )
    content = quantise(info, weights, read_frames(calibration, info.config.image_size))
    keep(content, quantised_paths(checkpoint, info))
    return content


def quantise(info: CheckpointInfo, weights: Mapping[str, Tensor], frames: NDArray[np.uint8]) -> bytes:
    """An encoder in 8 bits: weights signed, per output channel; activations in the ranges that `frames` show.

    Args:
        info: of the checkpoint.
        weights: its tensors.
        frames: uint8 [N, H, W, 3], of the network's size.
    Raises:
        GraphError: `onnx` or `onnxscript` is not installed.
    """
    check_export_packages()
    log.info("quantising the network with %d frames, once; it takes some ten seconds", len(frames))
    encoder = FrameEncoder(_without_transposed_convolutions(build_network(info, weights)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        export_program(encoder, "encoder", info.config).save(path)
        return _quantise_graph(path, frames)


def _quantise_graph(path: Path, frames: NDArray[np.uint8]) -> bytes:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, quantised = path.with_name("prepared.onnx"), path.with_name("quantised.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)  # joins norms to their convolutions
    quantize_static(
        prepared, quantised, _Reader(frames),
        quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=_nodes_in_float(prepared), op_types_to_quantize=QUANTISED_OPERATIONS,
    )  # fmt: skip
    return quantised.read_bytes()


def _without_transposed_convolutions(monet: Monet) -> Monet:
    """Replaces them in the attention by convolutions that compute the same: only those run in 8 bits."""
    if isinstance(monet.attention, SegmentationAttention):
        layers = cast(Iterable[TransposedConvolution], monet.attention.decoder)
        monet.attention.decoder = nn.ModuleList(SubPixel(layer) for layer in layers)
    return monet


class SubPixel(nn.Module):
    """A transposed 5x5 convolution of stride 2 as four convolutions, one for each parity of the output's pixels.

    Output pixel 2 j + p takes tap 2 a + p from input pixel j + 1 - a: three taps of even outputs, from j - 1 to j + 1,
    and two of odd ones, from j to j + 1. Together these are the 25 taps; a single 3x3 convolution would need 36.
    """

    def __init__(self, layer: TransposedConvolution) -> None:
        super().__init__()
        inputs, outputs = layer.weight.shape[:2]
        self.convolutions = nn.ModuleList()
        for p, q in itertools.product((0, 1), repeat=2):
            convolution = nn.Conv2d(inputs, outputs, kernel_size=(3 - p, 3 - q), bias=layer.bias is not None)
            convolution.weight = nn.Parameter(layer.weight[:, :, p::2, q::2].flip(2, 3).transpose(0, 1).contiguous())
            convolution.bias = layer.bias
            self.convolutions.append(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', 2 H, 2 W]."""
        parities = []
        for convolution in cast(Iterable[nn.Conv2d], self.convolutions):
            above, left = (taps - 2 for taps in convolution.kernel_size)
            parities.append(convolution(F.pad(x, (left, 1, above, 1))))
        return F.pixel_shuffle(torch.stack(parities, dim=2).flatten(1, 2), 2)


def read_frames(path: Path, size: int) -> NDArray[np.uint8]:
    """Up to `CALIBRATION_FRAMES` frames, evenly spaced, of a .npy file, as the network sees them.

    That is uint8 [N, size, size, 3], the centre square of each, resized.

    Raises:
        ValueError: the file holds no frames.
        OSError: it can't be read.
    """
    expected = "frames are uint8 [N, H, W, 3] in RGB, in a .npy file"
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {expected}") from error
    if not isinstance(frames, np.ndarray):  # np.load also opens archives
        raise ValueError(f"{path} is an archive; {expected}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"{path}: {frames.dtype} {list(frames.shape)}; {expected}")
    chosen = np.unique(np.linspace(0, len(frames) - 1, CALIBRATION_FRAMES).astype(int))
    roi = centre_square(*frames.shape[1:3])
    return np.stack([resize(frames[index], roi, size) for index in chosen])


class _Reader:
    """Feeds frames one by one, as ONNX Runtime's calibration pulls them."""

    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self._frames: Iterator[NDArray[np.uint8]] = iter(frames[:, None])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        frame = next(self._frames, None)
        return None if frame is None else {"frames": frame}


def _nodes_in_float(path: Path) -> list[str]:
    """Names of what is not quantised: `KEPT_IN_FLOAT`, and what joins logits into masks, which have to sum to one."""
    import onnx

    chosen: list[str] = []
    from_head: set[str] = set()
    for node in onnx.load(path).graph.node:  # in the order of computation
        if set(node.input) & (from_head | set(HEADS)):
            from_head.update(node.output)
            if node.op_type in ("Add", "Concat"):
                chosen.append(node.name)
        if set(node.input) & set(KEPT_IN_FLOAT):
            chosen.append(node.name)
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monet_perception.backends.quantisation",
        description="Makes the 8-bit encoder of a checkpoint, for fast inference on CPUs.",
        epilog="example: python -m monet_perception.backends.quantisation best.safetensors data/robot/images.npy",
    )
    parser.add_argument(
        "checkpoint", type=checkpoint_path, help=f"{', '.join(SHIPPED)} or a file of `python -m train.fit`"
    )
    parser.add_argument(
        "frames", type=Path, help=f".npy of uint8 [N, H, W, 3] in RGB; up to {CALIBRATION_FRAMES} of them are used"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        info, weights = read_tensors(options.checkpoint)
        content = quantise(info, weights, read_frames(options.frames, info.config.image_size))
    except (GraphError, ValueError, OSError) as error:
        parser.error(str(error))
    path = keep(content, quantised_paths(options.checkpoint, info)[:1])
    if path is None:
        parser.exit(1)
    log.info("%s: %.1f MB", path, len(content) / 1e6)


if __name__ == "__main__":
    main()
