"""Slots in 3D: where the centre is, how sure that is, and what depth cameras do to it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray_cast import FIRST_OBJECT, Ball, Box, cast, look_at
from scipy.stats import chi2

from monet_perception.depth_noise import depth_sigma
from monet_perception.geometry import slot_geometry, weighted_quantile
from monet_perception.lens import Distortion
from monet_perception.projection import Intrinsics, back_project, measures_anything
from monet_perception.region import Region

CAMERA = Intrinsics(fx=70.0, fy=70.0, cx=39.5, cy=31.5, width=80, height=64)
CENTRE = Region(8, 0, 64, 64)
VIEWPOINT = look_at((-2.2, 0.0, 1.2), (0.0, 0.0, 0.3))
BALL = Ball((0.0, 0.1, 0.35), 0.35)
seeds = st.integers(0, 2**32 - 1)


def masks_of(labels: np.ndarray, roi=CENTRE) -> np.ndarray:
    """One slot a label, [8, 64, 64]."""
    cut = labels[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]
    return np.stack([cut == k for k in range(8)]).astype(np.float32)


def in_camera(point, camera=VIEWPOINT) -> np.ndarray:
    return camera[:3, :3].T @ (np.asarray(point) - camera[:3, 3])


def geometry_of(objects, *, depth=lambda z: z, masks=lambda m: m):
    view = cast(objects, VIEWPOINT, CAMERA)
    return slot_geometry(masks(masks_of(view.labels)), CENTRE, depth(view.depth), CAMERA)


def random_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft masks [4, 12, 16] and a depth [24, 32] full of holes and edges."""
    rng = np.random.default_rng(seed)
    masks = np.exp(3 * rng.normal(size=(4, 12, 16)))
    depth = rng.choice([0.0, np.nan, 1.0, 1.5, 4.0], size=(24, 32), p=[0.1, 0.1, 0.3, 0.3, 0.2])
    return (masks / masks.sum(0)).astype(np.float32), (depth + 0.01 * rng.normal(size=depth.shape)).astype(np.float32)


# Pixels and points ---------------------------------------------------------------------------------


@given(
    x=st.integers(0, 30),
    y=st.integers(0, 20),
    width=st.integers(1, 50),
    height=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_points_project_back_into_the_pixels_of_the_roi(x, y, width, height, shape):
    roi = Region(x, y, width, height)
    depth = np.random.default_rng(0).uniform(0.5, 4, (CAMERA.height, CAMERA.width)).astype(np.float32)
    points = back_project(roi, shape, depth, CAMERA)
    u = points[..., 0] / points[..., 2] * CAMERA.fx + CAMERA.cx
    v = points[..., 1] / points[..., 2] * CAMERA.fy + CAMERA.cy
    centre_u = x + (np.arange(shape[1]) + 0.5) * width / shape[1] - 0.5
    centre_v = y + (np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5
    assert (np.abs(u - centre_u[None]) <= 0.5 + 1e-6).all()  # the pixel that holds the centre of the mask's cell
    assert (np.abs(v - centre_v[:, None]) <= 0.5 + 1e-6).all()
    assert (points[..., 2] == depth[np.rint(v).astype(int), np.rint(u).astype(int)]).all()


def test_a_depth_image_of_lower_resolution_gives_points_on_the_same_surface():
    wall = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    fine = back_project(CENTRE, (16, 16), wall, CAMERA)
    coarse = back_project(CENTRE, (16, 16), wall[::4, ::4], CAMERA)
    np.testing.assert_allclose(coarse, fine, atol=4 * 2.0 / CAMERA.fx)  # one coarse pixel
    u, v = CAMERA.project(coarse.reshape(-1, 3)).reshape(16, 16, 2).transpose(2, 0, 1)
    middles = 4 * np.arange(16) + 1.5  # of four pixels each, whose centres are whole numbers
    np.testing.assert_allclose(u, np.tile(CENTRE.x + middles, (16, 1)))
    np.testing.assert_allclose(v, np.tile(CENTRE.y + middles, (16, 1)).T)


def test_a_roi_beyond_the_image_has_no_points_there():
    roi = Region(-16, 0, 32, 32)
    points = back_project(roi, (8, 8), np.ones((64, 80), np.float32), CAMERA)
    assert np.isnan(points[:, :4]).all()
    assert np.isfinite(points[:, 4:]).all()


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4)), min_size=1, max_size=12), st.floats(0, 1))
def test_weights_of_a_quantile_act_as_repetitions(samples, quantile):
    values, counts = map(np.array, zip(*samples, strict=True))
    repeated = weighted_quantile(np.repeat(values, counts), np.ones(counts.sum()), quantile)
    assert weighted_quantile(values, counts, quantile) == pytest.approx(repeated)


