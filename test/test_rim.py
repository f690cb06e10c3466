"""The rim of slots: what occludes, what may go on unseen, and pieces of a background that are no objects."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_cast import FIRST_OBJECT, FLOOR, WALL, Ball, Box, cast, look_at

from monet_perception.geometry import slot_geometry
from monet_perception.projection import Intrinsics, back_project
from monet_perception.region import Region
from monet_perception.rim import MIN_OCCLUDING_SHARE, hidden_share, occluding_share
from monet_perception.slots import background_slots

CAMERA = Intrinsics(fx=70.0, fy=70.0, cx=31.5, cy=31.5, width=64, height=64)
WHOLE = Region(0, 0, 64, 64)
VIEWPOINT = look_at((-2.2, 0.0, 1.2), (0.0, 0.0, 0.3))
BALL = Ball((0.0, 0.1, 0.35), 0.35)
BOX = Box((0.3, -0.6, 0.25), (0.5, 0.4, 0.5), yaw=0.4)
POST = Box((-0.8, 0.3, 0.4), (0.2, 0.5, 0.8))


def seen(things) -> tuple[np.ndarray, np.ndarray]:
    """Masks [7, 64, 64], one a label, and depth [64, 64] of a view of things in a room."""
    view = cast(things, VIEWPOINT, CAMERA)
    return np.stack([view.labels == k for k in range(7)]).astype(np.float32), view.depth.astype(np.float64)


def two_slots(piece: np.ndarray) -> np.ndarray:
    """A piece of the image [H, W] and the rest as masks [2, H, W]."""
    return np.stack([piece, ~piece]).astype(np.float32)


def occluding(masks, z) -> np.ndarray:
    return occluding_share(masks, z, background_slots(masks))


# What stands out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [BALL, BOX, POST])
def test_an_object_occludes_along_its_sides_and_its_top(thing):
    masks, z = seen([thing])
    assert 0.5 < occluding(masks, z)[FIRST_OBJECT] <= 1


@pytest.mark.parametrize("shift", [-1, 1, 2])
@pytest.mark.parametrize("thing", [BALL, BOX, POST])
def test_an_edge_that_is_off_by_a_pixel_or_two_is_still_one(thing, shift):
    masks, z = seen([thing])
    change = cv2.dilate if shift > 0 else cv2.erode
    piece = change(masks[FIRST_OBJECT], np.ones((3, 3)), iterations=abs(shift)) > 0
    assert occluding(two_slots(piece), z)[0] > MIN_OCCLUDING_SHARE


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_an_object_stands_out(half):
    masks, z = seen([BALL])
    left = np.arange(64) < np.median(np.flatnonzero(masks[FIRST_OBJECT].sum(0)))
    whole = masks[FIRST_OBJECT]
    parts = np.stack([*masks[:FIRST_OBJECT], whole * left, whole * ~left])
    assert occluding(parts, z)[FIRST_OBJECT + half] > MIN_OCCLUDING_SHARE


def test_what_has_no_depth_is_farther():
    masks, z = seen([BALL])
    sky = masks[FIRST_OBJECT] == 0
    assert occluding(masks, np.where(sky, np.nan, z))[FIRST_OBJECT] == pytest.approx(1.0)


# What doesn't --------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), slope=st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)))
def test_no_piece_of_a_plane_stands_out_however_it_lies(seed, slope):
    v, u = np.mgrid[-1:1:64j, -1:1:64j]
    z = 2.0 / (1.0 + 0.45 * (slope[0] * u + slope[1] * v))  # the inverse depth of a plane is linear in the pixels
    blobs = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(64, 64)), (0, 0), 4)
    shares = occluding_share(two_slots(blobs > blobs.mean()), z, np.zeros(2, bool))
    np.testing.assert_array_equal(shares, 0.0)


@pytest.mark.parametrize("up", [-2, 0, 2])
def test_a_strip_at_the_foot_of_a_wall_does_not_stand_out(up):
    masks, z = seen([])
    foot = int(np.flatnonzero(masks[WALL, :, 32]).max()) - up
    strip = np.zeros((64, 64), bool)
    strip[foot - 3 : foot + 4, 16:48] = True
    assert masks[FLOOR][strip].any()
    assert masks[WALL][strip].any()
    (found, _) = slot_geometry(two_slots(strip), WHOLE, z, CAMERA)
    assert found.occluding_share < MIN_OCCLUDING_SHARE
    assert found.background
    row, column = foot, 31
    surface = back_project(WHOLE, (64, 64), z, CAMERA)[row - 3 : row + 4, column]
    assert found.centroid[2] <= surface[:, 2].max()  # as background it isn't moved behind what is seen


def test_the_floor_around_an_object_does_not_stand_out():
    masks, z = seen([BALL])
    ring = (cv2.dilate(masks[FIRST_OBJECT], np.ones((9, 9))) > 0) & (masks[FIRST_OBJECT] == 0)
    slots = np.stack([masks[FIRST_OBJECT] > 0, ring, ~ring & (masks[FIRST_OBJECT] == 0)]).astype(np.float32)
    ball, floor, _ = occluding(slots, z)
    assert ball > 0.5
    assert floor < MIN_OCCLUDING_SHARE


# What can't be told --------------------------------------------------------------------------------


def test_only_what_stands_in_front_hides():
    masks, z = seen([BALL, POST])
    hidden = hidden_share(masks, z, background_slots(masks))
    assert 0.1 < hidden[FIRST_OBJECT] < 0.6
    assert hidden[FIRST_OBJECT + 1] == 0


def test_what_another_object_hides_of_the_rim_does_not_count():
    z = np.full((16, 16), 3.0)
    z[4:12, 4:12] = 1.0  # a frame before a piece of the wall, which is all that shows of it
    z[6:10, 6:10] = 2.0
    owner = np.where(z == 1.0, 1, np.where(z == 2.0, 2, 0))
    masks = np.eye(3, dtype=np.float32)[owner].transpose(2, 0, 1)
    shares = occluding_share(masks, z, np.array([True, False, False]))
    assert np.isnan(shares[2])
    assert shares[1] == 1.0


def test_the_rim_of_a_slot_that_owns_nothing_or_everything_is_unknown():
    masks = two_slots(np.ones((64, 64), bool))
    z = np.full((64, 64), 2.0)
    assert np.isnan(occluding_share(masks, z, np.zeros(2, bool))).all()
    (whole, nothing) = slot_geometry(masks, WHOLE, z, CAMERA)
    assert whole.background, "by its mask"
    assert nothing is None
