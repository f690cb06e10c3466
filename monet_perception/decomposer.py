"""Camera frames in, decomposed scenes out: resizing, batching, device, precision. No ROS.

decomposer = Decomposer()                      # the checkpoint that comes with the package, on the best device
scene = decomposer(frame, reconstruct=True)    # frame: uint8 [H, W, 3], RGB
scene.masks.argmax(axis=0)                     # which slot each pixel belongs to
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from monet_perception.backends.selection import choose, open_backend
from monet_perception.backends.stages import Backend, Floats
from monet_perception.backends.torch_backend import DeviceError
from monet_perception.checkpoint import read_tensors
from monet_perception.decomposition import Decomposition
from monet_perception.networks import MonetConfig
from monet_perception.region import Region, centre_square, resize
from monet_perception.shipped import DEFAULT_CHECKPOINT, checkpoint_path

__all__ = ["Decomposer", "DeviceError"]

Frames = NDArray[np.uint8]
CROPS = ("centre", "whole")
"""What the network sees of a frame that is not square."""


class Decomposer:
    """Runs a checkpoint on frames. Deterministic: latents are posterior means, never samples. Safe across threads.

    Args:
        checkpoint: file of `save_checkpoint`, or the name of a network of `shipped.SHIPPED`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 on GPUs that have it, and with backend `openvino` on CPUs that have it, else fp32),
            `fp32`, `bf16` or `fp16`. Masks and latents come in float32.
        crop: `centre` takes the largest centred square of a frame, `whole` squashes all of it to a square.
        backend: `onnx` is ONNX Runtime, on CPUs in fp32 or int8; `openvino` is OpenVINO, on CPUs in any precision that
            they have; `torch` runs everywhere; `auto` chooses ONNX Runtime on CPUs and PyTorch on GPUs.
        threads: how many threads one call may use on a CPU; None: one for each core. With the torch backend it holds
            for the whole process.
        quantised: 8-bit integers in the encoder, on CPUs: several times as fast, at the loss that docs/performance.md
            gives. Needs a quantised network beside the checkpoint, or what makes one: see `backends.quantisation`.

    Attributes:
        info: what the checkpoint says about itself.
        config: structure of its network.
        device, precision, backend: what was chosen; precision is `fp32`, `bf16`, `fp16` or `int8`.
        crop: as given.

    Raises:
        CheckpointError: the checkpoint is not whole and sound.
        DeviceError: the device is not there.
        ValueError: options that don't go together, or a file of calibration frames that holds none.
        GraphError: backend `onnx` was asked for by name, or `quantised`, and what it needs can't be had.
        OpenVinoError: backend `openvino` was asked for and is not installed, or the CPU lacks the precision.
    """

    def __init__(
        self,
        checkpoint: str | Path = DEFAULT_CHECKPOINT,
        *,
        device: str = "auto",
        precision: str = "auto",
        crop: Literal["centre", "whole"] = "centre",
        backend: Literal["auto", "torch", "onnx", "openvino"] = "auto",
        threads: int | None = None,
        quantised: bool = False,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"crop is {crop!r}; it must be one of {', '.join(CROPS)}")
        choice = choose(backend, device, precision, threads, quantised)
        path = checkpoint_path(checkpoint)
        self.info, weights = read_tensors(path)
        self.config: MonetConfig = self.info.config
        self.crop = crop
        self._lock = threading.Lock()
        self._backend: Backend | None = open_backend(choice, path, self.info, weights)
        self.backend, self.device, self.precision = self._backend.name, self._backend.device, self._backend.precision

    def __call__(self, frames: Frames, *, reconstruct: bool = False) -> Decomposition:
        """Decomposes a frame or a batch of frames of one size.

        Args:
            frames: uint8 [H, W, 3] or [B, H, W, 3], RGB, any size.
            reconstruct: whether to run the decoder as well, for `reconstructions` and `decoded_masks`.
        Raises:
            ValueError: the array is no such thing.
        """
        _check_frames(frames)
        batch = frames if frames.ndim == 4 else frames[None]
        height, width = batch.shape[1:3]
        roi = centre_square(height, width) if self.crop == "centre" else Region(0, 0, width, height)
        images = np.stack([resize(frame, roi, self.config.image_size) for frame in batch])
        with self._lock:
            backend = self._open_backend()
            masks, mean, log_sigma = backend.encode(images)
            decoded = self._decode_slots(backend, mean) if reconstruct else (None, None)
        if frames.ndim == 4:
            return Decomposition(masks, mean, log_sigma, roi, height, width, images, *decoded)
        reconstructions, decoded_masks = (array if array is None else array[0] for array in decoded)
        slots = masks[0], mean[0], log_sigma[0]
        return Decomposition(*slots, roi, height, width, images[0], reconstructions, decoded_masks)

    def decode(self, latents: Floats) -> tuple[Floats, Floats]:
        """Draws latents, of any origin and number: edited ones, or those of several frames.

        Args:
            latents: float32 [N, L].
        Returns:
            Reconstructions [N, H, W, 3] in [0, 1] and mask logits [N, H, W], float32. Masks are their softmax over
            those slots that share a scene.
        Raises:
            ValueError: the shape is another one, or values are not finite.
        """
        latents = np.ascontiguousarray(latents, dtype=np.float32)
        if latents.ndim != 2 or latents.shape[1] != self.config.latent_size or not len(latents):
            raise ValueError(f"latents have shape {list(latents.shape)}; [N, {self.config.latent_size}] is due, N > 0")
        if not np.isfinite(latents).all():
            raise ValueError("latents hold values that are not finite")
        with self._lock:
            return self._open_backend().decode(latents)

    def warm_up(self) -> None:
        """Runs once on a black frame, so that the first real one is not the slow one."""
        size = self.config.image_size
        self(np.zeros((size, size, 3), np.uint8), reconstruct=True)

    def close(self) -> None:
        """Frees the network and, on a GPU, its memory; the decomposer can't be called any more."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
            self._backend = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("the decomposer was closed")
        return self._backend

    def _decode_slots(self, backend: Backend, latent_mean: Floats) -> tuple[Floats, Floats]:
        shape = latent_mean.shape[:2]
        reconstructions, mask_logits = backend.decode(latent_mean.reshape(-1, self.config.latent_size))
        mask_logits = mask_logits.reshape(*shape, *mask_logits.shape[1:])
        return reconstructions.reshape(*shape, *reconstructions.shape[1:]), softmax(mask_logits, axis=1)


def _check_frames(frames: Frames) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"frames are {kind}; a NumPy array of uint8 in RGB is due")
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames have shape {list(frames.shape)}; [H, W, 3] or [B, H, W, 3] is due, nothing empty")