# Behind a lens -------------------------------------------------------------------------------------

LENSES = [
    Distortion("plumb_bob", (-0.30, 0.09, 0.0005, -0.0003, 0.0)),
    Distortion("plumb_bob", (-0.25, 0.06)),
    Distortion("rational_polynomial", (0.4, -0.1, 0.0002, 0.0001, 0.02, 0.7, -0.1, 0.01)),
    Distortion("equidistant", (0.02, -0.01, 0.003, -0.0005)),
    Distortion("equidistant", ()),
]


def seen_by_opencv(points: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Pixels [N, 2] of points [N, 3], by OpenCV's own camera models."""
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    coefficients, still = np.array(camera.distortion.coefficients), np.zeros((3, 1))
    coefficients = np.pad(coefficients, (0, max(0, 4 - len(coefficients))))
    if camera.distortion.model == "equidistant":
        return cv2.fisheye.projectPoints(points[:, None], still, still, matrix, coefficients)[0][:, 0]
    return cv2.projectPoints(points, still, still, matrix, coefficients)[0][:, 0]


@pytest.mark.parametrize("lens", LENSES)
def test_points_seen_through_a_lens_are_lifted_to_where_they_are(lens):
    camera = replace(CAMERA, distortion=lens)
    wall = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    whole = Region(0, 0, CAMERA.width, CAMERA.height)
    points = back_project(whole, wall.shape, wall, camera).reshape(-1, 3)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width].reshape(2, -1)
    np.testing.assert_allclose(seen_by_opencv(points, camera), np.stack([u, v], axis=1), atol=1e-3)
    np.testing.assert_allclose(camera.project(points), np.stack([u, v], axis=1), atol=1e-3)
    straight = back_project(whole, wall.shape, wall, CAMERA).reshape(-1, 3)
    assert np.abs(points - straight).max() > 0.05  # of which the lens is the cause


@pytest.mark.parametrize("lens", LENSES)
def test_no_points_are_seen_through_a_lens_as_none(lens):
    assert lens.distort(np.zeros((0, 2))).shape == lens.undistort(np.zeros((0, 2))).shape == (0, 2)


def test_what_a_lens_cannot_have_seen_is_no_point():
    lens = Distortion("plumb_bob", (-0.5,))  # bends no ray farther out than 0.544 focal lengths
    camera = replace(CAMERA, fx=50.0, fy=50.0, distortion=lens)
    wall = np.ones((CAMERA.height, CAMERA.width), np.float32)
    whole = Region(0, 0, CAMERA.width, CAMERA.height)
    points = back_project(whole, wall.shape, wall, camera)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    radius = np.hypot(u - CAMERA.cx, v - CAMERA.cy) / 50
    assert np.isnan(points[radius > 0.55]).all()
    assert np.isfinite(points[radius < 0.53]).all()
    beside = [[3.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.1, 0.0, 1.0]]  # the polynomial alone would map the first to a pixel
    assert np.isfinite(camera.project(beside)).all(axis=1).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("model", "coefficients", "fault"),
    [
        ("thin_prism", (0.1,), "'thin_prism' is not one of plumb_bob, rational_polynomial, equidistant"),
        ("plumb_bob", (0.1, np.nan), "finite"),
        ("equidistant", (0.1, 0.0, 0.0, 0.0, 0.1), "has 4 coefficients, not 5"),
    ],
)
def test_lenses_that_are_not_known_are_refused(model, coefficients, fault):
    with pytest.raises(ValueError, match=fault):
        Distortion(model, coefficients)


