"""How far depth may be off, and from which step on one surface is another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

DEPTH_NOISE = (0.003, 0.002)
"""Standard deviation of depth that doesn't average out: metres, and metres per square metre of distance (stereo)."""
SMALLEST_STEP = 0.02
"""Metres by which one surface has to lie behind another to be told from it, on top of the noise."""


def depth_sigma(z: ArrayLike) -> Array:
    """Standard deviation of depths `z` in metres, of the same shape; NaN for NaN."""
    constant, quadratic = DEPTH_NOISE
    return constant + quadratic * np.square(z)


def depth_step(z: ArrayLike) -> Array:
    """Metres by which another surface has to lie nearer or farther than depths `z`, of the same shape; NaN for NaN.

    A smaller step may be noise.
    """
    return SMALLEST_STEP + 3.0 * depth_sigma(z)
