"""The node `decompose` as a process of its own, over real DDS: encodings, listeners, 3D, services, broken input.

One process serves the whole module; starting it is what takes the time.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from clouds import read_cloud
from diagnostic_msgs.msg import DiagnosticStatus
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from node_process import LOSSLESS, Robot, picture, rgb_message, running
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes.conversions import image_message
from monet_perception.nodes.slot_messages import read_masks, read_reconstructions
from monet_perception.raw_images import COLOUR_ENCODINGS, DEPTH_ENCODINGS, MIN_BAYER_SIDE

CONFIG = PRESETS["monet_rn18_star"]
K, L, SIZE = CONFIG.slots, CONFIG.latent_size, CONFIG.image_size


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    checkpoint = folder / "a.safetensors"
    made = save_checkpoint(checkpoint, Monet(CONFIG), dataset="none", steps=0)
    arguments = ["--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "diagnostics_period:=0.2", *LOSSLESS]
    with running("decompose", arguments, folder / "log") as process:
        yield process, made


@pytest.fixture(scope="module")
def operator(process):
    operator = Robot()
    operator.until_active()
    yield operator
    operator.close()


@pytest.fixture
def robot(operator, process):
    yield operator
    assert process[0].poll() is None, "the node ended"
    operator.reset()


def check_slots(message, image, model_id):
    """What every SlotArray promises."""
    assert message.header == image.header
    assert message.model_id == model_id
    assert (message.source_height, message.source_width) == (image.height, image.width)
    side, roi = min(image.height, image.width), message.roi
    assert (roi.width, roi.height) == (side, side)
    assert (roi.x_offset, roi.y_offset) == ((image.width - side) // 2, (image.height - side) // 2)
    assert [slot.index for slot in message.slots] == list(range(K))
    assert all(len(slot.latent_mean) == len(slot.latent_log_sigma) == L for slot in message.slots)
    assert all(np.isfinite(slot.latent_mean).all() for slot in message.slots)
    masks = np.stack([np.frombuffer(slot.mask.data, np.uint8).reshape(SIZE, SIZE) for slot in message.slots])
    assert all(slot.mask.encoding == "mono8" and slot.mask.header == image.header for slot in message.slots)
    assert np.abs(masks.sum(axis=0, dtype=int) - 255).max() <= K
    np.testing.assert_allclose([slot.area for slot in message.slots], masks.mean(axis=(1, 2)) / 255, atol=0.01)
    assert read_reconstructions(message).shape == (K, SIZE, SIZE, 3)


def padded(message: Image) -> Image:
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, -1)
    message.data = np.pad(rows, [(0, 0), (0, 13)], constant_values=77).tobytes()
    message.step += 13
    return message


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "rgba8", "bgra8"])
@pytest.mark.parametrize("pad", [False, True], ids=["dense", "padded"])
def test_encodings(robot, process, encoding, pad):
    channels = COLOUR_ENCODINGS[encoding].channels
    image = image_message(robot.header(), picture(48, 64, channels), encoding)
    check_slots(robot.answer(padded(image) if pad else image), image, process[1].model_id)


def test_the_same_picture_gives_the_same_slots_in_every_encoding(robot):
    rgb = picture(48, 64)
    pictures = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.dstack([rgb, rgb[..., :1]]),
        "bgra8": np.dstack([rgb[..., ::-1], rgb[..., :1]]),
    }
    answers = [robot.answer(image_message(robot.header(), p, encoding)) for encoding, p in pictures.items()]
    for answer in answers[1:]:
        np.testing.assert_allclose(read_masks(answer), read_masks(answers[0]), atol=1 / 255)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (333, 77), (1080, 1920)])
def test_sizes(robot, process, height, width):
    image = rgb_message(robot.header(), height, width)
    check_slots(robot.answer(image), image, process[1].model_id)


def test_masks_lie_on_the_pixels_that_the_roi_says(robot):
    """Only what is inside the roi can change the masks."""
    inside = picture(60, 60)
    left = np.concatenate([np.zeros((60, 20, 3), np.uint8), inside, np.zeros((60, 20, 3), np.uint8)], axis=1)
    right = np.concatenate([np.full((60, 20, 3), 255, np.uint8), inside, picture(60, 20, seed=3)], axis=1)
    answers = [robot.answer(image_message(robot.header(), frame, "rgb8")) for frame in (left, right)]
    assert (answers[0].roi.x_offset, answers[0].roi.width) == (20, 60)
    np.testing.assert_array_equal(read_masks(answers[0]), read_masks(answers[1]))


def test_without_listeners_the_node_does_not_even_subscribe(robot):
    robot.wait(0.5)
    assert robot.cameras["image"].get_subscription_count() == 0
    robot.answer(rgb_message(robot.header()))
    robot.ignore()
    robot.until(lambda: robot.cameras["image"].get_subscription_count() == 0, "still subscribed to the camera")
    robot.next_report()
    before = robot.counts()["answered"]
    robot.cameras["image"].publish(rgb_message(robot.header()))
    robot.next_report()
    assert robot.counts()["answered"] == before
    assert "nobody listens" in robot.messages()["camera"]


def test_a_burst_is_answered_newest_first_and_every_frame_accounted_for(robot):
    robot.answer(rgb_message(robot.header()))
    robot.next_report()
    before = robot.counts()
    slots = robot.slots
    frames = [rgb_message(robot.header(), 480, 640, seed=i) for i in range(40)]
    for frame in frames:
        robot.cameras["image"].publish(frame)
    robot.until(lambda: slots[-1].header.stamp == frames[-1].header.stamp, "the newest frame was not answered")
    robot.next_report()
    since = {name: count - before[name] for name, count in robot.counts().items()}
    assert since["received"] == 40
    assert since["answered"] + since["dropped"] == 40
    assert since["dropped"] > 0
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in slots]
    assert stamps == sorted(stamps)


def test_pictures_of_the_scene(robot):
    robot.answer(rgb_message(robot.header(), 120, 160))
    topics = ("overlay", "labels", "error")
    received = {topic: robot.listen(f"scene/{topic}", Image) for topic in topics}
    robot.wait(0.5)
    image = rgb_message(robot.header(), 120, 160)
    answer = robot.answer(image)
    robot.until(lambda: all(received.values()), "not all pictures came")
    overlay, labels, error = (received[topic][-1] for topic in topics)
    assert overlay.header == labels.header == error.header == image.header
    assert (overlay.encoding, overlay.height, overlay.width) == ("rgb8", 120, 160)
    assert (labels.encoding, labels.height, labels.width) == ("16UC1", 120, 160)
    values = np.frombuffer(labels.data, np.uint16).reshape(120, 160)
    assert (values[:, :20] == K).all()
    assert (values[:, 140:] == K).all()
    expected = cv2.resize(
        read_masks(answer).argmax(axis=0).astype(np.uint8), (120, 120), interpolation=cv2.INTER_NEAREST_EXACT
    )
    assert (values[:, 20:140] == expected).mean() > 0.99  # masks of 8 bits may tie
    squares = np.frombuffer(error.data, np.float32)
    assert error.encoding == "32FC1"
    assert (squares >= 0).all()
    assert float(robot.value("scene", "reconstruction error (MSE)")) > 0


def camera_info(header, height=48, width=64, focal=60.0):
    message = CameraInfo(header=header, height=height, width=width)
    message.k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    return message


@pytest.fixture
def depth_camera(robot):
    depth = robot.node.create_publisher(Image, "depth", 100)
    info = robot.node.create_publisher(CameraInfo, "camera_info", 100)
    robot.listen()
    robot.until(lambda: depth.get_subscription_count() and info.get_subscription_count(), "no subscriber for depth")
    yield depth, info
    robot.node.destroy_publisher(depth)
    robot.node.destroy_publisher(info)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_slots_in_3d(robot, depth_camera, encoding):
    depth, info = depth_camera
    clouds, markers = robot.listen("scene/cloud", PointCloud2), robot.listen("scene/markers", MarkerArray)
    robot.wait(0.5)
    image = rgb_message(robot.header())
    metres = np.full((48, 64), 2.0, np.float32)
    metres[:10] = np.nan if encoding == "32FC1" else 0
    pixels = metres if encoding == "32FC1" else (1000 * metres).astype(np.uint16)
    info.publish(camera_info(image.header))
    depth.publish(image_message(image.header, pixels, encoding))
    answer = robot.answer(image)
    located = [slot for slot in answer.slots if len(slot.centroid)]
    assert located
    for slot in located:
        assert 1.9 < slot.centroid[2] < 3.5  # the plane at two metres, or behind it the middle of what stands there
        covariance = np.reshape(slot.covariance, (3, 3))
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert min(slot.extent) >= 0
    robot.until(lambda: clouds and markers, "no cloud or no markers")
    points = read_cloud(clouds[-1])
    assert clouds[-1].header == image.header
    np.testing.assert_allclose(points["z"], 2.0, atol=1e-3)
    assert set(points["slot"]) <= set(range(K))
    assert (points["confidence"] >= 1 / K - 1e-3).all()


def test_raw_images_are_lifted_through_their_lens(robot, depth_camera):
    depth, info = depth_camera
    clouds = robot.listen("scene/cloud", PointCloud2)
    image = rgb_message(robot.header())
    message, lens = camera_info(image.header, focal=40.0), np.array([-0.3, 0.09, 0.0, 0.0, 0.0])
    message.distortion_model, message.d = "plumb_bob", lens.tolist()
    message.p = [30.0, 0.0, 32.0, 0.0, 0.0, 30.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]  # of the rectified images
    info.publish(message)
    depth.publish(image_message(image.header, np.full((48, 64), 2000, np.uint16), "16UC1"))
    robot.answer(image)
    points = read_cloud(robot.until(lambda: clouds, "no cloud")[-1])
    corner = cv2.undistortPoints(np.array([[[8.0, 0.0]]]), np.reshape(message.k, (3, 3)), lens)[0, 0]
    np.testing.assert_allclose([points["x"].min(), points["y"].min()], 2 * corner, rtol=0.02)


def test_depth_of_another_time_is_not_used(robot, depth_camera):
    depth, info = depth_camera
    image = rgb_message(robot.header())
    info.publish(camera_info(image.header))
    depth.publish(image_message(robot.header(), np.full((48, 64), 2000, np.uint16), "16UC1"))  # 50 ms later
    assert not any(len(slot.centroid) for slot in robot.answer(image).slots)


@pytest.mark.parametrize("durability", [DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE])
def test_a_camera_info_that_is_sent_once_while_nobody_listens_is_kept(robot, durability):
    """Each time with another focal length, because the node keeps those of the tests before."""
    once = robot.node.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1, durability=durability))
    focal = 30.0 if durability == DurabilityPolicy.TRANSIENT_LOCAL else 240.0

    def subscribed() -> bool:
        """As this publisher's QoS asks for: a subscription to those of the tests before is yet to be made anew."""
        offers = [offer.qos_profile for offer in robot.node.get_subscriptions_info_by_topic("camera_info")]
        wanted = [(ReliabilityPolicy.RELIABLE, durability)]
        return once.get_subscription_count() == 1 and [(o.reliability, o.durability) for o in offers] == wanted

    robot.until(subscribed, "camera_info isn't subscribed to while nobody listens")
    once.publish(camera_info(robot.header(), focal=focal))
    depth = robot.node.create_publisher(Image, "depth", 100)
    for _ in range(2):  # and kept while nobody listens again
        clouds = robot.listen("scene/cloud", PointCloud2)
        robot.listen()
        robot.until(lambda: depth.get_subscription_count() > 0, "no subscriber for depth")
        image = rgb_message(robot.header())
        depth.publish(image_message(image.header, np.full((48, 64), 2000, np.uint16), "16UC1"))
        robot.answer(image)
        robot.until(lambda clouds=clouds: clouds, "no cloud")
        np.testing.assert_allclose(np.abs(read_cloud(clouds[-1])["x"]).max(), 2 * 24 / focal, rtol=0.05)
        robot.reset()
    robot.node.destroy_publisher(once)
    robot.node.destroy_publisher(depth)


