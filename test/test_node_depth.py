"""How an image comes by its depth: matching by stamp, cameras and lenses, and what is told where there is none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_msgs.msg import Transition
from node_process import LOSSLESS, Robot, running
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from situations import THRESHOLDS, situation
from std_msgs.msg import Header

from monet_perception.calibration import named_rectified
from monet_perception.checkpoint import save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes.conversions import image_message
from monet_perception.nodes.depth import SILENT, DepthMatcher, NoDepthError
from monet_perception.nodes.diagnostics import Report
from monet_perception.nodes.network import Network
from monet_perception.nodes.parameters import Parameters
from monet_perception.nodes.pipeline import Pipeline
from monet_perception.nodes.settings import SPECS
from monet_perception.nodes.statistics import Statistics
from monet_perception.scene_tracker import SceneTracker

LONG = 600.0
"""Seconds of patience: a wait that ought not to be ends in the test's own limit."""
MATRIX = np.array([[42.0, 0, 32.2], [0, 42.0, 24.1], [0, 0, 1]])
LENS = np.array([-0.30, 0.09, 0.0005, -0.0003, 0.0])
RECTIFIED = cv2.getOptimalNewCameraMatrix(MATRIX, LENS, (64, 48), 0)[0]


def header(milliseconds: float, frame_id: str = "camera") -> Header:
    seconds, nanoseconds = divmod(round(milliseconds * 1_000_000), 1_000_000_000)
    return Header(frame_id=frame_id, stamp=Time(sec=seconds, nanosec=nanoseconds))


def milliseconds(message: Image | CameraInfo) -> float:
    return message.header.stamp.sec * 1000 + message.header.stamp.nanosec / 1e6


# Matching ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12, unique=True), st.integers(1, 400))
def test_the_depth_image_nearest_in_time_is_found(stamps, wanted):
    matcher = DepthMatcher(tolerance=0.02, patience=0.0)
    for stamp in sorted(stamps):
        matcher.add_depth(Image(header=header(stamp)))
    matcher.add_info(CameraInfo(header=header(0)))
    nearest = min(abs(stamp - wanted) for stamp in stamps)
    if nearest > 20:
        with pytest.raises(NoDepthError, match=f"nearest depth image is {nearest} ms .* depth_tolerance"):
            matcher.match(header(wanted))
    else:
        assert abs(milliseconds(matcher.match(header(wanted))[0]) - wanted) == nearest


def test_a_depth_image_that_is_under_way_is_waited_for():
    matcher = DepthMatcher(tolerance=0.02, patience=LONG)
    matcher.add_info(CameraInfo())
    matcher.add_depth(Image(header=header(10)))
    threading.Timer(0.05, matcher.add_depth, [Image(header=header(110))]).start()
    matcher.match(header(110))


def test_a_nearer_depth_image_that_is_under_way_is_waited_for():
    """60 Hz, the depth images 12 ms late: the one before lies within the tolerance, but is of another moment."""
    matcher = DepthMatcher(tolerance=0.02, patience=LONG)
    matcher.add_info(CameraInfo())
    for number in range(1, 6):
        matcher.add_depth(Image(header=header(1000 / 60 * number)))
    threading.Timer(0.05, matcher.add_depth, [Image(header=header(100))]).start()
    assert milliseconds(matcher.match(header(100))[0]) == 100


def test_depth_that_is_always_a_little_older_is_not_waited_for():
    matcher = DepthMatcher(tolerance=0.02, patience=LONG)
    matcher.add_info(CameraInfo())
    for number in range(1, 6):
        matcher.add_depth(Image(header=header(33 * number)))
    assert milliseconds(matcher.match(header(170))[0]) == 165


@pytest.mark.parametrize("interval", [1000 / 15, 200.0])
def test_depth_that_is_due_too_late_to_fit_is_not_waited_for(interval):
    matcher = DepthMatcher(tolerance=0.02, patience=LONG)
    matcher.add_info(CameraInfo())
    for number in range(1, 6):
        matcher.add_depth(Image(header=header(interval * number)))
    with pytest.raises(NoDepthError, match="33 ms before the image"):
        matcher.match(header(5 * interval + 33.3))


