"""The camera of an image that came as a message."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo

from monet_perception.calibration import camera_intrinsics
from monet_perception.geometry import Intrinsics
from monet_perception.raw_images import MessageError


def to_intrinsics(message: CameraInfo, *, rectified: bool) -> Intrinsics:
    """`calibration.camera_intrinsics` of a message.

    Raises:
        MessageError: not a calibration.
    """
    try:
        return camera_intrinsics(message, rectified=rectified)
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
