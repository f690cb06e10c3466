"""The node's parts that need no process: worker, network, overlay, separation, reports."""

from __future__ import annotations

import contextlib
import math
import threading
import time

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from situations import THRESHOLDS, situation

from benchmarks.soak_node import FailingDecomposer
from monet_perception.assessment import Assessment
from monet_perception.checkpoint import save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.labels import separated
from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes.diagnostics import Report
from monet_perception.nodes.inputs import Inputs, Source
from monet_perception.nodes.network import FIRST_PAUSE, Network, NetworkError
from monet_perception.nodes.qos import BestAvailableSubscription
from monet_perception.nodes.statistics import Statistics
from monet_perception.nodes.worker import NewestFirstWorker
from monet_perception.region import Region


def test_the_worker_takes_the_newest_and_drops_what_was_overtaken():
    begun, finish, all_done, done = threading.Event(), threading.Event(), threading.Event(), []

    def work(item):
        begun.set()
        finish.wait(10)
        done.append(item)
        if item == 5:
            all_done.set()

    worker = NewestFirstWorker(work, failed=lambda error: None)
    worker.start()
    assert not worker.offer(0)
    begun.wait(10)
    overtaken = [worker.offer(item) for item in range(1, 6)]
    assert overtaken == [False, True, True, True, True]
    finish.set()
    assert all_done.wait(10)
    assert worker.stop() == 0
    assert done == [0, 5]


def test_a_stopped_worker_tells_of_what_it_dropped():
    begun, finish = threading.Event(), threading.Event()

    def work(item):
        begun.set()
        finish.wait(10)

    worker = NewestFirstWorker(work, failed=lambda error: None)
    worker.start()
    worker.offer("in work")
    begun.wait(10)
    worker.offer("waiting")
    threading.Timer(0.1, finish.set).start()
    assert worker.stop() == 1


def test_the_worker_survives_what_its_work_raises():
    errors, failed, done = [], threading.Event(), threading.Event()

    def work(item):
        if item == "bad":
            raise ValueError("bad item")
        done.set()

    def note(error):
        errors.append(error)
        failed.set()

    worker = NewestFirstWorker(work, failed=note)
    worker.start()
    worker.offer("bad")
    assert failed.wait(10)
    worker.offer("good")
    assert done.wait(10)
    worker.stop()
    assert str(errors[0]) == "bad item"


def test_the_network_comes_back_after_a_device_error(tmp_path, monkeypatch):
    config = PRESETS["monet_rn18_star"]
    save_checkpoint(tmp_path / "a", Monet(config), dataset="none", steps=0)
    made, asked = [], []

    def make():
        asked.append(time.monotonic())
        made.append(FailingDecomposer(tmp_path / "a", device="cpu", threads=1))
        return made[-1]

    network = Network(make)
    frame = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(NetworkError, match="not active"):
        network.decompose(frame, reconstruct=False)
    network.acquire()
    expected, model_id = network.decompose(frame, reconstruct=False)
    assert model_id == made[0].info.model_id
    monkeypatch.setattr(FailingDecomposer, "due", 1)
    begin = time.monotonic()
    with pytest.raises(NetworkError, match="illegal memory access"):
        network.decompose(frame, reconstruct=False)
    assert "illegal memory access" in network.fault
    with contextlib.suppress(NetworkError):
        network.decompose(frame, reconstruct=False)
    time.sleep(0.25)
    np.testing.assert_array_equal(network.decompose(frame, reconstruct=False)[0].masks, expected.masks)
    assert (len(made), network.recoveries, network.fault) == (2, 1, "")
    assert asked[1] - begin >= FIRST_PAUSE  # a device that is gone would be asked a thousand times a second
    monkeypatch.setattr(FailingDecomposer, "due", 1)
    with pytest.raises(NetworkError, match="illegal memory access"):
        network.decompose(frame, reconstruct=False)
    time.sleep(0.25)
    assert network.info() == made[0].info
    assert (len(made), network.recoveries, network.fault) == (3, 2, "")
    network.release()
    with pytest.raises(NetworkError, match="not active"):
        network.decompose(frame, reconstruct=False)
    with pytest.raises(NetworkError):
        network.info()