def test_depth_that_comes_in_disorder_is_found():
    matcher = DepthMatcher(tolerance=0.02, patience=0.0)
    matcher.add_info(CameraInfo())
    for stamp in (10_000, 10_033, 10_100, 10_067):
        matcher.add_depth(Image(header=header(stamp)))
    assert [milliseconds(matcher.match(header(stamp))[0]) for stamp in (10_033, 10_067, 10_100)] == [
        10_033, 10_067, 10_100,
    ]  # fmt: skip


@given(st.integers(0, 100), st.booleans())
def test_a_slow_network_finds_the_depth_of_its_image(later, depth_first):
    matcher = DepthMatcher(tolerance=0.02, patience=0.0)
    matcher.add_info(CameraInfo())
    if depth_first:
        matcher.add_depth(Image(header=header(1000)))
    matcher.expect(header(1000))
    for number in range(depth_first, later + 1):  # while the network runs
        matcher.add_depth(Image(header=header(1000 + 33 * number)))
    assert milliseconds(matcher.match(header(1000))[0]) == 1000


def test_without_a_depth_camera_nothing_is_waited_for():
    with pytest.raises(NoDepthError, match="no depth image has come"):
        DepthMatcher(patience=LONG).match(header(100))


def test_a_depth_camera_that_fell_silent_is_not_waited_for():
    matcher = DepthMatcher(patience=LONG)
    matcher.add_info(CameraInfo())
    matcher.add_depth(Image(header=header(10)))
    time.sleep(SILENT + 0.05)
    with pytest.raises(NoDepthError, match=r"the last depth image came 1\.\d s ago"):
        matcher.match(header(1100))


def test_the_camera_info_nearest_in_time_is_taken():
    matcher = DepthMatcher(patience=0.0)
    for stamp in (10, 1000):
        matcher.add_info(CameraInfo(header=header(stamp)))
    taken = {}
    for stamp in (100, 900):
        matcher.add_depth(Image(header=header(stamp)))
        taken[stamp] = milliseconds(matcher.match(header(stamp))[1])
    assert taken == {100: 10, 900: 1000}


def test_the_camera_info_of_before_a_restart_is_forgotten():
    matcher = DepthMatcher(patience=0.0)
    for stamp in (95_000, 96_000, 1_000):  # the new run sends it once
        matcher.add_info(CameraInfo(header=header(stamp)))
    matcher.add_depth(Image(header=header(60_000)))
    assert milliseconds(matcher.match(header(60_000))[1]) == 1_000


def test_why_depth_is_refused_is_told_also_where_some_came_before():
    matcher = DepthMatcher(patience=0.0)
    matcher.add_info(CameraInfo())
    matcher.add_depth(Image(header=header(10)))
    matcher.refuse_depth("format is RVL")
    with pytest.raises(NoDepthError, match="no depth image has come that can be used: format is RVL"):
        matcher.match(header(500))
    matcher.add_depth(Image(header=header(600)))
    with pytest.raises(NoDepthError, match="100 ms before the image"):
        matcher.match(header(700))


def test_a_bag_that_starts_again_finds_its_depth():
    matcher = DepthMatcher(patience=0.0)
    matcher.add_info(CameraInfo())
    for stamp in (5000, 5100, 10, 110):
        matcher.add_depth(Image(header=header(stamp)))
    matcher.match(header(110))
    with pytest.raises(NoDepthError, match="4990 ms before the image"):
        matcher.match(header(5100))


def test_a_missing_camera_info_is_told_and_one_that_came_stays():
    matcher = DepthMatcher(patience=0.0)
    matcher.add_depth(Image(header=header(100)))
    with pytest.raises(NoDepthError, match=r"no camera_info has come$"):
        matcher.match(header(100))
    matcher.refuse_info("it is not a calibration")
    matcher.add_depth(Image(header=header(100)))
    with pytest.raises(NoDepthError, match="no camera_info has come that can be used: it is not a calibration"):
        matcher.match(header(100))
    matcher.add_info(CameraInfo())
    matcher.match(header(100))
    matcher.refuse_info("no calibration")
    matcher.clear_depth()  # as when nobody listens any more
    matcher.add_depth(Image(header=header(200)))
    matcher.match(header(200))


def test_of_depth_images_without_stamps_the_newest_is_taken():
    matcher = DepthMatcher(patience=LONG)
    matcher.add_info(CameraInfo())
    for number in range(12):
        matcher.add_depth(Image(step=number))
    assert matcher.match(Header())[0].step == 11
    matcher.patience = 0.0
    with pytest.raises(NoDepthError, match="depth images carry no stamp"):
        matcher.match(header(100_000))


