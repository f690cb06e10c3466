"""Identity over time: gives each slot of a frame the track that it continues, by mask overlap and latent distance.

A slot has no identity of its own: nothing makes the network put an object into the same slot twice. Each frame's slots
are therefore assigned to the tracks known so far, all at once (SciPy's assignment), at the least total cost:

    cost = trust * (min_overlap - overlap) + (1 - trust) * (distance - max_distance)
    trust = overlap_weight * exp(-age / overlap_memory)

`overlap` is the Tanimoto coefficient of the two soft masks, and `distance` the squared Hellinger distance of the two
latent Gaussians, averaged over the latents in use; both lie in [0, 1], and each counts against its own limit. A slot
that no track continues at a cost below zero is something new. Where something was says a lot a tenth of a second later
and little after a second: trust in the overlap fades with the track's age, so that an object re-enters by its latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from monet_perception.slots import MIN_AREA, MIN_CONFIDENCE, background_slots, occupied_slots

Array = NDArray[np.float64]

NO_TRACK = -1
"""Track id of an empty slot."""


def mask_overlap(a: ArrayLike, b: ArrayLike) -> Array:
    """Tanimoto coefficient of every pair of soft masks, <a,b> / (<a,a> + <b,b> - <a,b>), in [0, 1].

    The intersection over union where masks are 0 or 1, and one for identical masks however soft they are. Computed from
    one matrix product, which is what allows it for every pair at full resolution. Two empty masks have overlap zero.

    Args:
        a: [N, H, W] in [0, 1].
        b: [M, H, W] in [0, 1], the same H and W.
    Returns:
        [N, M].
    """
    first, second = _flat(a), _flat(b)
    product = (first @ second.T).astype(np.float64)
    norms = np.einsum("np,np->n", first, first)[:, None] + np.einsum("mp,mp->m", second, second)[None]
    union = norms - product
    return np.clip(np.divide(product, union, out=np.zeros_like(product), where=union > 0), 0.0, 1.0)


def _flat(masks: ArrayLike) -> NDArray[np.float32]:
    masks = np.asarray(masks, np.float32)
    return masks.reshape(len(masks), -1)


def latent_distance(
    mean_a: ArrayLike, log_sigma_a: ArrayLike, mean_b: ArrayLike, log_sigma_b: ArrayLike, drift: ArrayLike = 0.0
) -> Array:
    """Mean squared Hellinger distance over the latents in use, for every pair of diagonal Gaussians, in [0, 1].

    Per latent it is 1 - BC with the Bhattacharyya coefficient of two normal distributions,
    BC = sqrt(2 s_a s_b / (s_a^2 + s_b^2)) exp(-(m_a - m_b)^2 / (4 (s_a^2 + s_b^2))). Averaging it over the latents,
    rather than multiplying the coefficients, keeps one latent that moved (where the object is) from outvoting all
    those that didn't (what it is). A latent whose posterior is the prior (sigma 1) says nothing and weighs 1 - s_a
    s_b, nothing.

    Args:
        mean_a, log_sigma_a: [N, L].
        mean_b, log_sigma_b: [M, L].
        drift: standard deviation by which the means may have moved apart, a scalar or [N, M]; shared out evenly between
            the two distributions, so that equal means stay close.
    Returns:
        [N, M]; zero between equal distributions, and where no latent is in use.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64)[:, None], np.asarray(mean_b, np.float64)[None]
    # Clipped: a posterior that has collapsed onto a point would be at distance one from itself moved by a rounding
    # error.
    sigma_a = np.exp(np.clip(np.asarray(log_sigma_a, np.float64), -10, 10))[:, None]
    sigma_b = np.exp(np.clip(np.asarray(log_sigma_b, np.float64), -10, 10))[None]
    weight = np.clip(1.0 - sigma_a * sigma_b, 0.0, 1.0)
    moved = 0.5 * np.asarray(drift, np.float64)[..., None] ** 2
    variance_a, variance_b = sigma_a**2 + moved, sigma_b**2 + moved
    total = variance_a + variance_b
    coefficient = np.sqrt(2 * np.sqrt(variance_a * variance_b) / total) * np.exp(
        -((mean_a - mean_b) ** 2) / (4 * total)
    )
    in_use = weight.sum(axis=-1)
    summed = (weight * (1.0 - coefficient)).sum(axis=-1)
    return np.clip(np.divide(summed, in_use, out=np.zeros_like(summed), where=in_use > 1e-9), 0.0, 1.0)


