"""Identity over time: what a track id promises."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from monet_perception.clip import DEMO_CLIP
from monet_perception.decomposer import Decomposer
from monet_perception.labels import label_masks
from monet_perception.recording import read_frames
from monet_perception.similarity import latent_distance, mask_overlap
from monet_perception.slots import mask_ownership, owned_pixels
from monet_perception.tracking import NO_TRACK, Tracker, TrackerSettings

SIZE, LATENTS = 24, 8
FIRST_OBJECT = 4
"""Label of the clip's first object; those below are sky, floor and walls."""
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
    # Ids are given in the order of strength, which doesn't hang on the order of the slots.
    assert (ids[np.argsort(order)] == expected).all()


@given(st.lists(seeds, min_size=1, max_size=6))
def test_ids_of_a_frame_differ(frame_seeds):
    tracker = Tracker()
    for number, seed in enumerate(frame_seeds):
        ids = tracker.update(*random_frame(seed), stamp=0.1 * number)
        assert ids.dtype == np.int32
        assert len(set(ids[ids != NO_TRACK])) == (ids != NO_TRACK).sum()


@pytest.mark.parametrize("turn", [-4, 4])
def test_ids_stay_with_their_objects_while_the_camera_turns(turn):
    """Things in a row that look alike: after two frames each stands where its neighbour stood."""
    places = np.array([8.0, 16.0, 24.0, 32.0, 40.0]) - (8.0 if turn > 0 else 0.0)
    alike = latents(0, 1, 1, 1, 1, 1)

    def ids(shift: tuple[float, float]) -> list[np.ndarray]:
        tracker = Tracker()
        return [
            tracker.update(
                scene(*(disc(x + turn * number - 12, 12, 2.5) for x in places)),
                *alike,
                0.1 * number,
                shift if number else (0.0, 0.0),
            )
            for number in range(4)
        ]

    def kept(frames: list[np.ndarray]) -> bool:
        both = [(a[1:], b[1:]) for a, b in itertools.pairwise(frames)]
        return all((a == b)[(a >= 0) & (b >= 0)].all() for a, b in both)

    assert kept(ids((turn, 0.0)))
    assert not kept(ids((0.0, 0.0))), "which the shift is the cause of"


def test_a_shift_after_a_long_time_does_not_count():
    """Whatever moved meanwhile did so by itself."""
    frame = (scene(disc(6, 12, 3), disc(16, 12, 3)), *latents(0, 1, 1))
    tracker = Tracker()
    first = tracker.update(*frame, 0.0)
    assert (tracker.update(*frame, 0.5, (10.0, 0.0)) == first).all()


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
    tracker = Tracker(TrackerSettings(max_absence=1.0))
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


@pytest.mark.parametrize(("latent_drift", "away", "known"), [(0.3, 0.8, True), (0.0, 0.8, False), (0.3, 0.1, False)])
def test_the_latent_of_an_object_may_drift_with_the_time_that_it_is_away(latent_drift, away, known):
    tracker = Tracker(TrackerSettings(latent_drift=latent_drift))
    mean, log_sigma = latents(0, 1)
    tracker.update(scene(disc(6, 6, 3)), mean, log_sigma, stamp=0.0)
    for stamp in np.arange(0.1, away - 0.05, 0.1):
        tracker.update(scene(), mean[:1], log_sigma[:1], stamp)
    mean[1] += 0.3  # three standard deviations of its posterior
    ids = tracker.update(scene(disc(18, 17, 3)), mean, log_sigma, stamp=away)
    assert (ids[1] == 1) is np.bool_(known)


@pytest.mark.parametrize(("latent_memory", "known"), [(0.3, True), (0.01, False)])
def test_the_last_view_of_an_object_is_not_all_that_is_remembered_of_it(latent_memory, known):
    tracker = Tracker(TrackerSettings(latent_memory=latent_memory))
    mean, log_sigma = latents(0, 1)
    odd = mean + np.array([[0.0], [1.0]])  # half out of the image, say
    for step in range(5):
        tracker.update(scene(disc(6, 6, 3)), odd if step == 4 else mean, log_sigma, stamp=0.1 * step)
    for step in range(5, 10):
        tracker.update(scene(), mean[:1], log_sigma[:1], stamp=0.1 * step)
    ids = tracker.update(scene(disc(18, 17, 3)), mean, log_sigma, stamp=1.0)
    assert (ids[1] == 1) is np.bool_(known)


