"""Cutting images, with the label and depth maps that belong to them, and resizing them."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from monet_perception.region import Region, resize


def parse_crop(text: str) -> Region:
    """From "TOP:BOTTOM,LEFT:RIGHT", as a slice of an array: "29:221,64:256".

    Raises:
        ValueError: another form, or an empty part.
    """
    match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.replace(" ", ""))
    if not match:
        raise ValueError(f"a crop is written TOP:BOTTOM,LEFT:RIGHT, such as 29:221,64:256; not {text!r}")
    top, bottom, left, right = map(int, match.groups())
    if bottom <= top or right <= left:
        raise ValueError(f"the crop {text} is empty")
    return Region(left, top, right - left, bottom - top)


def crop_text(crop: Region) -> str:
    """As `parse_crop` reads it."""
    return f"{crop.y}:{crop.y + crop.height},{crop.x}:{crop.x + crop.width}"


def cut(array: NDArray[Any], crop: Region) -> NDArray[Any]:
    """The part of an array [H, W, ...] in `crop`, as a view.

    Raises:
        ValueError: the crop reaches beyond the array.
    """
    height, width = array.shape[:2]
    if not crop.inside(height, width):
        raise ValueError(f"the crop {crop_text(crop)} reaches beyond the image's {height} rows and {width} columns")
    return crop.cut(array)


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H, W, 3] to [size, size, 3] as the robot resizes its frames: a network is trained on what it will see there."""
    height, width = image.shape[:2]
    return resize(image, Region(0, 0, width, height), size)


def resize_published(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H, W, 3] to [size, size, 3] as in the thesis, whose scores are those of such images.

    It resizes CLEVR from 192 to 128 pixels by bilinear interpolation (section 5.1). Below half the size, where that
    would skip pixels and the thesis doesn't go, it is by area.
    """
    if image.shape[:2] == (size, size):
        return image
    shrunk_to_less_than_half = min(image.shape[:2]) > 2 * size
    interpolation = cv2.INTER_AREA if shrunk_to_less_than_half else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation).astype(np.uint8, copy=False)
