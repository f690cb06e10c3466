"""Runs a network with ONNX Runtime on the CPU: a graph, and the checkpoint's weights beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import Tensor

from monet_perception.backends.cores import HelperThreads, running_threads
from monet_perception.backends.graphs import weight_names
from monet_perception.backends.stages import Floats, Part


class OnnxBackend:
    """Frames to slots and latents to pixels, in float32 or with an 8-bit encoder; safe to call from several threads.

    Args:
        encoder: ONNX graph of `FrameEncoder`, without weights, or quantised with them.
        decoder: ONNX graph of `LatentDecoder`, without weights.
        weights: the checkpoint's tensors by name.
        threads: how many threads one call may use; None: one for each core.
        quantised: whether the encoder has its own, quantised weights.
    """

    name = "onnx"
    device = "cpu"

    def __init__(
        self,
        encoder: bytes,
        decoder: bytes,
        weights: Mapping[str, Tensor],
        *,
        threads: int | None = None,
        quantised: bool = False,
    ) -> None:
        self.precision = "int8" if quantised else "fp32"
        # Sessions borrow the weights: they have to live as long.
        self._weights = [{} if quantised else _select(weights, "encoder"), _select(weights, "decoder")]
        running = running_threads()
        self._encoder, self._decoder = (
            _session(graph, values, threads) for graph, values in zip((encoder, decoder), self._weights, strict=True)
        )
        self._helpers = HelperThreads(running_threads() - running)

    def encode(self, frames: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """See `stages.FrameEncoder`."""
        self._helpers.leave_core()
        masks, mean, log_sigma = self._encoder.run(None, {"frames": frames})
        return masks, mean, log_sigma

    def decode(self, latents: Floats) -> tuple[Floats, Floats]:
        """See `stages.LatentDecoder`."""
        self._helpers.leave_core()
        reconstructions, mask_logits = self._decoder.run(None, {"latents": latents})
        return reconstructions, mask_logits

    def close(self) -> None:
        """Frees the sessions and their memory."""
        del self._encoder, self._decoder, self._weights


def _select(weights: Mapping[str, Tensor], part: Part) -> dict[str, onnxruntime.OrtValue]:
    names = weight_names(list(weights), part)
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(weights[name].numpy()) for name in names}


def _session(
    graph: bytes, weights: Mapping[str, onnxruntime.OrtValue], threads: int | None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about its own optimisations
    options.intra_op_num_threads = threads or 0
    # Waiting threads sleep. By default they spin, which on a core that others want as well took four times the CPU time
    # (110 ms a frame instead of 27, two threads on two cores at 10 Hz) and made frames slower (41 ms instead of 24).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