def test_something_else_in_the_same_place_is_not_taken_for_what_was_there():
    tracker = Tracker()
    masks = scene(disc(6, 6, 3))
    tracker.update(masks, *latents(0, 1), stamp=0.0)
    for step in range(1, 8):
        tracker.update(scene(), *latents(0), stamp=0.1 * step)
    frames = [tracker.update(scene(disc(17, 17, 3)), *latents(0, 2), stamp=stamp).tolist() for stamp in (0.8, 0.9, 1.0)]
    assert frames == [[0, NO_TRACK], [0, NO_TRACK], [0, 2]]


def test_a_slow_network_keeps_its_objects():
    tracker = Tracker(TrackerSettings(max_absence=1.0))
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
    for stamp in (0.1, 0.2, 0.3):
        ids = tracker.update(masks, mean[[0, 1, 0]], log_sigma, stamp=stamp)
    assert ids.tolist() == [2, 1, 0]


def test_absence_is_counted_from_the_first_frame_without_an_object():
    """A slow network must not lose its objects between two frames that lie further apart than `max_absence`."""
    tracker = Tracker(TrackerSettings(max_absence=1.0))
    there, gone = scene(disc(6, 6, 3)), np.stack([np.ones((SIZE, SIZE)), np.zeros((SIZE, SIZE))])
    frames = [(0.0, there), (2.0, there), (4.0, there), (6.0, gone), (8.0, there)]
    ids = [tracker.update(masks, *latents(0, 1), stamp=stamp).tolist() for stamp, masks in frames]
    assert (ids[0], ids[-1]) == ([0, 1], [0, 1])


def test_an_object_in_the_slot_of_a_wall_does_not_become_the_wall():
    """Also where it lies on the wall and looks like it."""
    tracker = Tracker()
    left, right = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    left[:, :12], right[:, 12:] = 1, 1
    tracker.update(np.stack([left, right]), *latents(0, 0), stamp=0.0)
    masks = np.stack([disc(6, 12, 5), 1 - disc(6, 12, 5)])
    ids = [int(tracker.update(masks, *latents(0, 0), stamp=stamp)[0]) for stamp in (0.1, 0.2, 0.3)]
    assert ids == [-1, -1, 2]


def test_a_stamp_that_goes_backwards_starts_anew_and_no_id_is_given_twice():
    tracker = Tracker()
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    assert tracker.update(*frame, stamp=5.0).tolist() == [0, 1]
    assert tracker.update(*frame, stamp=4.0).tolist() == [2, 3]
    tracker.reset()
    assert tracker.update(*frame, stamp=4.1).tolist() == [4, 5]


@given(st.floats(0.001, 0.099), st.integers(1, 5))
def test_a_stamp_a_little_back_is_no_time_passed(back, late):
    tracker = Tracker()
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    ids = [tracker.update(*frame, stamp=5 + 0.1 * step - (0.1 + back) * (step == late)).tolist() for step in range(8)]
    assert ids == [[0, 1]] * 8
    assert tracker.resets == 0


@pytest.mark.parametrize(("interval", "gap", "goes_on"), [
    (0.1, 0.9, True),
    (0.1, 1.2, False),  # longer than max_absence
    (0.1, 3600.0, False),
    (2.0, 9.0, True),  # a slow camera that lost some frames
    (2.0, 11.0, False),
    (4.0, 9.0, True),  # LONGEST_INTERVAL is less than GAP_FRAMES times the usual
    (4.0, 11.0, False),
])  # fmt: skip
def test_after_a_gap_nothing_is_what_was_there_before(interval, gap, goes_on):
    tracker = Tracker(TrackerSettings(max_absence=1.0))
    for step in range(6):
        tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=interval * step)
    ids = tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=5 * interval + gap)
    assert ids.tolist() == ([0, 1] if goes_on else [2, 3])
    assert tracker.resets == (not goes_on)


def test_what_was_a_usual_interval_before_a_restart_is_none_after_it():
    tracker = Tracker(TrackerSettings(max_absence=1.0))
    for stamp in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 0.0, 0.1, 0.2):
        tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=stamp)
    assert tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=8.2).tolist() == [4, 5]
    assert tracker.resets == 2


def test_a_camera_that_becomes_slow_keeps_its_tracks_once_that_is_usual():
    tracker = Tracker(TrackerSettings(max_absence=1.0))
    stamps = [*np.arange(0.0, 2.0, 0.1), *np.arange(4.0, 24.0, 2.0)]
    ids = [tracker.update(scene(disc(6, 6, 3)), *latents(0, 1), stamp=stamp).tolist() for stamp in stamps]
    assert ids[-1] == ids[-4]
    assert tracker.resets <= 3


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


# Slots as real networks make them: shared, handed on, and come and gone ----------------------------


def shares(mask: np.ndarray, *parts: float) -> np.ndarray:
    """Masks [1 + n, SIZE, SIZE]: the rest, then one object shared out among n slots."""
    return np.stack([1 - mask * sum(parts), *(mask * part for part in parts)])


