"""True labels beside slots or in their place: brought to the masks' size, and which slot holds which object."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from monet_perception.decomposition import Decomposition
from monet_perception.region import Region, centre_square, resize, resize_map
from monet_perception.similarity import mask_overlap

FIRST_OBJECT_LABEL = 4
"""Labels below are background: sky, floor, wall and wall in rendered rooms."""
VISIBLE = 0.003
"""Share of the region's pixels from which on an object counts as visible: twelve pixels of 64x64."""
OWN_SLOT = 0.5
"""Intersection over union with its slot from which on an object has that slot to itself."""


def fit_labels(labels: NDArray[np.uint8], roi: Region, height: int, width: int) -> NDArray[np.uint8]:
    """The labels at the pixels of the masks, uint8 [height, width]; the nearest, so that no label is invented.

    Args:
        labels: [h, w], the source image's.
        roi: source pixels that the masks cover.
        height, width: of the masks.
    """
    return resize_map(roi.cut(labels), height, width)


def label_masks(labels: NDArray[np.uint8], size: int) -> tuple[NDArray[np.float32], Region]:
    """Recorded labels as slots, in place of a network's: soft where a mask's pixel covers several labels.

    Args:
        labels: [h, w] at source resolution.
        size: H = W of the masks.
    Returns:
        Masks [K, size, size] over the centre square, summing to one over K; slot k holds label k, K is the highest
        label plus one. And the source pixels that they cover.
    """
    roi = centre_square(*labels.shape)
    cut = roi.cut(labels)
    planes = [
        cv2.resize((cut == label).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        for label in range(int(labels.max()) + 1)
    ]
    return np.stack(planes), roi


def label_scene(image: NDArray[np.uint8], labels: NDArray[np.uint8], size: int = 64) -> Decomposition:
    """Recorded labels in place of what a network finds; their latents are the prior, which says nothing.

    Args:
        image: [h, w, 3] RGB.
        labels: [h, w], its labels.
        size: H = W of the masks.
    """
    masks, roi = label_masks(labels, size)
    prior = np.zeros((len(masks), 1), np.float32)
    height, width = labels.shape
    return Decomposition(masks, prior, prior, roi, height, width, resize(image, roi, size))


def match_objects(
    labels: NDArray[np.uint8], owner: NDArray[np.integer], first_object: int, *, min_iou: float, min_share: float = 0.0
) -> tuple[list[tuple[int, int]], int]:
    """Pairs objects with slots, one to one, so that the sum of their intersections over unions is largest.

    Args:
        labels: [H, W], at the masks' size.
        owner: [H, W], the slot that owns each pixel.
        first_object: labels below it are background.
        min_iou: pairs below it are left out, and those that share no pixel.
        min_share: share of the pixels from which on an object is visible; others are not looked at.
    Returns:
        Label and slot of every pair, and the number of visible objects.
    """
    present, pixels = np.unique(labels, return_counts=True)
    objects = present[(present >= first_object) & (pixels / labels.size >= min_share)]
    if not len(objects):
        return [], 0
    slots = np.arange(owner.max() + 1)
    iou = mask_overlap(labels == objects[:, None, None], owner == slots[:, None, None])
    rows, columns = linear_sum_assignment(iou, maximize=True)
    found = (iou[rows, columns] >= min_iou) & (iou[rows, columns] > 0)
    return list(zip(objects[rows[found]].tolist(), columns[found].tolist(), strict=True)), len(objects)


def separated(masks: NDArray[np.floating], roi: Region, labels: NDArray[np.uint8]) -> tuple[int, int]:
    """Objects that have a slot of their own, and objects that are visible.

    Args:
        masks: [K, H, W].
        roi: source pixels that the masks cover.
        labels: [h, w], the source image's; objects from `FIRST_OBJECT_LABEL` on.
    """
    truth = fit_labels(labels, roi, *masks.shape[1:])
    owner = masks.argmax(axis=0)
    pairs, visible = match_objects(truth, owner, FIRST_OBJECT_LABEL, min_iou=OWN_SLOT, min_share=VISIBLE)
    return len(pairs), visible
