"""Reads sensor_msgs/CompressedImage, of ROS or of rosbags, into arrays: photographs, and depth as `compressedDepth`.

Data of the image transport `compressedDepth` are a header (int32, and two float32 A and B) and a PNG of 16 bits. For
16UC1 its values are millimetres, for 32FC1 inverse depths: a value v is A / (v - B) metres (image_transport_plugins,
compressed_depth_image_transport).
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from monet_perception.raw_images import MAX_PIXELS, MessageError

_HEADER = struct.Struct("<iff")
_PNG = ("", "compressedDepth", "compressedDepth png")  # early releases name no packing: PNG was the only one


def check_colours(message: Any) -> None:
    """Checks a CompressedImage as far as its header goes, without unpacking it.

    Raises:
        MessageError: no data, no image format, cut off, or more than `MAX_PIXELS`.
    """
    _check_packed(bytes(message.data), message.format)


def read_colours(message: Any) -> NDArray[np.uint8]:
    """The CompressedImage (JPEG, PNG, whatever OpenCV reads) as uint8 [height, width, 3] RGB.

    Raises:
        MessageError: as `check_colours`, or data damaged further on.
    """
    check_colours(message)
    # Not turned by EXIF: masks have to lie on the pixels that camera_info describes.
    pixels = _unpack(message.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, message.format)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def check_depth(message: Any) -> None:
    """Checks a CompressedImage of depth as far as its headers go, without unpacking it.

    Raises:
        MessageError: as `check_colours`, or a format that is no depth, or packs it otherwise than as PNG.
    """
    _depth_encoding(message.format)
    _check_packed(bytes(message.data[_HEADER.size :]), message.format)


def read_depth(message: Any) -> NDArray[np.float32]:
    """The CompressedImage of depth as float32 [height, width] in metres; holes are 0 or NaN.

    Raises:
        MessageError: as `check_depth`, or data damaged further on.
    """
    check_depth(message)
    values = _unpack(message.data[_HEADER.size :], cv2.IMREAD_UNCHANGED, message.format)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise MessageError(f"data are a PNG of {values.dtype} {values.shape}, not of 16 bits and one channel")
    if _depth_encoding(message.format) != "32FC1":
        return np.asarray(values * np.float32(0.001))
    _, a, b = _HEADER.unpack_from(message.data)
    # B is 1 - A / (largest depth), so that no value of a whole message divides by zero.
    if not (math.isfinite(a) and math.isfinite(b) and a > 0 and b < 1):
        raise MessageError(f"data can't be unpacked: the header's A = {a:g}, B = {b:g} scale no inverse depths")
    metres = np.full(values.shape, np.nan, np.float32)
    np.divide(np.float32(a), values - np.float32(b), out=metres, where=values > 0)
    return metres


def _depth_encoding(form: str) -> str:
    """16UC1, mono16 or 32FC1, from a format such as `16UC1; compressedDepth png`."""
    encoding, _, packing = (part.strip() for part in form.partition(";"))
    if packing == "compressedDepth rvl":
        raise MessageError(
            "format is RVL, which isn't read: set the parameter `compressedDepth.format` of the camera's driver to png"
        )
    if encoding not in ("16UC1", "mono16", "32FC1") or packing not in _PNG:
        raise MessageError(f"format is {form[:40]!r}, expected 16UC1 or 32FC1 packed as compressedDepth png")
    return encoding


def _check_packed(data: bytes, form: str) -> None:
    """A packed image's own header, checked: a compressed image of a kilobyte may claim gigabytes."""
    if not data:
        raise MessageError("data is empty")
    try:
        with PillowImage.open(io.BytesIO(data)) as header:
            width, height = header.size
            kind = header.format
    except Exception as error:  # Pillow raises a good dozen of types on broken headers
        raise MessageError(f"data (format {form[:40]!r}) is no image that can be read: {error}") from error
    if width * height > MAX_PIXELS:
        raise MessageError(f"unpacked, the image would have {width}x{height} pixels; at most {MAX_PIXELS} are read")
    # libjpeg paints what is missing grey and says nothing; USB cameras do send such frames.
    if kind == "JPEG" and data.rfind(b"\xff\xd9") < 0:
        raise MessageError("JPEG data is cut off: it has no end marker")


def _unpack(data: Any, flags: int, form: str) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise MessageError(f"data can't be unpacked: {error}") from error
    if pixels is None:
        raise MessageError(f"data (format {form[:40]!r}) can't be unpacked")
    return np.asarray(pixels)