def test_a_network_that_is_being_loaded_again_is_not_said_to_hang(monkeypatch):
    loading, goes_on = threading.Event(), threading.Event()
    goes_on.set()

    def make():
        loading.set()
        goes_on.wait(60)
        return FailingDecomposer(device="cpu", threads=1)

    network = Network(make, patience=0.1)
    network.acquire()
    monkeypatch.setattr(FailingDecomposer, "due", 1)
    with pytest.raises(NetworkError, match=r"illegal memory access.* will be loaded again"):
        network.decompose(np.zeros((64, 64, 3), np.uint8), reconstruct=False)
    loading.clear()
    goes_on.clear()
    time.sleep(FIRST_PAUSE)
    call = threading.Thread(target=network.info, daemon=True)
    call.start()
    assert loading.wait(30)
    with pytest.raises(NetworkError, match="being loaded again"):
        network.info()
    goes_on.set()
    call.join(60)
    assert network.info().model_id
    network.release()
    assert network.description() == {}


def test_a_call_that_hangs_keeps_nobody_waiting_for_ever():
    """Neither whoever gives the network back, as a node does that ends, nor whoever asks for something else of it."""
    hanging, goes_on = threading.Event(), threading.Event()

    class HangingDecomposer(Decomposer):
        def __call__(self, frames, *, reconstruct=False):
            hanging.set()
            goes_on.wait(60)
            return super().__call__(frames, reconstruct=reconstruct)

    network = Network(lambda: HangingDecomposer(device="cpu", threads=1), patience=0.1)
    decomposer = network.acquire()
    frame = np.zeros((64, 64, 3), np.uint8)
    call = threading.Thread(target=lambda: network.decompose(frame, reconstruct=False), daemon=True)
    call.start()
    assert hanging.wait(30)
    for asked in (network.info, lambda: network.decode(np.zeros((1, 16), np.float32))):
        with pytest.raises(NetworkError, match="hangs"):
            asked()
    network.release()
    assert "hangs" in network.fault
    with pytest.raises(NetworkError, match="hangs"):
        network.acquire()
    goes_on.set()
    call.join(60)
    with pytest.raises(RuntimeError, match="closed"):  # what was given back meanwhile
        decomposer(frame)
    assert network.acquire() is not decomposer
    network.release()


def test_a_device_that_stays_away_is_asked_less_and_less(monkeypatch):
    asked = []

    def make():
        asked.append(time.monotonic())
        if len(asked) > 1:
            raise RuntimeError("no device")
        return FailingDecomposer(device="cpu", threads=1)

    network = Network(make)
    network.acquire()
    monkeypatch.setattr(FailingDecomposer, "due", 1)
    frame = np.zeros((64, 64, 3), np.uint8)
    begin = time.monotonic()
    while len(asked) < 4:
        assert time.monotonic() < begin + 60
        with pytest.raises(NetworkError):
            network.decompose(frame, reconstruct=False)
        time.sleep(0.01)
    pauses = np.diff([begin, *asked[1:]])
    assert (pauses >= FIRST_PAUSE * np.array([1, 2, 4])).all(), pauses


def test_separation_counts_objects_that_have_a_slot_to_themselves():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4, 0:3], labels[2:4, 5:8] = 4, 5
    whole = Region(0, 0, 8, 8)
    apart = np.stack([labels == 0, labels == 4, labels == 5]).astype(np.float32)
    joined = np.stack([labels == 0, labels >= 4, np.zeros((8, 8))]).astype(np.float32)
    assert separated(apart, whole, labels) == (2, 2)
    assert separated(joined, whole, labels)[0] < 2
    assert separated(apart, whole, np.zeros_like(labels)) == (0, 0)