# The estimate --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing", [BALL, Box((0.0, 0.1, 0.3), (0.6, 0.6, 0.6), yaw=0.5), Box((0, 0, 0.2), (0.4, 0.6, 0.4))]
)
def test_the_centre_is_found_behind_the_visible_surface_and_covered(thing):
    geometry = geometry_of([thing])[FIRST_OBJECT]
    error = geometry.centroid - in_camera(thing.centre)
    assert np.linalg.norm(error) < 0.1
    assert error @ np.linalg.solve(geometry.covariance, error) < chi2.ppf(0.95, df=3)
    nearest_surface = in_camera(thing.centre)[2] - max(thing.size) / 2
    assert geometry.centroid[2] > nearest_surface + 0.1


def test_the_extent_of_a_ball_is_its_diameter():
    np.testing.assert_allclose(geometry_of([BALL])[FIRST_OBJECT].extent, 0.7, atol=0.12)


def test_background_is_where_it_is_seen():
    """A wall square to the view: nothing is behind it, so its centroid lies on it."""
    masks = np.ones((1, 16, 16), np.float32)
    wall = np.full((CAMERA.height, CAMERA.width), 2.5, np.float32)
    (geometry,) = slot_geometry(masks, CENTRE, wall, CAMERA)
    assert geometry.centroid[2] == pytest.approx(2.5)


def test_a_patch_flush_with_what_surrounds_it_may_be_the_face_of_an_object():
    """Its middle then lies behind it, so that along the ray it is far less certain than it is flat."""
    masks = np.zeros((2, 64, 64), np.float32)
    masks[1, 24:40, 24:40] = 1.0
    masks[0] = 1.0 - masks[1]
    lens = Intrinsics(fx=60.0, fy=60.0, cx=31.5, cy=31.5, width=64, height=64)
    patch = slot_geometry(masks, Region(0, 0, 64, 64), np.full((64, 64), 2.0), lens)[1]
    assert patch is not None
    assert patch.background
    assert 0.1 < np.sqrt(patch.covariance[2, 2]) < 0.3, "its width is half a metre"


def test_holes_do_not_move_the_centre():
    rng = np.random.default_rng(0)

    def riddle(depth):
        holes = rng.choice([0.0, np.nan, -1.0, np.inf], size=depth.shape)
        return np.where(rng.random(depth.shape) < 0.4, holes, depth)

    whole, riddled = geometry_of([BALL])[FIRST_OBJECT], geometry_of([BALL], depth=riddle)[FIRST_OBJECT]
    np.testing.assert_allclose(riddled.centroid, whole.centroid, atol=0.02)
    assert not np.array_equal(riddled.covariance, whole.covariance)
    view = cast([BALL], VIEWPOINT, CAMERA)
    mask = masks_of(view.labels)[FIRST_OBJECT]
    whole_points, points = (
        np.count_nonzero(np.isfinite(back_project(CENTRE, mask.shape, depth, CAMERA)[mask > 0.1]).all(axis=-1))
        for depth in (view.depth, riddle(view.depth))
    )
    assert points < 0.7 * whole_points


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("thing", [BALL, Box((0.0, 0.1, 0.4), (0.3, 0.3, 0.8))])
def test_a_part_without_depth_is_allowed_for(thing, side):
    """Glass, black or shining parts: the mean lies in what has depth, and yet the covariance holds the middle."""
    labels = cast([thing], VIEWPOINT, CAMERA).labels == FIRST_OBJECT
    rows, columns = np.nonzero(labels)
    along, place = (
        (np.arange(CAMERA.width)[None], columns)
        if side in ("left", "right")
        else (np.arange(CAMERA.height)[:, None], rows)
    )
    low, high = np.quantile(place, [0.4, 0.6])
    without = along < low if side in ("left", "top") else along > high

    def blind(depth):
        return np.where(labels & without, 0.0, depth)

    geometry = geometry_of([thing], depth=blind)[FIRST_OBJECT]
    error = geometry.centroid - in_camera(thing.centre)
    assert error @ np.linalg.solve(geometry.covariance, error) < chi2.ppf(0.95, df=3)
    whole = geometry_of([thing])[FIRST_OBJECT]
    assert np.trace(geometry.covariance) > np.trace(whole.covariance)


def test_a_mask_that_spills_over_the_depth_edge_does_not_move_the_centre():
    def spill(masks):
        """Every slot of the object grown by one pixel, over the wall two metres behind."""
        thing = masks[FIRST_OBJECT]
        grown = np.max([np.roll(thing, shift, axis) for shift in (-1, 1) for axis in (0, 1)], axis=0)
        masks = masks * (1 - grown)
        masks[FIRST_OBJECT] = grown
        return masks

    exact, spilt = geometry_of([BALL])[FIRST_OBJECT], geometry_of([BALL], masks=spill)[FIRST_OBJECT]
    np.testing.assert_allclose(spilt.centroid, exact.centroid, atol=0.05)
    np.testing.assert_allclose(spilt.extent, exact.extent, atol=0.15)