def test_tracks_stay_while_nothing_moves(robot):
    answers = [robot.answer(rgb_message(robot.header())) for _ in range(4)]
    ids = [[slot.track_id for slot in answer.slots] for answer in answers]
    assert max(ids[0]) >= 0
    assert ids[1] == ids[2] == ids[3]


def test_decode_slots(robot, process):
    answer = robot.answer(rgb_message(robot.header()))
    latents = np.array([slot.latent_mean for slot in answer.slots])
    response = robot.decode(latents, process[1].model_id)
    assert response.success, response.message
    images = np.stack([np.frombuffer(image.data, np.uint8) for image in response.reconstructions])
    expected = read_reconstructions(answer).reshape(K, -1)
    assert np.abs(images.astype(int) - expected).max() <= 1
    masks = np.stack([np.frombuffer(mask.data, np.uint8) for mask in response.masks])
    assert np.abs(masks.sum(axis=0, dtype=int) - 255).max() <= K
    alone = robot.decode(latents[:1])
    assert alone.success
    assert (alone.masks[0].height, alone.reconstructions[0].encoding) == (SIZE, "rgb8")


@pytest.mark.parametrize(
    ("latents", "arguments", "reason"),
    [
        (np.zeros((2, L)), {"model_id": "0123456789ab"}, "mean nothing to another"),
        (np.zeros((2, L)), {"count": 0}, "count is 0"),
        (np.zeros((2, L)), {"count": 3}, "need 48"),
        (np.full((1, L), math.nan), {}, "not finite"),
        (np.zeros((0, L)), {"count": 10**6}, "count is 1000000"),
    ],
)
def test_decode_slots_refuses_and_says_why(robot, latents, arguments, reason):
    response = robot.decode(latents, **arguments)
    assert not response.success
    assert reason in response.message
    assert not response.reconstructions


