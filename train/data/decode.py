"""Reading image files, with an error for each that is not whole.

Pillow in place of OpenCV, which fills what is missing of a truncated JPEG with grey and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_WIDE = {"I": 32, "F": 32, **dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), 16)}
"""Bits a pixel of Pillow's modes of one channel that don't fit into uint8."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3], turned as its EXIF orientation says.

    Raises:
        OSError: the file can't be opened.
        ValueError: it is truncated, broken, no image, or has more than 8 bits a channel.
    """
    with _open(path) as image:
        if image.mode in _WIDE:  # Pillow would clip instead of scale: nearly all of it became white
            raise ValueError(f"{path} has {_WIDE[image.mode]} bits a pixel (mode {image.mode}); convert it to 8")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def read_map(path: Path) -> NDArray[Any]:
    """The values of a file of one channel, [H, W]: uint8, also of a palette, or uint16.

    Raises:
        OSError: the file can't be opened.
        ValueError: it is truncated, broken, no image, or has several channels.
    """
    with _open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise ValueError(f"{path} has {values.shape[2]} channels instead of one")
    return values


def _open(path: Path) -> Image.Image:
    # A file that isn't there is an OSError with its name already; Pillow's own errors don't say which file it was.
    with path.open("rb") as file:
        try:
            image = Image.open(file)
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is truncated, broken or no image ({error})") from error
    return image
