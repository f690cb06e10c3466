"""Identity over time: gives each slot of a frame the track that it continues, by mask overlap and latent distance.

A slot has no identity of its own: nothing makes the network put an object into the same slot twice. It may hand an
object from one slot to another over several frames, and let two slots share it meanwhile. Tracks therefore follow
pixels: a track remembers the pixels its object covered lately, and each frame's slots compete for it with the pixels
that they own (`slots.owned_pixels`), all at once (SciPy's assignment), at the least total cost:

    cost = trust * (min_overlap - overlap + claim) + (1 - trust) * (distance - max_distance)
    trust = overlap_weight * exp(-age / overlap_memory)

`overlap` is the Tanimoto coefficient of the two masks, `claim` how much more of the slot lay on another track's pixels
than on this one's, and `distance` the squared Hellinger distance of the two latent Gaussians, averaged over the latents
in use. All lie in [0, 1]; overlap and distance count against limits of their own. A slot that no track continues at a
cost below zero is something new. Where something was says a lot a tenth of a second later and little after a second:
trust in the overlap fades with the track's age, so that an object re-enters by its latent. Where the camera turns, what
tracks remember is first moved with the picture.

Where two objects pass each other the network may swap their slots, and each slot then holds parts of both for some
frames. A pixel that another object remembers more firmly is therefore taken over slowly and given up slowly
(`contest`): the id goes to the slot with most of the object that the id stands for, and not to wherever its slot goes.

What is new has to last before it gets a track id, as is usual where detections are noisy (SORT, Bewley et al. 2016):
`min_sightings` frames. A new slot that lies on the pixels of an object known already is a fragment of it: that
object's track remembers the pixels of both, so that its id goes to whichever holds more of the object, and the other
has none. Only a fragment that lasts for `fragment_time` becomes an object of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from monet_perception.picture_shift import NO_SHIFT, Shift
from monet_perception.similarity import latent_distance, mask_overlap
from monet_perception.slots import (
    MIN_AREA,
    MIN_CONFIDENCE,
    background_slots,
    mask_area,
    mask_confidence,
    mask_ownership,
    owned_pixels,
)
from monet_perception.stamps import STEP_BACK

Array = NDArray[np.float64]

NO_TRACK = -1
"""Track id of a slot that is empty, a fragment of another, or too new to have one."""
IN_PLACE_OVERLAP = 0.5
"""Overlap from which on a slot lies where its track did, so that it may be the same thing in another kind of mask."""
MOST_OF_A_PIXEL = 0.5
"""How much of a pixel other objects own where it is theirs: they own it then more than the track and background do."""
GAP_FRAMES = 5
"""Multiple of the usual time between two frames that is a gap, so that slow cameras and networks keep their tracks."""
LONGEST_INTERVAL = 10.0
"""Seconds between two frames that are a gap however slow the camera is, unless `max_absence` is longer."""
SHIFT_WITHIN = 0.3
"""Seconds between two frames up to which a shift of the picture counts: later, things have moved by themselves."""
_INTERVALS = 5
"""Times between frames, the last ones, whose median is the usual one."""


@dataclass(eq=False)
class Track:
    """What is remembered of one object or background.

    Attributes:
        mask: [H, W] float32 in [0, 1], the pixels it covered, fragments included, averaged over `mask_memory`.
        latent_mean, latent_log_sigma: [L], averaged over `latent_memory`.
        background: whether its last mask was background (`slots.background_slots`).
        first_seen, last_seen: stamps in seconds.
        sightings: number of frames in which it was seen.
        track_id: given once it is confirmed, and never to anything else as long as the tracker lives; -1 until then.
        missed_since: stamp of the first frame without it, since it was last seen; None while it is seen.
    """

    mask: NDArray[np.float32]
    latent_mean: Array
    latent_log_sigma: Array
    background: bool
    first_seen: float
    last_seen: float
    sightings: int = 1
    track_id: int = NO_TRACK
    missed_since: float | None = None

    @property
    def confirmed(self) -> bool:
        """Whether it lasted long enough to have an id."""
        return self.track_id != NO_TRACK


_Host = tuple[Track, NDArray[np.float32]]
"""An object that may have fragments, and the pixels [H, W] by which they are told."""


@dataclass(frozen=True)
class _Frame:
    """Slots of one frame: [K, ...] each."""

    masks: NDArray[np.float32]
    owned: NDArray[np.float32]
    mean: Array
    log_sigma: Array
    background: NDArray[np.bool_]
    stamp: float

    @cached_property
    def foreground(self) -> NDArray[np.float32]:
        """How much objects own of each pixel, [H, W] in [0, 1]."""
        owned: NDArray[np.float32] = self.owned[~self.background].sum(axis=0)
        return owned

    @cached_property
    def _totals(self) -> Array:
        return self.masks.sum(axis=(1, 2)).astype(np.float64)

    def shares_within(self, others: Sequence[NDArray[np.float32]]) -> Array:
        """Share of each slot's mask that lies within each of N other masks [H, W]: [N, K] in [0, 1]."""
        # One matrix product in float32: of soft masks of 4096 pixels it is right to five digits.
        flat = np.asarray(others, np.float32).reshape(len(others), -1)
        within = (flat @ self.masks.reshape(len(self.masks), -1).T).astype(np.float64)
        return np.divide(within, self._totals, out=np.zeros_like(within), where=self._totals > 0)


