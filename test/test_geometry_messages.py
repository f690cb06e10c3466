"""Markers and clouds: what viewers and subscribers get, through real messages and their serialisation."""

import numpy as np
import pytest
from clouds import read_cloud, unpack_rgb
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from monet_perception.geometry import SlotGeometry, slot_geometry
from monet_perception.nodes.cloud import POINT, build_cloud, pack_rgb
from monet_perception.nodes.markers import BOXES, IDS, NAMESPACES, UNCERTAINTY, build_markers, shown_tracks
from monet_perception.projection import Intrinsics
from monet_perception.region import Region

CAMERA = Intrinsics(20.0, 25.0, 15.5, 11.5, 32, 24)
ROI = Region(4, 0, 24, 24)
HEADER = Header(frame_id="camera_optical")


def a_scene(seed: int = 0):
    """image [12, 12, 3], masks [3, 12, 12], track ids, depth [24, 32] with holes."""
    rng = np.random.default_rng(seed)
    masks = np.exp(3 * rng.normal(size=(3, 12, 12))).astype(np.float32)
    depth = rng.uniform(1, 2, (24, 32)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = rng.choice([0, np.nan])
    image = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return image, masks / masks.sum(0), np.array([7, -1, 3], np.int32), depth


def geometry(x: float = 0.0) -> SlotGeometry:
    spread = Rotation.from_euler("xyz", [0.3, 0.5, 0.7]).as_matrix()
    covariance = spread @ np.diag([0.01, 0.04, 0.09]) @ spread.T
    return SlotGeometry(np.array([x, 0.2, 2.0]), covariance, np.array([0.3, 0.4, 0.0]))


def through_the_wire(message, kind):
    return deserialize_message(serialize_message(message), kind)


# Clouds --------------------------------------------------------------------------------------------


def test_a_cloud_holds_every_pixel_that_has_depth_with_its_owner():
    image, masks, tracks, depth = a_scene()
    message = through_the_wire(build_cloud(HEADER, image, masks, tracks, ROI, depth, CAMERA), PointCloud2)
    points = read_cloud(message)
    rows, columns = np.mgrid[1:24:2, 5:28:2]
    read = depth[rows, columns]
    seen = np.nan_to_num(read) > 0
    assert message.header.frame_id == "camera_optical"
    assert message.is_dense
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "slot", "track", "confidence"]
    assert len(points) == message.width == seen.sum()
    np.testing.assert_array_equal(points["z"], read[seen])
    np.testing.assert_allclose(points["x"], ((columns - CAMERA.cx) / CAMERA.fx * read)[seen], rtol=1e-6)
    np.testing.assert_allclose(points["y"], ((rows - CAMERA.cy) / CAMERA.fy * read)[seen], rtol=1e-6)
    np.testing.assert_array_equal(points["slot"], masks.argmax(0)[seen])
    np.testing.assert_array_equal(points["track"], tracks[masks.argmax(0)[seen]])
    np.testing.assert_array_equal(points["confidence"], masks.max(0)[seen])
    np.testing.assert_array_equal(unpack_rgb(points["rgb"]), image[seen])


def test_a_cloud_without_depth_is_empty_and_valid():
    image, masks, tracks, depth = a_scene()
    message = build_cloud(HEADER, image, masks, tracks, ROI, np.zeros_like(depth), CAMERA)
    assert len(read_cloud(through_the_wire(message, PointCloud2))) == 0


def test_a_cloud_is_what_sensor_msgs_py_makes_and_reads():
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="comes with ROS only")
    image, masks, tracks, depth = a_scene()
    message = build_cloud(HEADER, image, masks, tracks, ROI, depth, CAMERA)
    assert (message.point_step, message.row_step) == (POINT.itemsize, POINT.itemsize * message.width)
    layout = np.frombuffer(message.data, POINT)
    for name in POINT.names:
        np.testing.assert_array_equal(point_cloud2.read_points(message)[name].ravel(), layout[name])


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1))
def test_colours_survive_packing(colours):
    colours = np.array(colours, np.uint8)
    np.testing.assert_array_equal(unpack_rgb(pack_rgb(colours)), colours)


