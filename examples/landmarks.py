"""Landmarks: fuses where slots were seen, frame after frame, into points in the world with covariance.

What errs in one frame errs in the next: which side of an object is seen and what hides it depends on the viewpoint,
and that changes slowly. A plain Kalman filter would take a hundred such frames for a hundred opinions. Here an
observation's error is split into noise, which is filtered, and a bias, which is only considered (Schmidt 1966): it
never averages out, and a landmark's covariance is the filter's plus the bias's.

Which landmark a slot belongs to is said first by its track id, checked against the Mahalanobis distance; a slot whose
track is new, or whose track jumped, is assigned by that distance and the distance of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from monet_perception.geometry import SlotGeometry
from monet_perception.tracking import latent_distance

Array = NDArray[np.float64]


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


@dataclass
class Landmark:
    """One object of the map.

    Attributes:
        position: [3] in the world.
        noise, bias: [3, 3], covariances of the two parts of its error.
        extent: [3], mean over the observations.
        latent_mean, latent_log_sigma: [L], mean over the observations.
        tracks: ids of the tracks that were fused into it.
        observations: how many.
        first_seen, last_seen: stamps in seconds.
    """

    position: Array
    noise: Array
    bias: Array
    extent: Array
    latent_mean: Array
    latent_log_sigma: Array
    first_seen: float
    last_seen: float
    tracks: set[int] = field(default_factory=set)
    observations: int = 1

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
        max_latent_distance: largest `tracking.latent_distance` at which a new track continues an old landmark.
        motion: standard deviation in metres by which an object may wander in one second; 0 for a static scene.
    """

    def __init__(
        self,
        *,
        gate: float = 0.999,
        noise_share: float = 0.3,
        max_latent_distance: float = 0.6,
        motion: float = 0.05,
    ) -> None:
        self.gate = float(chi2.ppf(gate, df=3))
        self.noise_share = noise_share
        self.max_latent_distance = max_latent_distance
        self.motion = motion
        self._landmarks: list[Landmark] = []
        self._of_track: dict[int, Landmark] = {}

    def landmarks(self, min_observations: int = 1) -> list[Landmark]:
        """The map, in order of first sight; landmarks seen only now and then are often errors of segmentation."""
        return [landmark for landmark in self._landmarks if landmark.observations >= min_observations]

    def update(self, observations: Sequence[Observation], stamp: float) -> None:
        """Fuses the observations of one frame. No landmark takes two of them."""
        taken: set[int] = set()
        strangers = []
        for observation in observations:
            landmark = self._of_track.get(observation.track)
            if landmark is None or id(landmark) in taken or _mahalanobis(landmark, observation) > self.gate:
                strangers.append(observation)
                continue
            taken.add(id(landmark))
            self._fuse(landmark, observation, stamp)
        free = [landmark for landmark in self._landmarks if id(landmark) not in taken]
        matches = self._assign(free, strangers)
        for index, observation in enumerate(strangers):
            if index in matches:
                landmark = free[matches[index]]
                self._fuse(landmark, observation, stamp)
            else:
                landmark = self._new_landmark(observation, stamp)
                self._landmarks.append(landmark)
            self._of_track[observation.track] = landmark
            landmark.tracks.add(observation.track)

    def _assign(self, landmarks: list[Landmark], observations: list[Observation]) -> dict[int, int]:
        """Landmark of each observation that has one: by Mahalanobis and latent distance, each in shares of its gate."""
        if not landmarks or not observations:
            return {}
        latent = latent_distance(
            np.stack([o.latent_mean for o in observations]),
            np.stack([o.latent_log_sigma for o in observations]),
            np.stack([m.latent_mean for m in landmarks]),
            np.stack([m.latent_log_sigma for m in landmarks]),
        )
        distance = np.array([[_mahalanobis(landmark, o) for landmark in landmarks] for o in observations])
        possible = (distance <= self.gate) & (latent <= self.max_latent_distance)
        cost = np.where(possible, distance / self.gate + latent / self.max_latent_distance, 2.0)
        rows, columns = linear_sum_assignment(cost)
        return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if possible[r, c]}

    def _fuse(self, landmark: Landmark, observation: Observation, stamp: float) -> None:
        """Kalman update of a wandering point, in Joseph's form (stays symmetric and positive)."""
        prior = landmark.noise + np.eye(3) * self.motion**2 * max(stamp - landmark.last_seen, 0.0)
        noise = observation.covariance * self.noise_share**2
        gain = np.linalg.solve(prior + noise, prior).T
        keep = np.eye(3) - gain
        landmark.position = landmark.position + gain @ (observation.position - landmark.position)
        landmark.noise = keep @ prior @ keep.T + gain @ noise @ gain.T
        # The bias is that of the observations the position is made of, in the shares in which it is made of them.
        renewal = np.trace(gain) / 3
        bias = observation.covariance * (1 - self.noise_share**2)
        landmark.bias = landmark.bias + renewal * (bias - landmark.bias)
        landmark.observations += 1
        share = 1.0 / landmark.observations
        landmark.extent = landmark.extent + share * (observation.extent - landmark.extent)
        landmark.latent_mean = landmark.latent_mean + share * (observation.latent_mean - landmark.latent_mean)
        landmark.latent_log_sigma = landmark.latent_log_sigma + share * (
            observation.latent_log_sigma - landmark.latent_log_sigma
        )
        landmark.last_seen = stamp

    def _new_landmark(self, observation: Observation, stamp: float) -> Landmark:
        return Landmark(
            observation.position,
            observation.covariance * self.noise_share**2,
            observation.covariance * (1 - self.noise_share**2),
            observation.extent,
            observation.latent_mean,
            observation.latent_log_sigma,
            first_seen=stamp,
            last_seen=stamp,
        )


def _mahalanobis(landmark: Landmark, observation: Observation) -> float:
    """Squared Mahalanobis distance of an observation from a landmark."""
    offset = observation.position - landmark.position
    return float(offset @ np.linalg.solve(landmark.covariance + observation.covariance, offset))
