"""Landmarks: fuses where slots were seen, frame after frame, into points in the world with covariance.

What errs in one frame errs in the next: which side of an object is seen and what hides it depends on the viewpoint,
and that changes slowly. A plain Kalman filter would take a hundred such frames for a hundred opinions. Here an
observation's error is split into noise, which is filtered, and a bias, which is only considered (Schmidt 1966): it
never averages out, and a landmark's covariance is the filter's plus the bias's.

Which landmark a slot belongs to is said first by its track id, checked against the Mahalanobis distance; a slot whose
track is new, or whose track jumped, is assigned by that distance and the distance of the latents.

Segmentation errs too, and a map has to live with it:
- Two landmarks in the same place are one object that the network put into two slots, or took up again with another
  latent: they are merged.
- A landmark that should be seen, because it is in view with nothing before it, and isn't, is evidence against it (the
  idea of existence probabilities, Musicki and Evans 2004, in its simplest form: seconds that count against it, paid
  back by seconds in which it is seen).
- A landmark whose place was never known well is held back: `landmarks(max_sigma=...)`. What a slot that took a piece of
  wall leaves behind is of this kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from monet_perception.depth_noise import depth_step
from monet_perception.geometry import SlotGeometry
from monet_perception.projection import Intrinsics
from monet_perception.region import Region
from monet_perception.similarity import latent_distance

Array = NDArray[np.float64]

VIEW_MARGIN = 0.1
"""Share of the picture's size along its edge where an object may be missed, because only part of it shows."""


@dataclass(frozen=True)
class Observation:
    """One slot of one frame, in the world.

    Attributes:
        track: its track id.
        position: [3] metres.
        covariance: [3, 3], of the error of `position`.
        extent: [3] metres, along the axes of the camera.
        latent_mean, latent_log_sigma: [L].
    """

    track: int
    position: Array
    covariance: Array
    extent: Array
    latent_mean: Array
    latent_log_sigma: Array


def to_world(
    camera: Array, track: int, geometry: SlotGeometry, latent_mean: ArrayLike, latent_log_sigma: ArrayLike
) -> Observation:
    """A slot's geometry moved into the world by the camera's pose [4, 4] (optical frame to world)."""
    rotation = camera[:3, :3]
    return Observation(
        track=track,
        position=rotation @ geometry.centroid + camera[:3, 3],
        covariance=rotation @ geometry.covariance @ rotation.T,
        extent=geometry.extent,
        latent_mean=np.asarray(latent_mean, np.float64),
        latent_log_sigma=np.asarray(latent_log_sigma, np.float64),
    )


@dataclass(frozen=True)
class View:
    """What the camera could see in one frame.

    Attributes:
        camera: [4, 4], its pose (optical frame to world).
        intrinsics: of the image.
        roi: the pixels that count.
        depth: [h, w] metres along z, registered to the image; zero, negative, NaN and infinity are holes. None:
            unknown, so that whatever isn't seen may be behind something.
    """

    camera: Array
    intrinsics: Intrinsics
    roi: Region
    depth: NDArray[np.floating] | None = None

    def contains(self, position: Array) -> bool:
        """Whether a point [3] of the world is in the picture, at least `VIEW_MARGIN` of its size away from the edge."""
        (pixel,) = self.intrinsics.project([self._in_camera(position)])
        place = (pixel - [self.roi.x, self.roi.y]) / [self.roi.width, self.roi.height]
        return bool(((place >= VIEW_MARGIN) & (place <= 1 - VIEW_MARGIN)).all())  # NaN: out of the lens's sight

    def reaches(self, position: Array, margin: float) -> bool:
        """Whether sight goes as far as a point [3] of the world, or to `margin` metres before it.

        Not where the depth at its pixel is a hole, for what is there is unknown. Depth of another resolution than the
        image is looked up at the same place.
        """
        point = self._in_camera(position)
        (pixel,) = self.intrinsics.project([point])
        if self.depth is None or not np.isfinite(pixel).all():
            return False
        height, width = self.depth.shape
        column, row = np.floor((pixel + 0.5) * [width / self.intrinsics.width, height / self.intrinsics.height])
        if not (0 <= column < width and 0 <= row < height):
            return False
        z = float(self.depth[int(row), int(column)])
        return math.isfinite(z) and z > 0 and bool(z >= point[2] - margin - depth_step(point[2]))

    def _in_camera(self, position: Array) -> Array:
        """A point [3] of the world in the optical frame."""
        return self.camera[:3, :3].T @ (position - self.camera[:3, 3])

    def hides(self, near: Observation, position: Array) -> bool:
        """Whether an observation stands before a point of the world: nearer, and at least in part on the same ray."""
        ray, other = position - self.camera[:3, 3], near.position - self.camera[:3, 3]
        distance = float(np.linalg.norm(ray))
        along = float(ray @ other) / distance
        beside = float(np.linalg.norm(other - along * ray / distance))
        return 0 < along < distance and beside < float(np.max(near.extent[:2]))


