"""Runs a network with OpenVINO on the CPU, in bf16 where the CPU has it: half of ONNX Runtime's time there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monet_perception.backends.stages import Floats, FrameEncoder, LatentDecoder
from monet_perception.networks import Monet

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""Our precisions in OpenVINO's words."""


class OpenVinoError(RuntimeError):
    """OpenVINO is not installed, or the CPU lacks the precision; the message names the remedy."""


def resolve_cpu_precision(name: str) -> str:
    """`auto`, `fp32`, `bf16` or `fp16` to one of the latter three: `auto` is bf16 on CPUs that have it, else fp32.

    Raises:
        OpenVinoError: OpenVINO is not installed, or this CPU does not compute in that precision.
        ValueError: the name is none of these.
    """
    if name not in ("auto", *HINTS):
        raise ValueError(f"precision {name!r} is unknown; choose auto, {', '.join(HINTS)}")
    found = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    there = ["fp32", *(name for name in ("bf16", "fp16") if name.upper() in found)]
    if name == "auto":
        return "bf16" if "bf16" in there else "fp32"
    if name not in there:
        raise OpenVinoError(f"this CPU does not compute in {name}, only in {', '.join(there)}: choose precision auto")
    return name


class OpenVinoBackend:
    """Frames to slots and latents to pixels on a CPU. Not to be called from two threads at once.

    Not for processes that fork, such as those whose DataLoader has workers: OpenVINO 2026.4 then crashes the parent.

    Args:
        monet: what is run; its decoder only, where there is a quantised encoder.
        precision: `fp32`, `bf16` or `fp16`, one that this CPU has (`resolve_cpu_precision`); inputs and outputs are
            float32 in all.
        threads: how many threads one call may use; None: one for each core.
        quantised: ONNX graph of the encoder with weights in 8 bits.
    Raises:
        OpenVinoError: OpenVINO is not installed.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self, monet: Monet, precision: str, *, threads: int | None = None, quantised: bytes | None = None
    ) -> None:
        self.precision = precision if quantised is None else "int8"
        config = monet.config
        frames = torch.zeros(2, config.image_size, config.image_size, 3, dtype=torch.uint8)
        latents = torch.zeros(2, config.latent_size)
        encoder = _core().read_model(quantised) if quantised else _convert(FrameEncoder(monet), frames)
        decoder = _convert(LatentDecoder(monet), latents)
        self._encoder = Compiled(encoder, list(frames.shape[1:]), precision, threads)
        self._decoder = Compiled(decoder, list(latents.shape[1:]), precision, threads)

    def encode(self, frames: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """See `stages.FrameEncoder`."""
        masks, mean, log_sigma = self._encoder(frames)
        return masks, mean, log_sigma

    def decode(self, latents: Floats) -> tuple[Floats, Floats]:
        """See `stages.LatentDecoder`."""
        reconstructions, mask_logits = self._decoder(latents)
        return reconstructions, mask_logits

    def close(self) -> None:
        """Frees the networks and their memory."""
        del self._encoder, self._decoder


class Compiled:
    """A model compiled for the batch that comes first, and once more for batches of any other size.

    A camera's frames come one by one, and a size known in advance is 7 % faster than any size.
    """

    def __init__(self, model: Any, shape: list[int], precision: str, threads: int | None) -> None:
        self._model, self._shape = model, shape
        self._options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or 0,
            "PERFORMANCE_HINT": "LATENCY",
            # Several cameras' nodes would otherwise pin themselves to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._first = 0
        self._requests: dict[int, Any] = {}

    def __call__(self, inputs: NDArray[Any]) -> list[Floats]:
        self._first = self._first or len(inputs)
        size = len(inputs) if len(inputs) == self._first else -1
        if size not in self._requests:
            self._requests[size] = self._compile(size)
        outputs = self._requests[size].infer({0: np.ascontiguousarray(inputs)})
        return [np.array(outputs[index]) for index in range(len(outputs))]

    def _compile(self, size: int) -> Any:
        model = self._model.clone()
        model.reshape([size, *self._shape])
        return _core().compile_model(model, "CPU", self._options).create_infer_request()


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise OpenVinoError(
            "backend openvino needs a package that is not installed: `pip install openvino`, or use backend auto"
        ) from error
    return openvino.Core()


def _convert(module: nn.Module, example: Tensor) -> Any:
    """By the frontend itself and not `openvino.convert_model`, which reports its use to Intel."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing, which torch discourages and OpenVINO still uses
        traced = TorchScriptPythonDecoder(module.eval(), example_input=(example,))
        return frontend.convert(frontend.load(traced))
