"""Reads point clouds, as their consumers do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

NUMBERS = {PointField.FLOAT32: "f4", PointField.INT32: "i4", PointField.UINT32: "u4"}


def read_cloud(message: PointCloud2) -> NDArray[np.void]:
    """The points of a cloud as a structured array [N] with one field for each PointField."""
    order = ">" if message.is_bigendian else "<"
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [order + NUMBERS[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(message.data, layout, count=message.width * message.height)


def unpack_rgb(packed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours [N, 3] uint8 of the floats [N] that PCL packs them into."""
    bits = np.ascontiguousarray(packed, np.float32).view(np.uint32)
    return np.stack([bits >> 16, bits >> 8, bits], axis=-1).astype(np.uint8)