def test_colours_are_packed_as_pcl_does():
    assert pack_rgb(np.array([[1, 2, 3]], np.uint8)).view(np.uint32)[0] == 0x010203


def test_arrays_that_do_not_fit_are_named():
    image, masks, tracks, depth = a_scene()
    with pytest.raises(ValueError, match=r"\[12, 12, 3\], \[2\]"):
        build_cloud(HEADER, image, masks, tracks[:2], ROI, depth, CAMERA)


# Markers -------------------------------------------------------------------------------------------


def test_each_track_with_geometry_has_a_box_an_ellipsoid_and_an_id():
    message = build_markers(HEADER, [7, -1, 3, 4], [geometry(1.0), geometry(), geometry(-1.0), None])
    message = through_the_wire(message, MarkerArray)
    assert shown_tracks(message) == {7, 3}
    assert sorted((m.ns, m.id) for m in message.markers) == sorted((ns, i) for ns in NAMESPACES for i in (7, 3))
    box = next(m for m in message.markers if (m.ns, m.id) == (BOXES, 7))
    assert (box.pose.position.x, box.pose.position.y, box.pose.position.z) == (1.0, 0.2, 2.0)
    assert (box.scale.x, box.scale.y) == (0.3, 0.4)
    assert box.scale.z > 0  # a flat box would not be drawn
    assert all(0 < m.lifetime.sec < 60 for m in message.markers), "a deletion may get lost"
    label = next(m for m in message.markers if (m.ns, m.id) == (IDS, 7))
    assert label.pose.position.y < box.pose.position.y - box.scale.y / 2, "not above the box: y points down"
    assert all(m.header.frame_id == "camera_optical" and m.action == Marker.ADD for m in message.markers)
    assert {m.text for m in message.markers if m.type == Marker.TEXT_VIEW_FACING} == {"7", "3"}


def test_tracks_that_are_gone_are_deleted_once():
    first = build_markers(HEADER, [1, 2], [geometry(), geometry()])
    second = build_markers(HEADER, [1, -1], [geometry(), None], shown=shown_tracks(first))
    deleted = [(m.ns, m.id) for m in second.markers if m.action == Marker.DELETE]
    assert sorted(deleted) == sorted((ns, 2) for ns in NAMESPACES)
    third = build_markers(HEADER, [1, -1], [geometry(), None], shown=shown_tracks(second))
    assert all(m.action == Marker.ADD for m in third.markers)


def test_background_gets_no_box_and_one_that_became_background_loses_its_own():
    message = build_markers(HEADER, [1, 2], [geometry(), geometry()], background=[True, False], shown={1})
    assert shown_tracks(message) == {2}
    assert {m.id for m in message.markers if m.action == Marker.DELETE} == {1}


def test_a_track_keeps_its_colour():
    first = build_markers(HEADER, [5, 9], [geometry(), geometry()]).markers[0].color
    second = build_markers(HEADER, [2, 5], [geometry(), geometry()])
    assert next(m for m in second.markers if m.id == 5).color == first


@given(st.integers(0, 2**32 - 1))
def test_the_ellipsoid_is_the_covariance(seed):
    root = np.random.default_rng(seed).normal(size=(3, 3))
    covariance = root @ root.T + 0.01 * np.eye(3)
    slot = SlotGeometry(np.zeros(3), covariance, np.ones(3))
    marker = next(m for m in build_markers(HEADER, [0], [slot]).markers if m.ns == UNCERTAINTY)
    q, scale = marker.pose.orientation, marker.scale
    axes = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    half_axes = np.array([scale.x, scale.y, scale.z]) / 2 / 2.5
    np.testing.assert_allclose(axes @ np.diag(half_axes**2) @ axes.T, covariance, atol=1e-6)


def test_markers_take_what_slot_geometry_gives():
    _, masks, tracks, depth = a_scene()
    message = build_markers(HEADER, tracks, slot_geometry(masks, ROI, depth, CAMERA))
    assert shown_tracks(through_the_wire(message, MarkerArray)) == {7, 3}
