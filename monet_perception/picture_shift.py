"""How far a picture moved as a whole since the one before it, as it does where the camera turns."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Shift = tuple[float, float]
"""Pixels to the right and down."""
NO_SHIFT: Shift = (0.0, 0.0)
MIN_RESPONSE = 0.3
"""Share of the correlation's energy in its peak below which two pictures have nothing in common. Of successive images
of rendered rooms 99 % have more than 0.7, of different rooms half have less than 0.25."""
LONGEST = 0.375
"""Share of a picture's side beyond which a shift is none: too little of the picture is left to compare."""


class PictureShift:
    """Shifts between successive pictures of one camera, by phase correlation (OpenCV's)."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None

    def update(self, picture: NDArray[np.uint8]) -> Shift:
        """Takes the next picture.

        Args:
            picture: [H, W, 3] RGB.
        Returns:
            By how much what is in it moved since the last one; `NO_SHIFT` for the first one and where it can't be told.
        """
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        grey -= grey.mean()  # the window's own shape, times the mean, would look like a picture that stays
        before, self._before = self._before, grey
        if before is None or before.shape != grey.shape:
            return NO_SHIFT
        (right, down), response = cv2.phaseCorrelate(before, grey, _window(*grey.shape))
        told = response > MIN_RESPONSE and max(abs(right), abs(down)) < LONGEST * min(grey.shape)
        return (right, down) if told else NO_SHIFT


@lru_cache(maxsize=4)
def _window(height: int, width: int) -> NDArray[np.float32]:
    """Fades the borders out, which would otherwise correlate with themselves at no shift."""
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)
