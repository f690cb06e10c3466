"""What a slot holds, read off its mask alone: nothing, an object, or background."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.floating]

MIN_AREA = 0.002
"""Smallest mean of a mask that holds something: eight pixels of a 64x64 mask."""
MIN_CONFIDENCE = 0.3
"""Smallest confidence of a mask that holds something; a mask spread thinly over the image owns no pixel."""
DITHER = 0.7
"""Standard deviation, in mask pixels, of the smoothing before pixels are given to slots: where two slots share an
object, their masks alternate from pixel to pixel, a checkerboard that the network's upsampling leaves."""
BACKGROUND_BORDER = 0.12
"""Share of the image's border from which on a slot is background: walls and floors are cut off by the image's edge,
most objects aren't. An object has to cover half the width of the image *at its edge* to be taken for background."""
BACKGROUND_AREA = 0.3
"""Share of the image from which on a slot is background."""


def mask_area(masks: Masks) -> NDArray[np.float64]:
    """Mean of each mask: the share of the image it explains, [K] in [0, 1]; sums to one where the masks do.

    Args:
        masks: [K, H, W] in [0, 1].
    """
    return masks.mean(axis=(1, 2)).astype(np.float64)


def mask_confidence(masks: Masks) -> NDArray[np.float64]:
    """Mean of each mask over its own support, sum(m^2) / sum(m), [K] in [0, 1]; 1 for a crisp mask, 0 for an empty one.

    Args:
        masks: [K, H, W] in [0, 1].
    """
    flat = masks.reshape(len(masks), -1)
    total = flat.sum(axis=1).astype(np.float64)
    squares = np.einsum("kp,kp->k", flat, flat).astype(np.float64)
    return np.divide(squares, total, out=np.zeros_like(total), where=total > 0)


def owned_pixels(masks: Masks) -> NDArray[np.float32]:
    """Which pixels each slot owns: those where its mask, smoothed by `DITHER`, is the largest; a partition, 0 or 1.

    Args:
        masks: [K, H, W] in [0, 1].
    Returns:
        [K, H, W].
    """
    planes = np.ascontiguousarray(np.moveaxis(masks, 0, -1), np.float32)
    smooth = cv2.GaussianBlur(planes, (0, 0), DITHER, borderType=cv2.BORDER_REPLICATE).reshape(planes.shape)
    return (smooth.argmax(axis=-1) == np.arange(len(masks))[:, None, None]).astype(np.float32)


def mask_ownership(masks: Masks, owned: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of each mask that lies on pixels which its slot owns, [K] in [0, 1]; 0 for an empty one.

    Near one for a slot that holds something alone, low for one that lies thinly over what another slot holds.

    Args:
        masks: [K, H, W] in [0, 1].
        owned: their `owned_pixels`.
    """
    total = masks.sum(axis=(1, 2)).astype(np.float64)
    own = np.einsum("khw,khw->k", masks, owned).astype(np.float64)
    return np.divide(own, total, out=np.zeros_like(total), where=total > 0)


def occupied_slots(masks: Masks) -> NDArray[np.bool_]:
    """Slots that hold something, bool [K]: at least `MIN_AREA` of the image, at a confidence of `MIN_CONFIDENCE`.

    Args:
        masks: [K, H, W] in [0, 1].
    """
    return (mask_area(masks) >= MIN_AREA) & (mask_confidence(masks) >= MIN_CONFIDENCE)


def border_share(masks: Masks) -> NDArray[np.float64]:
    """Mean of each mask over the image's outermost pixels, [K] in [0, 1].

    Args:
        masks: [K, H, W] in [0, 1], at least 2x2 pixels.
    """
    rows = masks[:, [0, -1], :].sum(axis=(1, 2), dtype=np.float64)
    columns = masks[:, 1:-1, [0, -1]].sum(axis=(1, 2), dtype=np.float64)
    return (rows + columns) / (2 * masks.shape[2] + 2 * (masks.shape[1] - 2))


def background_slots(masks: Masks) -> NDArray[np.bool_]:
    """Slots that hold background (walls, floor, sky), bool [K]: large, or on much of the image's border.

    A rule about images, not about classes: an object so close that it fills the view counts as background until the
    camera backs off.

    Args:
        masks: [K, H, W] in [0, 1], at least 2x2 pixels.
    """
    large = (mask_area(masks) >= BACKGROUND_AREA) | (border_share(masks) >= BACKGROUND_BORDER)
    return large & occupied_slots(masks)