def test_levels_of_the_camera():
    statistics, report = Statistics(), Report("node")

    def level(**fields):
        return report.build(statistics, situation(**fields), THRESHOLDS)[0].level

    long_ago = time.monotonic() - 2
    assert level() == DiagnosticStatus.OK
    assert level(listening_since=long_ago) == DiagnosticStatus.WARN
    assert level(listening_since=long_ago - 4) == DiagnosticStatus.ERROR
    assert level(listened=False, listening_since=long_ago) == DiagnosticStatus.OK
    assert level(listening_since=long_ago, input_fault="incompatible") == DiagnosticStatus.ERROR
    assert level(input_fault="of another camera") == DiagnosticStatus.WARN
    for name in ("received", "broken"):
        statistics.count(name)
    assert level() == DiagnosticStatus.ERROR, "no good frame among those since the last report"
    assert level() == DiagnosticStatus.OK, "nothing broken since"
    for name in ("received", "received", "broken", "failed"):
        statistics.count(name)
    assert level() == DiagnosticStatus.WARN, "the camera sent a good one, which the network failed on"
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


@pytest.mark.parametrize(
    ("error", "entropy", "active", "level", "message"),
    [
        (0.019, 0.69, 2, DiagnosticStatus.OK, "the scene is explained"),
        (0.021, 0.69, 2, DiagnosticStatus.WARN, "unknown scene"),
        (0.019, 0.69, 1, DiagnosticStatus.WARN, "one slot"),
        (0.019, 0.70, 2, DiagnosticStatus.WARN, "undecided"),  # half of log 4 is 0.693
        (math.nan, 0.69, 2, DiagnosticStatus.OK, "the scene is explained"),
    ],
)
def test_levels_of_the_scene(error, entropy, active, level, message):
    assessment = Assessment(error, None, np.ones(4), entropy, active)
    told = Report("node").build(Statistics(), situation(assessment=assessment), THRESHOLDS)[2]
    assert told.level == level
    assert message in told.message


def test_rates_and_latencies():
    statistics = Statistics()
    for milliseconds in range(1, 101):
        statistics.count("received")
        statistics.answered(milliseconds / 1000)
    statistics.count("received")
    assert statistics.latencies() == pytest.approx((0.0505, 0.09901, 0.1))
    assert statistics.rates() == pytest.approx((101, 100)), "all came within the first second"


def camera_message(**fields):
    return Report("node").build(Statistics(), situation(listening_since=0.0, **fields), THRESHOLDS)[0].message


def test_a_topic_nobody_publishes_on_is_told_with_a_remedy():
    there = [Source("/cam/rgb", "raw", "-r image:=/cam/rgb"), Source("/rear/rgb", "raw", "-r image:=/rear/rgb")]
    told = camera_message(publishers="", elsewhere=there)
    assert "nothing publishes there; there are images on /cam/rgb: start with -r image:=/cam/rgb" in told
    assert told.endswith("(others on /rear/rgb)")


def test_a_topic_with_messages_of_another_type_is_told_with_a_remedy():
    type_name = "sensor_msgs/msg/CompressedImage"
    there = [Source("/cam/compressed", "compressed", "-p transport:=compressed -r image:=/cam")]
    told = camera_message(publishers="", of_other_types=f"/camera (of type {type_name})", elsewhere=there)
    assert f"only /camera (of type {type_name}) publishes there; there are compressed images on /cam/compressed" in told
    assert "start with -p transport:=compressed -r image:=/cam" in told


def test_images_that_get_lost_are_told_unless_they_are_few():
    statistics, report = Statistics(), Report("node")

    def level():
        return report.build(statistics, situation(), THRESHOLDS)[0].level

    for name in ("received", "received_depth"):
        statistics.count(name, 99)
    statistics.count("lost")
    assert level() == DiagnosticStatus.OK
    for name in ("lost", "lost_depth"):
        statistics.count("received", 10)
        statistics.count("received_depth", 10)
        statistics.count(name, 5)
        assert level() == DiagnosticStatus.WARN
        assert level() == DiagnosticStatus.OK, "nothing lost since"