# In the pipeline -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("depth") / "a.safetensors"
    save_checkpoint(checkpoint, Monet(PRESETS["monet_rn18_star"]), dataset="none", steps=0)
    network = Network(lambda: Decomposer(checkpoint, device="cpu", threads=1))
    network.acquire()

    def broken(error):
        raise AssertionError(error)

    return Pipeline(network, SceneTracker(), DepthMatcher(patience=0.0), broken, rectified=False)


def camera_info(of: Header, **fields: object) -> CameraInfo:
    """As drivers publish it beside raw images: P is that of the rectified ones."""
    message = CameraInfo(header=of, width=64, height=48, distortion_model="plumb_bob", d=LENS.tolist())
    message.k, message.p = MATRIX.ravel().tolist(), np.insert(RECTIFIED.ravel(), [3, 6, 9], 0.0).tolist()
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def frame(
    pipeline: Pipeline,
    of: Header,
    depth: Header | None = None,
    info: CameraInfo | None = None,
    received=1.0,
    depth_size: tuple[int, int] = (48, 64),
    millimetres=2000,
):
    """What becomes of a grey image, seen with a wall, two metres away unless told otherwise."""
    pipeline.depth.clear()
    if info is not None:
        pipeline.depth.add_info(info)
    if depth is not None:
        pipeline.depth.add_depth(image_message(depth, np.full(depth_size, millimetres, np.uint16), "16UC1"))
    image = image_message(of, np.full((48, 64, 3), 128, np.uint8), "rgb8")
    return pipeline.run(image, received=received, reconstruct=False, locate=True)


@pytest.mark.parametrize("rectified", [False, True])
def test_raw_images_are_lifted_through_their_lens_and_rectified_ones_by_p(pipeline, rectified):
    stamp = header(100)
    found = frame(replace(pipeline, rectified=rectified), stamp, stamp, camera_info(stamp))
    assert found.depth is not None
    metres, intrinsics = found.depth
    assert found.depth_fault == ""
    corners = np.array([[8.0, 0.0], [55.0, 47.0]])  # of the centre square
    rays = (
        (corners - RECTIFIED[:2, 2]) / np.diag(RECTIFIED)[:2]
        if rectified
        else cv2.undistortPoints(corners[:, None], MATRIX, LENS)[:, 0]
    )
    np.testing.assert_allclose(intrinsics.project(np.insert(2 * rays, 2, 2.0, axis=1)), corners, atol=0.05)
    assert metres[0, 0] == np.float32(2.0)


def test_depth_in_another_frame_is_used_and_told(pipeline):
    stamp = header(100)
    found = frame(pipeline, stamp, header(100, "depth_camera"), camera_info(stamp))
    assert found.depth is not None
    assert "depth is in frame 'depth_camera', the image in 'camera'" in found.depth_fault
    assert frame(pipeline, stamp, header(100, ""), camera_info(stamp)).depth_fault == ""


def test_camera_info_of_another_frame_is_used_and_told(pipeline):
    stamp = header(100)
    found = frame(pipeline, stamp, stamp, camera_info(header(100, "depth_camera")))
    assert found.depth is not None
    assert "camera_info is in frame 'depth_camera', the image in 'camera'" in found.depth_fault
    assert "remap camera_info" in found.depth_fault


def test_depth_of_another_shape_is_used_and_told(pipeline):
    """It can't be registered to the image, whatever its frame is called."""
    stamp = header(100)
    assert frame(pipeline, stamp, stamp, camera_info(stamp), depth_size=(24, 32)).depth_fault == "", "half as large"
    found = frame(pipeline, stamp, stamp, camera_info(stamp), depth_size=(36, 64))
    assert found.depth is not None
    assert "depth is 64x36, the image 64x48" in found.depth_fault


def test_why_there_is_no_depth_is_told(pipeline):
    stamp = header(100)
    assert frame(pipeline, stamp).depth_fault == "no depth image has come"
    assert frame(pipeline, stamp, stamp).depth_fault == "no camera_info has come"
    assert "60 ms after the image" in frame(pipeline, stamp, header(160), camera_info(stamp)).depth_fault
    covered = frame(pipeline, stamp, stamp, camera_info(stamp), millimetres=0)
    assert covered.geometries == [None] * 7
    assert "no pixel of the depth image holds a measurement" in covered.depth_fault
    faults = []
    noted = replace(pipeline, depth_broken=faults.append)
    for wrong, fault in (({"width": 65}, "65x48 pixels"), ({"distortion_model": "odd"}, "'odd' is not one of")):
        found = frame(noted, stamp, stamp, camera_info(stamp, **wrong))
        assert found.depth is None
        assert fault in found.depth_fault
        assert str(faults[-1]) == found.depth_fault


