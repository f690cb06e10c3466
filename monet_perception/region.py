"""Rectangles of an image's pixels, and what is cut out of it. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Region:
    """A rectangle of an image's pixels; x to the right, y down, from the top left corner."""

    x: int
    y: int
    width: int
    height: int

    def inside(self, height: int, width: int) -> bool:
        """Whether an image of this size has all of its pixels."""
        return min(self.x, self.y) >= 0 and self.y + self.height <= height and self.x + self.width <= width

    def cut[Scalar: np.generic](self, image: NDArray[Scalar]) -> NDArray[Scalar]:
        """Its part of an image [H, W, ...], as a view; what reaches beyond the image is left out."""
        rows = slice(max(self.y, 0), max(self.y + self.height, 0))
        return image[rows, max(self.x, 0) : max(self.x + self.width, 0)]


def centre_square(height: int, width: int, side: int | None = None) -> Region:
    """The largest square around the centre of an image, or one of `side` pixels."""
    side = min(height, width) if side is None else side
    return Region((width - side) // 2, (height - side) // 2, side, side)


def resize(image: NDArray[np.uint8], region: Region, size: int) -> NDArray[np.uint8]:
    """The part of an image [H, W, 3] in `region`, [size, size, 3]; a view where it has that size already."""
    part = region.cut(image)
    if part.shape[:2] == (size, size):
        return part
    height, width = (min(side, size) for side in part.shape[:2])
    # Averaging over areas when shrinking: interpolation would sample single pixels of a large frame, and alias.
    shrunk = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_map(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Labels or depth [h, w] to [height, width]; the nearest value by pixel centres, so that none is invented."""
    if values.shape == (height, width):
        return values
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
