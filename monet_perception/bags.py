"""Opens recordings (MCAP or ROS 2 bag) without ROS and decodes their images, with `rosbags`, an optional dependency."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from monet_perception.clip import IMAGES
from monet_perception.image_layout import pixel_view

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection


class BagError(ValueError):
    """A recording or a message of it that can't be read."""


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """A reader of a rosbag2 folder, or of an .mcap or .db3 file.

    Raises:
        ModuleNotFoundError: rosbags is not installed.
        FileNotFoundError: there is nothing at the path.
        BagError: it is no recording, or a damaged one.
    """
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading recordings needs rosbags: pip install 'monet_perception[demo]'") from error
    if not path.exists():
        raise FileNotFoundError(f"no recording at {path}")
    # Recordings of earlier ROS 2 releases don't hold the definitions of their messages.
    reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
    try:
        reader.open()
    except (AnyReaderError, OSError) as error:
        raise BagError(
            f"{path} can't be read as a rosbag2 folder, .mcap or .db3 file ({error}); "
            "a recording that was cut off can be mended with `ros2 bag reindex` or `mcap recover`"
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def raw_messages(reader: AnyReader, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages in the order of recording, not deserialised: connection, nanoseconds and bytes.

    Raises:
        BagError: the recording is damaged from here on.
    """
    try:
        yield from reader.messages(connections)
    except Exception as error:  # rosbags lets through what its decompressors raise
        raise BagError(f"the recording is damaged from here on ({type(error).__name__}: {error})") from error


def deserialise(reader: AnyReader, connection: Connection, data: bytes) -> Any:
    """The message that a connection's bytes are.

    Raises:
        BagError: they are none of its type.
    """
    try:
        return reader.deserialize(data, connection.msgtype)
    except Exception as error:  # damaged bytes may raise anything in rosbags' decoding
        raise BagError(f"a message on {connection.topic} is damaged ({type(error).__name__}: {error})") from error


def choose_images(path: Path, topics: Collection[str]) -> str:
    """The topic of `IMAGES` that a recording's images are on.

    Raises:
        BagError: it has none of them.
    """
    chosen = next((topic for topic in IMAGES if topic in topics), None)
    if chosen is None:
        raise BagError(f"{path} has no images on {' or '.join(IMAGES)}; its topics are {', '.join(sorted(topics))}")
    return chosen


def read_rgb(message: Any) -> NDArray[np.uint8]:
    """Image or CompressedImage of any encoding that rosbags knows as uint8 [H, W, 3] RGB.

    Raises:
        BagError: damaged, or of an unknown encoding.
    """
    if hasattr(message, "format"):
        # Not turned by EXIF: masks have to lie on the pixels that camera_info describes.
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            image = cv2.imdecode(np.asarray(message.data), flags)
        except cv2.error:  # of no bytes at all, for one
            image = None
        if image is None:
            raise BagError(f"its {message.format or 'compressed'} data can't be decoded")
        return np.asarray(image, np.uint8)
    from rosbags.image.image import ImageError, convert_color

    pixels = _pixels(message)
    try:
        return np.asarray(convert_color(pixels, message.encoding, "rgb8"), np.uint8)
    except (ImageError, cv2.error) as error:
        raise BagError(str(error)) from error


def read_labels(message: Any) -> NDArray[np.uint8]:
    """Label map of an Image, uint8 [H, W].

    Raises:
        BagError: damaged, or not mono8 or 8UC1.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise BagError(f"labels are {message.encoding} instead of mono8")
    return np.asarray(_pixels(message), np.uint8)


def read_metres(message: Any) -> NDArray[np.float32]:
    """Depth of an Image in metres, float32 [H, W]; zero or NaN where there is none.

    Raises:
        BagError: damaged, or neither 16UC1 or mono16 (millimetres) nor 32FC1 (metres).
    """
    if message.encoding in ("16UC1", "mono16"):
        return _pixels(message).astype(np.float32) * np.float32(0.001)
    if message.encoding == "32FC1":
        return np.asarray(_pixels(message), np.float32)
    raise BagError(f"depth is {message.encoding} instead of 16UC1 or 32FC1")


def _pixels(message: Any) -> NDArray[Any]:
    """An Image's data as [H, W] or [H, W, C] in the machine's byte order.

    rosbags' own conversion reads padded rows askew, hence this.
    """
    from rosbags.image.image import ImageError, to_cvtype

    try:
        _, _, kind, channels = to_cvtype(message.encoding)
    except ImageError as error:
        raise BagError(str(error)) from error
    pixel = channels * np.dtype(kind).itemsize
    # The last row may lack its padding, some drivers leave it out.
    needed = message.step * (message.height - 1) + message.width * pixel
    if not message.width or not message.height or message.step < message.width * pixel or len(message.data) < needed:
        raise BagError(
            f"it has {len(message.data)} bytes, {message.height} rows of {message.step}, "
            f"for {message.width}x{message.height} pixels of {message.encoding}"
        )
    return np.ascontiguousarray(pixel_view(message, kind, channels))