# Ranges of settings: what a value must be, and whether it is.
_AT_LEAST_0 = {"must": "be at least 0", "holds": lambda value: value >= 0}
_ABOVE_0 = {"must": "be above 0", "holds": lambda value: value > 0}
_SHARE = {"must": "lie in [0, 1]", "holds": lambda value: 0 <= value <= 1}
_AT_LEAST_1 = {"must": "be at least 1", "holds": lambda value: value >= 1}


@dataclass(frozen=True)
class TrackerSettings:
    """What a tracker goes by.

    Attributes:
        max_absence: seconds a track may be missing, from the first frame that lacks it, before it is forgotten.
            Counted so, and not from when it was last seen, because a slow network must not lose its objects between
            two frames. Where no frame came for longer (and for `GAP_FRAMES` times the usual), all are forgotten.
        min_area: smallest share of the image that a slot has to own, or it is empty.
        min_confidence: smallest `slots.mask_confidence`, or the slot is empty.
        min_ownership: smallest `slots.mask_ownership`, or the slot is empty.
        min_sightings: frames in a row in which something new has to be seen to be confirmed.
        min_overlap: overlap with the last mask that neither speaks for a slot nor against it.
        max_distance: latent distance that neither speaks for a slot nor against it.
        overlap_weight: trust in the overlap between frames in immediate succession.
        overlap_memory: seconds after which trust in the overlap has fallen to 37 %.
        mask_memory: seconds over which a track's mask is averaged: long enough for an object to change slots, short
            enough for it to move.
        contest: how much a pixel resists a change of owner between two objects: 0 not at all, at 1 it never changes.
        fragment_share: share of a new slot's mask that has to lie on an object's pixels to make it a fragment of that
            object.
        fragment_time: seconds after which a fragment becomes an object of its own.
        latent_drift: how far a latent of one object wanders (standard deviation, in latent units) in one second.
        latent_memory: seconds over which a track's latent is averaged: views cut by the border of the image, the last
            ones before an object leaves, should not be all that is remembered of it.

    Raises:
        ValueError: a value is out of its range.
    """

    max_absence: float = field(default=1.0, metadata=_AT_LEAST_0)
    min_area: float = field(default=MIN_AREA, metadata=_AT_LEAST_0)
    min_confidence: float = field(default=MIN_CONFIDENCE, metadata=_SHARE)
    min_ownership: float = field(default=0.3, metadata=_SHARE)
    min_sightings: int = field(default=3, metadata=_AT_LEAST_1)
    min_overlap: float = field(default=0.1, metadata=_SHARE)
    max_distance: float = field(default=0.45, metadata=_SHARE)
    overlap_weight: float = field(default=0.7, metadata=_SHARE)
    overlap_memory: float = field(default=1.0, metadata=_ABOVE_0)
    mask_memory: float = field(default=0.3, metadata=_ABOVE_0)
    contest: float = field(default=0.85, metadata=_SHARE)
    fragment_share: float = field(default=0.3, metadata=_SHARE)
    fragment_time: float = field(default=1.5, metadata=_AT_LEAST_0)
    latent_drift: float = field(default=0.3, metadata=_AT_LEAST_0)
    latent_memory: float = field(default=0.3, metadata=_ABOVE_0)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not setting.metadata["holds"](value):
                raise ValueError(f"{setting.name} must {setting.metadata['must']}, is {value}")


DEFAULT_SETTINGS = TrackerSettings()


