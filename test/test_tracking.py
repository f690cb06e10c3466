"""Identity over time: what a track id promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from monet_perception.tracking import NO_TRACK, Tracker, latent_distance, mask_overlap

SIZE, LATENTS = 24, 8
seeds = st.integers(0, 2**32 - 1)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Soft mask [SIZE, SIZE] of a disc."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(columns - x, rows - y)
    return 1 / (1 + np.exp(4 * np.clip(distance - radius, -8, 8)))


def scene(*objects: np.ndarray) -> np.ndarray:
    """Masks [1 + n, SIZE, SIZE]: what is left over as slot 0, then the objects, the last in front."""
    rest, masks = np.ones((SIZE, SIZE)), []
    for mask in reversed(objects):
        masks.append(rest * mask)
        rest = rest * (1 - mask)
    return np.stack([rest, *reversed(masks)])


def latents(*codes: int, sigma: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Latent means that tell codes apart, and log sigmas, [n, LATENTS] each."""
    mean = np.stack([np.random.default_rng(code).normal(size=LATENTS) for code in codes])
    return mean, np.full_like(mean, np.log(sigma))


def random_frame(seed: int, slots: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = np.exp(4 * rng.normal(size=(slots, SIZE, SIZE)))
    return masks / masks.sum(0), rng.normal(size=(slots, LATENTS)), rng.normal(-2, 0.5, (slots, LATENTS))


# The measures --------------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_latent_distance_is_the_squared_hellinger_distance(mean_a, mean_b, sigma_a, sigma_b):
    x = np.linspace(-9, 9, 20001)
    overlap = np.trapezoid(np.sqrt(norm.pdf(x, mean_a, sigma_a) * norm.pdf(x, mean_b, sigma_b)), x)
    distance = latent_distance([[mean_a]], [[np.log(sigma_a)]], [[mean_b]], [[np.log(sigma_b)]])
    assert distance[0, 0] == pytest.approx(1 - overlap, abs=1e-5)


@given(seeds)
def test_latent_distance_is_symmetric_bounded_and_zero_to_itself(seed):
    _, mean, log_sigma = random_frame(seed)
    distance = latent_distance(mean, log_sigma, mean, log_sigma)
    assert ((distance >= 0) & (distance <= 1)).all()
    np.testing.assert_allclose(distance, distance.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(distance), 0, atol=1e-12)


def test_latents_that_say_nothing_do_not_count():
    mean, log_sigma = latents(1, 2)
    unused = np.zeros((2, 20))
    expected = latent_distance(mean, log_sigma, mean, log_sigma)
    padded = latent_distance(*[np.hstack(pair) for pair in ((mean, unused), (log_sigma, unused))] * 2)
    np.testing.assert_allclose(padded, expected, atol=1e-12)


@given(arrays(bool, (3, 6, 6)), arrays(bool, (4, 6, 6)))
def test_overlap_of_crisp_masks_is_their_iou(a, b):
    union = (a[:, None] | b[None]).sum((2, 3))
    iou = (a[:, None] & b[None]).sum((2, 3)) / np.maximum(union, 1)
    np.testing.assert_allclose(mask_overlap(a, b), iou, atol=1e-6)


@given(seeds)
def test_overlap_of_a_soft_mask_with_itself_is_one(seed):
    masks = random_frame(seed)[0]
    overlap = mask_overlap(masks, masks)
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-5)
    assert ((overlap >= 0) & (overlap <= 1)).all()


# The tracker ---------------------------------------------------------------------------------------


@given(seeds, st.integers(2, 6))
def test_identical_frames_keep_their_ids(seed, frames):
    frame = random_frame(seed)
    tracker = Tracker()
    ids = [tracker.update(*frame, stamp=0.1 * i) for i in range(frames)]
    assert all((later == ids[0]).all() for later in ids)


@given(seeds, st.permutations(range(5)))
def test_permuting_the_slots_permutes_the_ids(seed, order):
    first, second = random_frame(seed), random_frame(seed + 1)
    # A frame like the first one, with some noise: some slots go on, some are new.
    second = tuple(0.7 * a + 0.3 * b for a, b in zip(first, second, strict=True))
    straight, permuted = Tracker(), Tracker()
    straight.update(*first, stamp=0.0)
    permuted.update(*first, stamp=0.0)
    expected = straight.update(*second, stamp=0.1)
    ids = permuted.update(*(part[order] for part in second), stamp=0.1)
    known = expected < 5  # ids of births are given in slot order
    assert (ids[np.argsort(order)][known] == expected[known]).all()
    assert ((ids[np.argsort(order)] < 5) == known).all()


@given(st.lists(seeds, min_size=1, max_size=6))
def test_ids_of_a_frame_differ(frame_seeds):
    tracker = Tracker()
    for number, seed in enumerate(frame_seeds):
        ids = tracker.update(*random_frame(seed), stamp=0.1 * number)
        assert ids.dtype == np.int32
        assert len(set(ids[ids != NO_TRACK])) == (ids != NO_TRACK).sum()


def test_empty_and_thinly_spread_slots_have_no_track():
    masks = scene(disc(8, 8, 4))
    thin = np.full((1, SIZE, SIZE), 0.02)
    masks = np.concatenate([masks * 0.98, thin, np.zeros((1, SIZE, SIZE))])
    ids = Tracker().update(masks, *latents(0, 1, 2, 3), stamp=0.0)
    assert ids.tolist() == [0, 1, NO_TRACK, NO_TRACK]


