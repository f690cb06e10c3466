"""Whether the objects of a labelled frame were told apart: each in a slot of its own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from monet_perception.region import Region

FIRST_OBJECT = 4
"""Labels below are background (sky, floor, two halves of the wall)."""
VISIBLE = 0.003
"""Share of the region's pixels from which on an object counts as visible: twelve pixels of 64x64."""
OWN_SLOT = 0.5
"""Intersection over union with its slot from which on an object has that slot to itself."""


def separated(masks: NDArray[np.floating], roi: Region, labels: NDArray[np.uint8]) -> tuple[int, int]:
    """Objects that have a slot of their own, and objects that are visible.

    Each object is given a slot, and no slot to two objects, at the largest sum of intersections over unions.

    Args:
        masks: [K, H, W].
        roi: source pixels that the masks cover.
        labels: [h, w], the source image's.
    """
    size = masks.shape[2], masks.shape[1]
    truth = cv2.resize(roi.cut(labels), size, interpolation=cv2.INTER_NEAREST_EXACT)
    objects = [label for label in np.unique(truth) if label >= FIRST_OBJECT and (truth == label).mean() >= VISIBLE]
    if not objects:
        return 0, 0
    owner = masks.argmax(axis=0)
    overlap = np.array([[_iou(truth == label, owner == slot) for slot in range(len(masks))] for label in objects])
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return int((overlap[rows, columns] >= OWN_SLOT).sum()), len(objects)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0
