"""The scene as a sensor_msgs/PointCloud2 whose points know their colour, slot, track and mask confidence."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from monet_perception.projection import Intrinsics, back_project
from monet_perception.region import Region

try:  # not on PyPI: installed with ROS only
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

_FORMATS = {"x": "f4", "y": "f4", "z": "f4", "rgb": "f4", "slot": "u4", "track": "i4", "confidence": "f4"}
POINT = np.dtype([(name, f"<{kind}") for name, kind in _FORMATS.items()])
"""One point, 28 bytes. `rgb` holds 0x00RRGGBB in the bits of a float, as PCL and rviz expect it."""

_DATATYPES = {"f4": PointField.FLOAT32, "i4": PointField.INT32, "u4": PointField.UINT32}


def build_cloud(
    header: Header,
    image: NDArray[np.uint8],
    masks: ArrayLike,
    track_ids: ArrayLike,
    roi: Region,
    depth: ArrayLike,
    intrinsics: Intrinsics,
) -> PointCloud2:
    """One point for each pixel of the masks that has depth, given to the slot with the largest mask.

    Args:
        header: the image's.
        image: [H, W, 3] RGB at the masks' resolution (`Decomposition.image`).
        masks: [K, H, W] in [0, 1]; the largest one is the point's confidence.
        track_ids: [K].
        roi, depth, intrinsics: as in `geometry.slot_geometry`.
    Returns:
        An unorganised cloud without NaN, with the fields of `POINT`.
    Raises:
        ValueError: shapes don't fit together.
    """
    masks, track_ids = np.asarray(masks), np.asarray(track_ids)
    if masks.ndim != 3 or image.shape != (*masks.shape[1:], 3) or track_ids.shape != masks.shape[:1]:
        raise ValueError(
            f"masks [K, H, W], image [H, W, 3] and track_ids [K] don't fit together: "
            f"{list(masks.shape)}, {list(image.shape)}, {list(track_ids.shape)}"
        )
    xyz = back_project(roi, masks.shape[1:], depth, intrinsics)
    seen = np.isfinite(xyz[..., 2])
    slot = masks.argmax(axis=0)[seen]
    points = np.empty(len(slot), POINT)
    points["x"], points["y"], points["z"] = xyz[seen].T
    points["rgb"] = pack_rgb(image[seen])
    points["slot"], points["track"] = slot, track_ids[slot]
    points["confidence"] = masks.max(axis=0)[seen]
    return _message(header, points)


def pack_rgb(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours [N, 3] uint8 as the floats that PCL packs them into, [N]."""
    red, green, blue = colours.astype(np.uint32).T
    return (red << 16 | green << 8 | blue).view(np.float32)


def _fields() -> list[PointField]:
    return [
        PointField(name=name, offset=4 * place, datatype=_DATATYPES[kind], count=1)
        for place, (name, kind) in enumerate(_FORMATS.items())
    ]


def _message(header: Header, points: NDArray[np.void]) -> PointCloud2:
    if point_cloud2 is not None:
        message = point_cloud2.create_cloud(header, _fields(), points)
        message.is_dense = True
        return message
    message = PointCloud2(header=header, fields=_fields(), height=1, width=len(points), is_dense=True)
    message.point_step, message.row_step = POINT.itemsize, points.nbytes
    data = array("B")
    data.frombytes(points.tobytes())  # a list here takes a thousand times as long
    message.data = data
    return message