@pytest.fixture
def nodes():
    """Two nodes of a context of their own: a camera, and one to subscribe with."""
    context = rclpy.Context()
    rclpy.init(context=context)
    made = [rclpy.create_node(name, context=context) for name in ("camera", "decompose")]
    yield made
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("published", "transport", "image", "options"),
    [
        ({"/cam/rgb": Image}, "raw", "/image", "-r image:=/cam/rgb"),
        ({"/cam/rgb/compressed": CompressedImage}, "compressed", "/image", "-r image:=/cam/rgb"),
        ({"/cam/rgb/compressed": CompressedImage}, "raw", "/image", "-p transport:=compressed -r image:=/cam/rgb"),
        ({"/cam/compressed": CompressedImage}, "raw", "/cam", "-p transport:=compressed -r image:=/cam"),
        ({"/cam/compressed": CompressedImage}, "raw", "/cam/compressed", "-p transport:=compressed -r image:=/cam"),
        ({"/cam/compressed": CompressedImage}, "compressed", "/cam/compressed", "-r image:=/cam"),
        ({"/cam": Image}, "compressed", "/cam", "-p transport:=raw -r image:=/cam"),
        ({"/cam/compressed": Image}, "compressed", "/cam", "-p transport:=raw -r image:=/cam/compressed"),
        ({"/plain": CompressedImage}, "compressed", "/image", None),  # no `image` leads to it
        (
            {"/cam/compressed": CompressedImage, "/rear": Image},
            "raw",
            "/cam",
            "-p transport:=compressed -r image:=/cam",
        ),
        ({"/cam": Image, "/cam/compressed": CompressedImage}, "raw", "/image", "-r image:=/cam"),
        (
            dict.fromkeys(("/cam/aligned_depth/image_raw", "/cam/color/image_raw", "/cam/infra1/image_raw"), Image),
            "raw",
            "/camera/color/image_raw",
            "-r image:=/cam/color/image_raw",
        ),
        (dict.fromkeys(("/a/image", "/b/left/image"), Image), "raw", "/left/image", "-r image:=/b/left/image"),
        ({"/depth": Image}, "raw", "/image", None),  # what the node takes as depth
    ],
)
def test_images_found_elsewhere_come_with_the_options_that_bring_them(nodes, published, transport, image, options):
    camera, _ = nodes
    decompose = rclpy.create_node("other", context=camera.context, cli_args=["--ros-args", "-r", f"image:={image}"])
    inputs = Inputs(decompose, transport, "raw", print, print, print, print)
    made = {camera.create_publisher(kind, topic, 1).topic_name for topic, kind in published.items()}
    end = time.monotonic() + 20
    while not made <= {name for name, _ in decompose.get_topic_names_and_types()} and time.monotonic() < end:
        time.sleep(0.05)
    found = inputs.elsewhere()
    assert (found[0].options if found else None) == options
    others = set(published) == {inputs.topic} and not inputs.publishers()
    assert bool(inputs.of_other_types()) == others
    decompose.destroy_node()


def test_depth_is_not_offered_as_images_in_whatever_form_it_is_taken(nodes):
    camera, node = nodes
    inputs = Inputs(node, "raw", "compressedDepth", print, print, print, print)
    offered = ((Image, "depth"), (CompressedImage, "depth/compressedDepth"), (Image, "photos"))
    made = {camera.create_publisher(kind, topic, 1).topic_name for kind, topic in offered}
    end = time.monotonic() + 20
    while not made <= {name for name, _ in node.get_topic_names_and_types()} and time.monotonic() < end:
        time.sleep(0.05)
    assert [source.topic for source in inputs.elsewhere()] == ["/photos"]


