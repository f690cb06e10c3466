"""What published messages hold, value by value, and what each parameter of the running node does.

One process with the shipped network serves the whole module; starting it is what takes the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from monet_perception_msgs.msg import SlotArray
from monet_perception_msgs.srv import DecodeSlots
from node_process import LOSSLESS, Robot, running
from scipy.special import expit
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from monet_perception.clip import DEMO_CLIP
from monet_perception.decomposition import Decomposition
from monet_perception.geometry import SlotGeometry
from monet_perception.nodes.conversions import image_message
from monet_perception.nodes.settings import SPECS
from monet_perception.nodes.slot_messages import (
    fill_decoded,
    object_slots,
    read_masks,
    read_reconstructions,
    slot_array,
)
from monet_perception.raw_images import MessageError
from monet_perception.recording import read_frames
from monet_perception.region import Region

# Messages ------------------------------------------------------------------------------------------


def random_decomposition() -> Decomposition:
    """Three slots of 4x4 pixels and five latents, decoded."""
    rng = np.random.default_rng(0)
    masks = rng.dirichlet([1, 1, 1], (4, 4)).astype(np.float32).transpose(2, 0, 1)
    mean, log_sigma = rng.normal(size=(2, 3, 5)).astype(np.float32)
    image, reconstructions = np.zeros((4, 4, 3), np.uint8), rng.random((3, 4, 4, 3), np.float32)
    return Decomposition(masks, mean, log_sigma, Region(8, 0, 48, 48), 48, 64, image, reconstructions, masks)


def test_a_slot_array_holds_what_it_was_made_of():
    found, root = random_decomposition(), np.random.default_rng(1).normal(size=(3, 3))
    geometry = SlotGeometry(np.array([1.0, 2.0, 3.0]), root @ root.T, np.array([4.0, 5.0, 6.0]), 0.75, background=True)
    header = Header(frame_id="camera", stamp=Time(sec=1, nanosec=500))
    message = slot_array(header, "abc", found, np.array([7, -1, 9], np.int32), [None, geometry, None])
    assert [slot.track_id for slot in message.slots] == [7, -1, 9]
    for k, slot in enumerate(message.slots):
        np.testing.assert_array_equal(slot.latent_mean, found.latent_mean[k])
        np.testing.assert_array_equal(slot.latent_log_sigma, found.latent_log_sigma[k])
        assert slot.area == pytest.approx(found.masks[k].mean())
        assert slot.mask.header == slot.reconstruction.header == message.header == header
        colours = np.frombuffer(slot.reconstruction.data, np.uint8).reshape(4, 4, 3)
        np.testing.assert_allclose(colours, 255 * found.reconstructions[k], atol=0.51)
    located = message.slots[1]
    assert (list(located.centroid), list(located.extent)) == ([1, 2, 3], [4, 5, 6])
    np.testing.assert_array_equal(located.covariance, geometry.covariance.ravel())
    assert located.occluding_share == 0.75
    assert located.background
    for slot in message.slots[::2]:
        assert np.isnan(slot.occluding_share)
        assert not len(slot.centroid)
        assert not len(slot.covariance)
        assert not len(slot.extent)


@pytest.mark.parametrize("read", [read_masks, read_reconstructions])
def test_messages_that_hold_no_images_are_refused_by_name(read):
    def message(slots: int = 3) -> SlotArray:
        no_geometry = [None] * 3
        made = slot_array(Header(), "abc", random_decomposition(), np.zeros(3, np.int32), no_geometry)
        made.slots = made.slots[:slots]
        return made

    assert len(read(message())) == 3
    with pytest.raises(MessageError, match="no slots"):
        read(message(slots=0))
    short, odd = message(), message()
    for image in (short.slots[1].mask, short.slots[1].reconstruction):
        image.data = image.data[:-1]
    with pytest.raises(MessageError, match=r"(mask|reconstruction): data has (15|47) bytes"):
        read(short)
    for image in (odd.slots[1].mask, odd.slots[1].reconstruction):
        image.encoding = "bgr8"
    with pytest.raises(MessageError, match=r"(mask|reconstruction): encoding 'bgr8' is not one of"):
        read(odd)
    larger = message()
    for image in (larger.slots[1].mask, larger.slots[1].reconstruction):
        image.height, image.data = 8, [*image.data, *image.data]
    with pytest.raises(MessageError, match="must all have one size and some pixels, have 4x4, 4x8, 4x4"):
        read(larger)


def test_masks_without_pixels_are_refused():
    message = slot_array(Header(), "abc", random_decomposition(), np.zeros(3, np.int32), [None] * 3)
    for slot in message.slots:
        slot.mask.width = slot.mask.height = 0
        slot.mask.data = []
    with pytest.raises(MessageError, match="mask: image of 0x0 pixels is empty"):
        read_masks(message)


def test_masks_with_padded_rows_in_the_other_byte_order_are_read():
    found = random_decomposition()
    args = Header(), "abc", found, np.zeros(3, np.int32), [None] * 3
    message = slot_array(*args, mask_encoding="32FC1")
    for slot, mask in zip(message.slots, found.masks, strict=True):
        rows = np.zeros((4, 20), np.uint8)
        rows[:, :16] = mask.astype(">f4").view(np.uint8)
        slot.mask.step, slot.mask.is_bigendian, slot.mask.data = 20, 1, rows.ravel().tolist()
    np.testing.assert_array_equal(read_masks(message), found.masks)


def test_a_latent_decoded_alone_has_a_mask_of_its_own():
    logits = np.array([[[-3.0, 0.0], [1.0, 4.0]]], np.float32)
    response = DecodeSlots.Response()
    fill_decoded(response, np.zeros((1, 2, 2, 3), np.float32), logits)
    mask = np.frombuffer(response.masks[0].data, np.uint8).reshape(2, 2)
    np.testing.assert_allclose(mask, 255 * expit(logits[0]), atol=0.51)


# Parameters ----------------------------------------------------------------------------------------

FRAME = next(itertools.islice(read_frames(DEMO_CLIP), 5, None))
QUICK_REPORTS = {"diagnostics_period": 0.2}
DEFAULTS = {spec.name: spec.default for spec in SPECS if spec.running} | QUICK_REPORTS
NOTHING_IS_LARGE_ENOUGH = {"min_area": 1.0}


class DepthCamera:
    """Shows a frame of the shipped clip to the node, with depth, at the times that it is told.

    Args:
        robot: whose camera it is.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._now = 100.0
        self._depth = robot.node.create_publisher(Image, "depth", 100)
        self._info = robot.node.create_publisher(CameraInfo, "camera_info", 100)
        robot.listen()
        robot.until(
            lambda: self._depth.get_subscription_count() and self._info.get_subscription_count(), "no depth wanted"
        )

    def show(self, after: float = 0.05, *, depth: float = 0.0) -> SlotArray:
        """The node's answer to the next image.

        Args:
            after: seconds since the last one, by the stamps.
            depth: seconds from the image's stamp to that of its depth, which is sent before it.
        """
        self._now += after
        self.send_depth(depth)
        self._robot.wait(0.1)
        return self._robot.answer(image_message(self._header(), FRAME.image, "rgb8"))

    def send_depth(self, offset: float = 0.0) -> None:
        """Sends depth and camera_info with the stamp of the last image, or `offset` seconds later."""
        header, camera = self._header(offset), FRAME.intrinsics
        info = CameraInfo(header=header, height=camera.height, width=camera.width)
        info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
        self._info.publish(info)
        self._depth.publish(image_message(header, FRAME.depth.astype(np.float32), "32FC1"))

    def send_image(self) -> Header:
        """Sends an image without depth, 50 ms after the last one, and returns its header."""
        self._now += 0.05
        header = self._header()
        self._robot.cameras["image"].publish(image_message(header, FRAME.image, "rgb8"))
        return header

    def _header(self, offset: float = 0.0) -> Header:
        return self._robot.header(stamp=round(1000 * (self._now + offset)) * 1_000_000)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    log = tmp_path_factory.mktemp("values") / "log"
    with running("decompose", ["--ros-args", "-p", "min_area:=1.0", "-p", "diagnostics_period:=0.2", *LOSSLESS], log):
        robot = Robot()
        robot.until_active()
        yield robot
        robot.close()


