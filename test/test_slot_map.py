"""The example slot_map: landmarks from a recording and from topics, against objects whose place is known."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ray_cast import FIRST_OBJECT, KINDS, Ball, Box, cast, look_at, write_recording
from scipy.spatial.transform import Rotation

from monet_perception.clip import CAMERA_INFO, DEPTH, POSE
from monet_perception.geometry import SlotGeometry
from monet_perception.labels import label_masks
from monet_perception.lens import Distortion
from monet_perception.projection import Intrinsics
from monet_perception.recording import read_frames
from monet_perception.region import Region
from monet_perception.stamps import NANOSECONDS, nearest

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from joining import FrameJoiner, PoseHistory  # noqa: E402
from landmarks import LandmarkMap, Observation, View, to_world  # noqa: E402
from map_report import match_landmarks, table  # noqa: E402
from slot_map import main, survey_recording  # noqa: E402

CAMERA = Intrinsics(fx=90.0, fy=90.0, cx=63.5, cy=47.5, width=128, height=96)
OBJECTS = [Ball((0.2, 0.5, 0.3), 0.3), Box((-0.3, -0.5, 0.25), (0.4, 0.5, 0.5), yaw=0.4)]
WIDE = replace(CAMERA, fx=60.0, fy=60.0, distortion=Distortion("plumb_bob", (-0.30, 0.09, 0.0005, -0.0003, 0.0)))
PATH = [look_at((-2.2, 0.8 - 0.08 * step, 1.0), (0.0, 0.0, 0.3)) for step in range(20)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slot_map") / "scene.mcap"
    write_recording(path, OBJECTS, PATH, CAMERA)
    return path


def seen(position, track: int = 0, sigma: float = 0.1, latent: float = 0.0) -> Observation:
    mean = np.full(4, latent)
    return Observation(track, np.array(position, float), np.eye(3) * sigma**2, np.ones(3), mean, np.full(4, -3.0))


# The recording -------------------------------------------------------------------------------------


def test_a_recording_is_read_as_it_was_written(recording):
    frames = list(read_frames(recording))
    assert len(frames) == len(PATH)
    assert frames[0].intrinsics == CAMERA
    np.testing.assert_allclose(np.diff([frame.stamp for frame in frames]), 0.1, atol=1e-6)
    for frame, camera in zip(frames, PATH, strict=True):
        np.testing.assert_allclose(frame.camera, camera, atol=1e-9)
        assert frame.image.shape == (96, 128, 3)
        assert 1 < np.median(frame.depth) < 6
    assert {label: tuple(o.position) for label, o in frames[0].objects.items()} == {
        FIRST_OBJECT + index: thing.centre for index, thing in enumerate(OBJECTS)
    }


def test_labels_as_slots_sum_to_one_and_keep_their_areas(recording):
    frame = next(read_frames(recording))
    masks, roi = label_masks(frame.labels, 32)
    np.testing.assert_allclose(masks.sum(0), 1, atol=1e-5)
    cut = frame.labels[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]
    np.testing.assert_allclose(masks.mean((1, 2)), np.bincount(cut.ravel(), minlength=len(masks)) / cut.size, atol=1e-5)


def test_frames_from_before_the_first_camera_info_are_not_lost(tmp_path):
    last = [*(topic for topic in KINDS if topic != CAMERA_INFO), CAMERA_INFO]
    write_recording(tmp_path / "late.mcap", OBJECTS, PATH[:3], CAMERA, topics=tuple(last))
    frames = list(read_frames(tmp_path / "late.mcap"))
    assert [round(frame.stamp, 3) for frame in frames] == [1.0, 1.1, 1.2]
    assert {frame.intrinsics for frame in frames} == {CAMERA}


@given(depth=st.floats(-0.02, 0.02), pose=st.floats(-0.045, 0.045))
@settings(max_examples=5)
def test_depth_and_poses_of_nearby_stamps_belong_to_an_image(tmp_path_factory, depth, pose):
    path = tmp_path_factory.mktemp("late") / "scene.mcap"
    write_recording(path, OBJECTS, PATH[:4], CAMERA, late={DEPTH: depth, POSE: pose})
    frames = list(read_frames(path))
    assert [round(frame.stamp, 3) for frame in frames] == [1.0, 1.1, 1.2, 1.3]
    for frame, camera in zip(frames, PATH[:4], strict=True):
        np.testing.assert_allclose(frame.camera, camera, atol=1e-9)
        np.testing.assert_allclose(frame.depth, cast(OBJECTS, camera, CAMERA).depth, atol=2e-3)


@pytest.mark.parametrize(("topic", "late", "apart"), [(POSE, 10.0, "9.800"), (DEPTH, -0.03, "0.030")])
def test_a_topic_whose_stamps_fit_no_image_is_named(tmp_path, capsys, topic, late, apart):
    write_recording(tmp_path / "late.mcap", OBJECTS, PATH[:3], CAMERA, late={topic: late})
    png = tmp_path / "map.png"
    assert main(["--bag", str(tmp_path / "late.mcap"), "--masks", "truth", "--png", str(png)]) == 1
    assert re.search(rf"3 of 3 have nothing on {topic} within .* the nearest is {apart}", capsys.readouterr().err)
    assert not png.exists()


# The map -------------------------------------------------------------------------------------------


def test_noise_is_filtered_and_the_bias_of_the_views_stays():
    rng, landmarks = np.random.default_rng(0), LandmarkMap(motion=0.0)
    for step in range(50):
        landmarks.update([seen(rng.normal([1, 2, 3], 0.03), sigma=0.1)], 0.1 * step)
    (landmark,) = landmarks.landmarks()
    np.testing.assert_allclose(landmark.position, [1, 2, 3], atol=0.02)
    sigma = np.sqrt(np.diag(landmark.covariance))
    assert (sigma > 0.09).all()  # fifty frames from one side are not fifty opinions
    assert (sigma < 0.1).all()


def test_a_track_that_jumps_to_another_object_does_not_drag_its_landmark_along():
    landmarks = LandmarkMap()
    for step in range(5):
        landmarks.update([seen([0, 0, 0], track=1, latent=0.0), seen([2, 0, 0], track=2, latent=1.0)], 0.1 * step)
    landmarks.update([seen([2, 0, 0], track=1, latent=1.0)], 0.5)
    first, second = landmarks.landmarks()
    np.testing.assert_allclose(first.position, [0, 0, 0], atol=1e-6)
    assert second.tracks == {1, 2}
    assert second.observations == 6


def test_an_object_under_a_new_track_continues_its_landmark():
    landmarks = LandmarkMap()
    landmarks.update([seen([0, 0, 0], track=1)], 0.0)
    landmarks.update([seen([0.05, 0, 0], track=9)], 5.0)
    (landmark,) = landmarks.landmarks()
    assert landmark.tracks == {1, 9}


@pytest.mark.parametrize(("latent", "landmarks"), [(0.0, 1), (0.3, 1), (0.6, 2)])
def test_a_new_track_continues_a_landmark_whose_latents_have_drifted_but_no_other(latent, landmarks):
    slots = LandmarkMap()
    slots.update([small([0, 0, 0], 1, width=0.1)], 0.0)
    slots.update([small([0.15, 0, 0], 9, width=0.1, latent=latent)], 1.0)
    assert len(slots.landmarks()) == landmarks


@pytest.mark.parametrize(("motion", "landmarks"), [(0.05, 1), (0.0, 2)])
def test_what_was_not_seen_for_long_may_have_wandered(motion, landmarks):
    slots = LandmarkMap(motion=motion)
    for step in range(20):
        slots.update([seen([0, 0, 0], track=1)], 0.1 * step)
    slots.update([seen([0.8, 0, 0], track=7)], 62.0)  # 0.05 m in a second are 0.39 m in a minute
    assert len(slots.landmarks()) == landmarks


@given(st.floats(0.0, 0.2), st.floats(0.1, 100.0))
def test_the_covariance_of_a_landmark_out_of_sight_grows_by_the_motion(motion, unseen):
    landmarks = LandmarkMap(motion=motion)
    landmarks.update([seen([0, 0, 0], track=1), seen([5, 0, 0], track=2)], 0.0)
    landmarks.update([seen([5, 0, 0], track=2)], unseen)
    first, second = landmarks.landmarks()
    np.testing.assert_allclose(first.covariance, (0.01 + motion**2 * unseen) * np.eye(3), rtol=1e-6)
    assert second.sigma < 0.18  # seen just now
    assert len(landmarks.landmarks(max_sigma=0.18)) == 2  # the first was known that well


def test_neighbours_out_of_sight_are_not_merged_for_having_perhaps_wandered():
    landmarks = LandmarkMap()
    for step in range(10):
        landmarks.update([seen([0, 0, 0], 1, sigma=0.02), seen([0, 0, 0.3], 2, sigma=0.02)], 0.1 * step)
    landmarks.update([], 100.0)
    assert len(landmarks.landmarks()) == 2


def test_what_comes_to_the_place_of_a_landmark_goes_on_as_that():
    landmarks = LandmarkMap()
    for step in range(5):
        landmarks.update([seen([0, 0, 0], track=1, latent=0.0), seen([1, 0, 0], track=3, latent=1.0)], 0.1 * step)
    landmarks.update([seen([0.05, 0, 0], track=2, latent=2.0), seen([1, 0, 0], track=3, latent=1.0)], 5.0)
    landmarks.update([seen([0.05, 0, 0], track=2, latent=2.0), seen([1, 0, 0], track=3, latent=1.0)], 5.1)
    first, second = landmarks.landmarks()
    assert (first.tracks, first.observations, first.last_seen) == ({1, 2}, 6, 5.1)
    assert second.tracks == {3}


def test_a_landmark_out_of_sight_for_long_moves_to_what_is_merged_into_it():
    landmarks = LandmarkMap()
    for step in range(20):
        landmarks.update([seen([0, 0, 0], track=1, latent=0.0)], 0.1 * step)
    landmarks.update([seen([0.3, 0, 0], track=2, latent=2.0)], 62.0)
    (landmark,) = landmarks.landmarks()
    assert landmark.tracks == {1, 2}
    np.testing.assert_allclose(landmark.position, [0.3, 0, 0], atol=0.01)  # it may have wandered by 0.39 m
    assert landmark.sigma == pytest.approx(0.1 * 3**0.5, abs=0.005)  # as well as the new sighting knows it


def test_a_moving_object_is_followed():
    landmarks = LandmarkMap()
    for step in range(40):
        landmarks.update([seen([0.02 * step, 0, 0], sigma=0.1)], 0.1 * step)
    (landmark,) = landmarks.landmarks()
    assert landmark.position[0] == pytest.approx(0.02 * 39, abs=0.05)


@given(st.integers(0, 2**32 - 1))
def test_covariances_stay_symmetric_and_positive(seed):
    rng, landmarks = np.random.default_rng(seed), LandmarkMap()
    for step in range(8):
        root = rng.normal(size=(3, 3))
        observation = Observation(
            0, rng.normal(0, 0.1, 3), root @ root.T * 0.01 + 1e-6 * np.eye(3), np.ones(3), np.zeros(2), np.zeros(2)
        )
        landmarks.update([observation], 0.1 * step)
    for landmark in landmarks.landmarks():
        np.testing.assert_allclose(landmark.covariance, landmark.covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(landmark.covariance)[0] > 0


def test_a_slot_moves_into_the_world_with_its_covariance():
    camera = look_at((1.0, 2.0, 0.5), (4.0, 2.0, 0.5))  # looks along x
    geometry = SlotGeometry(np.array([0.0, 0.0, 2.0]), np.diag([0.01, 0.02, 0.03]), np.ones(3))
    observation = to_world(camera, 3, geometry, np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(observation.position, [3.0, 2.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(observation.covariance, np.diag([0.03, 0.01, 0.02]), atol=1e-12)


def test_an_object_without_landmark_counts_in_the_median():
    from monet_perception.recording import TrueObject

    landmarks = LandmarkMap()
    landmarks.update([seen([0, 0, 0.1])], 0.0)
    objects = {4: TrueObject(np.zeros(3), np.ones(3)), 5: TrueObject(np.array([3.0, 0, 0]), np.ones(3))}
    matches = match_landmarks(landmarks.landmarks(), objects)
    assert [(m.label, m.landmark) for m in matches] == [(4, 0), (5, None)]
    assert matches[0].error == pytest.approx(0.1)
    assert "found 1 of 2" in table(landmarks.landmarks(), matches)


# What an imperfect segmentation does to the map -----------------------------------------------------

AHEAD = look_at((-3.0, 0.0, 0.0), (0.0, 0.0, 0.0))
WHOLE = Region(0, 0, CAMERA.width, CAMERA.height)


def small(position, track: int, width: float = 0.3, **kwargs) -> Observation:
    return replace(seen(position, track, **kwargs), extent=np.full(3, width))


def depth_of(metres: float) -> NDArray[np.float32]:
    return np.full((CAMERA.height, CAMERA.width), metres, np.float32)


def test_two_landmarks_in_one_place_become_one():
    landmarks = LandmarkMap()
    for step in range(10):  # one object in two slots, of different latents
        both = [small([0, 0, 0], 1, latent=0.0), small([0.1, 0, 0], 2, latent=3.0)]
        landmarks.update(both, 0.1 * step)
    (landmark,) = landmarks.landmarks()
    assert landmark.tracks == {1, 2}


def test_a_landmark_that_was_merged_away_takes_no_other_with_it():
    landmarks = LandmarkMap()
    for step in range(30):  # the middle one goes to the first; the last one lies within the middle one only
        row = [small([0.12 * index, 0, 0], index + 1, latent=3.0 * index) for index in range(3)]
        landmarks.update(row, 0.1 * step)
    first, last = landmarks.landmarks()
    assert (first.tracks, last.tracks) == ({1, 2}, {3})
    assert last.observations == 30
    np.testing.assert_allclose(last.position, [0.24, 0, 0], atol=1e-6)


def test_neighbours_stay_two():
    landmarks = LandmarkMap()
    for step in range(10):
        landmarks.update([small([0, 0, 0], 1), small([0.4, 0, 0], 2)], 0.1 * step)
    assert len(landmarks.landmarks()) == 2


@given(st.floats(0.0, 3.0), st.integers(1, 60), st.sampled_from([2.9, 3.0, 5.0]))
def test_a_landmark_in_view_that_is_not_seen_is_given_up_after_patience(patience, absent, depth):
    assume(abs(0.1 * absent - patience) > 1e-6)
    landmarks, view = LandmarkMap(patience=patience), View(AHEAD, CAMERA, WHOLE, depth_of(depth))
    for step in range(5):
        landmarks.update([small([0, 0, 0], 1)], 0.1 * step, view)
    for step in range(absent):
        landmarks.update([], 0.5 + 0.1 * step, view)
    assert len(landmarks.landmarks()) == (0.1 * absent < patience)


@pytest.mark.parametrize(
    ("view", "others"),
    [
        (None, []),  # unknown
        (View(AHEAD, CAMERA, WHOLE), []),  # without depth: it may be behind anything
        (View(look_at((-3.0, 0.0, 0.0), (-3.0, 3.0, 0.0)), CAMERA, WHOLE, depth_of(5.0)), []),  # out of the picture
        (View(look_at((-3.0, 0.0, 0.0), (0.0, 3.0, 0.0)), CAMERA, Region(0, 0, 256, 96), depth_of(5.0)), []),  # also
        (View(look_at((-3.0, 0.0, 0.0), (-6.0, 0.0, 0.0)), CAMERA, WHOLE, depth_of(5.0)), []),  # behind the camera
        (View(AHEAD, CAMERA, Region(0, 0, 20, 20), depth_of(5.0)), []),  # out of what the network looks at
        (View(AHEAD, CAMERA, WHOLE, depth_of(5.0)), [small([-1, 0, 0], 2)]),  # hidden by an object
        *((View(AHEAD, CAMERA, WHOLE, depth_of(wall)), []) for wall in (0.5, 2.0)),  # behind a wall
        *((View(AHEAD, CAMERA, WHOLE, depth_of(hole)), []) for hole in (0.0, -1.0, np.nan, np.inf)),
    ],
)
def test_a_landmark_that_cannot_be_seen_stays(view, others):
    landmarks = LandmarkMap(patience=1.0)
    landmarks.update([small([0, 0, 0], 1)], 0.0, view)
    for step in range(1, 50):
        landmarks.update(others, 0.1 * step, view)
    assert 1 in {track for landmark in landmarks.landmarks() for track in landmark.tracks}


@pytest.mark.parametrize(
    ("column", "row", "inside"),
    [
        *((share, 0.5, 0.1 < share < 0.9) for share in (0.05, 0.15, 0.85, 0.95)),
        *((0.5, share, 0.1 < share < 0.9) for share in (0.05, 0.15, 0.85, 0.95)),
    ],
)
def test_a_view_ends_a_tenth_before_the_edge_of_its_region(column, row, inside):
    camera, roi = replace(CAMERA, fy=40.0), Region(16, 8, 100, 80)
    u, v = roi.x + column * roi.width, roi.y + row * roi.height
    ray = np.array([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0])
    assert View(AHEAD, camera, roi).contains(AHEAD[:3, :3] @ (3.0 * ray) + AHEAD[:3, 3]) is inside


@pytest.mark.parametrize(
    ("place", "hides"),
    [([-1, 0, 0], True), ([1, 0, 0], False), ([-4, 0, 0], False), ([-1, 0.5, 0], False)],
    ids=["before", "behind", "behind the camera", "beside"],
)
def test_only_what_stands_before_a_landmark_hides_it(place, hides):
    assert View(AHEAD, CAMERA, WHOLE).hides(small(place, 1), np.zeros(3)) is hides


@pytest.mark.parametrize(("z", "reaches"), [(2.5, False), (2.8, True), (3.0, True), (4.0, True), (np.nan, False)])
def test_sight_reaches_what_nothing_much_nearer_is_before(z, reaches):
    assert View(AHEAD, CAMERA, WHOLE, depth_of(z)).reaches(np.zeros(3), margin=0.2) is reaches


@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_depth_of_another_resolution_is_looked_up_at_the_same_place(scale):
    width = int(CAMERA.width * scale)
    depth = np.full((int(CAMERA.height * scale), width), 5.0)
    depth[:, : width // 2] = 1.0
    view = View(AHEAD, CAMERA, WHOLE, depth)
    left, right = np.array([0, 0.04, 0]), np.array([0, -0.04, 0])  # a pixel from the middle
    assert (view.reaches(left, 0.1), view.reaches(right, 0.1)) == (False, True)


def test_the_extent_of_a_landmark_is_the_mean_of_its_views():
    landmarks = LandmarkMap()
    for step, extent in enumerate(([0.2, 0.4, 0.3], [0.4, 0.5, 0.3], [0.9, 0.6, 0.6])):
        landmarks.update([replace(seen([0, 0, 0]), extent=np.array(extent))], 0.1 * step)
    (landmark,) = landmarks.landmarks()
    np.testing.assert_allclose(landmark.extent, [0.5, 0.5, 0.4])


def test_a_landmark_that_is_seen_now_and_then_stays():
    landmarks, view = LandmarkMap(patience=1.0), View(AHEAD, CAMERA, WHOLE, depth_of(5.0))
    for step in range(60):
        landmarks.update([small([0, 0, 0], 1)] if step % 2 else [], 0.1 * step, view)
    (landmark,) = landmarks.landmarks()
    assert landmark.observations == 30  # the same one all along


def test_what_is_nowhere_in_particular_is_held_back():
    landmarks = LandmarkMap()
    landmarks.update([seen([0, 0, 0], track=1, sigma=0.1), seen([5, 0, 0], track=2, sigma=1.0)], 0.0)
    assert [landmark.tracks for landmark in landmarks.landmarks(max_sigma=0.5)] == [{1}]


def test_what_was_once_known_well_is_not_held_back_when_it_is_half_hidden():
    landmarks = LandmarkMap()
    for step in range(60):
        landmarks.update([seen([0, 0, 0], track=1, sigma=0.1 if step < 5 else 1.0)], 0.5 * step)
    (landmark,) = landmarks.landmarks(max_sigma=0.25)
    assert landmark.sigma > 0.25


@pytest.mark.parametrize(
    "wrong", [{"gate": 1.0}, {"noise_share": 2}, {"motion": -1}, {"latent_drift": -1}, {"patience": np.nan}]
)
def test_parameters_of_the_map_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LandmarkMap(**wrong)


# What belongs to a live frame ------------------------------------------------------------------------


def nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def turning(seconds: float) -> NDArray[np.float64]:
    """Pose of a camera that drives at 0.3 m/s and turns at 0.5 rad/s."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", 0.5 * seconds).as_matrix()
    pose[0, 3] = 0.3 * seconds
    return pose


