"""Between image messages and NumPy arrays; whatever is wrong with a message is a `MessageError` that names it.

A message is checked before any of its data are touched (`check_image`, `check_compressed`: microseconds), so that a
node can count broken frames even while it is too busy to convert the good ones.
"""

from __future__ import annotations

import io
import sys
from array import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from monet_perception import compressed_depth
from monet_perception.compressed_depth import CompressedDepthError
from monet_perception.image_layout import pixel_view
from monet_perception.nodes import bridge

MAX_PIXELS = 2**26
"""Largest image that is unpacked, in pixels (67 million). A compressed image of a kilobyte may claim gigabytes."""
MIN_BAYER_SIDE = 3
"""OpenCV leaves the pixels at the border of smaller mosaics black."""


class MessageError(ValueError):
    """A message that can't be what it says it is; the text names the field, its value and what was expected."""


@dataclass(frozen=True)
class _Encoding:
    """How pixels lie in `Image.data`, and how OpenCV turns them into RGB."""

    dtype: str
    channels: int
    to_rgb: int | None  # None: is RGB already

    @property
    def pixel_bytes(self) -> int:
        return int(self.dtype[1:]) * self.channels


# OpenCV names a Bayer pattern by its second row and column, ROS by its first: rggb is Bayer*BG*.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
COLOUR_ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding("u1", 3, None),
    "bgr8": _Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    # The generic names say nothing of colour; OpenCV's order is what their users mean.
    "8UC1": _Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": _Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": _Encoding("u2", 3, None),
    "bgr16": _Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "mono16": _Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "uyvy": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": _Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    **{f"bayer_{pattern}8": _Encoding("u1", 1, code) for pattern, code in _BAYER.items()},
    **{f"bayer_{pattern}16": _Encoding("u2", 1, code) for pattern, code in _BAYER.items()},
}
DEPTH_ENCODINGS: dict[str, _Encoding] = {
    "16UC1": _Encoding("u2", 1, None),
    "mono16": _Encoding("u2", 1, None),  # what some drivers call it
    "32FC1": _Encoding("f4", 1, None),
}
_DEPTH_ONLY = set(DEPTH_ENCODINGS) - set(COLOUR_ENCODINGS)


def check_image(message: Image) -> None:
    """Checks that a colour or grey image can be read by `to_rgb`, without reading it.

    Raises:
        MessageError: unknown encoding, size of zero, rows shorter than their pixels, or less data than rows.
    """
    encoding = _known(message, COLOUR_ENCODINGS)
    _check_layout(message, encoding)
    if message.encoding.startswith("bayer_") and min(message.width, message.height) < MIN_BAYER_SIDE:
        raise MessageError(
            f"a Bayer mosaic of {message.width}x{message.height} pixels can't be turned into colours; "
            f"at least {MIN_BAYER_SIDE}x{MIN_BAYER_SIDE} are needed"
        )
    if encoding.channels == 2 and message.width % 2:
        raise MessageError(f"{message.encoding} stores pixels in pairs, but width is {message.width}, an odd number")


def to_rgb(message: Image) -> NDArray[np.uint8]:
    """The image as uint8 [height, width, 3] RGB; 16-bit encodings lose their lower byte. May be a view of the message.

    Raises:
        MessageError: as `check_image`.
    """
    check_image(message)
    encoding = COLOUR_ENCODINGS[message.encoding]
    pixels = _pixels(message, encoding)
    if encoding.dtype == "u2" and not message.encoding.startswith("bayer_"):
        pixels = _high_byte(pixels)
    if encoding.to_rgb is not None:
        pixels = _rgb(np.ascontiguousarray(pixels), encoding.to_rgb)
    return np.ascontiguousarray(_high_byte(pixels))


def check_depth(message: Image | CompressedImage) -> None:
    """Checks that a depth image can be read by `to_metres`, without reading it.

    Raises:
        MessageError: as `check_image` for the encodings of depth, or as `check_compressed` for `compressedDepth`.
    """
    if isinstance(message, Image):
        _check_layout(message, _known(message, DEPTH_ENCODINGS))
        return
    try:
        compressed_depth.check_format(message.format)
    except CompressedDepthError as error:
        raise MessageError(str(error)) from error
    _check_packed(bytes(message.data[compressed_depth.HEADER_BYTES :]), message.format)


