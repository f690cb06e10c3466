"""Chooses and opens what runs a checkpoint's network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monet_perception.backends.graphs import GraphError, obtain_graph
from monet_perception.backends.onnx_backend import OnnxBackend
from monet_perception.backends.openvino_backend import OpenVinoBackend, resolve_cpu_precision
from monet_perception.backends.quantisation import obtain_quantised
from monet_perception.backends.stages import Backend
from monet_perception.backends.torch_backend import TorchBackend, resolve_device, resolve_precision
from monet_perception.checkpoint import CheckpointInfo, build_network

BACKENDS = ("auto", "torch", "onnx", "openvino")


@dataclass(frozen=True)
class Choice:
    """What was chosen: of `BACKENDS` and its precision, without `auto`, and where it runs.

    `fall_back` says that PyTorch may serve where ONNX Runtime can't.
    """

    backend: str
    device: torch.device
    precision: str
    threads: int | None
    quantised: bool
    fall_back: bool


def choose(backend: str, device: str, precision: str, threads: int | None, quantised: bool) -> Choice:
    """Resolves `auto`, and refuses what doesn't go together. The arguments are those of `Decomposer`.

    Raises:
        DeviceError: the device is not there.
        OpenVinoError: backend `openvino` is not installed, or the CPU lacks the precision.
        ValueError: unknown words, or options that don't go together.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; it must be one of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1, or None for one for each core")
    on_cpu_only = quantised or backend in ("onnx", "openvino")
    where = resolve_device("cpu" if device == "auto" and on_cpu_only else device)
    if quantised and backend == "torch":
        raise ValueError("quantised runs with backend onnx, openvino or auto, not torch")
    if backend == "openvino":
        if where.type != "cpu":
            raise ValueError(f"backend openvino runs on a CPU, not on {where}: choose device cpu")
        return Choice(backend, where, resolve_cpu_precision(precision), threads, quantised, fall_back=False)
    arithmetic = resolve_precision(precision, where)
    possible = where.type == "cpu" and arithmetic == "fp32"
    if not possible and (quantised or backend == "onnx"):
        asked = "quantised" if quantised else "backend onnx"
        raise ValueError(f"{asked} runs on a CPU in precision fp32 or auto, not on {where} in {arithmetic}")
    chosen = "onnx" if possible and backend != "torch" else "torch"
    return Choice(chosen, where, arithmetic, threads, quantised, fall_back=backend == "auto" and not quantised)


def open_backend(choice: Choice, checkpoint: Path, info: CheckpointInfo, weights: Mapping[str, Tensor]) -> Backend:
    """The backend with the checkpoint's weights.

    Raises:
        GraphError: a graph or a quantised encoder can't be had, and nothing else may serve.
        ValueError: the file of calibration frames holds none.
    """
    quantised = obtain_quantised(checkpoint, info, weights) if choice.quantised else None
    if choice.backend == "openvino":
        monet = build_network(info, weights)
        return OpenVinoBackend(monet, choice.precision, threads=choice.threads, quantised=quantised)
    if choice.backend == "onnx":
        try:
            encoder = quantised or obtain_graph(info.config, "encoder")
            decoder = obtain_graph(info.config, "decoder")
            return OnnxBackend(encoder, decoder, weights, threads=choice.threads, quantised=choice.quantised)
        except GraphError as error:
            if not choice.fall_back:
                raise
            warnings.warn(f"running on PyTorch, several times slower than ONNX Runtime: {error}", stacklevel=3)
    if choice.threads is not None and choice.device.type == "cpu":
        torch.set_num_threads(choice.threads)
    return TorchBackend(build_network(info, weights), choice.device, choice.precision)