@given(st.sets(st.integers(0, 50)).map(sorted), st.integers(-5, 55))
def test_the_nearest_stamp_is_the_earlier_of_two(stamps, stamp):
    apart = [abs(one - stamp) for one in stamps]
    assert nearest(stamps, stamp) == (apart.index(min(apart)) if apart else None)


@given(st.floats(0.0, 1.0), st.floats(0.01, 0.2))
def test_a_pose_between_two_is_interpolated(share, apart):
    poses = PoseHistory()
    for stamp in (5.0, 5.0 + apart):
        poses.add(nanoseconds(stamp), turning(stamp))
    stamp = 5.0 + share * apart
    np.testing.assert_allclose(poses.at(nanoseconds(stamp)), turning(stamp), atol=1e-8)


@pytest.mark.parametrize(
    ("stamp", "nearest"),
    [(4.96, 5.0), (4.9, None), (5.04, 5.0), (5.15, None), (5.27, 5.3), (5.3, 5.3), (5.34, 5.3), (5.4, None)],
)
def test_where_none_is_on_either_side_or_they_lie_too_far_apart_a_pose_has_to_be_near(stamp, nearest):
    poses = PoseHistory()
    for known in (5.0, 5.3):
        poses.add(nanoseconds(known), turning(known))
    pose = poses.at(nanoseconds(stamp))
    assert (pose is None) == (nearest is None)
    if nearest is not None:
        np.testing.assert_allclose(pose, turning(nearest), atol=1e-12)


