"""Cutting and resizing images together with the label and depth maps that belong to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """A part of the image, in pixels: rows top..bottom and columns left..right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """From "TOP:BOTTOM,LEFT:RIGHT", as a slice of an array: "29:221,64:256".

        Raises:
            ValueError: another form, or an empty part.
        """
        match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
        if not match:
            raise ValueError(f"a crop is written TOP:BOTTOM,LEFT:RIGHT, such as 29:221,64:256; not {text!r}")
        crop = cls(*map(int, match.groups()))
        if crop.height < 1 or crop.width < 1:
            raise ValueError(f"the crop {text} is empty")
        return crop

    @classmethod
    def centre(cls, height: int, width: int, size: int | None = None) -> Crop:
        """The largest centred square, or one of `size`."""
        size = min(height, width) if size is None else size
        top, left = (height - size) // 2, (width - size) // 2
        return cls(top, top + size, left, left + size)

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    def __str__(self) -> str:
        return f"{self.top}:{self.bottom},{self.left}:{self.right}"

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """Cut it out of [H, W, ...].

        Raises:
            ValueError: it reaches beyond the array.
        """
        height, width = array.shape[:2]
        if min(self.top, self.left) < 0 or self.bottom > height or self.right > width:
            raise ValueError(f"the crop {self} reaches beyond the image's {height} rows and {width} columns")
        return array[self.top : self.bottom, self.left : self.right]


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H, W, 3] to [size, size, 3]: bilinear, and by area below half the size, where bilinear would skip pixels."""
    if image.shape[:2] == (size, size):
        return image
    shrunk_to_less_than_half = min(image.shape[:2]) > 2 * size
    interpolation = cv2.INTER_AREA if shrunk_to_less_than_half else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation).astype(np.uint8, copy=False)


def resize_map(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Labels or depth [H, W] to [size, size]: the nearest value, by pixel centres like the bilinear image."""
    if values.shape == (size, size):
        return values
    return cv2.resize(values, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
