"""Between ROS's image messages, raw or compressed, and NumPy arrays; `cv_bridge` reads where it reads rightly."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from monet_perception import compressed_images, raw_images
from monet_perception.nodes import bridge
from monet_perception.raw_images import Encoding, pixel_view


def check_rgb(message: Image | CompressedImage) -> None:
    """Checks that an image can be read by `to_rgb`, without reading it.

    Raises:
        MessageError: as `raw_images.check_colours` or `compressed_images.check_colours`.
    """
    (raw_images if isinstance(message, Image) else compressed_images).check_colours(message)


def to_rgb(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """The image as uint8 [height, width, 3] RGB; may be a view of the message.

    Raises:
        MessageError: as `check_rgb`, or compressed data damaged further on.
    """
    if isinstance(message, Image):
        return raw_images.read_colours(message, _pixels)
    return compressed_images.read_colours(message)


def check_metres(message: Image | CompressedImage) -> None:
    """Checks that a depth image can be read by `to_metres`, without reading it.

    Raises:
        MessageError: as `raw_images.check_depth` or `compressed_images.check_depth`.
    """
    (raw_images if isinstance(message, Image) else compressed_images).check_depth(message)


def to_metres(message: Image | CompressedImage) -> NDArray[np.float32]:
    """The depth image as float32 [height, width] in metres; holes are 0 or NaN.

    Raises:
        MessageError: as `check_metres`, or compressed data damaged further on.
    """
    if isinstance(message, Image):
        return raw_images.read_depth(message, _pixels)
    return compressed_images.read_depth(message)


def image_message(header: Header, pixels: NDArray[Any], encoding: str) -> Image:
    """An Image message of an array.

    Args:
        header: goes into the message as it is.
        pixels: [H, W] or [H, W, C] in the machine's byte order.
        encoding: what the pixels are; not checked against them.
    """
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding=encoding)
    message.is_bigendian = sys.byteorder == "big"
    message.step = pixels.nbytes // height
    message.data = byte_array(pixels)
    return message


def byte_array(pixels: NDArray[Any]) -> array[int]:
    """The array's bytes as rclpy takes them at once: a list or a NumPy array takes a thousand times as long."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return data


def float_array(values: NDArray[np.floating], kind: str = "f") -> array[float]:
    """The values, flattened, as array of `f` (float32) or `d` (float64)."""
    data: array[float] = array(kind)
    data.frombytes(np.ascontiguousarray(values, np.dtype(kind)).tobytes())
    return data


def _pixels(message: Image, encoding: Encoding) -> NDArray[Any]:
    """As `pixel_view`, by cv_bridge where that can."""
    row_bytes = message.width * encoding.pixel_bytes
    dense = message.step == row_bytes and len(message.data) == message.height * row_bytes
    if dense and not message.is_bigendian:
        bridged = bridge.read_image(message, encoding.dtype, encoding.channels)
        if bridged is not None:
            return bridged
    return pixel_view(message, encoding)