def test_slots_wait_for_the_pose_after_them():
    joiner = FrameJoiner()
    joiner.add_pose(nanoseconds(5.0), turning(5.0))
    joiner.add_slots(nanoseconds(5.03), "slots")
    assert list(joiner.complete()) == []
    joiner.add_pose(nanoseconds(5.1), turning(5.1))
    (frame,) = joiner.complete()
    np.testing.assert_allclose(frame.camera, turning(5.03), atol=1e-8)
    assert (frame.stamp, frame.slots, joiner.unplaced) == (nanoseconds(5.03), "slots", 0)


def test_a_pose_of_the_same_stamp_needs_no_other():
    joiner = FrameJoiner()
    joiner.add_slots(nanoseconds(5.0), "slots")
    joiner.add_pose(nanoseconds(5.0), turning(5.0))
    (frame,) = joiner.complete()
    np.testing.assert_allclose(frame.camera, turning(5.0))


def test_slots_do_not_wait_for_ever_for_poses():
    joiner = FrameJoiner()
    for number in range(60):
        joiner.add_slots(nanoseconds(number), "slots")
    assert joiner.unplaced == 10
    joiner.add_pose(nanoseconds(59), turning(59))
    assert [frame.stamp for frame in joiner.complete()] == [nanoseconds(59)]
    assert joiner.unplaced == 59