def before_wall(side: int, *, fat: int = 0, distance: float = 1.5, unseen: slice = slice(0)):
    """A box's face, `side` pixels of the mask wide, before a wall at 3 m, under a soft mask; its geometry and centre.

    Depth is without noise, as in simulators. Columns `unseen` of the face have none.
    """
    camera, roi = Intrinsics(525.0, 525.0, 319.5, 239.5, 640, 480), Region(80, 0, 480, 480)
    low = 32 - side // 2
    mask = np.zeros((64, 64), np.float32)
    mask[low - fat : low + side + fat, low - fat : low + side + fat] = 1
    mask = cv2.GaussianBlur(mask, (0, 0), 1.0)
    depth = np.full((480, 640), 3.0, np.float32)
    face = depth[int(7.5 * low) : int(7.5 * (low + side)), 80 + int(7.5 * low) : 80 + int(7.5 * (low + side))]
    face[:] = distance
    face[:, unseen] = 0
    width = 7.5 * side * distance / camera.fx
    return slot_geometry(np.stack([1 - mask, mask]), roi, depth, camera)[1], np.array([0, 0, distance + width / 2])


def mahalanobis(geometry, centre) -> float:
    error = geometry.centroid - centre
    return float(error @ np.linalg.solve(geometry.covariance, error))


@pytest.mark.parametrize("fat", [0, 1])
@pytest.mark.parametrize("side", [6, 8, 10, 14])
def test_a_flat_face_before_a_flat_wall_is_told_from_it(side, fat):
    geometry, centre = before_wall(side, fat=fat)
    np.testing.assert_allclose(geometry.centroid, centre, atol=0.06)
    assert geometry.extent[2] < 0.4


@pytest.mark.parametrize(("side", "fat"), [(3, 1), (4, 1), (6, 2), (8, 2)])
def test_a_mask_that_holds_more_wall_than_object_is_less_certain(side, fat):
    geometry, centre = before_wall(side, fat=fat)
    assert mahalanobis(geometry, centre) < chi2.ppf(0.99, df=3)


@pytest.mark.parametrize("distance", [0.3, 1.5])
def test_what_has_no_depth_is_not_put_on_the_wall_behind_it(distance):
    assert before_wall(14, distance=distance, unseen=slice(None))[0] is None


def test_the_less_has_depth_the_less_certain_the_middle_is():
    deviations = []
    for unseen in (0, 30, 50, 70):  # of 105 columns
        geometry, centre = before_wall(14, unseen=slice(unseen))
        assert mahalanobis(geometry, centre) < chi2.ppf(0.95, df=3)
        deviations.append(np.sqrt(np.trace(geometry.covariance)))
    assert deviations == sorted(deviations)


def test_noise_of_depth_moves_a_point_along_its_ray():
    """Far off the axis a point moves by more than its depth does."""
    camera, far = Intrinsics(40.0, 40.0, 31.5, 31.5, 64, 64), 8.0
    mask = np.zeros((64, 64), np.float32)
    mask[2:6, 2:6] = 1  # 45 degrees from the axis, across and down
    depth = np.full((64, 64), 12.0, np.float32)
    depth[2:6, 2:6] = far
    geometry = slot_geometry(np.stack([1 - mask, mask]), Region(0, 0, 64, 64), depth, camera)[1]
    ray = geometry.centroid / np.linalg.norm(geometry.centroid)
    moved = depth_sigma(far) * np.linalg.norm(geometry.centroid) / geometry.centroid[2]
    assert ray @ geometry.covariance @ ray >= moved**2


def test_the_thin_tail_of_a_mask_does_not_move_the_centre():
    def with_tail(masks):
        """A twentieth of every pixel is the object's, most of them the wall's two metres behind."""
        masks = 0.95 * masks
        masks[FIRST_OBJECT] += 0.05
        return masks

    ball = Ball((0.0, 0.1, 0.15), 0.15)
    exact, tailed = geometry_of([ball])[FIRST_OBJECT], geometry_of([ball], masks=with_tail)[FIRST_OBJECT]
    np.testing.assert_allclose(tailed.centroid, exact.centroid, atol=1e-6)
    np.testing.assert_allclose(tailed.extent, exact.extent, atol=1e-6)