@dataclass(eq=False)
class Landmark:
    """One object of the map.

    Attributes:
        position: [3] in the world.
        noise, bias: [3, 3], covariances of the two parts of its error.
        extent: [3], mean over the observations.
        latent_mean, latent_log_sigma: [L], mean over the observations.
        tracks: ids of the tracks that were fused into it.
        observations: how many.
        last_seen: stamp in seconds.
        sharpest: the least `sigma` that it ever had, metres.
        missed: seconds in which it should have been seen and wasn't, less those in which it was seen since.
    """

    position: Array
    noise: Array
    bias: Array
    extent: Array
    latent_mean: Array
    latent_log_sigma: Array
    last_seen: float
    tracks: set[int] = field(default_factory=set)
    observations: int = 1
    sharpest: float = math.inf
    missed: float = 0.0

    def __post_init__(self) -> None:
        self.sharpest = min(self.sharpest, self.sigma)

    @property
    def sigma(self) -> float:
        """Standard deviation of its position, metres: the root of the covariance's trace."""
        return math.sqrt(np.trace(self.covariance))

    @property
    def covariance(self) -> Array:
        """[3, 3], of the error of `position`."""
        return self.noise + self.bias


class LandmarkMap:
    """The landmarks known so far.

    Args:
        gate: probability with which an observation of a landmark falls within its gate (chi-square, 3 degrees of
        freedom).
        noise_share: share of an observation's standard deviation that differs from frame to frame; the rest is bias.
        max_latent_distance: largest `similarity.latent_distance` at which a new track continues an old landmark.
        latent_drift: standard deviation by which the latents of an object may have moved from those of its landmark.
        motion: standard deviation in metres by which an object may wander in one second; 0 for a static scene.
        patience: seconds for which a landmark may be in view and not be seen before it is given up. Only frames count
            whose view is known, with depth.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        *,
        gate: float = 0.999,
        noise_share: float = 0.3,
        # In twenty rooms, of halves of walks: 92 % of the observations of an object are within 0.24 of its landmark,
        # and 14 % of those of others. Without drift, views of one object are nearly as far apart as two objects: an
        # area under the ROC of 0.83 instead of 0.95, and a gate of 0.6 left out 80 % of the same object's.
        max_latent_distance: float = 0.24,
        latent_drift: float = 0.4,
        motion: float = 0.05,
        patience: float = 2.0,
    ) -> None:
        if not 0 < gate < 1:
            raise ValueError(f"gate must lie between 0 and 1, is {gate}")
        for name, value in (("noise_share", noise_share), ("max_latent_distance", max_latent_distance)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], is {value}")
        for name, value in (("latent_drift", latent_drift), ("motion", motion), ("patience", patience)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, is {value}")
        self.gate = float(chi2.ppf(gate, df=3))
        self.noise_share = noise_share
        self.max_latent_distance = max_latent_distance
        self.latent_drift = latent_drift
        self.motion = motion
        self.patience = patience
        self._landmarks: list[Landmark] = []
        self._of_track: dict[int, Landmark] = {}
        self._stamp: float | None = None

    def landmarks(self, min_observations: int = 1, max_sigma: float = math.inf) -> list[Landmark]:
        """The map at the last update, in order of first sight, without what is likely an error of segmentation.

        The covariance of what hasn't been seen for long has grown by how far it may have wandered since.

        Args:
            min_observations: frames in which a landmark has to have been seen.
            max_sigma: metres to which its position has to have been known (`Landmark.sigma`) at least once: when half
                of an object is hidden later on, it doesn't vanish.
        """
        return [
            replace(landmark, noise=self._predicted(landmark, self._stamp))
            for landmark in self._landmarks
            if landmark.observations >= min_observations and landmark.sharpest <= max_sigma
        ]

    def update(self, observations: Sequence[Observation], stamp: float, view: View | None = None) -> None:
        """Fuses the observations of one frame. No landmark takes two of them.

        Args:
            observations: of the slots of one frame.
            stamp: of the frame, in seconds.
            view: what the camera could see; None: unknown, so that what isn't seen may just be out of view.
        """
        taken: set[int] = set()
        strangers = []
        for observation in observations:
            landmark = self._of_track.get(observation.track)
            if landmark is None or id(landmark) in taken or self._distance(landmark, observation, stamp) > self.gate:
                strangers.append(observation)
                continue
            taken.add(id(landmark))
            self._fuse(landmark, observation, stamp)
        free = [landmark for landmark in self._landmarks if id(landmark) not in taken]
        matches = self._assign(free, strangers, stamp)
        for index, observation in enumerate(strangers):
            if index in matches:
                landmark = free[matches[index]]
                self._fuse(landmark, observation, stamp)
            else:
                landmark = self._new_landmark(observation, stamp)
                self._landmarks.append(landmark)
            self._of_track[observation.track] = landmark
            landmark.tracks.add(observation.track)
        self._merge({id(self._of_track[observation.track]) for observation in observations})
        self._give_up(observations, stamp, view)
        self._stamp = stamp

    def _merge(self, moved: set[int]) -> None:
        """Makes one landmark of two that lie within each other: the one seen less often goes, its place is fused.

        Two objects can't share a place, so an object that is put where another was takes over its landmark. On a map of
        places that is right. Otherwise a landmark whose object comes back with another latent would stay for ever: the
        object itself hides the place, and what is hidden is never found to be gone.

        Args:
            moved: ids of the landmarks that moved: of two that didn't it is known that they lie apart.
        """
        while moved:
            moved = self._merge_moved(moved)

    def _merge_moved(self, moved: set[int]) -> set[int]:
        """One round of `_merge`; returns the landmarks that took another in."""
        grown, gone = set(), set()
        by_sightings = sorted(self._landmarks, key=lambda landmark: -landmark.observations)
        for index, landmark in enumerate(by_sightings):
            if id(landmark) in gone:
                continue  # merged away just now: what it took would be on no map
            for other in by_sightings[index + 1 :]:
                if id(other) in gone or moved.isdisjoint((id(landmark), id(other))):
                    continue
                if self._same_place(landmark, other):
                    last = max(landmark.last_seen, other.last_seen)
                    self._correct(landmark, other.position, self._predicted(other, last), other.bias, last)
                    landmark.tracks |= other.tracks
                    self._forget(other, landmark)
                    gone.add(id(other))
                    grown.add(id(landmark))
        return grown

    def _same_place(self, landmark: Landmark, other: Landmark) -> bool:
        """Whether two landmarks lie in one place: within the gate, and the middle of one within the other."""
        offset = landmark.position - other.position
        if np.linalg.norm(offset) >= max(_radius(landmark), _radius(other)):  # true of nearly all, and quick
            return False
        # As they were last seen: that either may have wandered off since is no evidence that it is in the other.
        return _mahalanobis(offset, landmark.covariance + other.covariance) <= self.gate

    def _give_up(self, observations: Sequence[Observation], stamp: float, view: View | None) -> None:
        """Counts the time in which landmarks in view weren't seen, and forgets those for which it is too long."""
        if view is None or self._stamp is None:
            return
        passed = max(stamp - self._stamp, 0.0)
        for landmark in list(self._landmarks):
            if landmark.last_seen == stamp:
                landmark.missed = max(landmark.missed - passed, 0.0)
            elif _in_sight(landmark, observations, view):
                landmark.missed += passed
                if landmark.missed > self.patience:
                    self._forget(landmark, None)

    def _forget(self, landmark: Landmark, heir: Landmark | None) -> None:
        """Takes a landmark off the map; its tracks go on with its heir."""
        self._landmarks = [kept for kept in self._landmarks if kept is not landmark]
        for track in [track for track, owner in self._of_track.items() if owner is landmark]:
            if heir is None:
                del self._of_track[track]
            else:
                self._of_track[track] = heir

    def _assign(self, landmarks: list[Landmark], observations: list[Observation], stamp: float) -> dict[int, int]:
        """Landmark of each observation that has one: by Mahalanobis and latent distance, each in shares of its gate."""
        if not landmarks or not observations:
            return {}
        latent = latent_distance(
            np.stack([o.latent_mean for o in observations]),
            np.stack([o.latent_log_sigma for o in observations]),
            np.stack([m.latent_mean for m in landmarks]),
            np.stack([m.latent_log_sigma for m in landmarks]),
            self.latent_drift,
        )
        distance = np.array([[self._distance(landmark, o, stamp) for landmark in landmarks] for o in observations])
        possible = (distance <= self.gate) & (latent <= self.max_latent_distance)
        cost = np.where(possible, distance / self.gate + latent / self.max_latent_distance, 2.0)
        rows, columns = linear_sum_assignment(cost)
        return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if possible[r, c]}

    def _predicted(self, landmark: Landmark, stamp: float | None) -> Array:
        """[3, 3], a landmark's noise at a later stamp, grown by how far it may have wandered until then."""
        unseen = 0.0 if stamp is None else max(stamp - landmark.last_seen, 0.0)
        return landmark.noise + np.eye(3) * self.motion**2 * unseen

    def _distance(self, landmark: Landmark, observation: Observation, stamp: float) -> float:
        """Squared Mahalanobis distance of an observation from where a landmark may be at its stamp."""
        covariance = self._predicted(landmark, stamp) + landmark.bias + observation.covariance
        return _mahalanobis(observation.position - landmark.position, covariance)

    def _fuse(self, landmark: Landmark, observation: Observation, stamp: float) -> None:
        noise = observation.covariance * self.noise_share**2
        self._correct(landmark, observation.position, noise, observation.covariance - noise, stamp)
        landmark.observations += 1
        share = 1.0 / landmark.observations
        landmark.extent = landmark.extent + share * (observation.extent - landmark.extent)
        landmark.latent_mean = landmark.latent_mean + share * (observation.latent_mean - landmark.latent_mean)
        landmark.latent_log_sigma = landmark.latent_log_sigma + share * (
            observation.latent_log_sigma - landmark.latent_log_sigma
        )

    def _correct(self, landmark: Landmark, position: Array, noise: Array, bias: Array, stamp: float) -> None:
        """Kalman update of a wandering point by where it was seen, in Joseph's form (stays symmetric and positive)."""
        prior = self._predicted(landmark, stamp)
        gain = np.linalg.solve(prior + noise, prior).T
        keep = np.eye(3) - gain
        landmark.position = landmark.position + gain @ (position - landmark.position)
        landmark.noise = keep @ prior @ keep.T + gain @ noise @ gain.T
        # The bias is that of the observations the position is made of, in the shares in which it is made of them.
        renewal = np.trace(gain) / 3
        landmark.bias = landmark.bias + renewal * (bias - landmark.bias)
        landmark.last_seen = stamp
        landmark.sharpest = min(landmark.sharpest, landmark.sigma)

    def _new_landmark(self, observation: Observation, stamp: float) -> Landmark:
        return Landmark(
            observation.position,
            observation.covariance * self.noise_share**2,
            observation.covariance * (1 - self.noise_share**2),
            observation.extent,
            observation.latent_mean,
            observation.latent_log_sigma,
            last_seen=stamp,
        )


def _mahalanobis(offset: Array, covariance: Array) -> float:
    """Squared Mahalanobis length of an offset [3] whose covariance is [3, 3]."""
    return float(offset @ np.linalg.solve(covariance, offset))


def _in_sight(landmark: Landmark, observations: Sequence[Observation], view: View) -> bool:
    """Whether a landmark should be seen: in the picture, and neither background nor another object is before it.

    What depth shows less than half a landmark's width before it is the landmark, or the wall that a slot took up.
    """
    return (
        view.contains(landmark.position)
        and view.reaches(landmark.position, _radius(landmark))
        and not any(view.hides(observation, landmark.position) for observation in observations)
    )


def _radius(landmark: Landmark) -> float:
    """Half the visible width of a landmark, metres."""
    return float(np.sqrt(landmark.extent[0] * landmark.extent[1])) / 2
