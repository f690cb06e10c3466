"""The node's lifecycle, its checkpoints and devices, compressed images and namespaces, each in real processes."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_process import LOSSLESS, Robot, picture, rgb_message, running
from safetensors import safe_open
from safetensors.torch import save_file
from sensor_msgs.msg import CompressedImage, Image

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import PRESETS, Monet

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
QUICK_REPORTS = ["-p", "diagnostics_period:=0.2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two good checkpoints, and three that are none, by name."""
    folder = tmp_path_factory.mktemp("models")
    config = PRESETS["monet_rn18_star"]
    for name in ("good", "other"):
        save_checkpoint(folder / name, Monet(config), dataset="none", steps=0)
    (folder / "truncated").write_bytes((folder / "good").read_bytes()[:100_000])
    with safe_open(folder / "good", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(iter(tensors))
    save_file({**tensors, name: torch.zeros(3, 5)}, folder / "misshapen", metadata)
    return folder


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def test_lifecycle(robot, models, tmp_path):
    missing = ["-p", f"checkpoint:={models / 'missing'}"]
    start = ["--ros-args", "-p", "autostart:=false", *missing, *QUICK_REPORTS, *LOSSLESS]
    with running("decompose", start, tmp_path / "log") as process:
        assert robot.state() == "unconfigured"
        for name, why in {"missing": "missing", "truncated": "truncated", "misshapen": "misshapen"}.items():
            assert robot.set(checkpoint=str(models / name)) == ""
            assert not robot.change(CONFIGURE)
            assert robot.state() == "unconfigured"
            robot.next_report()
            assert robot.statuses["network"].level == DiagnosticStatus.ERROR
            assert why in robot.messages()["network"]
        assert not robot.change(ACTIVATE), "activated without a network"

        assert robot.set(checkpoint=str(models / "good")) == ""
        assert robot.change(CONFIGURE)
        assert robot.state() == "inactive"
        slots = robot.listen()
        robot.wait(1.0)
        assert robot.cameras["image"].get_subscription_count() == 0, "an inactive node takes images"
        assert not any(pair.key == "device" for pair in robot.statuses["network"].values), "a network is held"
        refused = robot.decode(np.zeros((1, 16)))
        assert "inactive" in refused.message

        assert robot.change(ACTIVATE)
        first = robot.answer(rgb_message(robot.header()))
        assert robot.change(DEACTIVATE)
        robot.until(lambda: robot.cameras["image"].get_subscription_count() == 0)
        received = len(slots)
        robot.cameras["image"].publish(rgb_message(robot.header()))
        robot.next_report()
        assert len(slots) == received
        assert not any(pair.key == "device" for pair in robot.statuses["network"].values)

        assert robot.change(ACTIVATE), "can't be activated a second time"
        assert robot.answer(rgb_message(robot.header())).model_id == first.model_id
        assert robot.change(DEACTIVATE)
        assert "clean the node up" in robot.set(checkpoint=str(models / "other"))
        assert robot.change(CLEANUP)
        assert robot.set(checkpoint=str(models / "other"), transport="compressed", crop="whole") == ""
        assert robot.change(CONFIGURE)
        assert robot.change(ACTIVATE)
        compressed_images_are_answered(robot, first.model_id)

        assert robot.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert robot.state() == "finalized"
        assert process.poll() is None


def compressed_images_are_answered(robot, other_model_id):
    pixels = cv2.cvtColor(picture(120, 200), cv2.COLOR_RGB2BGR)
    jpeg = CompressedImage(header=robot.header(), format="jpeg", data=cv2.imencode(".jpg", pixels)[1].tobytes())
    answer = robot.answer(jpeg)
    assert answer.header == jpeg.header
    assert answer.model_id != other_model_id
    assert (answer.source_height, answer.source_width) == (120, 200)
    assert (answer.roi.width, answer.roi.height) == (200, 120)  # crop: whole
    robot.next_report()
    before = robot.counts()
    for data in (b"", b"\xff\xd8\xff", bytes(jpeg.data)[:-40], bytes(1000)):
        robot.cameras["image/compressed"].publish(CompressedImage(header=robot.header(), format="jpeg", data=data))
    robot.answer(CompressedImage(header=robot.header(), format="jpeg", data=jpeg.data))
    robot.until(lambda: robot.counts()["broken"] == before["broken"] + 4, "broken JPEGs not counted")


def test_wrong_parameters_at_start_leave_a_node_that_can_be_put_right(robot, models, tmp_path):
    wrong = ["-p", "device:=tpu", "-p", "threads:=two", "-p", "min_area:=3.0", "-p", "chekpoint:=x"]
    start = ["--ros-args", "-p", f"checkpoint:={models / 'good'}", *wrong, *QUICK_REPORTS, *LOSSLESS]
    with running("decompose", start, tmp_path / "log"):
        robot.until(lambda: robot.statuses and robot.statuses["network"].level == DiagnosticStatus.ERROR)
        log = (tmp_path / "log").read_text()
        for fault in (
            "device is 'tpu'; it must be auto, cpu",
            "threads must be a whole number, is 'two'",
            "min_area is 3.0; it must be from 0.0 to 1.0",
        ):
            assert fault in robot.messages()["network"]
            assert fault in log
        assert "did you mean checkpoint?" in log
        assert robot.set(device="cuda:99", threads=1, min_area=0.01) == ""
        assert not robot.change(CONFIGURE)
        robot.next_report()
        assert "cuda:99" in robot.messages()["network"]
        assert robot.set(device="cpu") == ""
        assert robot.change(CONFIGURE)
        assert robot.change(ACTIVATE)
        robot.answer(rgb_message(robot.header()))


def test_simulated_time_that_has_not_begun_holds_nothing_up(robot, models, tmp_path):
    start = ["--ros-args", "-p", "use_sim_time:=true", "-p", f"checkpoint:={models / 'good'}", *QUICK_REPORTS]
    with running("decompose", start, tmp_path / "log"):
        assert robot.answer(rgb_message(robot.header(), 48, 64)).source_width == 64
        robot.next_report()
        assert robot.counts()["answered"] == 1


def test_two_cameras_side_by_side(models, tmp_path):
    """Namespaces move all topics; each node sees its own camera only."""
    names = "/left", "/right"
    logs = {name: tmp_path / name.strip("/") for name in names}
    start = ["--ros-args", "-p", f"checkpoint:={models / 'good'}", *QUICK_REPORTS]
    with (
        running("decompose", [*start, "-r", f"__ns:={names[0]}"], logs[names[0]]),
        running("decompose", [*start, "-r", f"__ns:={names[1]}"], logs[names[1]]),
    ):
        robots = {name: Robot(name) for name in names}
        try:
            for width, robot in enumerate(robots.values(), 64):
                answer = robot.answer(rgb_message(robot.header(), 48, width))
                assert answer.source_width == width
            for robot in robots.values():
                robot.next_report()
                assert robot.counts()["received"] == 1
                assert robot.value("camera", "topic") == f"{robot.node.get_namespace()}/image"
        finally:
            for robot in robots.values():
                robot.close()


def test_viewers_that_come_and_go_while_the_node_changes_its_state_do_not_end_it(robot, models, tmp_path):
    """Publishers then go while events of theirs are under way."""
    chance = random.Random(0)
    viewers = []
    client = robot.node.create_client(ChangeState, "decompose/change_state")

    def come_and_go():
        if chance.random() < 0.6:
            viewers.append(robot.node.create_subscription(Image, "scene/overlay", lambda message: None, 1))
        while len(viewers) > chance.randrange(4):
            robot.node.destroy_subscription(viewers.pop(0))

    with running(
        "decompose", ["--ros-args", "-p", f"checkpoint:={models / 'good'}", *QUICK_REPORTS], tmp_path / "log"
    ) as process:
        robot.until_active()
        for _ in range(12):
            for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
                answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
                robot.until(lambda: come_and_go() or answer.done() or process.poll() is not None)  # noqa: B023
                assert process.poll() is None
                assert answer.result().success
