"""The node's parts that need no process: worker, network, overlay, separation, reports."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from monet_perception.checkpoint import save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.labels import separated
from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes.diagnostics import Report, Situation, Statistics, Thresholds
from monet_perception.nodes.inputs import Inputs
from monet_perception.nodes.network import Network, NetworkError
from monet_perception.nodes.worker import NewestFirstWorker
from monet_perception.overlay import draw_overlay, label_image
from monet_perception.region import Region


def test_the_worker_takes_the_newest_and_drops_what_was_overtaken():
    begun, finish, done = threading.Event(), threading.Event(), []

    def work(item):
        begun.set()
        finish.wait(10)
        done.append(item)

    worker = NewestFirstWorker(work, failed=lambda error: None)
    worker.start()
    assert not worker.offer(0)
    begun.wait(10)
    overtaken = [worker.offer(item) for item in range(1, 6)]
    assert overtaken == [False, True, True, True, True]
    finish.set()
    while len(done) < 2:
        time.sleep(0.001)
    assert worker.stop() == 0
    assert done == [0, 5]


def test_the_worker_survives_what_its_work_raises():
    errors, done = [], threading.Event()

    def work(item):
        if item == "bad":
            raise ValueError("bad item")
        done.set()

    worker = NewestFirstWorker(work, failed=errors.append)
    worker.start()
    worker.offer("bad")
    while not errors:
        time.sleep(0.001)
    worker.offer("good")
    assert done.wait(10)
    worker.stop()
    assert str(errors[0]) == "bad item"


class FlakyDecomposer(Decomposer):
    """A decomposer whose device fails when told to."""

    broken = False

    def __call__(self, frames, *, reconstruct=False):
        if self.broken:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return super().__call__(frames, reconstruct=reconstruct)


def test_the_network_comes_back_after_a_device_error(tmp_path):
    config = PRESETS["monet_rn18_star"]
    save_checkpoint(tmp_path / "a", Monet(config), dataset="none", steps=0)
    made = []

    def make():
        made.append(FlakyDecomposer(tmp_path / "a", device="cpu", threads=1))
        return made[-1]

    network = Network(make)
    frame = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(NetworkError, match="not active"):
        network.decompose(frame, reconstruct=False)
    network.acquire()
    expected = network.decompose(frame, reconstruct=False)
    made[0].broken = True
    with pytest.raises(NetworkError, match="unspecified launch failure"):
        network.decompose(frame, reconstruct=False)
    assert "unspecified launch failure" in network.fault
    with pytest.raises(NetworkError):  # not at once: a device that is gone would be asked a thousand times a second
        network.decompose(frame, reconstruct=False)
    assert len(made) == 1
    time.sleep(0.25)
    np.testing.assert_array_equal(network.decompose(frame, reconstruct=False).masks, expected.masks)
    assert (len(made), network.recoveries, network.fault) == (2, 1, "")
    network.release()
    with pytest.raises(NetworkError, match="not active"):
        network.decompose(frame, reconstruct=False)
    with pytest.raises(NetworkError):
        network.info()


def halves() -> np.ndarray:
    """Masks [2, 8, 8]: slot 0 has the left half, slot 1 the right."""
    masks = np.zeros((2, 8, 8), np.float32)
    masks[0, :, :4] = masks[1, :, 4:] = 1
    return masks


def test_labels_lie_on_their_source_pixels():
    labels = label_image(halves(), Region(20, 0, 40, 40), 40, 80)
    assert (labels[:, :20] == 2).all(), "two slots: the label of what is outside is 2"
    assert (labels[:, 60:] == 2).all()
    assert (labels[:, 20:40] == 0).all()
    assert (labels[:, 40:60] == 1).all()


def test_the_overlay_tints_tracked_slots_only_and_nothing_outside():
    image = np.full((40, 80, 3), 100, np.uint8)
    overlay = draw_overlay(image, halves(), [-1, 3], Region(20, 0, 40, 40))
    assert overlay.shape == image.shape
    assert (overlay[:, :38] == 100).all()
    assert (overlay[:, 60:] == 100).all()
    assert (overlay[:, 42:58] != 100).any(axis=-1).all()
    assert (image == 100).all(), "the source image was drawn on"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(64, 200))
def test_overlays_of_any_size(height, width, longest):
    image = np.zeros((height, width, 3), np.uint8)
    side = min(height, width)
    overlay = draw_overlay(image, halves(), [0, 1], Region(0, 0, side, side), longest_side=longest)
    assert max(overlay.shape[:2]) == min(longest, max(height, width))


def test_separation_counts_objects_that_have_a_slot_to_themselves():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4, 0:3], labels[2:4, 5:8] = 4, 5
    whole = Region(0, 0, 8, 8)
    apart = np.stack([labels == 0, labels == 4, labels == 5]).astype(np.float32)
    joined = np.stack([labels == 0, labels >= 4, np.zeros((8, 8))]).astype(np.float32)
    assert separated(apart, whole, labels) == (2, 2)
    assert separated(joined, whole, labels)[0] < 2
    assert separated(apart, whole, np.zeros_like(labels)) == (0, 0)


THRESHOLDS = Thresholds(camera_timeout=1.0, max_latency=0.1, max_reconstruction_error=0.02)


def situation(**fields):
    values = {
        "state": "active", "listened": True, "listening_since": time.monotonic(), "publishers": "/camera",
        "elsewhere": (), "topic": "/image", "qos_fault": "", "network_fault": "", "recoveries": 0, "network": {},
        "depth_topic": "/depth", "depth_publishers": 0, "track_resets": 0, "assessment": None,
    }  # fmt: skip
    return Situation(**{**values, **fields})


def test_levels_of_the_camera():
    statistics, report = Statistics(), Report("node")

    def level(**fields):
        return report.build(statistics, situation(**fields), THRESHOLDS)[0].level

    long_ago = time.monotonic() - 2
    assert level() == DiagnosticStatus.OK
    assert level(listening_since=long_ago) == DiagnosticStatus.WARN
    assert level(listening_since=long_ago - 4) == DiagnosticStatus.ERROR
    assert level(listened=False, listening_since=long_ago) == DiagnosticStatus.OK
    assert level(listening_since=long_ago, qos_fault="incompatible") == DiagnosticStatus.ERROR
    assert level(qos_fault="of another camera") == DiagnosticStatus.WARN
    for name in ("received", "broken"):
        statistics.count(name)
    assert level() == DiagnosticStatus.ERROR, "no good frame among those since the last report"
    assert level() == DiagnosticStatus.OK, "nothing broken since"
    for name in ("received", "received", "broken"):
        statistics.count(name)
    statistics.answered(0.01)
    assert level() == DiagnosticStatus.WARN


def test_only_what_gets_worse_is_logged():
    report, levels = Report("node"), (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.WARN)
    told = [report.worsened([DiagnosticStatus(name="camera", level=level)]) for level in levels]
    assert [len(statuses) for statuses in told] == [0, 1, 0]


def test_levels_of_the_network():
    statistics, report = Statistics(), Report("node")

    def level(**fields):
        return report.build(statistics, situation(**fields), THRESHOLDS)[1].level

    assert level() == DiagnosticStatus.OK
    assert level(network_fault="no such file") == DiagnosticStatus.ERROR
    statistics.count("failed", fault="out of memory")
    assert level() == DiagnosticStatus.WARN
    assert level() == DiagnosticStatus.OK
    assert level(recoveries=1) == DiagnosticStatus.WARN
    assert level(recoveries=1) == DiagnosticStatus.OK
    statistics.answered(0.5)
    assert level(recoveries=1) == DiagnosticStatus.WARN


def test_a_topic_nobody_publishes_on_is_told_with_a_remedy():
    told = Report("node").build(
        Statistics(), situation(publishers="", elsewhere=["/cam/rgb"], listening_since=0.0), THRESHOLDS
    )[0]
    assert "-r image:=/cam/rgb" in told.message


@pytest.mark.parametrize(
    ("transport", "kind", "topic"),
    [("raw", Image, "/cam/rgb"), ("compressed", CompressedImage, "/cam/rgb/compressed")],
)
def test_images_found_elsewhere_can_be_remapped_to(transport, kind, topic):
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        camera, node = (rclpy.create_node(name, context=context) for name in ("camera", "decompose"))
        camera.create_publisher(kind, topic, 1)
        if transport == "compressed":  # of which no remapping of `image` can make this
            camera.create_publisher(kind, "/plain", 1)
        inputs = Inputs(node, transport, print, print, print)
        end = time.monotonic() + 20
        while "/cam/rgb" not in (found := inputs.elsewhere()) and time.monotonic() < end:
            time.sleep(0.05)
        assert "/cam/rgb" in found
        assert "/plain" not in found
        for each in (camera, node):
            each.destroy_node()
    finally:
        rclpy.shutdown(context=context)
