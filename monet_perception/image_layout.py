"""The pixels of a sensor_msgs/Image as an array, whatever its rows are padded with and in which order its bytes are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def pixel_view(message: Any, kind: DTypeLike, channels: int) -> NDArray[Any]:
    """[H, W] or [H, W, C] in the machine's byte order; a view of the message's data where that has it.

    Args:
        message: an Image, of ROS or of rosbags, whose data is as long as its height and step say; its last row may
            lack the padding.
        kind: of a value.
        channels: of a pixel.
    """
    stored = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    shape, strides = (
        (message.height, message.width, channels),
        (message.step, channels * stored.itemsize, stored.itemsize),
    )
    pixels = np.ndarray(shape, stored, buffer=message.data, strides=strides)
    if channels == 1:
        pixels = pixels[..., 0]
    return pixels.astype(stored.newbyteorder("="), copy=False)
