"""The recording of a moving room: what a robot's nodes, rosbags and ROS itself read from it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from train.render import main
from train.scenes.clip import TOPICS
from train.scenes.sequence import RoomSequence

SHIPPED = Path(__file__).parents[1] / "monet_perception" / "data" / "demo.mcap"
Messages = dict[str, list[Any]]


def read(path: Path) -> Messages:
    messages: Messages = {}
    with AnyReader([path]) as reader:
        assert {connection.topic: connection.msgtype for connection in reader.connections} == TOPICS
        for connection, time, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            messages.setdefault(connection.topic, []).append(message)
            if hasattr(message, "header"):
                assert nanoseconds(message) == time
    return messages


def nanoseconds(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def pixels(message: Any) -> np.ndarray:
    dtype, channels = {"rgb8": (np.uint8, 3), "mono8": (np.uint8, 1), "16UC1": (np.uint16, 1)}[message.encoding]
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    return message.data.view(dtype).reshape(message.height, message.width, channels).squeeze()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "room.mcap"
    command = [sys.executable, "-m", "train.render", "rooms", "--sequence", str(path)]
    subprocess.run([*command, "--seconds", "2", "--rate", "5", "--objects", "4", "--seed", "7"], check=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["room.mcap"]
    return path


@pytest.fixture(scope="module")
def messages(recording: Path) -> Messages:
    return read(recording)


def test_every_topic_has_every_instant(messages: Messages) -> None:
    stamps = [nanoseconds(message) for message in messages["/camera/image"]]
    assert np.diff(stamps).tolist() == [200_000_000] * 9
    for topic in ("/camera/depth", "/camera/labels", "/camera/camera_info", "/camera/pose"):
        assert [nanoseconds(message) for message in messages[topic]] == stamps
        frame = "world" if topic == "/camera/pose" else "camera_optical_frame"
        assert {message.header.frame_id for message in messages[topic]} == {frame}
    for array, stamp in zip(messages["/camera/objects"], stamps, strict=True):
        assert [marker.id for marker in array.markers] == [4, 5, 6, 7]
        assert {nanoseconds(marker) for marker in array.markers} == {stamp}
    for message in messages["/tf"]:
        assert message.transforms[0].child_frame_id == "camera_optical_frame"


def test_depth_and_pose_put_the_objects_where_the_markers_are(messages: Messages) -> None:
    seen = set()
    for instant, array in enumerate(messages["/camera/objects"]):
        world = surface_points(messages, instant)
        labels = pixels(messages["/camera/labels"][instant])
        np.testing.assert_allclose(world[labels == 1][:, 2], 0, atol=0.003)
        for marker in array.markers:
            surface = world[labels == marker.id]
            if len(surface) < 20:
                continue
            seen.add(marker.id)
            centre = np.array([getattr(marker.pose.position, axis) for axis in "xyz"])
            half = np.array([getattr(marker.scale, axis) for axis in "xyz"]) / 2
            turn = marker.pose.orientation
            local = (surface - centre) @ Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
            assert np.all(np.abs(local) <= half + 0.01)
            assert np.abs(local / half).max() > 0.8  # the box isn't larger than the object
    assert seen == {4, 5, 6, 7}


def surface_points(messages: Messages, instant: int) -> np.ndarray:
    k = messages["/camera/camera_info"][instant].k
    depth = pixels(messages["/camera/depth"][instant]) / 1000
    rows, columns = np.indices(depth.shape)
    optical = np.stack([(columns - k[2]) / k[0] * depth, (rows - k[5]) / k[4] * depth, depth], axis=-1)
    pose = messages["/camera/pose"][instant].pose
    turn = Rotation.from_quat([getattr(pose.orientation, axis) for axis in "xyzw"])
    return optical @ turn.as_matrix().T + [getattr(pose.position, axis) for axis in "xyz"]


def test_camera_and_some_objects_move_smoothly(messages: Messages) -> None:
    eyes = np.array([[getattr(m.pose.position, axis) for axis in "xyz"] for m in messages["/camera/pose"]])
    assert 0.005 < np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 1.5
    centres = np.array(
        [[[m.pose.position.x, m.pose.position.y] for m in array.markers] for array in messages["/camera/objects"]]
    )
    moved = np.linalg.norm(np.diff(centres, axis=0), axis=2).sum(axis=0) > 0.1
    assert moved.tolist() == [True, True, False, False]


def test_a_sequence_ends_where_it_began() -> None:
    sequence = RoomSequence(seed=1, objects=3, moving=2, period=6)
    start, end = sequence.scene(0), sequence.scene(6)
    np.testing.assert_allclose(start.camera.position, end.camera.position)
    np.testing.assert_allclose(start.camera.forward, end.camera.forward)
    for first, last in zip(start.things, end.things, strict=True):
        np.testing.assert_allclose(first.position, last.position)
        np.testing.assert_allclose(first.rotation, last.rotation, atol=1e-9)


def test_ros_reads_the_messages(recording: Path) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo, Image
    from visualization_msgs.msg import MarkerArray

    kinds = {"Image": Image, "CameraInfo": CameraInfo, "PoseStamped": PoseStamped, "MarkerArray": MarkerArray}
    read_kinds = set()
    with AnyReader([recording]) as reader:
        for connection, _, raw in reader.messages():
            name = connection.msgtype.rsplit("/", 1)[1]
            if name in kinds:
                message = serialization.deserialize_message(bytes(raw), kinds[name])
                header = message.markers[0].header if name == "MarkerArray" else message.header
                assert header.frame_id in ("world", "camera_optical_frame")
                read_kinds.add(name)
    assert read_kinds == set(kinds)


def test_a_recording_is_not_replaced_unasked(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = recording.read_bytes()
    assert main(["rooms", "--sequence", str(recording)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert recording.read_bytes() == before


def test_shipped_clip_fits_its_purpose() -> None:
    assert SHIPPED.stat().st_size <= 8_000_000
    messages = read(SHIPPED)
    stamps = [nanoseconds(message) for message in messages["/camera/image"]]
    assert 10 <= (stamps[-1] - stamps[0]) / 1e9 <= 20
    assert 10 <= 1e9 / np.median(np.diff(stamps)) <= 15
    assert pixels(messages["/camera/image"][0]).shape == (240, 320, 3)
    in_view = [
        [(pixels(message)[:, 40:280] == marker.id).sum() >= 500 for marker in array.markers]
        for message, array in zip(messages["/camera/labels"], messages["/camera/objects"], strict=True)
    ]
    assert np.mean(in_view) > 0.9, "the middle square shows the objects nearly all the time"