def test_slots_that_still_wait_at_the_end_are_placed_by_the_pose_before_or_counted():
    joiner = FrameJoiner()
    joiner.add_pose(nanoseconds(0), turning(0))
    for number in range(40):
        joiner.add_slots(nanoseconds(0.04 + 0.1 * number), "slots")
    assert list(joiner.complete()) == []
    assert [frame.stamp for frame in joiner.complete(ended=True)] == [nanoseconds(0.04)]
    assert joiner.unplaced == 39


@pytest.mark.parametrize(("pose_late", "slots_late"), [(0.02, 0.06), (0.06, 0.01), (0.02, 0.25), (0.25, 0.01)])
@pytest.mark.parametrize("back", [4.0, 50.0])
def test_a_replay_that_starts_again_is_placed_from_its_first_frame(pose_late, slots_late, back):
    times, joiner, joined = np.arange(0, 8, 0.1), FrameJoiner(), []
    stamps = np.where(times < 4, 100 + times, 100 - back + times - 4)
    arrivals = [(time + pose_late, "pose", stamp) for time, stamp in zip(times, stamps, strict=True)]
    arrivals += [(time + slots_late, "slots", stamp) for time, stamp in zip(times, stamps, strict=True)]
    for _, kind, stamp in sorted(arrivals):
        if kind == "pose":
            joiner.add_pose(nanoseconds(stamp), turning(stamp))
        else:
            joiner.add_slots(nanoseconds(stamp), stamp)
        joined += joiner.complete()
    again = joined[-40:]
    assert [frame.slots for frame in again] == stamps[40:].tolist()
    for frame in again:
        np.testing.assert_allclose(frame.camera, turning(frame.slots), atol=1e-6)
    assert joiner.unplaced == 0