@given(st.integers(4, 20), st.booleans())
def test_an_object_handed_from_slot_to_slot_keeps_its_id(steps, spatially):
    """One slot fades out while another fades in, everywhere at once or from the left to the right."""
    tracker, mask = Tracker(), disc(12, 12, 5)
    left_of = np.arange(SIZE)[None, :]
    owners = []
    for step in range(-3, steps + 4):
        share = np.clip(step / steps, 0, 1)
        second = (left_of < 6 + 12 * share).astype(float) if spatially else np.full((1, SIZE), share)
        masks = np.stack([1 - mask, mask * (1 - second), mask * second])
        ids = tracker.update(masks, *latents(0, 1, 2), stamp=0.1 * (step + 3))
        owners.append([int(k) for k in np.flatnonzero(ids == 1)])
        assert ids.max() <= 1  # nothing new has come
    assert owners[0] == [1]
    assert owners[-1] == [2]
    assert all(len(owner) == 1 for owner in owners)


def passing(step: int, steps: int, radii: tuple[float, float], softness: float) -> tuple[np.ndarray, ...]:
    """Masks and latents of two discs that pass each other, in slots for what is on the left and on the right."""
    way = 10 * np.clip(step / steps, 0, 1)
    rest, *objects = scene(disc(7 + way, 10, radii[0]), disc(17 - way, 14, radii[1]))
    right = np.tile(1 / (1 + np.exp((12 - np.arange(SIZE)) / softness)), (SIZE, 1))
    sides = [sum(objects) * side for side in (1 - right, right)]
    mean, log_sigma = latents(0, 1, 2)
    held = np.array([[(side * thing).sum() for thing in objects] for side in sides])
    mean[1:] = held / held.sum(1, keepdims=True) @ mean[1:]  # latents follow what is in the slot
    return np.stack([rest, *sides]), mean, log_sigma


@pytest.mark.parametrize(("options", "kept"), [({}, True), ({"contest": 0.0, "mask_memory": 0.2}, False)])
@pytest.mark.parametrize(("steps", "radii", "softness"), [(4, (4.0, 3.0), 0.3), (6, (3.0, 3.0), 2.0)])
def test_objects_that_swap_slots_as_they_pass_keep_their_ids(steps, radii, softness, options, kept):
    tracker, ids = Tracker(TrackerSettings(**options)), []
    for step in range(-5, steps + 5):
        found = tracker.update(*passing(step, steps, radii, softness), stamp=0.1 * (step + 5))
        ids.append(found[1:].tolist())
    assert ids[4] == [1, 2]
    assert (ids[-1] == [2, 1]) is kept


def test_objects_of_the_clip_keep_their_ids_as_they_change_slots():
    """In its first three seconds each of two objects goes through other slots, with the shipped network."""
    decomposer, tracker, ids = Decomposer(device="cpu", threads=1), Tracker(), []
    for frame in itertools.islice(read_frames(DEMO_CLIP), 31):
        seen = decomposer(frame.image)
        assert frame.labels is not None
        true, _ = label_masks(frame.labels, len(seen.masks[0]))
        slots = mask_overlap(true[FIRST_OBJECT:], seen.masks).argmax(axis=1)
        found = tracker.update(seen.masks, seen.latent_mean, seen.latent_log_sigma, frame.stamp)
        ids.append((slots.tolist(), found[slots].tolist()))
    (slots_before, before), (slots_after, after) = ids[10], ids[-1]
    assert slots_before != slots_after
    assert NO_TRACK not in before
    assert before == after


@given(st.floats(0.55, 0.7), st.integers(1, 15))
def test_a_fragment_has_no_id_and_takes_none(share, frames):
    tracker, mask = Tracker(), disc(12, 12, 5)
    tracker.update(shares(mask, 1.0, 0.0), *latents(0, 1, 2), stamp=0.0)
    for frame in range(1, frames):
        larger, smaller = (1, 2) if frame % 2 else (2, 1)  # they take turns
        masks = shares(mask, share, 1 - share) if larger == 1 else shares(mask, 1 - share, share)
        ids = tracker.update(masks, *latents(0, 1, 2), stamp=0.1 * frame)
        assert ids[larger] == 1
        assert ids[smaller] == NO_TRACK


@pytest.mark.parametrize(("fragment_time", "second"), [(0.5, 2), (5.0, NO_TRACK)])
def test_a_part_that_stays_becomes_an_object_of_its_own(fragment_time, second):
    tracker, mask = Tracker(TrackerSettings(fragment_time=fragment_time)), disc(12, 12, 5)
    halves = np.where(np.arange(SIZE)[None, :] < 13, mask, 0)
    frames = [shares(mask, 1.0, 0.0)] * 3 + [np.stack([1 - mask, halves, mask - halves])] * 10
    for step, masks in enumerate(frames):
        ids = tracker.update(masks, *latents(0, 1, 2), stamp=0.1 * step)
    assert ids.tolist() == [0, 1, second]