def test_images_without_stamps_are_tracked_by_when_they_came(pipeline):
    pipeline = replace(pipeline, tracker=SceneTracker())
    first = frame(pipeline, Header(), received=100.0).track_ids.tolist()
    assert frame(pipeline, Header(), received=100.1).track_ids.tolist() == first
    assert max(first) >= 0
    assert pipeline.tracker.resets == 0
    later = frame(pipeline, Header(), received=200.0).track_ids
    assert pipeline.tracker.resets == 1, "a hundred seconds are a gap, whatever the stamps say"
    assert not set(later[later >= 0].tolist()) & set(first)


def test_images_that_lack_a_stamp_now_and_then_keep_their_tracks(pipeline):
    """Whatever time they were under way."""
    pipeline = replace(pipeline, tracker=SceneTracker())
    for number, late in enumerate([0.0, 0.5, 0.5, 0.0, 0.3, 0.6, 0.1, 0.0, 0.4]):
        stamp = Header() if number % 3 == 2 else header(1_000_000 + 100 * number)
        frame(pipeline, stamp, received=50.0 + 0.1 * number + late)
    assert pipeline.tracker.resets == 0


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/image_raw", False),
        ("/camera/color/image_rect_color", True),
        ("/zed/rgb/rectified/image", True),
        ("/direct/image", False),
        ("/image_rect/compressed", True),
    ],
)
def test_rectified_images_are_known_by_their_topic(topic, rectified):
    assert named_rectified(topic) is rectified


@pytest.mark.parametrize(("given", "kept"), [("true", "true"), ("false", "false"), ("auto", "auto")])
def test_true_and_false_of_a_command_line_are_taken_as_the_words(given, kept):
    """ROS takes them for truth values, which no other choice of the parameter is."""
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", f"rectified:={given}"], context=context)
    try:
        node = rclpy.create_node("words", context=context)
        parameters = Parameters(node, SPECS, lambda: False, print)
        assert (parameters["rectified"], parameters.faults) == (kept, {})
        for value, word in ((True, "true"), ("auto", "auto"), (False, "false")):  # as `ros2 param set` sends them
            (set_,) = node.set_parameters([Parameter("rectified", value=value)])
            assert set_.successful, set_.reason
            assert parameters["rectified"] == word
        assert not node.set_parameters([Parameter("rectified", value=3)])[0].successful
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


# In the diagnostics --------------------------------------------------------------------------------


def camera_status(statistics: Statistics, report: Report, **fields: object) -> DiagnosticStatus:
    listening = time.monotonic() - 2 * THRESHOLDS.camera_timeout
    values = {"listening_since": listening, "depth_publishers": 1, **fields}
    statistics.count("received")
    return report.build(statistics, situation(**values), THRESHOLDS)[0]


def test_missing_3d_is_a_warning_while_depth_is_published():
    statistics, report = Statistics(), Report("node")

    def status(found: int, missing: int, **fields: object) -> DiagnosticStatus:
        for number in range(found + missing):
            statistics.located(found=number < found, fault="" if number < found else "no camera_info has come")
        return camera_status(statistics, report, **fields)

    told = status(1, 4)
    assert told.level == DiagnosticStatus.WARN
    assert told.message == "1 of 5 frames have 3D: no camera_info has come"
    values = {pair.key: pair.value for pair in told.values}
    assert (values["frames in 3D"], values["last fault of 3D"]) == ("1 of 5", "no camera_info has come")
    assert status(4, 1).level == DiagnosticStatus.OK
    assert status(0, 0).level == DiagnosticStatus.OK, "nobody wanted 3D"
    assert status(0, 5, depth_publishers=0).level == DiagnosticStatus.OK, "a robot without a depth camera"
    assert status(0, 5, listening_since=time.monotonic()).level == DiagnosticStatus.OK, "it may still come"
    statistics.located(found=True, fault="depth is in frame 'a', the image in 'b'")
    told = status(3, 0)
    assert (told.level, told.message) == (DiagnosticStatus.WARN, "depth is in frame 'a', the image in 'b'")


