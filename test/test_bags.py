"""Recordings read without ROS: images of every layout, and files that are none."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ray_cast import COMPRESSED, COMPRESSED_DEPTH, Ball, look_at, write_clip, write_recording
from std_msgs.msg import Header

from monet_perception.bags import BagError, open_bag, read_metres, read_rgb
from monet_perception.clip import DEMO_CLIP
from monet_perception.nodes.conversions import image_message, to_rgb
from monet_perception.projection import Intrinsics
from monet_perception.raw_images import COLOUR_ENCODINGS, MessageError, read_labels
from monet_perception.recording import read_frames


def message(pixels, encoding, padding=0, cut=0, big_endian=False):
    """An Image as rosbags deserialises it, its rows padded with `padding` bytes, the last by `cut` fewer."""
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    data = rows.reshape(-1)[: rows.size - cut]
    height, width = pixels.shape[:2]
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=big_endian, data=data
    )


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
paddings = st.integers(0, 5).flatmap(lambda padding: st.tuples(st.just(padding), st.integers(0, padding)))


@given(sizes.flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3))), paddings)
def test_colours_come_back_whatever_the_padding(pixels, padding):
    np.testing.assert_array_equal(read_rgb(message(pixels, "rgb8", *padding)), pixels)
    np.testing.assert_array_equal(read_rgb(message(pixels[..., ::-1], "bgr8", *padding)), pixels)
    np.testing.assert_array_equal(read_labels(message(pixels[..., 0], "mono8", *padding)), pixels[..., 0])


@given(sizes.flatmap(lambda size: hnp.arrays(np.uint16, size)), paddings, st.booleans())
def test_depth_comes_back_in_metres_whatever_the_padding_and_byte_order(millimetres, padding, big_endian):
    expected = (millimetres / 1000).astype(np.float32)
    read = read_metres(message(millimetres, "16UC1", *padding, big_endian=big_endian))
    np.testing.assert_allclose(read, expected, rtol=1e-6)
    read = read_metres(message(expected, "32FC1", *padding, big_endian=big_endian))
    np.testing.assert_array_equal(read, expected)


def test_a_photograph_is_not_turned_by_its_exif():
    """As in the node: masks have to lie on the pixels that camera_info describes."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    _, jpeg = cv2.imencode(".jpg", pixels)
    # An EXIF segment whose only entry says that the camera was turned by 90 degrees.
    exif = bytes.fromhex("ffe1002245786966000049492a00080000000100120103000100000006000000") + bytes(4)
    turned = jpeg.tobytes()[:2] + exif + jpeg.tobytes()[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3)
    assert read_rgb(SimpleNamespace(format="jpeg", data=np.frombuffer(turned, np.uint8))).shape == (16, 32, 3)


@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
def test_a_recording_has_the_colours_that_the_node_sees(encoding):
    kind = COLOUR_ENCODINGS[encoding]
    top = 2 ** (8 * np.dtype(kind.dtype).itemsize)
    pixels = np.random.default_rng(0).integers(0, top, (6, 8, kind.channels)).astype(kind.dtype).squeeze()
    np.testing.assert_array_equal(
        read_rgb(message(pixels, encoding)), to_rgb(image_message(Header(), pixels, encoding))
    )


@pytest.mark.parametrize(
    ("read", "broken", "fault"),
    [
        (read_rgb, message(np.zeros((4, 4, 3), np.uint8), "rgb8", cut=1), "47 bytes"),
        (read_rgb, message(np.zeros((4, 4, 3), np.uint8), "rgb9"), "rgb9"),
        (read_rgb, message(np.zeros((4, 4), np.float32), "32FC1"), "32FC1"),
        (read_labels, message(np.zeros((4, 4, 3), np.uint8), "rgb8"), "'rgb8' is not one of mono8, 8UC1"),
        (read_labels, message(np.zeros((4, 4), np.uint16), "16UC1"), "'16UC1' is not one of mono8, 8UC1"),
        (read_metres, message(np.zeros((4, 4), np.uint8), "mono8"), "'mono8' .* is not one of 16UC1"),
        (read_rgb, SimpleNamespace(format="", data=np.zeros(0, np.uint8)), "data is empty"),
    ],
)
def test_broken_images_are_named(read, broken, fault):
    with pytest.raises(MessageError, match=fault):
        read(broken)


