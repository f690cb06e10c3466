"""From camera_info to the pinhole camera of its images."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo

from monet_perception.geometry import Intrinsics
from monet_perception.nodes.conversions import MessageError


def check_camera_info(message: CameraInfo) -> None:
    """Checks that a CameraInfo is a calibration.

    Raises:
        MessageError: as `to_intrinsics`, whatever the image's size.
    """
    to_intrinsics(message, *_described_size(message))


def to_intrinsics(message: CameraInfo, width: int, height: int) -> Intrinsics:
    """Pinhole intrinsics of an image of `width` x `height` pixels from its CameraInfo, with binning and roi applied.

    Args:
        message: its matrix P where it has one (a rectified camera), else K.
        width, height: size of the image that the intrinsics are for.
    Raises:
        MessageError: not calibrated (zero focal length), numbers that aren't finite, or made for another size.
    """
    rectified = message.p[0] > 0
    matrix = np.reshape(message.p, (3, 4))[:, :3] if rectified else np.reshape(message.k, (3, 3))
    binning, region, size = _binning(message), message.roi, _described_size(message)
    if size != (width, height):
        raise MessageError(f"camera_info is for images of {size[0]}x{size[1]} pixels, the image has {width}x{height}")
    try:
        return Intrinsics(
            fx=float(matrix[0, 0]) / binning[0],
            fy=float(matrix[1, 1]) / binning[1],
            cx=(float(matrix[0, 2]) - region.x_offset) / binning[0],
            cy=(float(matrix[1, 2]) - region.y_offset) / binning[1],
            width=width,
            height=height,
        )
    except ValueError as error:
        raise MessageError(f"camera_info is not a calibration: {error}") from error


def _binning(message: CameraInfo) -> tuple[int, int]:
    return max(1, message.binning_x), max(1, message.binning_y)


def _described_size(message: CameraInfo) -> tuple[int, int]:
    """Width and height in pixels of the images that a CameraInfo describes, after its roi and binning."""
    horizontal, vertical = _binning(message)
    full = message.roi.width == 0 or message.roi.height == 0
    width, height = (message.width, message.height) if full else (message.roi.width, message.roi.height)
    return width // horizontal, height // vertical
