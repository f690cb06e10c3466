"""One colour for one track or label, the same in overlay, markers, cloud and plots."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN_RATIO = 0.618033988749895


def track_colours(track_ids: ArrayLike) -> NDArray[np.uint8]:
    """RGB of each track id, uint8 [N, 3]; grey for -1 (no track).

    Steps of the golden ratio around the hue circle put successive ids far apart; three brightnesses tell neighbours
    apart once the circle has been walked.
    """
    return np.array([_colour(int(track)) for track in np.atleast_1d(track_ids)], np.uint8).reshape(-1, 3)


def label_colours() -> NDArray[np.uint8]:
    """RGB of each label, uint8 [256, 3]: black for 0, the colours of tracks for the others."""
    return np.concatenate([np.zeros((1, 3), np.uint8), track_colours(range(255))])


def _colour(track: int) -> tuple[int, int, int]:
    if track < 0:
        return 128, 128, 128
    rgb = colorsys.hsv_to_rgb((0.05 + track * _GOLDEN_RATIO) % 1.0, 0.75, (0.95, 0.75, 0.85)[track % 3])
    return tuple(round(255 * channel) for channel in rgb)  # type: ignore[return-value]
