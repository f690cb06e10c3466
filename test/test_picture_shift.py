"""How far a picture moved: found again, or said not to be known, and what tracks make of it."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monet_perception.labels import FIRST_OBJECT_LABEL, label_scene
from monet_perception.picture_shift import NO_SHIFT, PictureShift
from monet_perception.scene_tracker import SceneTracker
from monet_perception.tracking import Tracker


def scenery(seed: int, size: int) -> np.ndarray:
    """A smooth random picture, uint8 [size, size, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


@given(st.integers(0, 2**32 - 1), st.integers(-12, 12), st.integers(-12, 12))
def test_a_shift_is_found(seed, right, down):
    wide = scenery(seed, 128)
    before, after = (wide[32 - y : 96 - y, 32 - x : 96 - x] for x, y in ((0, 0), (right, down)))
    shift = PictureShift()
    assert shift.update(before) == NO_SHIFT
    assert shift.update(after) == pytest.approx((right, down), abs=1.5)


@pytest.mark.parametrize("seed", range(5))
def test_pictures_that_have_nothing_in_common_have_not_moved(seed):
    shift = PictureShift()
    shift.update(scenery(seed, 64))
    assert shift.update(scenery(seed + 100, 64)) == NO_SHIFT


def test_what_cannot_be_compared_has_not_moved():
    shift = PictureShift()
    for level in (0, 0, 90, 255):
        assert shift.update(np.full((64, 64, 3), level, np.uint8)) == NO_SHIFT
    assert shift.update(scenery(0, 32)) == NO_SHIFT, "another network's size"
    assert shift.update(scenery(0, 64)) == NO_SHIFT


def test_alike_objects_keep_their_tracks_while_the_camera_turns():
    """Two objects side by side, and in every picture each is where the other one was before."""
    image, labels = scenery(3, 128)[:64], np.zeros((64, 128), np.uint8)
    labels[26:38, 60:72], labels[26:38, 80:92] = FIRST_OBJECT_LABEL, FIRST_OBJECT_LABEL + 1
    told, untold, tracks, without = SceneTracker(), Tracker(), [], []
    for step in range(9):
        left = 20 + 20 * max(0, step - 6)
        scene = label_scene(image[:, left : left + 64], labels[:, left : left + 64])
        tracks.append(told.follow(scene, 0.1 * step)[-2:].tolist())
        found = untold.update(scene.masks, scene.latent_mean, scene.latent_log_sigma, 0.1 * step)
        without.append(found[-2:].tolist())
    assert tracks[5:] == 4 * [tracks[5]]
    assert without[5:] != 4 * [without[5]]