@given(st.permutations(range(6)))
def test_what_comes_in_disorder_is_joined_by_its_stamp(order):
    """A network that disorders messages: what a frame needs is found, and no frame is joined after a later one."""
    joiner, joined = FrameJoiner(), []
    for number in order:
        stamp = 5.0 + 0.015 * number  # all within STEP_BACK
        joiner.add_slots(nanoseconds(stamp), stamp)
        joiner.add_depth(nanoseconds(stamp), stamp)
        joiner.add_pose(nanoseconds(stamp), turning(stamp))
        joined += joiner.complete()
    joined += joiner.complete(ended=True)
    stamps = [frame.slots for frame in joined]
    assert stamps == sorted(stamps)
    assert len(joined) + joiner.unplaced == 6
    assert [frame.depth for frame in joined] == stamps
    for frame in joined:
        np.testing.assert_allclose(frame.camera, turning(frame.slots), atol=1e-9)


def test_slots_get_the_depth_image_of_their_stamp_if_there_is_one():
    joiner = FrameJoiner()
    for stamp in (4.9, 5.0, 5.1):
        joiner.add_depth(nanoseconds(stamp), f"depth {stamp}")
        joiner.add_pose(nanoseconds(stamp), turning(stamp))
    for stamp in (4.99, 5.03, 5.1):
        joiner.add_slots(nanoseconds(stamp), "slots")
    assert [frame.depth for frame in joiner.complete()] == ["depth 5.0", None, "depth 5.1"]
    joiner.add_depth(nanoseconds(1.0), "depth 1.0")  # starts again
    joiner.add_slots(nanoseconds(5.1), "slots")
    joiner.add_pose(nanoseconds(5.4), turning(5.4))
    assert [frame.depth for frame in joiner.complete()] == [None]