def test_what_is_hidden_or_cut_off_is_less_certain():
    free = geometry_of([BALL])[FIRST_OBJECT]
    behind = geometry_of([BALL, Box((-0.8, 0.3, 0.4), (0.2, 0.5, 0.8))])[FIRST_OBJECT]
    cut = geometry_of([Ball((0.0, 1.0, 0.35), 0.35)])[FIRST_OBJECT]
    for worse in (behind, cut):
        assert np.linalg.eigvalsh(worse.covariance)[0] > 2 * np.linalg.eigvalsh(free.covariance)[0]


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_an_object_that_lies_in_two_slots_covers_its_middle(half):
    view = cast([BALL], VIEWPOINT, CAMERA)
    masks = masks_of(view.labels)
    columns = np.flatnonzero(masks[FIRST_OBJECT].sum(0) > 0)
    left = np.arange(masks.shape[2]) < np.median(columns)
    whole = masks[FIRST_OBJECT]
    masks = np.stack([*masks[:FIRST_OBJECT], whole * left, whole * ~left])
    part = slot_geometry(masks, CENTRE, view.depth, CAMERA)[FIRST_OBJECT + half]
    error = part.centroid - in_camera(BALL.centre)
    assert error @ np.linalg.solve(part.covariance, error) < chi2.ppf(0.9, df=3)


def test_the_covariance_holds_what_it_promises_over_random_scenes():
    """At least 80 % of the true centres within the 90 % ellipsoid, and at most 99.5 %: neither boastful nor useless.

    In plain sight it is cautious: the median of the squared distances is a fifth of a normal distribution's.
    """
    rng = np.random.default_rng(3)
    distances, sigmas = [], []
    for _ in range(60):
        size = rng.uniform(0.25, 0.7, 3)
        place = (*rng.uniform(-0.5, 0.5, 2),)
        thing = (
            Ball((*place, size[0] / 2), size[0] / 2)
            if rng.random() < 0.5
            else Box((*place, size[2] / 2), tuple(size), rng.uniform(0, 3))
        )
        geometry = geometry_of([thing, Ball((*rng.uniform(-0.9, 0.9, 2), 0.2), 0.2)])[FIRST_OBJECT]
        if geometry is None:
            continue
        error = geometry.centroid - in_camera(thing.centre)
        distances.append(error @ np.linalg.solve(geometry.covariance, error))
        sigmas.append(np.sqrt(np.trace(geometry.covariance)))
    assert len(distances) >= 50
    assert 0.8 <= np.mean(np.array(distances) <= chi2.ppf(0.9, df=3)) <= 0.995
    assert np.median(distances) / chi2.ppf(0.5, df=3) == pytest.approx(0.2, abs=0.08)
    assert np.median(sigmas) < 0.15


# Symmetries ----------------------------------------------------------------------------------------


def turned(intrinsics: Intrinsics) -> Intrinsics:
    """The camera rolled by 90 degrees: what np.rot90 does to its image (counterclockwise)."""
    return Intrinsics(
        intrinsics.fy,
        intrinsics.fx,
        intrinsics.cy,
        intrinsics.width - 1 - intrinsics.cx,
        intrinsics.height,
        intrinsics.width,
    )


