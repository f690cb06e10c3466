"""What hinders the node, and what it says of it: wrong QoS, a device or a middleware that fails, lost images."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from failing_node import FAULT
from lifecycle_msgs.msg import Transition
from node_process import LOSSLESS, Robot, rgb_message, running
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import PRESETS, Monet

CONFIG = PRESETS["monet_rn18_star"]
CONFIGURE, ACTIVATE, DEACTIVATE = (
    getattr(Transition, f"TRANSITION_{name}") for name in ("CONFIGURE", "ACTIVATE", "DEACTIVATE")
)
FAILING_NODE = Path(__file__).with_name("failing_node.py")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Arguments of a node with a small network and frequent reports."""
    checkpoint = tmp_path_factory.mktemp("models") / "a"
    save_checkpoint(checkpoint, Monet(CONFIG), dataset="none", steps=0)
    return ["--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "diagnostics_period:=0.2"]


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


@pytest.mark.parametrize(
    "parameter",
    [
        "qos_overrides./image.subscription.reliability:=best-effort",
        "qos_overrides./depth.subscription.depth:=ten",
        "qos_overrides./scene/slots.publisher.reliability:=relaible",
    ],
)
def test_a_wrong_qos_parameter_fails_configure_with_the_reason(robot, start, tmp_path, parameter):
    log = tmp_path / "log"
    with running("decompose", [*start, "-p", parameter], log):
        name, _, value = parameter.rpartition(".")[0], *parameter.rsplit(":=", 1)
        robot.listen()
        for _ in range(2):  # as often as it is configured
            robot.until(lambda: robot.statuses and robot.statuses["network"].level == DiagnosticStatus.ERROR)
            message = robot.messages()["network"]
            assert message.startswith(f"can't be configured: {name}.")
            assert value in message
            assert robot.state() == "unconfigured"
            assert robot.cameras["image"].get_subscription_count() == 0
            assert not robot.change(CONFIGURE)
        assert value in log.read_text()


def test_a_qos_parameter_that_fits_no_topic_is_told(robot, start, tmp_path):
    log = tmp_path / "log"
    with running("decompose", [*start, "-p", "qos_overrides./imge.subscription.depth:=3", *LOSSLESS], log):
        robot.until_active()
        assert (
            "'qos_overrides./imge.subscription.depth' is ignored; did you mean qos_overrides./image." in log.read_text()
        )


def test_a_middleware_that_fails_is_told_and_ends_nothing(robot, start, tmp_path):
    log = tmp_path / "log"
    with running(FAILING_NODE, [*start, *LOSSLESS], log) as process:
        robot.until_active()
        process.send_signal(signal.SIGUSR2)
        robot.wait(0.5)
        robot.listen()  # after activation, so that the node subscribes in an event of the middleware
        robot.answer(rgb_message(robot.header()))  # all the same: by the next report it is tried again
        assert "can't subscribe:\n" in log.read_text()
        assert FAULT in log.read_text()

        assert robot.change(DEACTIVATE)
        process.send_signal(signal.SIGUSR2)
        robot.wait(0.5)
        assert not robot.change(ACTIVATE)
        assert robot.state() == "inactive"
        robot.until(lambda: FAULT in robot.messages()["network"], "not told")
        assert robot.messages()["network"].startswith("can't be activated: ")
        assert robot.statuses["network"].level == DiagnosticStatus.ERROR
        assert robot.cameras["image"].get_subscription_count() == 0

        assert robot.change(ACTIVATE)
        robot.answer(rgb_message(robot.header()))
        robot.next_report()
        assert robot.statuses["network"].level == DiagnosticStatus.OK

        process.send_signal(signal.SIGUSR2)
        robot.wait(0.5)
        robot.change(DEACTIVATE)
        assert robot.state() == "unconfigured"
        robot.until(lambda: FAULT in robot.messages()["network"], "not told")
        assert robot.messages()["network"].startswith("unconfigured, because on_deactivate failed: ")
        assert robot.statuses["network"].level == DiagnosticStatus.ERROR
        assert robot.change(CONFIGURE)
        assert robot.change(ACTIVATE)
        robot.answer(rgb_message(robot.header()))


def test_latents_are_decoded_after_a_device_error_though_nobody_listens(robot, start, tmp_path):
    with running(FAILING_NODE, [*start, *LOSSLESS], tmp_path / "log") as process:
        robot.answer(rgb_message(robot.header()))
        process.send_signal(signal.SIGUSR1)
        robot.wait(0.5)
        robot.cameras["image"].publish(rgb_message(robot.header()))
        robot.until(lambda: "failed" in robot.messages()["network"] or "injected" in robot.messages()["network"])
        robot.reset()
        time.sleep(0.3)  # the pause after the first error
        response = robot.decode(np.zeros((2, CONFIG.latent_size)))
        assert response.success, response.message
        assert len(response.reconstructions) == 2
        robot.next_report()
        assert robot.value("network", "recoveries") == "1"
        assert robot.statuses["network"].level == DiagnosticStatus.OK


def reliability(robot) -> str:
    """With which the node subscribes to the images."""
    infos = robot.node.get_subscriptions_info_by_topic("/image")
    return "".join(info.qos_profile.reliability.name for info in infos if info.node_name == "decompose")


def test_the_node_takes_images_as_reliably_as_cameras_publish_them(robot, start, tmp_path):
    with running("decompose", start, tmp_path / "log"):
        robot.until_active()
        robot.listen()
        robot.until(lambda: reliability(robot) == "RELIABLE", "not reliable")
        robot.next_report()
        first = robot.counts()
        for index in range(40):
            robot.cameras["image"].publish(rgb_message(robot.header(), 480, 640, seed=index))
            robot.wait(1 / 30)
        robot.next_report()
        assert robot.counts()["received"] - first["received"] > 20
        assert robot.value("camera", "lost") == "0"

        unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera = robot.node.create_publisher(Image, "image", unreliable)
        robot.until(lambda: reliability(robot) == "BEST_EFFORT", "a best-effort camera isn't listened to")
        image = rgb_message(robot.header())

        def answered():
            camera.publish(image)
            return any(slots.header.stamp == image.header.stamp for slots in robot.slots)

        robot.until(answered, "no slots for an image of a best-effort camera")
        robot.next_report()
        assert robot.statuses["camera"].level == DiagnosticStatus.OK
        robot.node.destroy_publisher(camera)
        robot.until(lambda: reliability(robot) == "RELIABLE", "not reliable again")


def test_images_that_get_lost_on_the_way_are_told(robot, start, tmp_path):
    """Of 0.9 MB, from a camera with 512 KiB of shared memory, by a node that was told to read best effort."""
    best_effort = ["-p", "qos_overrides./image.subscription.reliability:=best_effort"]
    with running("decompose", [*start, *best_effort], tmp_path / "log"):
        robot.until_active()
        robot.listen()
        robot.connected()
        frame = rgb_message(robot.header(), 480, 640)

        def told():
            frame.header = robot.header()
            for _ in range(5):
                robot.cameras["image"].publish(frame)
            return "images were lost on the way: give the camera's process" in robot.messages()["camera"]

        robot.until(told, "lost images are not told")
        assert robot.statuses["camera"].level == DiagnosticStatus.WARN
        assert int(robot.value("camera", "lost")) > 0


@pytest.mark.parametrize("image", ["/front", "/front/compressed"])
def test_a_camera_that_sends_compressed_images_only_is_told_with_the_options_that_help(robot, start, tmp_path, image):
    camera = robot.node.create_publisher(CompressedImage, "/front/compressed", 1)
    arguments = [*start, "-r", f"image:={image}", "-p", "camera_timeout:=0.3"]
    with running("decompose", arguments, tmp_path / "log"):
        robot.until_active()
        robot.listen()
        remedy = (
            "there are compressed images on /front/compressed: start with -p transport:=compressed -r image:=/front"
        )
        robot.until(lambda: remedy in robot.messages()["camera"], "no remedy")
    robot.node.destroy_publisher(camera)
