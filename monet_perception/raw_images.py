"""Reads sensor_msgs/Image, of ROS or of rosbags, into arrays: colours, depth and labels, row padding and byte order.

Whatever is wrong with a message is a `MessageError` that names it. A message is checked before any of its data are
touched (microseconds), so that a node can count broken frames even while it is too busy to convert the good ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 2**26
"""Largest image that is read, in pixels (67 million)."""
MIN_BAYER_SIDE = 3
"""OpenCV leaves the pixels at the border of smaller mosaics black."""


class MessageError(ValueError):
    """A message that can't be what it says it is; the text names the field, its value and what was expected."""


@dataclass(frozen=True)
class Encoding:
    """How pixels lie in `Image.data`, and how OpenCV turns them into RGB.

    Attributes:
        dtype: of a channel: `u1`, `u2` or `f4`.
        channels: of a pixel.
        to_rgb: OpenCV's colour conversion; None where they are RGB, or no colours.
    """

    dtype: str
    channels: int
    to_rgb: int | None

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel."""
        return int(self.dtype[1:]) * self.channels


# OpenCV names a Bayer pattern by its second row and column, ROS by its first: rggb is Bayer*BG*.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
COLOUR_ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("u1", 3, None),
    "bgr8": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    # The generic names say nothing of colour; OpenCV's order is what their users mean.
    "8UC1": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": Encoding("u2", 3, None),
    "bgr16": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "mono16": Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "uyvy": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    **{f"bayer_{pattern}8": Encoding("u1", 1, code) for pattern, code in _BAYER.items()},
    **{f"bayer_{pattern}16": Encoding("u2", 1, code) for pattern, code in _BAYER.items()},
}
DEPTH_ENCODINGS: dict[str, Encoding] = {
    "16UC1": Encoding("u2", 1, None),
    "mono16": Encoding("u2", 1, None),  # what some drivers call it
    "32FC1": Encoding("f4", 1, None),
}
LABEL_ENCODINGS: dict[str, Encoding] = {name: COLOUR_ENCODINGS[name] for name in ("mono8", "8UC1")}


def check_colours(message: Any) -> None:
    """Checks that a colour or grey Image can be read by `read_colours`, without reading it.

    Raises:
        MessageError: unknown encoding, size of zero, rows shorter than their pixels, or less data than rows.
    """
    encoding = check_encoding(message, COLOUR_ENCODINGS)
    if message.encoding.startswith("bayer_") and min(message.width, message.height) < MIN_BAYER_SIDE:
        raise MessageError(
            f"a Bayer mosaic of {message.width}x{message.height} pixels can't be turned into colours; "
            f"at least {MIN_BAYER_SIDE}x{MIN_BAYER_SIDE} are needed"
        )
    if encoding.channels == 2 and message.width % 2:
        raise MessageError(f"{message.encoding} stores pixels in pairs, but width is {message.width}, an odd number")


def pixel_view(message: Any, encoding: Encoding) -> NDArray[Any]:
    """An Image's pixels [H, W] or [H, W, C] in the machine's byte order; a view of its data where those have it.

    Args:
        message: whose data are as long as its height and step say; the last row may lack its padding.
        encoding: the message's.
    """
    stored = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    shape, strides = (
        (message.height, message.width, encoding.channels),
        (message.step, encoding.pixel_bytes, stored.itemsize),
    )
    pixels = np.ndarray(shape, stored, buffer=message.data, strides=strides)
    if encoding.channels == 1:
        pixels = pixels[..., 0]
    return pixels.astype(stored.newbyteorder("="), copy=False)


PixelReader = Callable[[Any, Encoding], NDArray[Any]]
"""Does what `pixel_view` does."""


def read_colours(message: Any, pixels_of: PixelReader = pixel_view) -> NDArray[np.uint8]:
    """An Image as uint8 [height, width, 3] RGB; 16-bit encodings lose their lower byte. May be a view of the message.

    Raises:
        MessageError: as `check_colours`.
    """
    check_colours(message)
    encoding = COLOUR_ENCODINGS[message.encoding]
    pixels = pixels_of(message, encoding)
    if encoding.dtype == "u2" and not message.encoding.startswith("bayer_"):
        pixels = _high_byte(pixels)
    if encoding.to_rgb is not None:
        pixels = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), encoding.to_rgb))
    return np.ascontiguousarray(_high_byte(pixels))


def check_depth(message: Any) -> None:
    """Checks that a depth Image can be read by `read_depth`, without reading it.

    Raises:
        MessageError: as `check_colours`, for the encodings of depth.
    """
    check_encoding(message, DEPTH_ENCODINGS)


def read_depth(message: Any, pixels_of: PixelReader = pixel_view) -> NDArray[np.float32]:
    """A depth Image as float32 [height, width] in metres (REP 118: 16UC1 is in millimetres); holes are 0 or NaN.

    Raises:
        MessageError: as `check_depth`.
    """
    pixels = pixels_of(message, check_encoding(message, DEPTH_ENCODINGS))
    if pixels.dtype == np.uint16:
        return pixels * np.float32(0.001)
    return pixels


def read_labels(message: Any) -> NDArray[np.uint8]:
    """The label map that an Image is, uint8 [height, width].

    Raises:
        MessageError: as `check_colours`, for the encodings of labels.
    """
    return np.ascontiguousarray(pixel_view(message, check_encoding(message, LABEL_ENCODINGS)))


def check_encoding(message: Any, encodings: Mapping[str, Encoding]) -> Encoding:
    """The message's encoding, one of those given by name, in which its data have the size that its other fields say.

    Raises:
        MessageError: another encoding, size of zero, rows shorter than their pixels, or less data than rows.
    """
    encoding = _known(message.encoding, encodings)
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
    return encoding


def _known(name: str, encodings: Mapping[str, Encoding]) -> Encoding:
    if name in encodings:
        return encodings[name]
    hint = ""
    if encodings is COLOUR_ENCODINGS and name in DEPTH_ENCODINGS:
        hint = " (that is depth, for the topic `depth`)"
    elif encodings is DEPTH_ENCODINGS and name in COLOUR_ENCODINGS:
        hint = " (that is an image, for the topic `image`)"
    # Cut: an encoding may be a megabyte of rubbish.
    raise MessageError(f"encoding {name[:40]!r}{hint} is not one of {', '.join(encodings)}")


def _high_byte(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