def test_slots_wait_for_a_depth_image_under_way_but_not_for_long():
    joiner = FrameJoiner()
    joiner.add_depth(nanoseconds(5.0), "depth 5.0")
    for stamp in (5.0, 5.1, 5.2):
        joiner.add_pose(nanoseconds(stamp), turning(stamp))
        joiner.add_slots(nanoseconds(stamp), "slots")
    assert [frame.depth for frame in joiner.complete()] == ["depth 5.0"]
    joiner.add_depth(nanoseconds(5.1), "depth 5.1")
    assert [frame.depth for frame in joiner.complete()] == ["depth 5.1"]
    joiner.add_pose(nanoseconds(5.3), turning(5.3))
    assert list(joiner.complete()) == []
    joiner.add_pose(nanoseconds(5.5), turning(5.5))
    assert [frame.depth for frame in joiner.complete()] == [None]


# The command ---------------------------------------------------------------------------------------


def test_landmarks_of_a_recording_lie_on_the_true_objects(recording, tmp_path, capsys):
    png = tmp_path / "maps" / "map.png"
    assert main(["--bag", str(recording), "--masks", "truth", "--png", str(png)]) == 0
    report = capsys.readouterr().out
    assert "found 2 of 2 true objects" in report
    assert float(re.search(r"over all true objects: ([\d.]+) cm", report)[1]) < 10
    assert png.read_bytes().startswith(b"\x89PNG")


