"""From camera_info, ROS's and rosbags' alike, to the camera of its images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from monet_perception.lens import Distortion
from monet_perception.projection import Intrinsics
from monet_perception.raw_images import MessageError


def named_rectified(topic: str) -> bool:
    """Whether the images of a topic are rectified, by its name, as `image_rect` and `image_rect_color`."""
    return re.search(r"(?:^|[/_])rect", topic) is not None


def camera_intrinsics(info: Any, *, rectified: bool) -> Intrinsics:
    """Intrinsics of the images that a sensor_msgs/CameraInfo describes, with binning and roi applied.

    Args:
        info: of either kind of image: drivers publish one CameraInfo, with P filled in, beside raw images as well.
        rectified: whether the images are: then they follow the matrix P (K where P is empty) without distortion, and
            raw images K with distortion.
    Raises:
        MessageError: not calibrated (zero focal length), numbers that aren't finite, or an unknown distortion model.
    """
    matrix = np.reshape(info.k, (3, 3))
    if rectified and info.p[0] > 0:
        matrix = np.reshape(info.p, (3, 4))[:, :3]
    columns, rows = max(1, info.binning_x), max(1, info.binning_y)
    region = info.roi
    whole = region.width == 0 or region.height == 0
    width, height = (info.width, info.height) if whole else (region.width, region.height)
    try:
        return Intrinsics(
            fx=float(matrix[0, 0]) / columns,
            fy=float(matrix[1, 1]) / rows,
            cx=(float(matrix[0, 2]) - region.x_offset) / columns,
            cy=(float(matrix[1, 2]) - region.y_offset) / rows,
            width=int(width) // columns,
            height=int(height) // rows,
            distortion=None if rectified else _distortion(info),
        )
    except ValueError as error:
        raise MessageError(f"camera_info is not a calibration: {error}") from error


def check_size(intrinsics: Intrinsics, width: int, height: int) -> None:
    """Checks that intrinsics are those of images of `width` x `height` pixels.

    Raises:
        MessageError: made for another size.
    """
    size = intrinsics.width, intrinsics.height
    if size != (width, height):
        raise MessageError(f"camera_info is for images of {size[0]}x{size[1]} pixels, the image has {width}x{height}")


def _distortion(info: Any) -> Distortion | None:
    coefficients = tuple(float(coefficient) for coefficient in info.d)
    # An equidistant lens with coefficients of zero is no pinhole; every other model then is, whatever it is called.
    if not np.any(coefficients) and info.distortion_model != "equidistant":
        return None
    return Distortion(info.distortion_model, coefficients)
