"""Scenes made from latents: slots are decoded, weighed by their decoded masks and added up (section 4.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import mixture

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Composition:
    """A scene decoded from K latents.

    Attributes:
        reconstructions: [K, H, W, 3], what each slot looks like without its mask.
        masks: [K, H, W], decoded, summing to one over K.
    """

    reconstructions: Floats
    masks: Floats

    @property
    def image(self) -> Floats:
        """[H, W, 3], the slots weighed by their masks."""
        return mixture(self.masks, self.reconstructions)


@dataclass(frozen=True)
class Sweep:
    """One latent of one slot through S values, everything else held.

    Attributes:
        latent: which one.
        values: [S].
        reconstructions: [S, H, W, 3] of the slot, unmasked.
        masks: [S, H, W] of the slot among all slots.
        scenes: [S, H, W, 3], the recomposed image.
    """

    latent: int
    values: Floats
    reconstructions: Floats
    masks: Floats
    scenes: Floats


def compose(decomposer: Decomposer, latents: Floats) -> Composition:
    """The scene of latents [K, L]."""
    reconstructions, logits = decomposer.decode(np.ascontiguousarray(latents, dtype=np.float32))
    return Composition(reconstructions, softmax(logits, axis=0))


def sweep(decomposer: Decomposer, latents: Floats, slot: int, chosen: Sequence[int], values: Floats) -> list[Sweep]:
    """Move latents of one slot, one after the other.

    Args:
        latents: [K, L] of the whole scene.
        slot: whose latents move.
        chosen: which latents, in the order wanted.
        values: [S] that each takes.
    """
    moved = np.repeat(latents[slot][None], len(chosen) * len(values), axis=0)
    for row, latent in enumerate(chosen):
        moved[row * len(values) : (row + 1) * len(values), latent] = values
    others = np.delete(latents, slot, axis=0)
    # The other slots stay as they are, so they are decoded once and not with every step.
    reconstructions, logits = decomposer.decode(np.concatenate([others, moved]).astype(np.float32))
    still, still_logits, moving, moving_logits = (
        reconstructions[: len(others)], logits[: len(others)], reconstructions[len(others) :], logits[len(others) :]
    )  # fmt: skip
    masks = softmax(
        np.concatenate([moving_logits[:, None], np.broadcast_to(still_logits, (len(moved), *still_logits.shape))], 1),
        axis=1,
    )
    scenes = masks[:, 0, ..., None] * moving + np.einsum("skhw,khwc->shwc", masks[:, 1:], still)
    parts = [slice(row * len(values), (row + 1) * len(values)) for row in range(len(chosen))]
    return [
        Sweep(latent, values, moving[part], masks[part, 0], scenes[part])
        for latent, part in zip(chosen, parts, strict=True)
    ]
