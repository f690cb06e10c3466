"""The viewer as a process, with a camera and a publisher of slots in place of the node."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from monet_perception_msgs.msg import SlotArray
from node_process import PATIENCE, Robot, rgb_message
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from monet_perception.decomposition import Decomposition
from monet_perception.nodes.process import NOT_WRITTEN
from monet_perception.nodes.slot_messages import slot_array
from monet_perception.nodes.tally import REMEMBERED, Tally
from monet_perception.pictures import Pictures
from monet_perception.region import Region

K, SIZE = 3, 8


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def slots_of(image: Image) -> SlotArray:
    masks = np.full((K, SIZE, SIZE), 1 / K, np.float32)
    latents = np.zeros((K, 4), np.float32)
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    whole = Region(0, 0, image.width, image.height)
    found = Decomposition(masks, latents, latents, whole, image.height, image.width, pixels)
    return slot_array(image.header, "model", found, np.arange(K, dtype=np.int32), [None] * K)


def view(robot, folder, cameras, slots_published=True):
    """Output and exit status of a viewer to which `cameras` send images until it has seen some, and others slots."""
    command = [sys.executable, "-m", "monet_perception.nodes.viewer", "--output", str(folder)]
    publisher = robot.node.create_publisher(SlotArray, "scene/slots", 10)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        robot.until(lambda: publisher.get_subscription_count() > 0, "no viewer")
        robot.wait(1.5)  # for the subscriptions to follow the cameras
        for _ in range(20):
            image = rgb_message(robot.header())
            for camera in cameras:
                camera.publish(image)
            if slots_published:
                publisher.publish(slots_of(image))
            robot.wait(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
        robot.node.destroy_publisher(publisher)
    return output, process.returncode


def test_images_of_a_best_effort_camera_are_drawn(robot, tmp_path):
    unreliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    camera = robot.node.create_publisher(Image, "image", unreliable)  # beside a reliable one of the robot's
    output, code = view(robot, tmp_path / "out", [camera])
    assert code == 0, output
    assert (tmp_path / "out/overlay.png").is_file(), output
    assert int(re.findall(r"(\d+) of \d+ frames answered", output)[-1]) > 10


def test_slots_without_images_are_told_and_nothing_is_written(robot, tmp_path):
    output, code = view(robot, tmp_path / "out", [])
    assert code == NOT_WRITTEN, output
    told = " ".join(output.split())
    assert f"viewer: nothing was written to {tmp_path / 'out'}: no image came on /image or /image/compressed" in told


def test_without_slots_the_viewer_fails(robot, tmp_path):
    output, code = view(robot, tmp_path / "out", [robot.cameras["image"]], slots_published=False)
    assert code == 1, output


def test_a_video_that_can_not_be_written_whole_leaves_the_one_before(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 120, 160, 3), dtype=np.uint8)

    def write() -> None:
        pictures = Pictures(tmp_path)
        for number, panels in enumerate(noise):
            pictures.add(number / 10, panels, merit=(0.0,))
        pictures.close()

    write()
    before = (tmp_path / "overlay.mp4").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))  # as a full disk
    try:
        with pytest.raises(OSError, match=r"overlay\.mp4 can't be written whole"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (tmp_path / "overlay.mp4").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"overlay.mp4", "overlay.png"}


def test_slots_of_images_without_a_stamp_tell_no_latency():
    tally = Tally()
    for stamp, latency in ((0, 1.8e9), (5, 0.02)):
        tally.add_slots(stamp, latency)
    assert list(tally.latencies) == [0.02]


def test_frames_are_counted_in_whatever_order_their_parts_come_and_stamps_are_forgotten():
    tally = Tally()
    frames = 3 * REMEMBERED
    for stamp in range(frames):
        tally.add_image(stamp)
        tally.add_image(stamp)  # in another form
        if stamp % 2:
            tally.add_slots(stamp - 1, 0.01)
    tally.add_slots(frames, 0.01)
    tally.add_image(frames)
    assert (tally.images, tally.slots, tally.answered) == (frames + 1, frames // 2 + 1, frames // 2 + 1)
    assert tally.share_answered == pytest.approx(0.5, abs=1e-3)
    assert tally.remembered == 2 * REMEMBERED