def test_landmarks_behind_a_wall_stay(tmp_path, capsys):
    wall = Box((1.2, 0.0, 1.5), (0.1, 6.0, 3.0))
    path = [*PATH, *[look_at((2.5, 0.0, 1.0), (0.0, 0.0, 0.3))] * 30]  # three seconds from the other side of the wall
    write_recording(tmp_path / "wall.mcap", OBJECTS, path, CAMERA, walls=[wall])
    png = tmp_path / "map.png"
    assert main(["--bag", str(tmp_path / "wall.mcap"), "--masks", "truth", "--png", str(png)]) == 0
    assert "found 2 of 2 true objects" in capsys.readouterr().out


def test_a_landmark_that_a_recording_shows_to_be_gone_is_given_up(tmp_path):
    write_recording(tmp_path / "gone.mcap", OBJECTS, PATH, CAMERA, rate=5.0)
    seen_once = iter([[small([0, 0, 0.9], 1)]])  # above the objects, in mid-air
    survey = survey_recording(tmp_path / "gone.mcap", lambda frame: (next(seen_once, []), WHOLE))
    assert len(survey.path) == len(PATH)
    assert survey.map.landmarks() == []


def test_raw_images_of_a_wide_lens_are_undistorted(tmp_path, capsys):
    def median_error(*options: str) -> float:
        arguments = ["--bag", str(tmp_path / "wide.mcap"), "--masks", "truth", "--png", str(tmp_path / "map.png")]
        assert main([*arguments, *options]) == 0
        return float(re.search(r"over all true objects: ([\d.]+) cm", capsys.readouterr().out)[1])

    write_recording(tmp_path / "wide.mcap", OBJECTS, PATH, WIDE)
    assert median_error() < 10 < median_error("--rectified")


def test_a_missing_recording_is_named(tmp_path, capsys):
    assert main(["--bag", str(tmp_path / "no.mcap"), "--masks", "truth", "--png", str(tmp_path / "map.png")]) == 1
    assert "no.mcap" in capsys.readouterr().err


