"""Slots in 3D as visualization_msgs: a box, an ellipsoid of uncertainty and an id for each track."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Quaternion, Vector3
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from monet_perception.geometry import SlotGeometry
from monet_perception.palette import track_colours

BOXES, UNCERTAINTY, IDS = "slot_boxes", "slot_uncertainty", "slot_ids"
NAMESPACES = (BOXES, UNCERTAINTY, IDS)
"""Marker namespaces, each to be switched on and off by itself in rviz and Foxglove."""

SMALLEST_BOX = 0.01
"""Metres; viewers warn about a scale of zero and draw nothing."""
LIFETIME = Duration(sec=5)
"""After which a viewer drops a marker by itself: a deletion may get lost, and a camera may fall silent."""
ELLIPSOID = 2.5
"""Half axes of the ellipsoid in standard deviations: it holds the true centre nine times in ten (chi-square, 3 degrees
of freedom: 2.5^2 = 6.25)."""


def build_markers(
    header: Header,
    track_ids: ArrayLike,
    geometries: Sequence[SlotGeometry | None],
    *,
    background: ArrayLike | None = None,
    shown: Collection[int] = (),
) -> MarkerArray:
    """Boxes, ellipsoids and ids of the tracks that have a geometry, and deletions of those that don't any more.

    The marker's id is the track's, so that a viewer moves a box instead of drawing a second one.

    Args:
        header: the image's; the boxes are in its frame.
        track_ids: [K], -1 for empty slots.
        geometries: K, None where a slot has none.
        background: bool [K], slots to leave out: the box of a wall hides everything in it. None: none left out.
        shown: track ids in the last message sent (`shown_tracks`).
    """
    track_ids = np.asarray(track_ids)
    left_out = np.zeros(len(track_ids), bool) if background is None else np.asarray(background, bool)
    colours = track_colours(track_ids) / 255.0
    message = MarkerArray()
    drawn = set()
    for track, geometry, colour, skip in zip(track_ids.tolist(), geometries, colours, left_out, strict=True):
        if track < 0 or geometry is None or skip:
            continue
        drawn.add(track)
        message.markers += [
            _box(header, track, geometry, colour),
            _ellipsoid(header, track, geometry, colour),
            _label(header, track, geometry),
        ]
    for track in sorted(set(shown) - drawn):
        message.markers += [
            Marker(header=header, ns=namespace, id=track, action=Marker.DELETE) for namespace in NAMESPACES
        ]
    return message


def shown_tracks(message: MarkerArray) -> set[int]:
    """Track ids that a viewer shows after this message: `shown` of the next one."""
    return {marker.id for marker in message.markers if marker.action == Marker.ADD}


def _box(header: Header, track: int, geometry: SlotGeometry, colour: NDArray[np.float64]) -> Marker:
    marker = _marker(header, BOXES, track, Marker.CUBE, geometry)
    marker.scale = _vector(np.maximum(geometry.extent, SMALLEST_BOX))
    marker.color = _colour(colour, 0.35)
    return marker


def _ellipsoid(header: Header, track: int, geometry: SlotGeometry, colour: NDArray[np.float64]) -> Marker:
    marker = _marker(header, UNCERTAINTY, track, Marker.SPHERE, geometry)
    variances, axes = np.linalg.eigh(geometry.covariance)
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1  # eigenvectors may form a mirror, which no quaternion can express
    x, y, z, w = Rotation.from_matrix(axes).as_quat()
    marker.pose.orientation = Quaternion(x=float(x), y=float(y), z=float(z), w=float(w))
    marker.scale = _vector(np.maximum(2 * ELLIPSOID * np.sqrt(np.maximum(variances, 0)), SMALLEST_BOX))
    marker.color = _colour(colour, 0.6)
    return marker


def _label(header: Header, track: int, geometry: SlotGeometry) -> Marker:
    marker = _marker(header, IDS, track, Marker.TEXT_VIEW_FACING, geometry)
    height = max(0.05, 0.25 * float(geometry.extent[1]))
    marker.pose.position.y -= 0.5 * float(geometry.extent[1]) + height  # y points down in the optical frame
    marker.scale = Vector3(x=0.0, y=0.0, z=height)
    marker.color = _colour(np.ones(3), 1.0)
    marker.text = str(track)
    return marker


def _marker(header: Header, namespace: str, track: int, kind: int, geometry: SlotGeometry) -> Marker:
    marker = Marker(header=header, ns=namespace, id=track, type=kind, action=Marker.ADD, lifetime=LIFETIME)
    x, y, z = (float(value) for value in geometry.centroid)
    marker.pose.position = Point(x=x, y=y, z=z)
    return marker


def _vector(values: NDArray[np.float64]) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)


def _colour(rgb: NDArray[np.float64], alpha: float) -> ColorRGBA:
    r, g, b = (float(channel) for channel in rgb)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)