def test_images_without_stamps_are_a_warning_and_resets_are_counted():
    statistics, report = Statistics(), Report("node")
    assert camera_status(statistics, report).level == DiagnosticStatus.OK
    statistics.count("unstamped")
    told = camera_status(statistics, report, track_resets=3)
    assert (told.level, told.message) == (DiagnosticStatus.WARN, "images carry no stamp: set header.stamp")
    assert {"track resets": "3"}.items() <= {pair.key: pair.value for pair in told.values}.items()
    assert camera_status(statistics, report).level == DiagnosticStatus.OK


# As a process --------------------------------------------------------------------------------------


@pytest.fixture
def robot(tmp_path):
    """Beside a node that takes depth from /cam/depth."""
    save_checkpoint(tmp_path / "a", Monet(PRESETS["monet_rn18_star"]), dataset="none", steps=0)
    start = [
        *("--ros-args", "-p", f"checkpoint:={tmp_path / 'a'}", "-r", "depth:=/cam/depth"),
        *("-p", "diagnostics_period:=0.2", "-p", "camera_timeout:=0.5", *LOSSLESS),
    ]
    robot = Robot()
    try:
        with running("decompose", start, tmp_path / "log"):
            yield robot
    finally:
        robot.close()


def grey_image(robot: Robot) -> Image:
    """An image of now."""
    image = image_message(Header(), np.full((48, 64, 3), 128, np.uint8), "rgb8")
    image.header.stamp = robot.node.get_clock().now().to_msg()
    return image


def test_a_depth_camera_under_another_name_without_camera_info_is_told(robot):
    depth = robot.node.create_publisher(Image, "/cam/depth", 100)
    info = robot.node.create_publisher(CameraInfo, "camera_info", 100)

    def told() -> bool:
        image = grey_image(robot)
        depth.publish(image_message(image.header, np.full((48, 64), 2000, np.uint16), "16UC1"))
        robot.answer(image)
        return "0 of" in robot.messages().get("camera", "")

    robot.until(told, "a missing camera_info isn't told")
    assert "frames have 3D: no camera_info has come" in robot.messages()["camera"]
    assert robot.statuses["camera"].level == DiagnosticStatus.WARN
    assert robot.value("camera", "depth topic") == "/cam/depth"

    def uncalibrated() -> bool:
        info.publish(CameraInfo(height=48, width=64))
        return told() and "can be used: camera_info is not a calibration" in robot.messages()["camera"]

    robot.until(uncalibrated, "a camera without calibration isn't told")
    assert robot.value("camera", "last fault") == "", "nothing is wrong with the images"
    robot.cameras["image"].publish(image_message(Header(), np.zeros((48, 64, 3), np.uint8), "rgb8"))
    robot.until(lambda: "images carry no stamp" in robot.messages()["camera"], "no stamp isn't told")


def test_a_camera_that_packs_its_depth_is_told_of_and_then_read(robot):
    depth = robot.node.create_publisher(CompressedImage, "/cam/depth/compressedDepth", 100)
    info = robot.node.create_publisher(CameraInfo, "camera_info", 100)
    png = cv2.imencode(".png", np.full((48, 64), 2000, np.uint16))[1].tobytes()

    def depths() -> list[float]:
        """Sends a frame; the depths of its slots' centroids in metres."""
        image = grey_image(robot)
        info.publish(camera_info(image.header))
        packed = CompressedImage(header=image.header, format="16UC1; compressedDepth png", data=bytes(12) + png)
        depth.publish(packed)
        return [slot.centroid[2] for slot in robot.answer(image).slots if len(slot.centroid)]

    hint = "depth comes on /cam/depth/compressedDepth only: start with -p depth_transport:=compressedDepth"
    robot.until(lambda: not depths() and robot.messages().get("camera") == hint, "the other form isn't told")
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert robot.change(transition)
    assert robot.set(depth_transport="compressedDepth") == ""
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert robot.change(transition)
    found = robot.until(depths, "packed depth isn't read")
    assert min(found) == pytest.approx(2.0, abs=0.01), "the wall's, objects are thought to be thick"
    assert robot.value("camera", "depth topic") == "/cam/depth/compressedDepth"
    depth.publish(CompressedImage(format="16UC1; compressedDepth png", data=bytes(40)))
    robot.until(lambda: robot.counts()["broken depth"] == 1, "a broken one isn't counted")
