"""Where a slot is: from soft masks and a depth image to the centre of what it holds, its covariance and extent.

Frame and units: metres in the camera's optical frame (x right, y down, z along the view; ROS REP 103). Pixel centres
have integer coordinates, as in sensor_msgs/CameraInfo.

What the numbers mean
    A depth camera sees the front of things, so the mean of the points seen lies in front of the middle of the object.
    The `centroid` is an estimate of the middle: the mask-weighted mean of the surface points, moved away from the
    camera along the viewing ray by `CENTRE_DEPTH` times the object's visible width. The factor of an upright cylinder
    is 0.39, of a sphere 0.33, of a cube 0.50 seen face on and 0.25 seen edge on. Background slots, which have no
    middle, aren't moved.

    The `occluding_share` tells an object from a piece of wall or floor that a slot took up: an object stands before
    something, a piece of wall goes on beyond its rim. What doesn't stand out is treated as background, with a
    covariance that allows for its being an object.

    The `covariance` is that of the *error of this estimate*, the R of a filter's measurement update, not the spread of
    the points (for that, take the extent: extent^2 / 12 per axis). It adds up what the estimate can't know: how much of
    the object is hidden behind others, cut off by the edge of the image or in another slot (read off the rim of the
    mask, `hidden_share`), how much of it has no depth, how deep the object is (along the ray), where exactly the mask
    ends, the depth camera's noise, and the finite number of points. Errors of successive frames are alike, because the
    viewpoint is: whoever fuses frames has to allow for it, as `examples/landmarks.py` does. How often the true centre
    is covered is measured by `benchmarks/tracking.py`: in rendered rooms, whose depth is perfect, about as often as
    promised. Of balls and boxes in plain sight with exact masks it is cautious: their median squared Mahalanobis
    distance is a fifth of a normal distribution's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monet_perception.depth_noise import depth_sigma
from monet_perception.projection import Intrinsics, rays_and_depth
from monet_perception.region import Region
from monet_perception.rim import MIN_OCCLUDING_SHARE, hidden_share, occluding_share
from monet_perception.slots import background_slots

Array = NDArray[np.float64]

MIN_MASK = 0.1
"""Mask value below which a pixel is left out: the thin tail of a soft mask lies all over the image, and weighs little a
pixel but much in sum."""
MIN_POINTS = 4
"""Fewest points with depth from which a slot gets a geometry; fewer have no covariance of full rank."""
CENTRE_DEPTH = 0.36
"""How far the middle lies behind the mean of the visible surface, as a share of the visible width (see above)."""
CENTRE_DEPTH_SIGMA = 0.12
"""Standard deviation of `CENTRE_DEPTH` over shapes and views."""
EDGE_SIGMA = 0.15
"""Standard deviation of the error that wrong mask edges cause, as a share of the standard deviation of the points."""
OUTSIDE = 0.02
"""Share of a slot's weight that is left out at either end of its box, where stray points lie. The length is divided by
what remains, 1 - 2 OUTSIDE, which is exact where the weight is spread evenly."""
ASYMMETRY_SIGMA = 2.0
"""Standard deviation of the error of a lopsided shape (a cone), as a share of the distance from the mean of its points
to the middle of its box: the two differ where the mean of what is seen isn't the middle of what is there."""
HIDDEN_SIGMA = 0.5
"""Standard deviation of the error that hidden parts cause, along each axis, as a share of the visible width, where
half of the rim is hidden; it grows with the odds of the hidden share."""
MAX_HIDDEN_ODDS = 4.0
"""Bound of these odds: a slot whose whole rim is hidden tells little, but not nothing."""
MIN_MEASURED = 0.25
"""Share of a slot that needs depth, by the pixels from `HOLE_MASK` on. Of what a depth camera can't see at all, glass
or something dark, only the soft edge of the mask has depth: that of the wall behind."""
HOLE_MASK = 0.5
"""Mask value from which on a pixel without depth is a part of the slot that wasn't measured."""
HOLE_SIGMA = 0.3
"""Standard deviation of the error that such parts cause, along each axis, as a share of the visible width, times their
share of the slot."""