def test_depth_in_the_other_form_is_found_where_somebody_publishes_it(nodes):
    camera, node = nodes
    inputs = Inputs(node, "raw", "raw", print, print, print, print)
    looked_at = camera.create_subscription(CompressedImage, "depth/compressedDepth", print, 1)
    end = time.monotonic() + 20
    while not node.count_subscribers("/depth/compressedDepth") and time.monotonic() < end:
        time.sleep(0.05)
    assert inputs.depth_elsewhere() is None, "somebody looks for it as well"
    camera.destroy_subscription(looked_at)
    camera.create_publisher(CompressedImage, "depth/compressedDepth", 1)
    while (found := inputs.depth_elsewhere()) is None and time.monotonic() < end:
        time.sleep(0.05)
    assert found == Source("/depth/compressedDepth", "compressedDepth", "-p depth_transport:=compressedDepth")


def profile_of(node: Node, topic: str) -> QoSProfile | None:
    """The QoS with which a node subscribes to a topic."""
    own = (info for info in node.get_subscriptions_info_by_topic(topic) if info.node_name == node.get_name())
    return next((info.qos_profile for info in own), None)


def test_a_subscription_takes_the_best_that_all_publishers_offer(nodes):
    camera, node = nodes
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    received = []
    profile = QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_AVAILABLE, durability=DurabilityPolicy.BEST_AVAILABLE
    )
    subscription = BestAvailableSubscription(node, CameraInfo, "info", received.append, profile)

    def until(true):
        end = time.monotonic() + 30
        while not true() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        assert true(), profile_of(node, "/info")

    def becomes(reliability, durability):
        def there():
            found = profile_of(node, "/info")
            return found is not None and (found.reliability.name, found.durability.name) == (reliability, durability)

        until(there)

    def publishes(reliability, durability):
        offered = QoSProfile(
            depth=1, reliability=ReliabilityPolicy[reliability], durability=DurabilityPolicy[durability]
        )
        return camera.create_publisher(CameraInfo, "info", offered)

    subscription.open()
    becomes("RELIABLE", "TRANSIENT_LOCAL")  # while there is none
    simple = publishes("BEST_EFFORT", "VOLATILE")
    becomes("BEST_EFFORT", "VOLATILE")
    latched = publishes("RELIABLE", "TRANSIENT_LOCAL")
    latched.publish(CameraInfo(width=7))
    camera.destroy_publisher(simple)
    becomes("RELIABLE", "TRANSIENT_LOCAL")
    until(lambda: received)
    assert {message.width for message in received} == {7}
    subscription.close()
    until(lambda: profile_of(node, "/info") is None)
    executor.shutdown()


def test_a_reliable_camera_that_keeps_everything_is_not_held_up_by_a_node_that_takes_nothing(nodes):
    camera, node = nodes
    inputs = Inputs(node, "raw", "raw", print, print, print, print)
    inputs.subscribe()  # and its executor never runs
    everything = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)
    publisher = camera.create_publisher(Image, "image", everything)
    end = time.monotonic() + 30
    while not publisher.get_subscription_count():
        assert time.monotonic() < end
        time.sleep(0.01)
    for _ in range(6000):  # a thousand more than Fast DDS keeps for whoever doesn't take them
        publisher.publish(Image())
    assert publisher.wait_for_all_acked(Duration(seconds=30))
    inputs.destroy()


@pytest.mark.parametrize("fault", ["reliability:=relaible", "depth:=ten", "depth:=-1", "durability:=unknown"])
def test_a_wrong_qos_parameter_is_refused_before_anything_is_subscribed_to(fault):
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "-p", f"qos_overrides./depth.subscription.{fault}"])
    node = rclpy.create_node("decompose", context=context)
    for _ in range(2):  # the second time, the parameter is declared
        with pytest.raises(ValueError, match=r"qos_overrides\./depth\.subscription\."):
            Inputs(node, "raw", "raw", print, print, print, print)
    assert node.count_subscribers("/image") == 0
    node.destroy_node()
    rclpy.shutdown(context=context)