def crisp_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A random scene with a mask cell for each pixel, so that turned cells read the turned pixels."""
    masks, depth = random_scene(seed)
    return np.repeat(np.repeat(masks, 2, 1), 2, 2), depth


@given(seeds)
def test_rolling_the_camera_rolls_the_result(seed):
    masks, depth = crisp_scene(seed)
    camera = Intrinsics(30.0, 33.0, 14.0, 12.5, 32, 24)
    upright = slot_geometry(masks, Region(0, 0, 32, 24), depth, camera)
    rolled = slot_geometry(np.rot90(masks, axes=(1, 2)), Region(0, 0, 24, 32), np.rot90(depth), turned(camera))
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    for before, after in zip(upright, rolled, strict=True):
        np.testing.assert_allclose(after.centroid, turn @ before.centroid, atol=1e-9)
        np.testing.assert_allclose(after.covariance, turn @ before.covariance @ turn.T, atol=1e-9)
        np.testing.assert_allclose(after.extent, np.abs(turn) @ before.extent, atol=1e-9)
        np.testing.assert_equal(after.occluding_share, before.occluding_share)


@given(seeds)
def test_mirroring_the_image_mirrors_the_result(seed):
    masks, depth = crisp_scene(seed)
    camera = Intrinsics(30.0, 33.0, 14.0, 12.5, 32, 24)
    mirrored_camera = Intrinsics(30.0, 33.0, 31 - 14.0, 12.5, 32, 24)
    roi = Region(0, 0, 32, 24)
    flip = np.diag([-1.0, 1.0, 1.0])
    mirrored = slot_geometry(masks[..., ::-1], roi, depth[:, ::-1], mirrored_camera)
    for before, after in zip(slot_geometry(masks, roi, depth, camera), mirrored, strict=True):
        np.testing.assert_allclose(after.centroid, flip @ before.centroid, atol=1e-9)
        np.testing.assert_allclose(after.covariance, flip @ before.covariance @ flip, atol=1e-9)
        np.testing.assert_allclose(after.extent, before.extent, atol=1e-9)
        np.testing.assert_equal(after.occluding_share, before.occluding_share)


@given(seeds, st.permutations(range(4)))
def test_permuting_the_slots_permutes_the_result(seed, order):
    masks, depth = random_scene(seed)
    roi = Region(0, 0, 32, 24)
    camera = Intrinsics(30.0, 30.0, 15.5, 11.5, 32, 24)
    straight = slot_geometry(masks, roi, depth, camera)
    for slot, permuted in zip(order, slot_geometry(masks[order], roi, depth, camera), strict=True):
        np.testing.assert_allclose(permuted.centroid, straight[slot].centroid, atol=1e-9)
        np.testing.assert_allclose(permuted.covariance, straight[slot].covariance, atol=1e-9)
        np.testing.assert_equal(permuted.occluding_share, straight[slot].occluding_share)


# Bad input -----------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([0.0, np.nan, np.inf, -np.inf, -1.0, 1e-30, 1e4, 1e10, 3.4e38]))
@settings(max_examples=50)
def test_any_depth_gives_a_positive_definite_covariance_or_nothing(seed, poison):
    masks, depth = random_scene(seed)
    depth[np.random.default_rng(seed).random(depth.shape) < 0.5] = poison
    roi = Region(0, 0, 32, 24)
    for geometry in slot_geometry(masks, roi, depth, Intrinsics(30.0, 30.0, 15.5, 11.5, 32, 24)):
        if geometry is not None:
            np.testing.assert_array_equal(geometry.covariance, geometry.covariance.T)
            assert np.linalg.eigvalsh(geometry.covariance)[0] > 0
            assert (geometry.extent >= 0).all()
            assert np.isnan(geometry.occluding_share) or 0 <= geometry.occluding_share <= 1


def test_without_depth_there_is_no_geometry():
    assert geometry_of([BALL], depth=np.zeros_like) == [None] * 8
    assert not measures_anything(np.array([[0.0, np.nan, -1.0, np.inf, 1e10]]))
    depth = np.zeros((48, 64))
    depth[47, 63] = 2.0
    assert measures_anything(depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((64, 64)), CENTRE, np.ones((64, 80)), CAMERA), r"masks must be \[K, H, W\]"),
        ((np.zeros((0, 8, 8)), CENTRE, np.ones((64, 80)), CAMERA), "K of at least 1"),
        ((np.zeros((2, 8, 8)), CENTRE, np.ones((64, 80, 1)), CAMERA), r"depth must be \[h, w\]"),
        (
            (np.zeros((2, 8, 8)), Region(0, 0, 0, 4), np.ones((64, 80)), CAMERA),
            "roi is empty",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        slot_geometry(*arguments)


@pytest.mark.parametrize("broken", [{"fx": 0.0}, {"fy": -1.0}, {"cx": np.nan}, {"width": 0}, {"fx": np.inf}])
def test_a_camera_without_calibration_is_refused(broken):
    with pytest.raises(ValueError, match=next(iter(broken))):
        Intrinsics(**{"fx": 70.0, "fy": 70.0, "cx": 39.5, "cy": 31.5, "width": 80, "height": 64} | broken)