@dataclass(frozen=True)
class SlotGeometry:
    """Where the content of one slot is; metres, camera optical frame (see the module docstring).

    Attributes:
        centroid: [3], estimated middle of the object (of the visible surface, for background).
        covariance: [3, 3], of the error of `centroid`; symmetric and positive definite.
        extent: [3], size of the axis-aligned box around the object: its visible width and height, and as depth the
            larger of what was seen and of what the width suggests.
        occluding_share: how much of the slot's rim stands before something farther away, in [0, 1]; NaN: unknown
            (`rim.occluding_share`).
        background: whether it is background, by its mask (`slots.background_slots`) or by its rim (less
            than `rim.MIN_OCCLUDING_SHARE`).
    """

    centroid: Array
    covariance: Array
    extent: Array
    occluding_share: float = math.nan
    background: bool = False


def weighted_quantile(values: ArrayLike, weights: ArrayLike, quantiles: ArrayLike) -> Array:
    """Quantiles of a weighted sample, linear between the middles of the samples' weights; NumPy has none with weights
    that interpolates.

    Args:
        values: [N], N at least 1.
        weights: [N], positive.
        quantiles: any shape, in [0, 1].
    """
    # Equal values become one sample: what lies between them and their neighbours must not hang on their order.
    distinct, group = np.unique(np.asarray(values, np.float64), return_inverse=True)
    weight = np.bincount(group, np.asarray(weights, np.float64))
    middle = (np.cumsum(weight) - 0.5 * weight) / weight.sum()
    return np.asarray(np.interp(np.asarray(quantiles, np.float64), middle, distinct))


@dataclass(frozen=True)
class _View:
    """Pixels of the masks: points at a depth of one [P, 3], NaN where the lens sees nothing, and depth [P], or NaN."""

    rays: Array
    z: Array

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """[P], where there is depth."""
        return np.isfinite(self.z)

    @cached_property
    def unmeasured(self) -> NDArray[np.bool_]:
        """[P], where the lens sees something that has no depth."""
        return ~self.measured & np.isfinite(self.rays[:, 0])


@dataclass(frozen=True)
class _Rim:
    """What mask and rim say of one slot: background by its mask or by its rim (flat), and the shares of its rim."""

    by_mask: bool
    flat: bool
    hidden: float
    occluding: float

    @property
    def background(self) -> bool:
        return self.by_mask or self.flat


