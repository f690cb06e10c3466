"""Pictures of slots over their source image, and the colours of tracks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monet_perception.overlay import TINT, draw_overlay, label_image
from monet_perception.palette import track_colours
from monet_perception.region import Region

HEIGHT, WIDTH = 50, 80
ROI = Region(20, 5, 40, 30)
MASKS = np.zeros((3, 8, 8), np.float32)
"""Slot 0 has the left half, slot 1 the upper and slot 2 the lower quarter on the right."""
MASKS[0, :, :4] = MASKS[1, :4, 4:] = MASKS[2, 4:, 4:] = 1


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 30), st.integers(0, 30))
def test_a_region_cuts_its_pixels_out_of_an_image_and_nothing_else(x, y, width, height):
    rows, columns = np.mgrid[:12, :16]
    inside = (rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)
    cut = Region(x, y, width, height).cut(np.arange(12 * 16).reshape(12, 16))
    np.testing.assert_array_equal(cut.ravel(), np.flatnonzero(inside))


def test_labels_lie_on_their_source_pixels():
    expected = np.full((HEIGHT, WIDTH), 3)  # three slots: the label of what is outside is 3
    expected[5:35, 20:40], expected[5:20, 40:60], expected[20:35, 40:60] = 0, 1, 2
    np.testing.assert_array_equal(label_image(MASKS, ROI, HEIGHT, WIDTH), expected)


def test_the_overlay_tints_tracked_slots_only_and_nothing_outside():
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    overlay = draw_overlay(image, MASKS, [-1, 5, 2], ROI)
    assert overlay.shape == image.shape
    inside = np.zeros((HEIGHT, WIDTH), bool)
    ROI.cut(inside)[:] = True
    assert (overlay[~inside] == 100).all()
    assert (overlay[5:35, 20:38] == 100).all()
    assert (overlay[5:35, 42:60] != 100).any(axis=-1).all()
    for row, track in ((5, 5), (34, 2)):  # corners, away from outlines and numbers
        tinted = (1 - TINT) * 100 + TINT * track_colours(track)[0]
        np.testing.assert_allclose(overlay[row, 59], tinted, atol=1)
    assert (image == 100).all(), "the source image was drawn on"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(64, 200))
def test_overlays_of_any_size(height, width, longest):
    image = np.zeros((height, width, 3), np.uint8)
    side = min(height, width)
    overlay = draw_overlay(image, MASKS, [0, 1, 2], Region(0, 0, side, side), longest_side=longest)
    assert max(overlay.shape[:2]) == min(longest, max(height, width))


@pytest.mark.parametrize("first", [0, 7, 100])
def test_tracks_that_follow_each_other_have_colours_that_differ(first):
    colours = track_colours(range(first, first + 12)).astype(int)
    apart = np.abs(colours[:, None] - colours).max(axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 20
    assert (track_colours(-1) == 128).all()