@pytest.fixture(scope="module")
def camera(robot):
    return DepthCamera(robot)


@pytest.fixture
def defaults(robot):
    """All parameters that may change are as the table has them, and are so again afterwards."""
    assert robot.set(**DEFAULTS) == ""
    yield
    assert robot.set(**DEFAULTS) == ""


def track_ids(message: SlotArray) -> list[int]:
    return [slot.track_id for slot in message.slots]


def located(message: SlotArray) -> bool:
    return any(len(slot.centroid) for slot in message.slots)


def answering(robot: Robot, messages: Collection, header: Header):
    """The message that answers an image; markers by the stamp of the first one."""

    def stamp(message):
        return message.markers[0].header.stamp if isinstance(message, MarkerArray) else message.header.stamp

    return robot.until(lambda: next((m for m in messages if stamp(m) == header.stamp), None), "no such message")


def marked(message: MarkerArray, action: int) -> set[int]:
    return {marker.id for marker in message.markers if marker.action == action}


def test_parameters_of_the_tracker_given_at_start_are_used(camera):
    assert set(track_ids(camera.show())) == {-1}


def test_parameters_of_the_tracker_are_used_while_it_runs(robot, camera, defaults):
    first = track_ids(camera.show())
    assert max(first) >= 0

    def absent(seconds: float) -> None:
        assert robot.set(**NOTHING_IS_LARGE_ENOUGH) == ""
        for after in (0.05, seconds):
            assert set(track_ids(camera.show(after))) == {-1}
        assert robot.set(min_area=DEFAULTS["min_area"]) == ""

    absent(0.5)
    assert track_ids(camera.show()) == first, "seconds, not nanoseconds, and one of them is allowed"
    assert robot.set(max_absence=0.2) == ""
    absent(0.5)
    assert set(track_ids(camera.show())) & set(first) <= {-1}