def test_a_map_that_cannot_be_drawn_is_told_below_the_landmarks(recording, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--bag", str(recording), "--masks", "truth", "--png", "map.banana"])
    assert "map.banana has to end in .png, .pdf or .svg" in capsys.readouterr().err
    assert main(["--bag", str(recording), "--masks", "truth", "--png", "/proc/x.png"]) == 1
    told = capsys.readouterr()
    assert "found 2 of 2 true objects" in told.out
    assert told.err.startswith("slot_map: the map can't be written: ")


def test_a_recording_without_camera_info_is_refused_and_no_map_drawn(tmp_path, capsys):
    bag, png = tmp_path / "blind.mcap", tmp_path / "map.png"
    write_recording(bag, OBJECTS, PATH[:2], CAMERA, topics=tuple(topic for topic in KINDS if topic != CAMERA_INFO))
    assert main(["--bag", str(bag), "--masks", "truth", "--png", str(png)]) == 1
    assert re.search(r"blind\.mcap has no camera_info on /camera/camera_info.*: record it", capsys.readouterr().err)
    assert not png.exists()


def test_a_camera_info_of_another_image_size_is_told(tmp_path):
    def enlarge(number, messages):
        messages[CAMERA_INFO].width, messages[CAMERA_INFO].height = 256, 192

    bag = tmp_path / "sized.mcap"
    write_recording(bag, OBJECTS, PATH[:2], CAMERA, spoil=enlarge)
    with pytest.raises(ValueError, match=r"camera_info is for images of 256x192 pixels, the image has 128x96"):
        list(read_frames(bag))


def test_a_camera_info_topic_on_which_nothing_came_is_refused_as_well(tmp_path):
    write_recording(tmp_path / "empty.mcap", OBJECTS, [], CAMERA)
    with pytest.raises(ValueError, match="no camera_info on /camera/camera_info"):
        list(read_frames(tmp_path / "empty.mcap"))


def test_landmarks_from_topics(tmp_path):
    """A real publisher in this process, slot_map in another, real DDS in between."""
    rclpy = pytest.importorskip("rclpy")
    messages = pytest.importorskip("monet_perception_msgs.msg", reason="pip install ./monet_perception_msgs")
    from geometry_msgs.msg import PoseStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
    from visualization_msgs.msg import Marker, MarkerArray

    mask, strip = np.zeros((2, 16, 16), np.uint8)
    mask[5:9, 5:9] = 255
    strip[11:13, 3:12] = 255
    slots = messages.SlotArray(
        model_id="0" * 12, source_width=128, source_height=96, roi=RegionOfInterest(width=128, height=96)
    )
    for index, (track, pixels, share) in enumerate([(7, 255 - mask - strip, 0.9), (3, mask, 0.8), (5, strip, 0.1)]):
        slot = messages.Slot(index=index, track_id=track, latent_mean=[index, 1.0], latent_log_sigma=[-2.0, -2.0])
        slot.occluding_share, slot.background = share, track != 3
        slot.mask = Image(height=16, width=16, step=16, encoding="mono8", data=pixels.tobytes())
        slot.centroid, slot.covariance, slot.extent = [0.0, index - 1, 2.0], (0.01 * np.eye(3)).ravel(), [0.3] * 3
        slots.slots.append(slot)
    vanishing = []  # one leaves its place empty, a wall comes before the other
    for track, x in ((11, -0.8), (12, 0.8)):
        slot = messages.Slot(track_id=track, occluding_share=0.9, latent_mean=[track, 1.0], latent_log_sigma=[-2.0] * 2)
        slot.mask = Image(height=16, width=16, step=16, encoding="mono8", data=bytes(256))
        slot.centroid, slot.covariance, slot.extent = [x, 0.0, 2.0], (0.01 * np.eye(3)).ravel(), [0.3] * 3
        vanishing.append(slot)
    info = CameraInfo(width=128, height=96, k=[90.0, 0.0, 63.5, 0.0, 90.0, 47.5, 0.0, 0.0, 1.0])
    metres = depth_of(4.0)
    metres[:, 80:] = 1.0
    depth = Image(height=96, width=128, step=512, encoding="32FC1", data=metres.tobytes())
    pose = PoseStamped()
    pose.pose.position.x, pose.pose.orientation.w = 1.0, 0.0  # no rotation, at first
    truth = Marker(id=4)
    truth.pose.position.x, truth.pose.position.z = 1.0, 2.05

    rclpy.init()
    node = rclpy.create_node("slot_map_test")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publishers = {
        "slots": node.create_publisher(messages.SlotArray, "/scene/slots", 1),
        "pose": node.create_publisher(PoseStamped, "/camera/pose", 1),
        "objects": node.create_publisher(MarkerArray, "/camera/objects", latched),
        "depth": node.create_publisher(Image, "/camera/depth", 1),
        "info": node.create_publisher(CameraInfo, "/camera/camera_info", latched),
    }
    publishers["objects"].publish(MarkerArray(markers=[truth]))  # both once, before anybody listens
    publishers["info"].publish(info)
    foreign = messages.SlotArray(model_id="1" * 12, slots=[messages.Slot(track_id=3, latent_mean=[0.0] * 5)])
    png = tmp_path / "live.png"
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "slot_map.py", "--duration", "600", "--png", png],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        deadline, sent = time.monotonic() + 120, 0
        slots.slots += vanishing
        while sent < 50 and time.monotonic() < deadline:
            if all(publisher.get_subscription_count() for publisher in publishers.values()):
                stamp = node.get_clock().now().to_msg()
                slots.header.stamp = pose.header.stamp = depth.header.stamp = stamp
                publishers["depth"].publish(depth)
                if sent < 44:
                    publishers["pose"].publish(pose)
                publishers["slots"].publish(slots)
                if sent == 10:
                    publishers["slots"].publish(foreign)
                if sent == 20:
                    slots.slots = slots.slots[:-2]
                sent += 1
                pose.pose.orientation.w = float(sent > 3)
            time.sleep(0.1)
        process.send_signal(2)  # Ctrl-C
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        node.destroy_node()
        rclpy.try_shutdown()
    assert process.returncode == 0, errors
    assert "found 1 of 1 true objects" in output  # the slot that fills the image is background, and so is the strip
    assert "1 landmarks without object" in output  # what is behind the wall may still be there
    assert re.search(r" 12 +-$", output, re.M)
    assert "it is of network 111111111111, the map of 000000000000: start slot_map again" in errors
    assert "nothing came on" not in errors
    assert "a message on /camera/pose can't be used: Found zero norm quaternions" in errors
    assert int(re.search(r"left out (\d+) frames without poses", errors)[1]) >= 6  # they waited until the end
    assert png.exists()