class Tracker:
    """Gives the slots of successive frames track ids that stay with their objects.

    Ids count up from 0 and are never used twice, not even after a reset. Slots get -1 that are empty, that are
    fragments of an object whose id another slot has, or that hold something not yet confirmed. What is there in the
    first frame is confirmed at once. The order of the slots within a frame doesn't matter. A stamp that goes back by
    `STEP_BACK` or more (a bag that starts again) forgets all tracks, and so does a gap between two frames, after which
    nothing says that what is there was there before. One tracker serves one camera; it isn't thread-safe.

    Attributes:
        settings: what it goes by; others may take their place at any time, also from another thread.
        resets: how often `update` forgot all tracks: a gap, a stamp that went back, or another network.
    """

    def __init__(self, settings: TrackerSettings = DEFAULT_SETTINGS) -> None:
        self.settings = settings
        self.resets = 0
        self._next_id = 0
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks; ids go on counting from where they were."""
        self._tracks: list[Track] = []
        self._stamp = -math.inf
        self._started = False

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The tracks alive: those in the last frame, those that may come back, and those not yet confirmed."""
        return tuple(self._tracks)

    def update(
        self,
        masks: ArrayLike,
        latent_mean: ArrayLike,
        latent_log_sigma: ArrayLike,
        stamp: float,
        shift: Shift = NO_SHIFT,
    ) -> NDArray[np.int32]:
        """Takes the next frame and says which track each of its slots continues.

        Args:
            masks: [K, H, W] in [0, 1].
            latent_mean, latent_log_sigma: [K, L].
            stamp: when the frame was taken, in seconds.
            shift: by how many mask pixels the picture moved as a whole since the last frame, right and down
                (`PictureShift`): where the camera turns, what is remembered of objects goes with them.
        Returns:
            Track ids, int32 [K]; -1 for a slot without one (see above), otherwise all different.
        Raises:
            ValueError: shapes don't fit together, or a value isn't finite. The tracks are then as they were before.
        """
        masks, mean, log_sigma = _checked(masks, latent_mean, latent_log_sigma, stamp, shift)
        if 0 < self._stamp - stamp < STEP_BACK:  # counts as no time passed
            stamp = self._stamp
        self._pass(stamp - self._stamp, shift, self._incompatible(masks, mean))
        frame = _Frame(masks, owned_pixels(masks), mean, log_sigma, background_slots(masks), stamp)
        slots = self._trackable(frame)
        known = self._assign([track for track in self._tracks if track.confirmed], slots, frame)
        # Masks as they were before this frame: by them fragments are recognised.
        hosts = [(track, track.mask) for track in known.values() if not track.background]
        for slot, track in known.items():
            rivals = [mask for host, mask in hosts if host is not track]
            self._continue(track, slot, frame, rivals)
        seen = known | self._follow_new([slot for slot in slots if slot not in known], frame, hosts)
        self._bury(list(seen.values()), stamp)
        self._stamp, self._started = stamp, self._started or bool(slots)
        ids = np.full(len(masks), NO_TRACK, np.int32)
        for slot, track in seen.items():
            ids[slot] = track.track_id
        return ids

    def _move(self, shift: Shift) -> None:
        """Moves the pixels that tracks remember; backgrounds go on beyond the edge of the image, objects don't."""
        matrix = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]])
        for track in self._tracks:
            border = cv2.BORDER_REPLICATE if track.background else cv2.BORDER_CONSTANT
            size = track.mask.shape[::-1]
            track.mask = np.asarray(cv2.warpAffine(track.mask, matrix, size, borderMode=border), np.float32)

    def _is_gap(self, passed: float) -> bool:
        """Whether so much time passed since the last frame that its tracks say nothing of this one."""
        if not math.isfinite(passed):  # the first frame
            return False
        usual = float(np.median(self._intervals)) if self._intervals else math.inf
        return passed > max(self.settings.max_absence, min(GAP_FRAMES * usual, LONGEST_INTERVAL))

    def _pass(self, passed: float, shift: Shift, incompatible: bool) -> None:
        """Lets the seconds since the last frame pass: the tracks go along with the picture, or are forgotten."""
        if passed < 0 or self._is_gap(passed) or incompatible:
            self.resets += bool(self._tracks)
            self.reset()
        if passed < 0:  # another run, perhaps at another rate
            self._intervals.clear()
        if 0 <= passed < math.inf:
            self._intervals.append(passed)
        if shift != NO_SHIFT and passed <= SHIFT_WITHIN:
            self._move(shift)

    def _incompatible(self, masks: NDArray[np.float32], mean: Array) -> bool:
        """Whether the frame comes from another network (mask or latent size) than the tracks."""
        return bool(self._tracks) and (
            self._tracks[0].mask.shape != masks.shape[1:] or self._tracks[0].latent_mean.shape != mean.shape[1:]
        )

    def _trackable(self, frame: _Frame) -> list[int]:
        """Slots that a track may continue or begin with, the strongest first: of two that share an object the weaker
        one is the fragment.

        Stricter than `slots.occupied_slots`, which takes a slot by its mask alone: the area is here that of the pixels
        it owns, and enough of the mask has to lie on them. A slot spread thinly over what others own is occupied and
        has no track.
        """
        settings = self.settings
        holds = (
            (mask_area(frame.owned) >= settings.min_area)
            & (mask_confidence(frame.masks) >= settings.min_confidence)
            & (mask_ownership(frame.masks, frame.owned) >= settings.min_ownership)
        )
        strength = np.einsum("khw,khw->k", frame.masks, frame.masks)
        return [int(slot) for slot in np.argsort(-strength, kind="stable") if holds[slot]]

    def _assign(self, tracks: list[Track], slots: list[int], frame: _Frame) -> dict[int, Track]:
        """Track of each slot that has one, by the cheapest assignment, without pairs worse than a birth."""
        if not tracks or not slots:
            return {}
        settings = self.settings
        age = np.array([frame.stamp - track.last_seen for track in tracks])[:, None]
        overlap = mask_overlap(np.stack([track.mask for track in tracks]), frame.owned[slots])
        distance = latent_distance(
            np.stack([track.latent_mean for track in tracks]),
            np.stack([track.latent_log_sigma for track in tracks]),
            frame.mean[slots],
            frame.log_sigma[slots],
            drift=np.broadcast_to(settings.latent_drift * np.sqrt(age), overlap.shape),
        )
        claim = self._claims(tracks, frame)[:, slots]
        trust = settings.overlap_weight * np.exp(-age / settings.overlap_memory)
        cost = trust * (settings.min_overlap - overlap + claim) + (1 - trust) * (distance - settings.max_distance)
        # A wall doesn't become a cup: only a mask that grew or shrank in place may change its kind.
        changed = np.array([track.background for track in tracks])[:, None] != frame.background[slots][None]
        cost[changed & (overlap < IN_PLACE_OVERLAP)] = 1.0
        # Clipped at zero, the price of a birth, so that no good pair is given up to make a hopeless one less bad.
        rows, columns = linear_sum_assignment(np.minimum(cost, 0.0))
        return {slots[c]: tracks[r] for r, c in zip(rows, columns, strict=True) if cost[r, c] < 0}

    @staticmethod
    def _claims(tracks: list[Track], frame: _Frame) -> Array:
        """How much more of each slot lies on some other object seen in the last frame than on each track, [N, K] in
        [0, 1]; 0 where no other object has more."""
        share = frame.shares_within([track.mask for track in tracks])
        may_claim = np.array(
            [track.confirmed and not track.background and track.missed_since is None for track in tracks]
        )
        # The maximum may be the track's own share, which makes a claim of zero.
        largest = np.where(may_claim[:, None], share, 0.0).max(axis=0)
        return np.clip(largest - share, 0.0, 1.0)

    def _follow_new(self, slots: list[int], frame: _Frame, hosts: list[_Host]) -> dict[int, Track]:
        """Track of each slot that no confirmed track continues: tentative or born now, and confirmed if it is time.

        Fragments go to the masks of their hosts; what is an object is a host to the slots after it.
        """
        tentative = self._assign([track for track in self._tracks if not track.confirmed], slots, frame)
        renewal = _renewal(frame.stamp - self._stamp, self.settings.mask_memory)
        seen = {}
        for slot in slots:
            seen[slot] = track = tentative.get(slot) or self._birth(slot, frame)
            if slot in tentative:
                self._continue(track, slot, frame)
            host = self._host(slot, frame, hosts)
            if host is not None:
                host.mask = np.minimum(host.mask + renewal * frame.owned[slot], 1)
            elif not track.background:
                hosts.append((track, track.mask))
            self._confirm(track, host, frame.stamp)
        return seen

    def _host(self, slot: int, frame: _Frame, hosts: list[_Host]) -> Track | None:
        """The object that a new slot is a fragment of: the one with most of the slot, if that is enough."""
        if frame.background[slot] or not hosts:
            return None
        shares = frame.shares_within([mask for _, mask in hosts])[:, slot]
        return hosts[int(np.argmax(shares))][0] if shares.max() >= self.settings.fragment_share else None

    def _confirm(self, track: Track, host: Track | None, stamp: float) -> None:
        """Gives a track an id that has been seen often enough, or for long enough as a fragment of its host."""
        if host is None:
            lasted = not self._started or track.sightings >= self.settings.min_sightings
        else:
            lasted = stamp - track.first_seen >= self.settings.fragment_time
        if lasted:
            track.track_id = self._next_id
            self._next_id += 1

    def _continue(self, track: Track, slot: int, frame: _Frame, rivals: Sequence[NDArray[np.float32]] = ()) -> None:
        """Takes a slot into its track. The mask before `last_seen`, by which it is known how old the track is."""
        renewal = _renewal(frame.stamp - track.last_seen, self.settings.latent_memory)
        track.latent_mean = track.latent_mean + renewal * (frame.mean[slot] - track.latent_mean)
        track.latent_log_sigma = track.latent_log_sigma + renewal * (frame.log_sigma[slot] - track.latent_log_sigma)
        track.mask = self._renewed(track, slot, frame, rivals)
        track.background = bool(frame.background[slot])
        track.last_seen = frame.stamp
        track.sightings += 1
        track.missed_since = None

    def _renewed(
        self, track: Track, slot: int, frame: _Frame, rivals: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """The track's mask [H, W], updated by its slot's pixels; `rivals`: the other objects' masks before this frame.

        Of pixels that a rival remembers better, the track takes only a part; and where it remembers a pixel better than
        its rivals do, but another object has most of it now, the track gives up only a part.
        """
        owned = frame.owned[slot]
        renewal = np.float32(_renewal(frame.stamp - track.last_seen, self.settings.mask_memory))
        if not rivals or frame.background[slot]:
            return track.mask + renewal * (owned - track.mask)
        rival = reduce(np.maximum, rivals)
        contest = self.settings.contest
        taken = owned * (1.0 - np.float32(contest) * np.maximum(rival - track.mask, 0.0))
        lost = (frame.foreground - owned > MOST_OF_A_PIXEL) & (track.mask > rival)
        return track.mask + renewal * np.where(lost, np.float32(1.0 - contest), 1.0) * (taken - track.mask)

    def _birth(self, slot: int, frame: _Frame) -> Track:
        """A new, tentative track of a slot."""
        # Copies: a view would keep the whole batch of masks alive, and follow what the caller writes into it.
        background = bool(frame.background[slot])
        mask, mean, log_sigma = (part[slot].copy() for part in (frame.owned, frame.mean, frame.log_sigma))
        track = Track(mask, mean, log_sigma, background, first_seen=frame.stamp, last_seen=frame.stamp)
        self._tracks.append(track)
        return track

    def _bury(self, seen: list[Track], stamp: float) -> None:
        """Notes which tracks this frame lacks. Forgets those missing for longer than `max_absence`, and new ones."""
        longest = self.settings.max_absence
        for track in self._tracks:
            if track.missed_since is None and track not in seen:
                track.missed_since = stamp
        self._tracks = [
            track
            for track in self._tracks
            if track.missed_since is None or (track.confirmed and stamp - track.missed_since <= longest)
        ]


def _renewal(passed: float, memory: float) -> float:
    """Weight of what is seen now in an average over `memory` seconds, `passed` seconds after what was seen last."""
    return 1.0 - math.exp(-passed / memory)


def _checked(
    masks: ArrayLike, latent_mean: ArrayLike, latent_log_sigma: ArrayLike, stamp: float, shift: Shift
) -> tuple[NDArray[np.float32], Array, Array]:
    masks = np.asarray(masks, np.float32)
    mean, log_sigma = np.asarray(latent_mean, np.float64), np.asarray(latent_log_sigma, np.float64)
    if masks.ndim != 3 or not len(masks) or min(masks.shape[1:]) < 2:
        raise ValueError(f"masks must be [K, H, W] with K >= 1 and H and W of at least 2, are {list(masks.shape)}")
    if mean.ndim != 2 or mean.shape != log_sigma.shape or len(mean) != len(masks):
        raise ValueError(
            f"latent_mean and latent_log_sigma must both be [K, L] with K = {len(masks)} as in masks, "
            f"are {list(mean.shape)} and {list(log_sigma.shape)}"
        )
    numbers: dict[str, ArrayLike] = {"masks": masks, "latent_mean": mean, "latent_log_sigma": log_sigma}
    for name, values in {**numbers, "stamp": stamp, "shift": shift}.items():
        if not np.isfinite(np.asarray(values)).all():
            raise ValueError(f"{name} holds values that are not finite")
    return masks, mean, log_sigma
