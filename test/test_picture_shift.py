"""How far a picture moved: found again, or said not to be known."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monet_perception.picture_shift import NO_SHIFT, PictureShift


def scenery(seed: int, size: int) -> np.ndarray:
    """A smooth random picture, uint8 [size, size, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


@given(st.integers(0, 2**32 - 1), st.integers(-16, 16), st.integers(-16, 16))
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
