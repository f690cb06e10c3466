"""Images read by cv_bridge, where it is installed and reads them right."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image


def read_image(message: Image, dtype: str, channels: int) -> NDArray[Any] | None:
    """The pixels [H, W] or [H, W, C] of an image; None where there is no cv_bridge, or none that reads its encoding.

    Args:
        message: of whole rows without padding, little-endian.
        dtype: of a channel: `u1`, `u2` or `f4`.
        channels: of a pixel.
    """
    bridge = load_bridge()
    if bridge is None or not _reads(message.encoding, dtype, channels):
        return None
    pixels: NDArray[Any] = bridge.imgmsg_to_cv2(message)
    return pixels


@functools.cache
def load_bridge() -> Any:
    """cv_bridge, where it is installed and can be used with this NumPy, else None.

    ROS's cv_bridge is compiled; built for NumPy 1, it crashes the process under NumPy 2 (vision_opencv #535).
    """
    spec = importlib.util.find_spec("cv_bridge")
    if spec is None:
        return None
    # Looked for as a file: `find_spec` of a part imports the whole, and with it the compiled part.
    folders = [Path(folder) / "boost" for folder in spec.submodule_search_locations or ()]
    compiled = any(path.suffix != ".py" for folder in folders for path in folder.glob("cv_bridge_boost*"))
    if compiled and int(np.__version__.split(".")[0]) >= 2:
        return None
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):  # built for another NumPy, Python or OpenCV
        return None
    return CvBridge()


@functools.cache
def _reads(encoding: str, dtype: str, channels: int) -> bool:
    """Whether this cv_bridge reads an encoding right, found by having it read an image of 2x2 pixels.

    It has to be tried. PyPI's port to Python was measured to read 16UC1 as 8 bit, with OpenCV 5 to take rgb8 for nine
    channels, and to call NumPy functions that NumPy 2 removed. No version was found that heeds row padding everywhere,
    so padded images never go through it, and messages are never written by it.
    """
    values = 60 * np.arange(4 * channels)
    pixels = values.astype(np.dtype(dtype).newbyteorder("<")).reshape(2, 2, channels)
    message = Image(height=2, width=2, encoding=encoding, step=pixels.nbytes // 2, data=pixels.tobytes())
    try:
        read = load_bridge().imgmsg_to_cv2(message)
    except Exception:  # whatever it raises, it isn't to be used
        return False
    expected = pixels[..., 0] if channels == 1 else pixels
    return bool(read.dtype == expected.dtype.newbyteorder("=") and np.array_equal(read, expected))