@dataclass
class Track:
    """What is remembered of one object or background.

    Attributes:
        track_id: never given to anything else as long as the tracker lives.
        mask: [H, W] float32, as last seen.
        latent_mean, latent_log_sigma: [L], averaged over `latent_memory`.
        background: whether its last mask was background (`slots.background_slots`).
        first_seen, last_seen: stamps in seconds.
        missed_since: stamp of the first frame without it, since it was last seen; None while it is seen.
    """

    track_id: int
    mask: NDArray[np.float32]
    latent_mean: Array
    latent_log_sigma: Array
    background: bool
    first_seen: float
    last_seen: float
    missed_since: float | None = None


class Tracker:
    """Gives the slots of successive frames track ids that stay with their objects.

    Ids count up from 0 and are never used twice, not even after a reset. Empty slots get -1. The order of the slots
    within a frame doesn't matter. A stamp that goes backwards (a bag that starts again) forgets all tracks. One
    tracker serves one camera; it isn't thread-safe.

    Args:
        max_absence: seconds a track may be missing, from the first frame that lacks it, before it is forgotten.
            Counted so, and not from when it was last seen, because a slow network must not lose its objects between
            two frames.
        min_area, min_confidence: what counts as an empty slot, see `slots.occupied_slots`.
        min_overlap: overlap with the last mask that neither speaks for a slot nor against it, in [0, 1].
        max_distance: latent distance that neither speaks for a slot nor against it, in [0, 1].
        overlap_weight: trust in the overlap between frames in immediate succession, in [0, 1].
        overlap_memory: seconds after which trust in the overlap has fallen to 37 %.
        latent_drift: how far a latent of one object wanders (standard deviation, in latent units) in one second.
        latent_memory: seconds over which a track's latent is averaged: views cut by the border of the image, the last
            ones before an object leaves, should not be all that is remembered of it.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        *,
        max_absence: float = 1.0,
        min_area: float = MIN_AREA,
        min_confidence: float = MIN_CONFIDENCE,
        min_overlap: float = 0.1,
        max_distance: float = 0.45,
        overlap_weight: float = 0.7,
        overlap_memory: float = 1.0,
        latent_drift: float = 0.3,
        latent_memory: float = 0.3,
    ) -> None:
        for name, value in (("max_absence", max_absence), ("latent_drift", latent_drift), ("min_area", min_area)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, is {value}")
        for name, value in (("overlap_memory", overlap_memory), ("latent_memory", latent_memory)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0 seconds, is {value}")
        for name, value in (
            ("min_confidence", min_confidence),
            ("min_overlap", min_overlap),
            ("max_distance", max_distance),
            ("overlap_weight", overlap_weight),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], is {value}")
        self.max_absence = max_absence
        self.min_area = min_area
        self.min_confidence = min_confidence
        self.min_overlap = min_overlap
        self.max_distance = max_distance
        self.overlap_weight = overlap_weight
        self.overlap_memory = overlap_memory
        self.latent_drift = latent_drift
        self.latent_memory = latent_memory
        self._next_id = 0
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks; ids go on counting from where they were."""
        self._tracks: list[Track] = []
        self._stamp = -math.inf

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks alive: those in the last frame and those that may come back."""
        return tuple(self._tracks)

    def update(
        self, masks: ArrayLike, latent_mean: ArrayLike, latent_log_sigma: ArrayLike, stamp: float
    ) -> NDArray[np.int32]:
        """Takes the next frame and says which track each of its slots continues.

        Args:
            masks: [K, H, W] in [0, 1].
            latent_mean, latent_log_sigma: [K, L].
            stamp: when the frame was taken, in seconds.
        Returns:
            Track ids, int32 [K]; -1 for an empty slot, otherwise all different.
        Raises:
            ValueError: shapes don't fit together, or a value isn't finite. The tracks are then as they were before.
        """
        masks, mean, log_sigma = _checked(masks, latent_mean, latent_log_sigma, stamp)
        if stamp < self._stamp or self._incompatible(masks, mean):
            self.reset()
        self._stamp = stamp

        occupied = np.flatnonzero(occupied_slots(masks, min_area=self.min_area, min_confidence=self.min_confidence))
        background = background_slots(masks)
        ids = np.full(len(masks), NO_TRACK, np.int32)
        matches = self._assign(masks[occupied], mean[occupied], log_sigma[occupied], background[occupied], stamp)
        for row, column in matches:
            slot = occupied[column]
            self._continue(self._tracks[row], masks[slot], mean[slot], log_sigma[slot], bool(background[slot]), stamp)
            ids[slot] = self._tracks[row].track_id
        for slot in occupied[ids[occupied] == NO_TRACK]:
            ids[slot] = self._birth(masks[slot], mean[slot], log_sigma[slot], bool(background[slot]), stamp)
        self._bury(ids, stamp)
        return ids

    def _incompatible(self, masks: NDArray[np.float32], mean: Array) -> bool:
        """Whether the frame comes from another network (mask or latent size) than the tracks."""
        return bool(self._tracks) and (
            self._tracks[0].mask.shape != masks.shape[1:] or self._tracks[0].latent_mean.shape != mean.shape[1:]
        )

    def _assign(
        self, masks: NDArray[np.float32], mean: Array, log_sigma: Array, background: NDArray[np.bool_], stamp: float
    ) -> list[tuple[int, int]]:
        """Pairs (track, slot) of the cheapest assignment, without those worse than a birth."""
        if not self._tracks or not len(masks):
            return []
        tracks = self._tracks
        age = np.array([stamp - track.last_seen for track in tracks])[:, None]
        overlap = mask_overlap(np.stack([track.mask for track in tracks]), masks)
        distance = latent_distance(
            np.stack([track.latent_mean for track in tracks]),
            np.stack([track.latent_log_sigma for track in tracks]),
            mean,
            log_sigma,
            drift=np.broadcast_to(self.latent_drift * np.sqrt(age), overlap.shape),
        )
        trust = self.overlap_weight * np.exp(-age / self.overlap_memory)
        cost = trust * (self.min_overlap - overlap) + (1 - trust) * (distance - self.max_distance)
        # A wall doesn't become a cup: only a mask that grew or shrank in place may change its kind.
        changed = np.array([track.background for track in tracks])[:, None] != background[None]
        cost[changed & (overlap < 0.5)] = 1.0
        # Clipped at zero, the price of a birth, so that no good pair is given up to make a hopeless one less bad.
        rows, columns = linear_sum_assignment(np.minimum(cost, 0.0))
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < 0]

    def _continue(
        self, track: Track, mask: NDArray[np.float32], mean: Array, log_sigma: Array, background: bool, stamp: float
    ) -> None:
        renewal = 1.0 - math.exp(-(stamp - track.last_seen) / self.latent_memory)
        track.latent_mean = track.latent_mean + renewal * (mean - track.latent_mean)
        track.latent_log_sigma = track.latent_log_sigma + renewal * (log_sigma - track.latent_log_sigma)
        track.mask = mask.copy()
        track.background = background
        track.last_seen = stamp
        track.missed_since = None

    def _birth(self, mask: NDArray[np.float32], mean: Array, log_sigma: Array, background: bool, stamp: float) -> int:
        # Copies: a view would keep the whole batch of masks alive, and follow what the caller writes into it.
        track = Track(self._next_id, mask.copy(), mean.copy(), log_sigma.copy(), background, stamp, stamp)
        self._tracks.append(track)
        self._next_id += 1
        return track.track_id

    def _bury(self, ids: NDArray[np.int32], stamp: float) -> None:
        """Notes which tracks this frame lacks, and forgets those missing for longer than `max_absence`."""
        for track in self._tracks:
            if track.missed_since is None and track.track_id not in ids:
                track.missed_since = stamp
        self._tracks = [
            track
            for track in self._tracks
            if track.missed_since is None or stamp - track.missed_since <= self.max_absence
        ]


def _checked(
    masks: ArrayLike, latent_mean: ArrayLike, latent_log_sigma: ArrayLike, stamp: float
) -> tuple[NDArray[np.float32], Array, Array]:
    masks = np.asarray(masks, np.float32)
    mean, log_sigma = np.asarray(latent_mean, np.float64), np.asarray(latent_log_sigma, np.float64)
    if masks.ndim != 3 or min(masks.shape[1:]) < 2:
        raise ValueError(f"masks must be [K, H, W] with H and W of at least 2, are {list(masks.shape)}")
    if mean.ndim != 2 or mean.shape != log_sigma.shape or len(mean) != len(masks):
        raise ValueError(
            f"latent_mean and latent_log_sigma must both be [K, L] with K = {len(masks)} as in masks, "
            f"are {list(mean.shape)} and {list(log_sigma.shape)}"
        )
    for name, values in (("masks", masks), ("latent_mean", mean), ("latent_log_sigma", log_sigma), ("stamp", stamp)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
    return masks, mean, log_sigma
