"""What a lens does to an image: from the rays that a camera sees to the pixels of a raw image, and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MODELS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
"""Distortion models of sensor_msgs/CameraInfo, by the numbers of coefficients that OpenCV takes for them."""
AGREES = 1e-3
"""Largest error, in units of the focal length, of a point that was found again: far beyond the image that it was fitted
to, a polynomial maps several rays to one pixel, or none."""
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
_ORIGIN = np.zeros(3)
# OpenCV 4 has another name for it where it is given criteria.
_undistort_points = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)


@dataclass(frozen=True)
class Distortion:
    """A distortion model with its coefficients, as OpenCV orders them; those that are left out are zero.

    Points are in units of the focal length, from the principal point: x / z and y / z of what is seen.

    Raises:
        ValueError: unknown model, more coefficients than it has, or one that isn't finite.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"distortion model {self.model[:40]!r} is not one of {', '.join(MODELS)}")
        if not np.isfinite(self.coefficients).all():
            raise ValueError(f"distortion coefficients must be finite: {self.coefficients}")
        if np.count_nonzero(self.coefficients[MODELS[self.model][-1] :]):
            raise ValueError(f"{self.model} has {MODELS[self.model][-1]} coefficients, not {len(self.coefficients)}")

    def distort(self, points: Array) -> Array:
        """Where points [N, 2] of a pinhole camera's image come to lie, [N, 2]; NaN where `undistort` doesn't agree."""
        if not len(points):  # OpenCV returns nothing for them
            return points
        distorted = self._distort(points)
        return np.where(_agree(self._undistort(distorted), points), distorted, np.nan)

    def undistort(self, points: Array) -> Array:
        """Points [N, 2] of the raw image as a pinhole camera sees them, [N, 2]; NaN where the lens sees nothing."""
        if not len(points):
            return points
        undistorted = self._undistort(points)
        return np.where(_agree(self._distort(undistorted), points), undistorted, np.nan)

    def _distort(self, points: Array) -> Array:
        if self.model == "equidistant":
            return np.asarray(cv2.fisheye.distortPoints(points[:, None], np.eye(3), self._padded)[:, 0])
        space = np.column_stack([points, np.ones(len(points))])
        return np.asarray(cv2.projectPoints(space, _ORIGIN, _ORIGIN, np.eye(3), self._padded)[0][:, 0])

    def _undistort(self, points: Array) -> Array:
        undo = cv2.fisheye.undistortPoints if self.model == "equidistant" else _undistort_points
        return np.asarray(undo(points[:, None], np.eye(3), self._padded, R=None, P=None, criteria=_CRITERIA)[:, 0])

    @property
    def _padded(self) -> Array:
        needed = np.trim_zeros(self.coefficients, "b")
        size = next(size for size in MODELS[self.model] if size >= len(needed))
        return np.pad(np.asarray(needed, np.float64), (0, size - len(needed)))


def _agree(found: Array, expected: Array) -> NDArray[np.bool_]:
    """Which points [N, 2] were found again, [N, 1]."""
    return np.asarray(np.abs(found - expected).max(axis=1, keepdims=True) < AGREES)
