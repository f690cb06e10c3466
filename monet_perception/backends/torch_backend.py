"""Runs a network with PyTorch: the reference for every other backend, and the fast path on a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monet_perception.backends.stages import Floats, FrameEncoder, LatentDecoder
from monet_perception.networks import Monet
from monet_perception.networks.initialisation import LAYERS

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions of 16 bits; fp16 is for GPUs that don't compute in bf16."""
PRECISIONS = ("auto", "fp32", *HALVES)
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
"""Names of devices; whether one exists is another question."""


class DeviceError(RuntimeError):
    """The device that was asked for is not there; the message names it, what there is instead, and the remedy."""


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a device that exists.

    Raises:
        DeviceError: it does not, or the name is none of these.
    """
    if not DEVICE.fullmatch(name):
        raise DeviceError(f"device {name!r} is unknown; choose auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise DeviceError(
            f"device {name!r} was asked for, but PyTorch {torch.__version__} ({built}) finds no GPU. Use device auto "
            "or cpu, or see that `nvidia-smi` lists the GPU and that PyTorch was installed with CUDA"
        )
    if int(index or 0) >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))
        raise DeviceError(f"device {name!r} was asked for, but there is only {there}")
    return torch.device("cuda", int(index) if index else torch.cuda.current_device())


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto`, `fp32`, `bf16` or `fp16` to one of the latter three: `auto` is bf16 on GPUs that have it, else fp32.

    Raises:
        ValueError: the name is none of these.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if bf16 else "fp32"


class TorchBackend:
    """Frames to slots and latents to pixels on a CPU or a GPU. Not to be called from two threads at once.

    Args:
        monet: moved to the device, and changed to its precision, in place.
        device: of `resolve_device`.
        precision: `fp32`, `bf16` or `fp16`; masks and posteriors are float32 in all.
    """

    name = "torch"

    def __init__(self, monet: Monet, device: torch.device, precision: str) -> None:
        self.precision = precision
        self.device = str(device)
        self._device = device
        monet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._half = HALVES.get(precision)
        if self._half is not None:
            _cast_layers(monet, self._half)
        self._encode = self._runner(FrameEncoder(monet).eval())
        self._decode = self._runner(LatentDecoder(monet).eval())
        self._staging = Staging(device)

    def encode(self, frames: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """See `stages.FrameEncoder`."""
        masks, mean, log_sigma = self._staging.download(self._encode(self._staging.upload(frames)))
        return masks, mean, log_sigma

    def decode(self, latents: Floats) -> tuple[Floats, Floats]:
        """See `stages.LatentDecoder`."""
        reconstructions, mask_logits = self._staging.download(self._decode(self._staging.upload(latents)))
        return reconstructions, mask_logits

    def close(self) -> None:
        """Frees the network, the buffers and what the device's allocator kept."""
        del self._encode, self._decode, self._staging
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _runner(self, module: nn.Module) -> Callable[[Tensor], tuple[Tensor, ...]]:
        def run(inputs: Tensor) -> tuple[Tensor, ...]:
            # Not inference_mode: its tensors can't be the static inputs of a captured graph.
            with torch.no_grad(), torch.autocast(self._device.type, self._half, enabled=self._half is not None):
                outputs: tuple[Tensor, ...] = module(inputs)
                return outputs

        return Replayed(run) if self._device.type == "cuda" else run


class Replayed:
    """Replays a CUDA graph for the one shape that comes first; other shapes run as they are.

    At batch 1 a GPU finishes the network's few hundred kernels sooner than Python launches them; a graph launches them
    at once. Evaluation with large batches needs none.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        self._function = function
        self._inputs: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device(inputs.device):  # captures and streams belong to the current device
            if self._inputs is None or self._graph is None:
                self._graph, self._inputs, self._outputs = self._capture(inputs)
            if inputs.shape != self._inputs.shape:
                return self._function(inputs)
            self._inputs.copy_(inputs)
            self._graph.replay()
            return self._outputs

    def _capture(self, inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        static = inputs.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their algorithms before the capture, which forbids it
            for _ in range(3):
                self._function(static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._function(static)
        return graph, static, outputs


class Staging:
    """Carries arrays to a device and back through pinned buffers that are kept from call to call.

    Only pinned memory is copied asynchronously, and pinning costs more than the copy. On a CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned: dict[tuple[str, torch.dtype], Tensor] = {}

    def upload(self, array: NDArray[np.uint8] | Floats) -> Tensor:
        """The array as a tensor on the device."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        buffer = self._buffer("upload", tensor)
        buffer.copy_(tensor)
        return buffer.to(self.device, non_blocking=True)

    def download(self, tensors: tuple[Tensor, ...]) -> list[Floats]:
        """The tensors as arrays of their own; waits for the device once for all of them."""
        if self.device.type == "cpu":
            return [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]
        buffers = [self._buffer(f"download {index}", tensor) for index, tensor in enumerate(tensors)]
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return [buffer.numpy().copy() for buffer in buffers]

    def _buffer(self, use: str, like: Tensor) -> Tensor:
        held = self._pinned.get((use, like.dtype))
        if held is None or held.numel() < like.numel():
            held = torch.empty(like.numel(), dtype=like.dtype, pin_memory=True)
            self._pinned[use, like.dtype] = held
        return held[: like.numel()].view(like.shape)


def _cast_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts once what autocast would cast in every call. Norms and buffers stay in float32."""
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            layer.to(dtype)
