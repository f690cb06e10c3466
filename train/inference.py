"""Walks a store through the decomposer that the robot runs, batch by batch."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monet_perception.backends.graphs import GraphError
from monet_perception.backends.openvino_backend import OpenVinoError
from monet_perception.backends.selection import BACKENDS
from monet_perception.backends.torch_backend import PRECISIONS
from monet_perception.checkpoint import CheckpointError
from monet_perception.decomposer import CROPS, Decomposer
from monet_perception.decomposition import Decomposition
from monet_perception.labels import fit_labels
from train.data.store import Store


class InferenceOptionError(ValueError):
    """Options of inference that don't go together, or that can't be met here."""


class NonFiniteError(ValueError):
    """A network that gives infinities or NaN for an image: no score of it would mean anything."""


@dataclass(frozen=True)
class DecomposedBatch:
    """Some images of a store and what the network makes of them.

    Attributes:
        index: int64 [B], places in the store.
        labels: uint8 [B, H, W] true labels at the size and crop of the masks; None where the store has none.
        decomposition: with a leading B.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.uint8] | None
    decomposition: Decomposition

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[B, H, W], the slot that owns each pixel."""
        return self.decomposition.masks.argmax(axis=1)


def decompose_store(
    decomposer: Decomposer,
    store: Store,
    *,
    batch_size: int = 64,
    limit: int | None = None,
    reconstruct: bool = True,
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[DecomposedBatch]:
    """Decompose the first `limit` images (all, by default), in order.

    Args:
        progress: told the number of images after each batch.
    """
    count = len(store) if limit is None else min(limit, len(store))
    for start in range(0, count, batch_size):
        index = np.arange(start, min(start + batch_size, count))
        yield decompose_images(decomposer, store, index, reconstruct=reconstruct)
        progress(len(index))


def decompose_images(
    decomposer: Decomposer, store: Store, index: NDArray[np.int64], *, reconstruct: bool = True
) -> DecomposedBatch:
    """Decompose chosen images.

    Args:
        index: [B] places in the store.
    Raises:
        NonFiniteError: a mask, latent or picture is infinite or NaN.
    """
    decomposition = decomposer(np.ascontiguousarray(store.images[index]), reconstruct=reconstruct)
    _check_finite(decomposer, store, index, decomposition)
    labels = None
    if store.labels is not None:
        height, width = decomposition.masks.shape[-2:]
        labels = np.stack([fit_labels(image, decomposition.roi, height, width) for image in store.labels[index]])
    return DecomposedBatch(index, labels, decomposition)


def one_of(batch: Decomposition, i: int) -> Decomposition:
    """Image i of a batch, as the decomposer would return it alone."""
    return dataclasses.replace(
        batch,
        masks=batch.masks[i],
        latent_mean=batch.latent_mean[i],
        latent_log_sigma=batch.latent_log_sigma[i],
        image=batch.image[i],
        reconstructions=None if batch.reconstructions is None else batch.reconstructions[i],
        decoded_masks=None if batch.decoded_masks is None else batch.decoded_masks[i],
    )


def reconstructed(decomposition: Decomposition) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reconstructions [..., K, H, W, 3] and decoded masks [..., K, H, W].

    Raises:
        ValueError: the decomposition was made without them.
    """
    if decomposition.reconstructions is None or decomposition.decoded_masks is None:
        raise ValueError("the decomposition has no reconstructions: call the decomposer with reconstruct=True")
    return decomposition.reconstructions, decomposition.decoded_masks


def _check_finite(decomposer: Decomposer, store: Store, index: NDArray[np.int64], decomposition: Decomposition) -> None:
    made = (
        decomposition.masks,
        decomposition.latent_mean,
        decomposition.latent_log_sigma,
        decomposition.reconstructions,
        decomposition.decoded_masks,
    )
    arrays = [array.reshape(len(index), -1) for array in made if array is not None]
    finite = np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays])
    if not finite.all():
        raise NonFiniteError(
            f"network {decomposer.info.model_id} gives values that are not finite for {np.sum(~finite)} of "
            f"{len(index)} images, the first being image {index[~finite][0]} of {store.path} "
            f"(backend {decomposer.backend}, {decomposer.precision}); {_remedy(decomposer)}"
        )


def _remedy(decomposer: Decomposer) -> str:
    if (decomposer.backend, decomposer.precision) == ("torch", "fp32"):
        return "its weights are at fault: take an earlier checkpoint, or train it anew at a lower learning rate"
    return "compare with --backend torch --precision fp32"


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that decomposes: where and how the network runs."""
    group = parser.add_argument_group("inference (the defaults are the node's, but for --crop)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    group.add_argument("--precision", default="auto", choices=PRECISIONS, help="(default: %(default)s)")
    group.add_argument("--backend", default="auto", choices=BACKENDS, help="(default: %(default)s)")
    group.add_argument("--quantised", action="store_true", help="8-bit integers in the encoder, on CPUs")
    group.add_argument(
        "--crop",
        default="whole",
        choices=CROPS,
        help="what of a frame that is not square the network sees: all of it, squashed, or the centre square "
        "(default: %(default)s; square frames are the same in both)",
    )


def open_decomposer(checkpoint: str, options: argparse.Namespace) -> Decomposer:
    """The decomposer that `add_inference_options` describes.

    Raises:
        CheckpointError: the file is no whole and sound checkpoint.
        InferenceOptionError: an option that this network, machine or installation can't follow.
    """
    try:
        return Decomposer(
            checkpoint,
            device=options.device,
            precision=options.precision,
            crop=options.crop,
            backend=options.backend,
            quantised=options.quantised,
        )
    except CheckpointError:
        raise
    except (ValueError, GraphError, OpenVinoError) as error:
        raise InferenceOptionError(str(error)) from error