def test_parameters_that_may_change_while_running(robot):
    assert robot.set(mask_encoding="32FC1", publish_reconstructions=False) == ""
    try:
        message = robot.answer(rgb_message(robot.header()))
        assert {slot.mask.encoding for slot in message.slots} == {"32FC1"}
        np.testing.assert_allclose(read_masks(message).sum(axis=0), 1, atol=1e-4)
        assert read_reconstructions(message) is None
    finally:
        assert robot.set(mask_encoding="mono8", publish_reconstructions=True) == ""
    assert read_reconstructions(robot.answer(rgb_message(robot.header()))) is not None


def test_nothing_changes_unless_all_of_it_is_right(robot):
    assert "must be one of mono8, 32FC1" in robot.set(publish_reconstructions=False, mask_encoding="8UC7")
    assert read_reconstructions(robot.answer(rgb_message(robot.header()))) is not None
    assert "clean the node up" in robot.set(device="cuda:7")
    assert robot.set(min_area=3.0) != ""


def test_parameters_are_described(robot):
    min_area, device, overlay_size = robot.describe("min_area", "precision", "overlay_size")
    assert (min_area.floating_point_range[0].from_value, min_area.floating_point_range[0].to_value) == (0, 1)
    assert device.additional_constraints == "one of: auto, fp32, bf16, fp16"
    assert overlay_size.integer_range[0].to_value == 4096
    assert all(descriptor.description for descriptor in (min_area, device, overlay_size))