def test_ids_stay_with_objects_that_cross_while_the_slots_are_shuffled():
    tracker, rng = Tracker(), np.random.default_rng(0)
    mean, log_sigma = latents(0, 1, 2)
    all_ids = []
    for step in range(40):
        x = 4 + 16 * step / 39
        masks, order = scene(disc(x, 11, 3), disc(SIZE - x, 13, 3)), rng.permutation(3)
        ids = tracker.update(masks[order], mean[order], log_sigma[order], stamp=0.1 * step)
        all_ids.append(ids[np.argsort(order)].tolist())
    assert sorted(all_ids[0]) == [0, 1, 2]
    assert all(ids == all_ids[0] for ids in all_ids)


@pytest.mark.parametrize(("absence", "returns"), [(0.3, True), (0.9, True), (1.5, False)])
def test_an_object_that_comes_back_elsewhere_is_known_by_its_latent(absence, returns):
    tracker = Tracker(max_absence=1.0)
    with_object, without = scene(disc(6, 6, 3)), scene()
    (wall, thing), log_sigma = latents(0, 1)[0], latents(0, 1)[1]
    for step in range(5):
        before = tracker.update(with_object, np.stack([wall, thing]), log_sigma, stamp=0.1 * step)[1]
    gone = 0.1 * np.arange(5, 5 + round(absence / 0.1))
    for stamp in gone:
        tracker.update(without, wall[None], log_sigma[:1], stamp=stamp)
    moved = thing.copy()
    moved[:2] += 1.0  # what encodes its place has changed
    ids = tracker.update(scene(disc(18, 17, 3)), np.stack([wall, moved]), log_sigma, stamp=gone[-1] + 0.1)
    assert (ids[1] == before) is np.bool_(returns)


def test_something_else_in_the_same_place_is_not_taken_for_what_was_there():
    tracker = Tracker()
    masks = scene(disc(6, 6, 3))
    tracker.update(masks, *latents(0, 1), stamp=0.0)
    for step in range(1, 8):
        tracker.update(scene(), *latents(0), stamp=0.1 * step)
    assert tracker.update(scene(disc(17, 17, 3)), *latents(0, 2), stamp=0.9).tolist() == [0, 2]


def test_a_slow_network_keeps_its_objects():
    tracker = Tracker(max_absence=1.0)
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    assert [tracker.update(*frame, stamp=stamp).tolist() for stamp in (0.0, 3.0, 6.0)] == [[0, 1]] * 3


def test_an_object_where_the_wall_was_does_not_become_the_wall():
    tracker = Tracker()
    mean, log_sigma = latents(0, 0, 1)  # the two walls look the same
    left, right = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    left[:, :12], right[:, 12:] = 1, 1
    tracker.update(np.stack([left, right]), mean[:2], log_sigma[:2], stamp=0.0)
    thing = disc(12, 12, 3)
    masks = np.stack([thing, right * (1 - thing), left * (1 - thing)])
    ids = tracker.update(masks, mean[[0, 1, 0]], log_sigma, stamp=0.1)
    assert ids.tolist() == [2, 1, 0]


def test_a_stamp_that_goes_backwards_starts_anew_and_no_id_is_given_twice():
    tracker = Tracker()
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    assert tracker.update(*frame, stamp=5.0).tolist() == [0, 1]
    assert tracker.update(*frame, stamp=4.0).tolist() == [2, 3]
    tracker.reset()
    assert tracker.update(*frame, stamp=4.1).tolist() == [4, 5]


def test_another_network_starts_anew():
    tracker = Tracker()
    tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=0.0)
    mean, log_sigma = latents(0, 1)
    assert tracker.update(scene(disc(6, 6, 3)), mean[:, :4], log_sigma[:, :4], stamp=0.1).tolist() == [2, 3]


def test_the_caller_may_reuse_its_arrays():
    tracker = Tracker()
    frame = [scene(disc(6, 6, 3)), *latents(0, 1)]
    tracker.update(*frame, stamp=0.0)
    kept = [part.copy() for part in frame]
    for part in frame:
        part[:] = 0
    assert tracker.update(*kept, stamp=0.1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda m, a, s: (m[0], a, s), r"masks must be \[K, H, W\]"),
        (lambda m, a, s: (m, a[:1], s), r"K = 2"),
        (lambda m, a, s: (m, a[:, :3], s), r"\[2, 3\]"),
        (lambda m, a, s: (m * np.nan, a, s), "masks holds values that are not finite"),
        (lambda m, a, s: (m, a / 0.0, s), "latent_mean holds"),
    ],
)
def test_a_broken_frame_is_refused_and_changes_nothing(broken, message):
    tracker = Tracker()
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    tracker.update(*frame, stamp=0.0)
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        tracker.update(*broken(*frame), stamp=0.1)
    assert tracker.update(*frame, stamp=0.2).tolist() == [0, 1]


@pytest.mark.parametrize(
    "wrong", [{"max_absence": -1}, {"max_distance": 2}, {"overlap_memory": 0}, {"min_area": np.nan}]
)
def test_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tracker(**wrong)