def test_limits_of_the_diagnostics(robot, camera, defaults):
    camera.show()
    robot.next_report()
    assert float(robot.value("network", "latency, median (ms)")) > 0
    assert robot.statuses["scene"].level == DiagnosticStatus.OK
    assert robot.set(max_latency=0.001, max_reconstruction_error=0.0) == ""
    robot.until(lambda: "above 1 ms" in robot.messages()["network"], "max_latency does nothing")
    robot.until(
        lambda: camera.show() and "above 0.0:" in robot.messages()["scene"], "max_reconstruction_error does nothing"
    )
    assert robot.statuses["scene"].level == DiagnosticStatus.WARN
    robot.until(lambda: robot.messages()["scene"] == "no frame assessed lately", "a scene of long ago is judged")


def test_depth_within_the_tolerance_is_used(robot, camera, defaults):
    assert located(camera.show())
    assert not located(camera.show(1.0, depth=0.05))
    assert robot.set(depth_tolerance=0.1) == ""
    assert located(camera.show(1.0, depth=0.05))


def test_depth_is_waited_for_as_long_as_told(robot, camera, defaults):
    assert robot.set(depth_patience=1.0) == ""
    camera.show()
    header = camera.send_image()
    robot.wait(0.3)
    camera.send_depth()
    assert located(answering(robot, robot.slots, header))


def test_boxes_are_of_objects_and_go_with_them(robot, camera, defaults):
    markers = robot.listen("scene/markers", MarkerArray)
    robot.wait(0.5)
    answer = camera.show()
    robot.until(lambda: markers, "no markers")
    assert markers[0].markers[0].action == Marker.DELETEALL, "a node before this one may have left boxes"
    things = object_slots(answer)
    objects = {slot.track_id for slot, thing in zip(answer.slots, things, strict=True) if thing}
    assert objects
    assert objects < set(track_ids(answer)) - {-1}, "walls have tracks as well"
    assert marked(answering(robot, markers, answer.header), Marker.ADD) == objects
    assert robot.set(**NOTHING_IS_LARGE_ENOUGH) == ""
    gone = answering(robot, markers, camera.show().header)
    assert (marked(gone, Marker.ADD), marked(gone, Marker.DELETE)) == (set(), objects)
    assert not marked(gone, Marker.DELETEALL)
    assert robot.set(**DEFAULTS) == ""
    for _ in range(3):
        shown = camera.show()
    assert marked(answering(robot, markers, shown.header), Marker.ADD)
    assert robot.change(Transition.TRANSITION_DEACTIVATE)
    robot.until(lambda: marked(markers[-1], Marker.DELETEALL), "viewers keep the boxes of a node that was deactivated")
    assert robot.change(Transition.TRANSITION_ACTIVATE)


def test_pictures_are_as_large_as_told_and_need_no_published_reconstructions(robot, camera, defaults):
    overlays, errors = robot.listen("scene/overlay", Image), robot.listen("scene/error", Image)
    robot.wait(0.5)
    header = camera.show().header
    overlay, error = answering(robot, overlays, header), answering(robot, errors, header)
    assert (overlay.width, overlay.height) == (FRAME.image.shape[1], FRAME.image.shape[0])
    assert robot.set(overlay_size=64, publish_reconstructions=False) == ""
    header = camera.show().header
    overlay = answering(robot, overlays, header)
    assert max(overlay.width, overlay.height) == 64
    assert answering(robot, errors, header).data == error.data