def test_a_silent_camera_is_told(robot):
    assert robot.set(camera_timeout=0.4) == ""
    try:
        robot.answer(rgb_message(robot.header()))
        robot.until(lambda: robot.statuses["camera"].level == DiagnosticStatus.WARN, "no warning of silence")
        assert "no image on /image for" in robot.messages()["camera"]
        assert "/robot (reliable) should send them" in robot.messages()["camera"]
        robot.until(lambda: robot.statuses["camera"].level == DiagnosticStatus.ERROR, "no error of silence")
    finally:
        assert robot.set(camera_timeout=2.0) == ""


def test_a_camera_of_incompatible_qos_is_told(robot):
    """The node under test subscribes reliably (LOSSLESS), this camera doesn't offer that."""
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    camera = robot.node.create_publisher(Image, "image", unreliable)
    try:
        robot.listen()
        robot.until(lambda: "incompatible QoS (RELIABILITY)" in robot.messages()["camera"], "QoS not told")
        assert "qos_overrides./image.subscription.*" in robot.messages()["camera"]
    finally:
        robot.node.destroy_publisher(camera)
    robot.until(lambda: "incompatible" not in robot.messages()["camera"], "a camera that went is still told")


def broken_images(robot):
    """Images with one fault each, of which none can be read."""
    good = st.sampled_from(sorted(COLOUR_ENCODINGS)).flatmap(
        lambda encoding: st.builds(
            lambda height, width: Image(
                encoding=encoding, height=height, width=width, step=width * COLOUR_ENCODINGS[encoding].pixel_bytes
            ),
            st.integers(MIN_BAYER_SIDE, 12),
            st.integers(2, 6).map(lambda half: 2 * half),
        )
    )

    @st.composite
    def one(draw):
        message = draw(good)
        row, rows = message.step, message.height
        fault = draw(st.sampled_from(["step", "data", "width", "height", "huge", "encoding"]))
        size = row * rows
        if fault == "step":
            message.step = draw(st.integers(0, row - 1))
        elif fault == "data":
            size = draw(st.integers(0, size - 1))
        elif fault == "encoding":
            message.encoding = draw(st.text(max_size=60).filter(lambda name: name not in COLOUR_ENCODINGS))
        elif fault == "huge":
            message.height = draw(st.integers(rows + 1, 2**32 - 1))
        else:
            setattr(message, fault, 0)
        message.data = bytes(size)
        message.header = robot.header(draw(st.text(max_size=8)), draw(st.integers(0, 10**15)))
        return message

    return one()