def slot_geometry(masks: ArrayLike, roi: Region, depth: ArrayLike, intrinsics: Intrinsics) -> list[SlotGeometry | None]:
    """Centre, covariance and extent of what each slot holds; the module docstring says what they mean.

    Args:
        masks: [K, H, W] in [0, 1].
        roi: source pixels that the masks cover.
        depth: [h, w] metres along z, registered to the source image; zero, negative, NaN and infinity are holes.
        intrinsics: of the source image.
    Returns:
        K entries; None for a slot of which less than `MIN_MEASURED` has depth, or fewer than `MIN_POINTS` pixels with a
        mask above `MIN_MASK`.
    Raises:
        ValueError: masks aren't [K, H, W], depth isn't [h, w], or the roi is empty.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or not len(masks):
        raise ValueError(f"masks must be [K, H, W] with K of at least 1, are {list(masks.shape)}")
    rays, z = rays_and_depth(roi, masks.shape[1:], depth, intrinsics)
    by_mask = background_slots(masks)
    occluding = occluding_share(masks, z, by_mask)
    flat = occluding < MIN_OCCLUDING_SHARE
    hidden = hidden_share(masks, z, by_mask | flat)
    view = _View(rays.reshape(-1, 3), z.reshape(-1))
    return [
        _geometry(
            view, masks[k].reshape(-1), _Rim(bool(by_mask[k]), bool(flat[k]), float(hidden[k]), float(occluding[k]))
        )
        for k in range(len(masks))
    ]


@dataclass(frozen=True)
class _Surface:
    """What a slot's mask covers in 3D; weights are mask values.

    Attributes:
        points, weights: [N, 3] and [N], of the surface.
        before, before_share: [3], the mean of what the mask covers before the surface, and the share of its weight.
        missing, missing_weights: [M, 3] and [M], parts without depth, at the depth of the rest.
    """

    points: Array
    weights: Array
    before: Array
    before_share: float
    missing: Array
    missing_weights: Array

    @cached_property
    def mean(self) -> Array:
        """[3], of the points."""
        return np.asarray(self.weights @ self.points / self.weights.sum())

    @cached_property
    def spread(self) -> Array:
        """[3, 3], covariance of the points."""
        offsets = self.points - self.mean
        return np.asarray((self.weights[:, None] * offsets).T @ offsets / self.weights.sum())

    @cached_property
    def ends(self) -> tuple[Array, Array]:
        """Lower and upper end [3] of what was measured."""
        return _ends(self.points, self.weights)

    @cached_property
    def whole_width(self) -> float:
        """Metres, with what has no depth: how far off the middle may be grows with the whole."""
        if not len(self.missing):
            return _across(*self.ends)
        every = np.concatenate([self.points, self.missing]), np.concatenate([self.weights, self.missing_weights])
        return _across(*_ends(*every))


def _surface(view: _View, mask: NDArray[np.floating]) -> _Surface | None:
    """The surface of one slot from its mask values [P]; None where too little of it has depth."""
    body = mask >= HOLE_MASK
    measured, missing = mask[body & view.measured].sum(), mask[body & view.unmeasured]
    owned = view.measured & (mask >= MIN_MASK)
    if owned.sum() < MIN_POINTS or measured < MIN_MEASURED * (measured + missing.sum()):
        return None
    points, weights = view.rays[owned] * view.z[owned, None], mask[owned].astype(np.float64)
    kept = _near_surface(points[:, 2], weights)
    if kept.sum() < MIN_POINTS:
        return None
    there = view.rays[body & view.unmeasured] * _weighted_median(points[kept, 2], weights[kept])
    nearer = ~kept & (points[:, 2] < points[kept, 2].min())
    weight = float(weights[nearer].sum())
    before = weights[nearer] @ points[nearer] / weight if weight else np.zeros(3)
    share = weight / float(weights.sum())
    return _Surface(points[kept], weights[kept], before, share, there, missing.astype(np.float64))


def _geometry(view: _View, mask: NDArray[np.floating], rim: _Rim) -> SlotGeometry | None:
    """Geometry of one slot from its mask values [P]."""
    surface = _surface(view, mask)
    if surface is None:
        return None
    ray = surface.mean / np.linalg.norm(surface.mean)
    covariance = _measured_badly(surface) + _unseen(surface, ray, rim)
    covariance = (covariance + covariance.T) / 2  # to the last bit, as filters like it
    low, high = surface.ends
    extent = (high - low) / (1 - 2 * OUTSIDE)
    width = 0.0 if rim.background else _across(low, high)
    extent[2] = max(extent[2], width)
    return SlotGeometry(surface.mean + CENTRE_DEPTH * width * ray, covariance, extent, rim.occluding, rim.background)


def _measured_badly(surface: _Surface) -> Array:
    """Covariance [3, 3] for how mask and depth camera err: edges, holes, noise, what is before the surface."""
    effective = surface.weights.sum() ** 2 / (surface.weights @ surface.weights)
    covariance = (EDGE_SIGMA**2 + 1.0 / effective) * surface.spread + _without_depth(surface)
    # What the mask covers before the surface may be the object, and the surface a wall: a mask that is a pixel too fat
    # holds more wall than object where that is small.
    offset = surface.before - surface.mean
    covariance += surface.before_share**2 * np.outer(offset, offset)
    per_depth = surface.mean / surface.mean[2]  # by how much a point moves with its depth, which is measured along z
    covariance += depth_sigma(surface.mean[2]) ** 2 * np.outer(per_depth, per_depth)
    return covariance + np.diag([1e-6, 1e-6, 0.0])  # 1 mm: full rank


def _without_depth(surface: _Surface) -> Array:
    """Covariance [3, 3] for the parts of a slot that have no depth: how far they might move its mean, and its outline.

    They are put at the depth of the rest. The mean itself stays where it is: soft masks always reach a little into what
    has no depth, such as sky, and a mean that follows them there is farther off than one that leaves it out.
    """
    missing = surface.missing_weights.sum()
    if missing == 0:
        return np.zeros((3, 3))
    share = missing / (missing + surface.weights.sum())
    shift = share * (surface.missing_weights @ surface.missing / missing - surface.mean)
    return np.asarray(np.outer(shift, shift) + (HOLE_SIGMA * share * surface.whole_width) ** 2 * np.eye(3))


def _unseen(surface: _Surface, ray: Array, rim: _Rim) -> Array:
    """Covariance [3, 3] for what no camera sees from there: the far side, what is hidden, and how lopsided it is."""
    low, high = surface.ends
    lopsided = (low + high) / 2 - surface.mean
    lopsided -= (lopsided @ ray) * ray  # across the view only: along the ray one side is never seen
    width = 0.0 if rim.background else surface.whole_width
    odds = min(rim.hidden / max(1.0 - rim.hidden, 1e-3), MAX_HIDDEN_ODDS)
    covariance = ASYMMETRY_SIGMA**2 * np.outer(lopsided, lopsided) + (HIDDEN_SIGMA * odds * width) ** 2 * np.eye(3)
    depth = CENTRE_DEPTH_SIGMA * width
    if rim.flat and not rim.by_mask:  # it may be an object all the same, whose middle lies behind its surface
        depth = math.hypot(CENTRE_DEPTH, CENTRE_DEPTH_SIGMA) * surface.whole_width
    return np.asarray(covariance + depth**2 * np.outer(ray, ray))


def _near_surface(z: Array, weights: Array) -> NDArray[np.bool_]:
    """Which points belong to the slot's surface, and not to what shows past its edge.

    Mask edges are soft and depth edges are sharp, so a slot's rim lies on whatever is behind or before it, often metres
    away. Median and median absolute deviation bear up to half of such points; 3.5 deviations is the usual bound
    (Iglewicz and Hoaglin 1993).
    """
    median = _weighted_median(z, weights)
    deviation = np.abs(z - median)
    scale = 1.4826 * _weighted_median(deviation, weights)
    # A surface square to the ray has hardly any deviation, only the camera's noise.
    return deviation <= np.maximum(3.5 * scale, 3.0 * depth_sigma(median) + 0.01)


def _across(low: Array, high: Array) -> float:
    """Visible width and height of a box between two ends [3], their geometric mean, scaled up to the whole."""
    return float(np.sqrt(np.prod((high - low)[:2]))) / (1 - 2 * OUTSIDE)


def _weighted_median(values: Array, weights: Array) -> float:
    """The value of [N] at which half of the weight is reached, so one that occurs.

    Depth comes in few values where a side is seen square on or a stereo camera counts in steps: between the median's
    own value and the next, which `weighted_quantile` would take a mean of, may lie the metres to the wall.

    NumPy's `quantile(method="inverted_cdf", weights=...)` is the same from version 2.0 on, and takes 62 us for 800
    values where this takes 19 us (one core).
    """
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])


def _ends(points: Array, weights: Array) -> tuple[Array, Array]:
    """Lower and upper end of the slot along each axis, [3] each, leaving `OUTSIDE` of the weight beyond either."""
    ends = [weighted_quantile(points[:, axis], weights, [OUTSIDE, 1 - OUTSIDE]) for axis in range(3)]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