def test_files_that_are_no_recordings(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"nothing")
    with pytest.raises(BagError, match=r"a\.mcap can't be read"), open_bag(tmp_path / "a.mcap"):
        pass
    with pytest.raises(FileNotFoundError, match=r"no recording at .*b\.mcap"), open_bag(tmp_path / "b.mcap"):
        pass


def test_a_recording_that_is_damaged_further_on_says_so(tmp_path):
    content = bytearray(DEMO_CLIP.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = bytes(5000)
    (tmp_path / "damaged.mcap").write_bytes(content)
    frames = read_frames(tmp_path / "damaged.mcap")
    assert next(frames).image.shape[2] == 3
    with pytest.raises(BagError, match="damaged from here on"):
        list(frames)


def test_files_that_are_no_whole_recording_say_so(tmp_path):
    (tmp_path / "notes.md").write_text("no recording")
    (tmp_path / "text.mcap").write_text("no recording")
    content = bytearray(DEMO_CLIP.read_bytes())
    summary = int.from_bytes(content[-28:-20], "little")  # the footer says where it begins
    content[summary + 1 : summary + 9] = b"\xff" * 8  # the length of its first record
    (tmp_path / "summary.mcap").write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(BagError, match="can't be read as a rosbag2 folder"), open_bag(path):
            pass


@pytest.mark.parametrize(("frames", "depth_late"), [(40, 0.0), (40, 0.015), (60, 0.0)])
def test_a_recording_whose_stamps_begin_again_loses_no_frame_and_mixes_none(tmp_path, frames, depth_late):
    first, second = (look_at((x, 0.0, 1.0), (0.0, 0.0, 0.3)) for x in (1.5, -1.5))
    lens = Intrinsics(30.0, 30.0, 16.0, 12.0, 32, 24)
    ball = Ball((0.0, 0.0, 0.3), 0.3)
    topics = ("/camera/camera_info", "/camera/image", "/camera/pose", "/camera/depth")
    path, cameras = tmp_path / "twice.mcap", [first] * frames + [second] * frames
    write_recording(path, [ball], cameras, lens, topics=topics, late={"/camera/depth": depth_late}, restart=frames)
    read = list(read_frames(path))
    np.testing.assert_allclose([frame.stamp for frame in read], 2 * [1 + number / 10 for number in range(frames)])
    np.testing.assert_allclose([frame.camera for frame in read], cameras, atol=1e-9)


def test_messages_that_can_t_be_read_cost_their_frames_only_and_are_counted(tmp_path, caplog):
    camera = look_at((1.5, 0.0, 1.0), (0.0, 0.0, 0.3))
    lens = Intrinsics(30.0, 30.0, 16.0, 12.0, 32, 24)
    topics = ("/camera/camera_info", "/camera/image", "/camera/pose", "/camera/depth")
    path = tmp_path / "doubtful.mcap"

    def spoil(number, messages):
        if number == 0:
            messages["/camera/camera_info"].k[:] = 0.0
        if number in (0, 2):
            turn = messages["/camera/pose"].pose.orientation
            turn.x = turn.y = turn.z = turn.w = 0.0

    write_recording(path, [Ball((0.0, 0.0, 0.3), 0.3)], [camera] * 5, lens, topics=topics, spoil=spoil)
    assert [frame.stamp for frame in read_frames(path)] == [1.1, 1.3, 1.4]
    assert "3 messages can't be read, the first: a message on /camera/camera_info can't be used" in caplog.text


def test_a_recording_of_compressed_images_and_depth_has_the_same_frames(tmp_path):
    raw = list(read_frames(write_clip(tmp_path / "raw.mcap")))
    packed = list(read_frames(write_clip(tmp_path / "packed.mcap", COMPRESSED, COMPRESSED_DEPTH)))
    assert len(raw) == len(packed) > 0
    for one, other in zip(raw, packed, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        assert np.abs(one.image.astype(int) - other.image).mean() < 10, "as far as JPEG goes"
