"""Unpacks depth images of the image transport `compressedDepth`, without ROS.

Their data are a header (int32, and two float32 A and B) and a PNG of 16 bits. For 16UC1 its values are millimetres, for
32FC1 inverse depths: a value v is A / (v - B) metres (image_transport_plugins, compressed_depth_image_transport).
"""

from __future__ import annotations

import math
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<iff")
HEADER_BYTES = _HEADER.size
"""Bytes before the PNG."""
_PACKINGS = ("", "compressedDepth", "compressedDepth png")  # releases before 2020 named no packing, there was but PNG


class CompressedDepthError(ValueError):
    """Data or a format that is no depth image which can be unpacked."""


def check_format(text: str) -> None:
    """Checks the `format` of a CompressedImage.

    Raises:
        CompressedDepthError: it is no depth, or packed otherwise than as PNG.
    """
    _encoding(text)


def unpack_metres(text: str, data: Any) -> NDArray[np.float32]:
    """The depth image as float32 [height, width] in metres; holes are 0 or NaN.

    Args:
        text: `format` of the CompressedImage, such as `16UC1; compressedDepth png`.
        data: its `data`, any buffer of bytes.
    Raises:
        CompressedDepthError: another format, cut off, damaged, or no PNG of 16 bits and one channel.
    """
    encoding = _encoding(text)
    packed = np.frombuffer(data, np.uint8)
    if len(packed) <= HEADER_BYTES:
        raise CompressedDepthError(f"data has {len(packed)} bytes, less than a header and an image")
    _, a, b = _HEADER.unpack_from(packed)
    try:
        values = cv2.imdecode(packed[HEADER_BYTES:], cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise CompressedDepthError(f"data can't be unpacked: {error}") from error
    if values is None:
        raise CompressedDepthError("data can't be unpacked: no whole PNG follows the header")
    if values.ndim != 2 or values.dtype != np.uint16:
        raise CompressedDepthError(f"data are a PNG of {values.dtype} {values.shape}, not of 16 bits and one channel")
    if encoding != "32FC1":
        return np.asarray(values * np.float32(0.001))
    # B is 1 - A / (largest depth), so that no value of a whole message divides by zero.
    if not (math.isfinite(a) and math.isfinite(b) and a > 0 and b < 1):
        raise CompressedDepthError(f"data can't be unpacked: the header's A = {a:g}, B = {b:g} scale no inverse depths")
    metres = np.full(values.shape, np.nan, np.float32)
    np.divide(np.float32(a), values - np.float32(b), out=metres, where=values > 0)
    return metres


def _encoding(text: str) -> str:
    """16UC1, mono16 or 32FC1."""
    encoding, _, packing = (part.strip() for part in text.partition(";"))
    if packing == "compressedDepth rvl":
        raise CompressedDepthError(
            "format is RVL, which isn't read: set the parameter `compressedDepth.format` of the camera's driver to png"
        )
    if encoding not in ("16UC1", "mono16", "32FC1") or packing not in _PACKINGS:
        raise CompressedDepthError(f"format is {text[:40]!r}, expected 16UC1 or 32FC1 packed as compressedDepth png")
    return encoding
