"""Scenes whose latents are changed by hand: dragged one by one, swapped between scenes, put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monet_perception.assessment import kl_per_latent
from monet_perception.decomposer import Decomposer
from train.composition import Composition, compose
from train.data.store import Store
from train.disentanglement import choose_factors, match_slots
from train.inference import decompose_images, one_of
from train.metrics.disentanglement import Disentanglement, disentanglement_scores
from train.traverse import default_slot

DIGITS = 2  # of a latent as it is shown


@dataclass(frozen=True)
class ExploredScene:
    """A scene under exploration: what the network saw, and the latents as they stand after dragging and swapping.

    Attributes:
        index: place in the store.
        image: [H, W, 3] uint8, the network's input.
        masks: [K, H, W] of the attention.
        encoded: [K, L] latent means of the input.
        latents: [K, L], those shown now.
        kl: [K, L] of the encoded posterior from the prior, nats.
        slot: the first slot to look at.
    """

    index: int
    image: NDArray[np.uint8]
    masks: NDArray[np.float32]
    encoded: NDArray[np.float32]
    latents: NDArray[np.float32]
    kl: NDArray[np.float64]
    slot: int

    def with_latents(self, latents: NDArray[np.float32]) -> ExploredScene:
        """The same scene with other latents [K, L]."""
        return replace(self, latents=latents)

    def with_slot(self, slot: int, values: NDArray[np.float32]) -> ExploredScene:
        """The same scene with other latents [L] in one slot."""
        latents = self.latents.copy()
        latents[slot] = values
        return self.with_latents(latents)

    def order(self, slot: int) -> NDArray[np.int64]:
        """Latents of a slot, the most active first."""
        return np.argsort(-self.kl[slot], kind="stable")


class Explorer:
    """What an explorer's page asks for: scenes of a store, their compositions, disentanglement scores."""

    def __init__(self, decomposer: Decomposer, store: Store) -> None:
        self.decomposer = decomposer
        self.store = store

    def scene(self, index: int) -> ExploredScene:
        """Decompose an image of the store; places beyond its ends are taken as its ends."""
        index = int(np.clip(index, 0, len(self.store) - 1))
        seen = one_of(
            decompose_images(self.decomposer, self.store, np.array([index]), reconstruct=False).decomposition, 0
        )
        kl = kl_per_latent(seen.latent_mean, seen.latent_log_sigma)
        return ExploredScene(index, seen.image, seen.masks, seen.latent_mean, seen.latent_mean, kl, default_slot(seen))

    def compose(self, scene: ExploredScene) -> Composition:
        """Decode a scene's latents as they stand."""
        return compose(self.decomposer, scene.latents)

    def scores(self, limit: int, min_iou: float = 0.5) -> tuple[NDArray[np.float64], Disentanglement]:
        """Mean KL of each latent [L] and disentanglement over the first `limit` images of the store.

        Args:
            min_iou: of a slot and the object that it is matched with.
        Raises:
            StoreError, DisentanglementError: the store has no labels, or too little is matched.
            NonFiniteError: as `decompose_images`.
        """
        slots = match_slots(self.decomposer, self.store, limit=limit, min_iou=min_iou)
        return slots.kl, disentanglement_scores(slots.latent_mean, choose_factors(slots.factors))


def swap(scene: ExploredScene, slot: int, other: ExploredScene, other_slot: int) -> tuple[ExploredScene, ExploredScene]:
    """Both scenes after a slot of each has gone over to the other."""
    return scene.with_slot(slot, other.latents[other_slot]), other.with_slot(other_slot, scene.latents[slot])


def drag_latents(scene: ExploredScene, slot: int, values: Sequence[float]) -> ExploredScene:
    """The scene after latents of a slot were moved.

    Args:
        values: [L] what the latents are now said to be, the most active first. Those still at their rounded value
            weren't touched, and keep all their digits.
    """
    latents, order = scene.latents[slot].copy(), scene.order(slot)
    shown = np.round(latents[order], DIGITS)
    touched = ~np.isclose(np.asarray(values, np.float32), shown, atol=0.5 * 10**-DIGITS)
    latents[order[touched]] = np.asarray(values, np.float32)[touched]
    return scene.with_slot(slot, latents)