def to_metres(message: Image | CompressedImage) -> NDArray[np.float32]:
    """The depth image as float32 [height, width] in metres (REP 118: 16UC1 is in millimetres); holes are 0 or NaN.

    Raises:
        MessageError: as `check_depth`, or packed data damaged further on.
    """
    check_depth(message)
    if isinstance(message, CompressedImage):
        try:
            return compressed_depth.unpack_metres(message.format, message.data)
        except CompressedDepthError as error:
            raise MessageError(str(error)) from error
    pixels = _pixels(message, DEPTH_ENCODINGS[message.encoding])
    if pixels.dtype == np.uint16:
        return pixels * np.float32(0.001)
    return pixels


def check_compressed(message: CompressedImage) -> None:
    """Checks a CompressedImage as far as its header goes, without unpacking it.

    Raises:
        MessageError: no data, no image format, cut off, or more than `MAX_PIXELS`.
    """
    _check_packed(bytes(message.data), message.format)


def _check_packed(data: bytes, name: str) -> None:
    """What a packed image's own header says, checked; `name` is the message's format."""
    if not data:
        raise MessageError("data is empty")
    try:
        with PillowImage.open(io.BytesIO(data)) as header:
            width, height = header.size
            kind = header.format
    except Exception as error:  # Pillow raises a good dozen of types on broken headers
        raise MessageError(f"data (format {name[:40]!r}) is no image that can be read: {error}") from error
    if width * height > MAX_PIXELS:
        raise MessageError(f"unpacked, the image would have {width}x{height} pixels; at most {MAX_PIXELS} are read")
    # libjpeg paints what is missing grey and says nothing; USB cameras do send such frames.
    if kind == "JPEG" and data.rfind(b"\xff\xd9") < 0:
        raise MessageError("JPEG data is cut off: it has no end marker")


def compressed_to_rgb(message: CompressedImage) -> NDArray[np.uint8]:
    """The compressed image (JPEG, PNG, whatever OpenCV reads) as uint8 [height, width, 3] RGB.

    Raises:
        MessageError: as `check_compressed`, or data damaged further on.
    """
    check_compressed(message)
    # Not turned by EXIF: masks have to lie on the pixels that camera_info describes.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
    except cv2.error as error:
        raise MessageError(f"data can't be unpacked: {error}") from error
    if pixels is None:
        raise MessageError(f"data (format {message.format[:40]!r}) can't be unpacked")
    return _rgb(pixels, cv2.COLOR_BGR2RGB)


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


def _known(message: Image, encodings: dict[str, _Encoding]) -> _Encoding:
    if message.encoding in encodings:
        return encodings[message.encoding]
    hint = ""
    if message.encoding in _DEPTH_ONLY:
        hint = " (that is depth, for the topic `depth`)"
    elif message.encoding in COLOUR_ENCODINGS:
        hint = " (that is an image, for the topic `image`)"
    # Cut: an encoding may be a megabyte of rubbish.
    raise MessageError(f"encoding {message.encoding[:40]!r}{hint} is not one of {', '.join(encodings)}")


def _check_layout(message: Image, encoding: _Encoding) -> None:
    width, height, step = message.width, message.height, message.step
    if width == 0 or height == 0:
        raise MessageError(f"image of {width}x{height} pixels is empty")
    if width * height > MAX_PIXELS:
        raise MessageError(f"image of {width}x{height} pixels is too large; at most {MAX_PIXELS} pixels are read")
    if step < width * encoding.pixel_bytes:
        raise MessageError(
            f"step is {step} bytes, but {width} pixels of {message.encoding} have {width * encoding.pixel_bytes}"
        )
    # The last row may lack its padding, some drivers leave it out.
    needed = step * (height - 1) + width * encoding.pixel_bytes
    if len(message.data) < needed:
        raise MessageError(f"data has {len(message.data)} bytes, {height} rows of {step} need {needed}")


def _pixels(message: Image, encoding: _Encoding) -> NDArray[Any]:
    """View of the message's data as [H, W] or [H, W, C], in the machine's byte order."""
    row_bytes = message.width * encoding.pixel_bytes
    dense = message.step == row_bytes and len(message.data) == message.height * row_bytes
    if dense and not message.is_bigendian:
        bridged = bridge.read_image(message, encoding.dtype, encoding.channels)
        if bridged is not None:
            return bridged
    return pixel_view(message, encoding.dtype, encoding.channels)


def _rgb(pixels: NDArray[Any], code: int) -> NDArray[Any]:
    return np.asarray(cv2.cvtColor(pixels, code))


def _high_byte(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
