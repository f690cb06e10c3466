"""Cameras: from points of the world to pixels, and from pixels with depth back to points.

Frame and units: metres in the camera's optical frame (x right, y down, z along the view; ROS REP 103). Pixel centres
have integer coordinates, as in sensor_msgs/CameraInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monet_perception.lens import Distortion
from monet_perception.region import Region

Array = NDArray[np.float64]

MAX_DEPTH = 10_000.0
"""Metres beyond which depth is a hole: simulators write their far plane, or the largest float, where nothing is."""


@dataclass(frozen=True)
class Intrinsics:
    """Camera of the source image, in pixels: a pinhole, behind a lens where the image isn't rectified.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: principal point.
        width, height: of the image.
        distortion: by the lens; None for rectified images.

    Raises:
        ValueError: focal length or size isn't positive and finite, or the principal point isn't finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() and self.fx > 0 and self.fy > 0):
            raise ValueError(f"fx and fy must be positive and finite, cx and cy finite: {self}")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"width and height must be positive: {self}")

    def project(self, points: ArrayLike) -> Array:
        """Pixels (u, v) of points [N, 3] of the optical frame, [N, 2]; NaN behind the camera and where the lens sees
        nothing."""
        x, y, z = np.asarray(points, np.float64).T
        z = np.where(z > 0, z, np.nan)
        seen = np.stack([x / z, y / z], axis=1)
        if self.distortion is not None:
            seen = self.distortion.distort(seen)
        return seen * [self.fx, self.fy] + [self.cx, self.cy]


def back_project(roi: Region, shape: tuple[int, int], depth: ArrayLike, intrinsics: Intrinsics) -> Array:
    """3D points at the centres of the pixels of a mask, [H, W, 3] in metres; NaN where there is no depth, and where the
    lens sees nothing.

    Depth is looked up, not interpolated: between two surfaces there is nothing. A depth image of another resolution
    than the source, registered to it, is looked up at the same place.

    Args:
        roi: source pixels that the masks cover; parts outside the image have no depth.
        shape: (H, W) of the masks.
        depth: [h, w] metres along z; zero, negative, NaN and what lies beyond `MAX_DEPTH` are holes.
        intrinsics: of the source image.
    Raises:
        ValueError: depth isn't a 2D image, or the roi is empty.
    """
    rays, z = rays_and_depth(roi, shape, depth, intrinsics)
    return rays * z[..., None]


def rays_and_depth(
    roi: Region, shape: tuple[int, int], depth: ArrayLike, intrinsics: Intrinsics
) -> tuple[Array, Array]:
    """The factors of `back_project`: points at a depth of one, [H, W, 3], NaN where the lens sees nothing, and depth
    [H, W] in metres, NaN where there is none. Arguments and errors are the same."""
    depth = np.asarray(depth)
    if depth.ndim != 2 or 0 in depth.shape:
        raise ValueError(f"depth must be [h, w], is {list(depth.shape)}")
    if roi.width <= 0 or roi.height <= 0:
        raise ValueError(f"roi is empty: {roi.width}x{roi.height}")
    u, column, column_inside = _sample_pixels(roi.x, roi.width, shape[1], intrinsics.width, depth.shape[1])
    v, row, row_inside = _sample_pixels(roi.y, roi.height, shape[0], intrinsics.height, depth.shape[0])
    z = depth[np.ix_(row, column)].astype(np.float64)
    hole = ~(_measured(z) & np.outer(row_inside, column_inside))
    rays = _rays(intrinsics, tuple(u.tolist()), tuple(v.tolist()))
    z[hole | np.isnan(rays[..., 0])] = np.nan
    return rays, z


def measures_anything(depth: NDArray[Any]) -> bool:
    """Whether any pixel of a depth image [h, w] in metres is a measurement."""
    # A few pixels tell it of nearly every image, at a sixtieth of the cost.
    return bool(_measured(depth[::8, ::8]).any() or _measured(depth).any())


def _measured(depth: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels of a depth image are measurements."""
    with np.errstate(invalid="ignore"):
        found: NDArray[np.bool_] = (depth > 0) & (depth <= MAX_DEPTH)
    return found


@lru_cache(maxsize=8)  # of a lens it takes a millisecond, and the same for each frame
def _rays(intrinsics: Intrinsics, u: tuple[float, ...], v: tuple[float, ...]) -> Array:
    """What is seen at columns u [W] and rows v [H] at a depth of one, [H, W, 3]; NaN where the lens sees nothing."""
    x = (np.array(u) - intrinsics.cx) / intrinsics.fx
    y = (np.array(v) - intrinsics.cy) / intrinsics.fy
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    if intrinsics.distortion is not None:
        grid = intrinsics.distortion.undistort(grid.reshape(-1, 2)).reshape(grid.shape)
    return np.concatenate([grid, np.where(np.isnan(grid[..., :1]), np.nan, 1.0)], axis=-1)


def _sample_pixels(
    start: int, length: int, cells: int, source: int, depth: int
) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
    """Along one axis: source coordinate of the depth pixel under each mask cell, its index, and whether it exists."""
    position = start + (np.arange(cells) + 0.5) * length / cells  # continuous, zero at the source's edge
    index = np.floor(position * depth / source).astype(np.intp)
    inside = (index >= 0) & (index < depth)
    # The coordinate of the pixel that is read, not of the cell's centre: the point then lies on the surface.
    coordinate = (index + 0.5) * source / depth - 0.5
    return coordinate, np.clip(index, 0, depth - 1), inside
