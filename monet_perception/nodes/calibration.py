"""The camera of an image that came as a message."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo

from monet_perception import calibration
from monet_perception.projection import Intrinsics
from monet_perception.raw_images import MessageError


def to_intrinsics(message: CameraInfo, *, rectified: bool) -> Intrinsics:
    """`calibration.camera_intrinsics` of a message.

    Raises:
        MessageError: not a calibration.
    """
    try:
        return calibration.camera_intrinsics(message, rectified=rectified)
    except ValueError as error:
        raise MessageError(f"camera_info is not a calibration: {error}") from error


def check_size(intrinsics: Intrinsics, width: int, height: int) -> None:
    """`calibration.check_size` where a message is to blame.

    Raises:
        MessageError: made for another size.
    """
    try:
        calibration.check_size(intrinsics, width, height)
    except ValueError as error:
        raise MessageError(str(error)) from error