def broken_depths(robot):
    """Depth images that can't be read."""
    return st.builds(
        lambda encoding, size, short: Image(
            header=robot.header(), encoding=encoding, height=4, width=4, step=16, data=bytes(max(0, size - short))
        ),
        st.sampled_from([*sorted(DEPTH_ENCODINGS), "64FC1", ""]),
        st.just(56),
        st.integers(1, 60),
    )


def broken_infos(robot):
    """CameraInfos that are no calibration."""
    bad = st.sampled_from([0.0, math.nan, math.inf, -1.0])
    return st.builds(
        lambda fx, width: camera_info(robot.header(), width=width, focal=fx), bad, st.sampled_from([0, 64])
    )


MESSAGES, BATCHES = 50, 42


def test_malformed_messages_are_counted_and_the_next_good_frame_is_answered(robot, depth_camera):
    """42 batches of 50 malformed messages: 2,100."""
    depth, info = depth_camera
    robot.connected()
    robot.next_report()
    fault = st.one_of(
        st.tuples(st.just("image"), broken_images(robot)),
        st.tuples(st.just("image"), broken_images(robot)),
        st.tuples(st.just("depth"), broken_depths(robot)),
        st.tuples(st.just("info"), broken_infos(robot)),
    )
    publishers = {"image": robot.cameras["image"], "depth": depth, "info": info}
    sent = {"image": 0, "depth": 0, "info": 0}
    first = robot.counts()

    @settings(max_examples=BATCHES, phases=[Phase.explicit, Phase.generate], database=None)
    @given(st.lists(fault, min_size=MESSAGES, max_size=MESSAGES), st.integers(0, 10**15))
    def throw(batch, stamp):
        for kind, message in batch:
            publishers[kind].publish(message)
            sent[kind] += 1
        image = rgb_message(robot.header(stamp=stamp))  # forwards or backwards
        nothing = np.full((48, 64), np.nan, np.float32)
        info.publish(camera_info(image.header))
        depth.publish(image_message(image.header, nothing, "32FC1"))
        answer = robot.answer(image)
        assert not any(len(slot.centroid) for slot in answer.slots)

        def counted():
            now = robot.counts()
            return (now["broken"] - first["broken"], now["broken depth"] - first["broken depth"]) == (
                sent["image"],
                sent["depth"] + sent["info"],
            )

        robot.until(counted, f"sent {sent}, counted {robot.counts()} from {first}", patience=30)

    throw()
    assert sum(sent.values()) >= 2000
    robot.next_report()
    counts = robot.counts()
    assert counts["received"] == counts["answered"] + counts["dropped"] + counts["broken"] + counts["failed"]
    assert counts["failed"] == 0