@given(st.integers(1, 6), st.integers(1, 10))
def test_what_is_new_gets_an_id_once_it_has_lasted(min_sightings, frames):
    tracker = Tracker(TrackerSettings(min_sightings=min_sightings))
    for step in range(3):
        tracker.update(scene(), *latents(0), stamp=0.1 * step)
    for step in range(frames):
        ids = tracker.update(scene(disc(8, 8, 4)), *latents(0, 1), stamp=0.3 + 0.1 * step)
    assert ids.tolist() == [0, 1 if frames >= min_sightings else NO_TRACK]


def test_what_flickers_never_gets_an_id():
    tracker = Tracker()
    tracker.update(scene(), *latents(0), stamp=0.0)
    for step in range(1, 30):
        there = step % 3 > 0
        frame = (scene(disc(8, 8, 4)), *latents(0, 1)) if there else (scene(), *latents(0))
        assert tracker.update(*frame, stamp=0.1 * step).tolist() == [0, NO_TRACK][: 1 + there]
    assert [track.track_id for track in tracker.tracks if track.confirmed] == [0]


@pytest.mark.parametrize(("min_ownership", "expected"), [(0.3, [0, NO_TRACK]), (0.0, [0, 1])])
def test_a_slot_that_lies_on_what_others_own_is_empty(min_ownership, expected):
    mask = np.zeros((SIZE, SIZE))
    mask[:, :8] = 0.45  # the rest of it is another slot's
    mask[4:8, 14:18] = 1.0
    tracker = Tracker(TrackerSettings(min_ownership=min_ownership))
    ids = tracker.update(np.stack([1 - mask, mask]), *latents(0, 1), stamp=0.0)
    assert ids.tolist() == expected


def test_an_object_does_not_take_over_another_by_its_latent():
    """The slot of an object that has gone turns to half of another: same latent, but on that object's pixels."""
    tracker, big = Tracker(), disc(16, 12, 6)
    mean, log_sigma = latents(0, 1, 2)
    for step in range(5):
        tracker.update(scene(disc(4, 4, 3), big), mean, log_sigma, stamp=0.1 * step)
    right = np.where(np.arange(SIZE)[None, :] > 17, big, 0)
    ids = tracker.update(np.stack([1 - big, right, big - right]), mean, log_sigma, stamp=0.5)
    assert ids.tolist() == [0, NO_TRACK, 1]  # ids in the order of strength: the big one is 1


@given(seeds)
def test_pixels_are_owned_by_one_slot_each(seed):
    masks = random_frame(seed)[0]
    owned = owned_pixels(masks)
    assert set(np.unique(owned)) <= {0.0, 1.0}
    np.testing.assert_array_equal(owned.sum(0), 1)
    ownership = mask_ownership(masks, owned)
    assert ((ownership >= 0) & (ownership <= 1 + 1e-6)).all()


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_crisp_masks_own_what_they_hold(slots):
    labels = np.arange(SIZE)[:, None] * slots // SIZE + np.zeros((1, SIZE), int)
    masks = (labels == np.arange(slots)[:, None, None]).astype(np.float32)
    np.testing.assert_array_equal(owned_pixels(masks), masks)
    np.testing.assert_allclose(mask_ownership(masks, masks), 1)


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda m, a, s: (m[0], a, s), r"masks must be \[K, H, W\]"),
        (lambda m, a, s: (m[:0], a[:0], s[:0]), r"K >= 1"),
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


def test_settings_change_between_two_frames_or_are_refused_and_stay():
    tracker = Tracker()
    frame = (scene(disc(6, 6, 3)), *latents(0, 1))
    assert tracker.update(*frame, stamp=0.0).tolist() == [0, 1]
    tracker.settings = replace(tracker.settings, min_area=0.5)
    assert tracker.update(*frame, stamp=0.1).tolist() == [0, NO_TRACK]
    with pytest.raises(ValueError, match="min_area must be at least 0, is -1"):
        tracker.settings = replace(tracker.settings, min_area=-1)
    assert tracker.update(*frame, stamp=0.2).tolist() == [0, NO_TRACK]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_absence": -1},
        {"max_distance": 2},
        {"overlap_memory": 0},
        {"min_area": np.nan},
        {"min_ownership": 1.1},
        {"min_sightings": 0},
        {"mask_memory": 0},
        {"contest": 1.1},
        {"fragment_share": -0.1},
        {"fragment_time": -1},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackerSettings(**wrong)
