"""The file that a robot loads: a network's weights and all that is to be known about them, in one safetensors file.

Safetensors holds numbers and a JSON header, no code: a checkpoint from a stranger can be wrong, it can't run anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import monet_perception
from monet_perception.files import write_bytes
from monet_perception.networks import Monet, MonetConfig
from monet_perception.shipped import checkpoint_path

FORMAT = "monet_perception"
FORMAT_VERSION = "1"

FLOATS = ("F64", "F32", "F16", "BF16")
"""safetensors' names of the floating-point types that torch reads."""
# The first bytes of what people mistake for a checkpoint of this package.
FOREIGN_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it; it may run code when it is loaded, so it is not opened",
    **{
        bytes([0x80, protocol]): "a Python pickle; it may run code when it is loaded, so it is not opened"
        for protocol in range(2, 6)
    },
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull` to get the file itself",
}


class CheckpointError(ValueError):
    """A file that is not a whole and sound checkpoint; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
        config: structure of the network.
        model_id: 12 hexadecimal digits, the hash of the weights: equal exactly when they are.
        dataset: what it was trained on.
        steps: optimiser steps it was trained for.
        metrics: what was measured on it, by name.
        code_version: version of this package that wrote it, with the commit where there was one.
    """

    config: MonetConfig
    model_id: str
    dataset: str
    steps: int
    metrics: dict[str, float]
    code_version: str


def save_checkpoint(
    path: str | Path,
    monet: Monet,
    *,
    dataset: str,
    steps: int,
    metrics: Mapping[str, float] | None = None,
    half: bool = False,
) -> CheckpointInfo:
    """Writes a checkpoint, whole or not at all: a reader sees the old file or the new one, also after a crash.

    Args:
        path: where to; by convention `.safetensors`. An existing file is replaced.
        monet: the network, on any device.
        dataset: name of the training data.
        steps: optimiser steps so far.
        metrics: what was measured, by name.
        half: store matrices and kernels in float16, which halves the file. Vectors (biases, statistics of norms) stay
            in float32: they weigh nothing, and a variance may be out of float16's range.
    Raises:
        CheckpointError: a weight is not finite, or out of float16's range with `half`.
        OSError: the file can't be written.
    """
    path = Path(path)
    tensors = {name: _stored(value, half) for name, value in monet.state_dict().items()}
    _check_finite(path, tensors)
    digest = _hash_weights(tensors)
    info = CheckpointInfo(monet.config, digest[:12], dataset, int(steps), dict(metrics or {}), code_version())
    content = safetensors.torch.save(tensors, metadata=_metadata(info, digest))
    write_bytes(path, content)
    return info


def read_info(path: str | Path) -> CheckpointInfo:
    """Reads the header only, so a large file costs no more than a small one; the weights stay unchecked.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    path = checkpoint_path(path)
    with _opened(path) as file:
        return _parse_metadata(path, file.metadata() or {})[0]


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> tuple[Monet, CheckpointInfo]:
    """Reads a checkpoint, by its path or a shipped one's name, into a network in evaluation mode, in float32.

    Raises:
        CheckpointError: the file is missing, a directory, unreadable, no safetensors file, truncated or altered; its
            format version is unknown; its configuration describes no network, or another one than its tensors.
    """
    info, tensors = read_tensors(path)
    return build_network(info, tensors).to(device), info


def build_network(info: CheckpointInfo, tensors: Mapping[str, Tensor]) -> Monet:
    """The network, in evaluation mode, of what `read_tensors` returned; it takes the tensors over."""
    monet = Monet(info.config, initialisation=None)
    monet.load_state_dict(tensors, assign=True)
    return monet.eval()


def read_tensors(path: str | Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """What `load_checkpoint` puts into the network: its checked tensors by name, floats in float32, on the CPU.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    path = checkpoint_path(path)
    with _opened(path) as file:
        info, digest = _parse_metadata(path, file.metadata() or {})
        _check_shapes(path, info.config, {name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118
        # Copied: what safetensors returns is the mapped file, which would change with it.
        tensors = {name: _single_precision(file.get_tensor(name), copy=True) for name in file.keys()}  # noqa: SIM118
    if _hash_weights(tensors) != digest:
        raise CheckpointError(
            f"{path}: its weights were altered after they were saved: their hash is not {digest[:12]}"
        )
    _check_finite(path, tensors)
    return info, tensors


def code_version() -> str:
    """Version of this package, with the commit when it runs from a checkout: `0.1.0+gab12cd3` (`-dirty` if edited)."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return monet_perception.__version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return monet_perception.__version__
    return f"{monet_perception.__version__}+g{commit}"


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    return value.to(torch.float16 if half and value.ndim > 1 else torch.float32)


def _single_precision(value: Tensor, copy: bool = False) -> Tensor:
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=copy)


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value.abs().amax()):  # a maximum keeps NaN and infinity, and is faster than isfinite
            raise CheckpointError(f"{path}: {name} holds values that are not finite (or too large for float16)")


def _hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for both storage precisions of the same values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = _single_precision(tensors[name]).contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.numpy())
    return digest.hexdigest()


def _metadata(info: CheckpointInfo, digest: str) -> dict[str, str]:
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(info.config.to_dict()),
        "weights_sha256": digest,
        "model_id": info.model_id,
        "dataset": info.dataset,
        "steps": str(info.steps),
        "metrics": json.dumps(info.metrics),
        "code_version": info.code_version,
    }
    return metadata | {"metadata_sha256": _hash_metadata(metadata)}


def _hash_metadata(metadata: Mapping[str, str]) -> str:
    rest = {key: value for key, value in metadata.items() if key != "metadata_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _parse_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[CheckpointInfo, str]:
    """The metadata as info, and the SHA-256 that the weights must have."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not one of {FORMAT}: it does not describe its network")
    if (version := metadata.get("format_version")) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: its format version is {version}, this package (version {monet_perception.__version__}) reads "
            f"version {FORMAT_VERSION}; use the version that wrote it: {metadata.get('code_version', 'unknown')}"
        )
    if metadata.get("metadata_sha256") != _hash_metadata(metadata):
        raise CheckpointError(f"{path}: its description was altered after it was saved")
    try:
        info = CheckpointInfo(
            config=MonetConfig.from_dict(json.loads(metadata["config"])),
            model_id=metadata["model_id"],
            dataset=metadata["dataset"],
            steps=int(metadata["steps"]),
            metrics={str(name): float(value) for name, value in json.loads(metadata["metrics"]).items()},
            code_version=metadata["code_version"],
        )
        return info, metadata["weights_sha256"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its description can't be read: {error}") from error


def _check_shapes(path: Path, config: MonetConfig, slices: Mapping[str, Any]) -> None:
    """Whether a file's tensors, by name, are of the kind and shape of the network's."""
    with torch.device("meta"):  # no memory: a hostile configuration may describe a network of any size
        weights = Monet(config, initialisation=None).state_dict()
    wanted = {name: (value.is_floating_point(), tuple(value.shape)) for name, value in weights.items()}
    found = {name: (part.get_dtype() in FLOATS, tuple(part.get_shape())) for name, part in slices.items()}
    if missing := sorted(wanted.keys() - found.keys()):
        raise CheckpointError(f"{path}: tensors are missing: {_some(missing)}")
    if extra := sorted(found.keys() - wanted.keys()):
        raise CheckpointError(f"{path}: tensors that the network has no place for: {_some(extra)}")
    if wrong := [name for name in wanted if found[name] != wanted[name]]:
        shapes = [f"{name} is {_kind(*found[name])} and not {_kind(*wanted[name])}" for name in wrong]
        raise CheckpointError(f"{path}: tensors of a wrong shape or kind: {_some(shapes)}")


def _kind(floating: bool, shape: tuple[int, ...]) -> str:
    return f"{shape} {'floats' if floating else 'integers'}"


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.is_dir():
        raise CheckpointError(f"{path}: a directory; name the .safetensors file inside it")
    try:
        with path.open("rb") as file:
            beginning = file.read(32)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from error
    for foreign, description in FOREIGN_BEGINNINGS.items():
        if beginning.startswith(foreign):
            raise CheckpointError(f"{path}: {description}. A checkpoint is a safetensors file of `python -m train.fit`")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file, it is truncated or damaged ({error})") from error
