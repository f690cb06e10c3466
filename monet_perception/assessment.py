"""How well a frame was explained, without labels: reconstruction error, latent KL, mask entropy and active slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from monet_perception.decomposition import Decomposition
from monet_perception.slots import occupied_slots


@dataclass(frozen=True)
class Assessment:
    """Label-free measures of one frame.

    Attributes:
        reconstruction_error: mean squared error over pixels and channels of images in [0, 1], as in the thesis's
            tables; NaN where the frame wasn't decoded.
        error_map: [H, W] float32, squared error averaged over channels; None where the frame wasn't decoded.
        latent_kl: [K] float64, KL(N(mean, sigma) || N(0, 1)) of each slot's latent in nats. Near zero: the slot says
            nothing. Far above what the training set had: the slot holds something never seen.
        mask_entropy: nats, mean over pixels of the entropy over slots, in [0, log K]. Zero: every pixel has one owner.
        active_slots: number of slots that hold something (`slots.occupied_slots`). One or two: everything has fallen
            into one slot.
    """

    reconstruction_error: float
    error_map: NDArray[np.float32] | None
    latent_kl: NDArray[np.float64]
    mask_entropy: float
    active_slots: int


def kl_per_latent(mean: ArrayLike, log_sigma: ArrayLike) -> NDArray[np.float64]:
    """KL(N(mean, sigma) || N(0, 1)) of each latent, in nats: any shape, the same back.

    It says how much a latent tells: 0 where the posterior is the prior. `networks.loss` has the same for training.
    """
    mean, log_sigma = np.asarray(mean, np.float64), np.asarray(log_sigma, np.float64)
    return 0.5 * (mean**2 + np.exp(2 * log_sigma) - 1.0) - log_sigma


def mask_entropy(masks: ArrayLike) -> float:
    """Entropy over slots in nats, averaged over pixels, in [0, log K].

    Args:
        masks: [K, H, W] in [0, 1], summing to one over K.
    """
    surprise = entr(np.asarray(masks, np.float32)).sum(axis=0, dtype=np.float64)
    return max(0.0, float(surprise.mean()))  # rounded masks may exceed one a little


def error_map(decomposition: Decomposition) -> NDArray[np.float32] | None:
    """Squared error of a frame's mixture averaged over channels, [H, W]; None where the frame wasn't decoded."""
    if decomposition.reconstructions is None:
        return None
    image = decomposition.image.astype(np.float32) / 255.0
    error: NDArray[np.float32] = np.square(decomposition.reconstruction() - image).mean(axis=-1, dtype=np.float32)
    return error


def assess(decomposition: Decomposition) -> Assessment:
    """Measures one frame. The reconstruction error needs a decomposition made with `reconstruct=True`.

    Raises:
        ValueError: the decomposition holds a batch.
    """
    masks = decomposition.masks
    if masks.ndim != 3:
        raise ValueError(f"one frame at a time: masks must be [K, H, W], are {list(masks.shape)}")
    errors = error_map(decomposition)
    return Assessment(
        reconstruction_error=float("nan") if errors is None else float(errors.mean(dtype=np.float64)),
        error_map=errors,
        latent_kl=kl_per_latent(decomposition.latent_mean, decomposition.latent_log_sigma).sum(axis=-1),
        mask_entropy=mask_entropy(masks),
        active_slots=int(occupied_slots(masks).sum()),
    )
