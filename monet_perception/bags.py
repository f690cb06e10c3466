"""Opens recordings (MCAP or ROS 2 bag) without ROS and decodes their images, with `rosbags`, an optional dependency."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monet_perception import compressed_images, raw_images
from monet_perception.clip import IMAGES

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
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading recordings needs rosbags: pip install 'monet_perception[demo]'") from error
    if not path.exists():
        raise FileNotFoundError(f"no recording at {path}")
    try:
        # Recordings of earlier ROS 2 releases don't hold the definitions of their messages.
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except Exception as error:  # rosbags has an error of its own, and lets through what damage makes of its numbers
        raise BagError(
            f"{path} can't be read as a rosbag2 folder, .mcap or .db3 file ({error}); "
            "a recording that was cut off can be mended with `ros2 bag reindex` or `mcap recover`"
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def raw_messages(
    reader: AnyReader, connections: Collection[Connection], start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages in the order of recording, not deserialised: connection, nanoseconds and bytes.

    Args:
        reader: from `open_bag`.
        connections: whose messages.
        start: nanoseconds, the first time that is wanted; None: the recording's first.
        stop: nanoseconds, the first time that is no longer wanted; None: to the end.
    Raises:
        BagError: the recording is damaged from here on.
    """
    try:
        yield from reader.messages(connections, start=start, stop=stop)
    except Exception as error:  # rosbags lets through what its decompressors raise
        raise BagError(
            f"{reader.paths[0]}: the recording is damaged from here on ({type(error).__name__}: {error})"
        ) from error


def deserialise(reader: AnyReader, connection: Connection, data: bytes) -> Any:
    """The message that a connection's bytes are.

    Raises:
        BagError: they are none of its type.
    """
    try:
        return reader.deserialize(data, connection.msgtype)
    except Exception as error:  # damaged bytes may raise anything in rosbags' decoding
        raise BagError(
            f"{reader.paths[0]}: a message on {connection.topic} is damaged ({type(error).__name__}: {error})"
        ) from error


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
    """Image or CompressedImage as uint8 [H, W, 3] RGB: of every encoding that the node takes, and as the node sees it.

    Raises:
        MessageError: damaged, or of an unknown encoding.
    """
    return _reader(message).read_colours(message)


def read_metres(message: Any) -> NDArray[np.float32]:
    """Depth of an Image, or of a CompressedImage (`compressedDepth`), in metres, float32 [H, W]; zero or NaN: none.

    Raises:
        MessageError: damaged, or neither 16UC1 or mono16 (millimetres) nor 32FC1 (metres).
    """
    return _reader(message).read_depth(message)


def _reader(message: Any) -> Any:
    return compressed_images if hasattr(message, "format") else raw_images
