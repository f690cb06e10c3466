"""Scores of segmentation, and the error of reconstruction, each by its published definition, batched and exact.

Everything is counted once, in a contingency table of true labels against predicted slots, and every score is read off
that table. What is foreground is said by one number, the store's `background_labels`: labels below it are background
(Objects Room: 4, for sky, floor and two walls; CLEVR: 1), labels from it on are one object each. 0 makes everything
foreground.

- An object without a visible pixel does not exist here: it is counted nowhere. `min_pixels` raises that bar; objects
  below it are taken out of the foreground (their pixels are then scored as background is, that is, not at all).
- An image without foreground has no foreground score: NaN, left out of every mean.
- An image with one object has an ARI of one when a single slot holds all its pixels, and of zero as soon as one pixel
  strays (Hubert and Arabie's chance correction): read results by number of objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageScores:
    """Scores of each image of a batch, float64 [B]; NaN where an image has none.

    Attributes:
        ari: adjusted Rand index over foreground pixels (thesis, section 5.2; Greff et al. 2019), in [-0.5, 1].
        ari_all: adjusted Rand index over all pixels, each background label a cluster of its own (Hubert, Arabie 1985).
        msc: mean segmentation covering, each object with the same weight (thesis, section 5.2; Engelcke et al. 2020).
        covering: segmentation covering, objects weighted by their area (Arbelaez et al. 2011, over the foreground).
        best_overlap: sum over the objects of the best IoU: mBO is its sum over images divided by that of `objects`.
        objects: int64 [B], number of foreground objects with at least `min_pixels` visible pixels.
    """

    ari: Tensor
    ari_all: Tensor
    msc: Tensor
    covering: Tensor
    best_overlap: Tensor
    objects: Tensor


def image_scores(labels: Tensor, predicted: Tensor, background_labels: int, min_pixels: int = 1) -> ImageScores:
    """Every segmentation score of every image, from one contingency table.

    Args:
        labels: [B, H, W] integer, true labels.
        predicted: [B, H, W] integer, the slot that owns each pixel (the argmax of the masks).
        background_labels: labels below this one are background.
        min_pixels: visible pixels that an object needs in order to count.
    Raises:
        ValueError: shapes differ, or a tensor is not of integers, or holds negative numbers.
    """
    table = _contingency(labels, predicted)
    area = table.sum(dim=2)
    foreground = (area >= max(min_pixels, 1)) & (torch.arange(area.shape[1], device=area.device) >= background_labels)
    best = _overlaps(table).amax(dim=2)
    objects = foreground.sum(dim=1)
    weights = area * foreground
    best_sum = (best * foreground).sum(dim=1)
    return ImageScores(
        ari=_rand_index(table * foreground[:, :, None]),
        ari_all=_rand_index(table),
        msc=best_sum / objects,  # 0 / 0 = NaN where there are no objects, as documented
        covering=(best * weights).sum(dim=1) / weights.sum(dim=1),
        best_overlap=best_sum,
        objects=objects,
    )


def mean_squared_error(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean over channels and pixels of the squared difference (thesis, section 5.2): [B, ...] twice -> [B] float64.

    Both in [0, 1]; uint8 images are divided by 255.

    Raises:
        ValueError: shapes differ.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} differ")
    difference = _unit_range(images) - _unit_range(reconstructions)
    return difference.flatten(1).square().mean(dim=1)


def _unit_range(images: Tensor) -> Tensor:
    return images.to(torch.float64) / 255 if images.dtype == torch.uint8 else images.to(torch.float64)


def _contingency(labels: Tensor, predicted: Tensor) -> Tensor:
    """Pixels of each image with true label g and slot p: [B, G, P] int64."""
    if labels.shape != predicted.shape or labels.ndim < 2:
        raise ValueError(f"labels {tuple(labels.shape)} and predicted {tuple(predicted.shape)} must both be [B, H, W]")
    for name, tensor in (("labels", labels), ("predicted", predicted)):
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise ValueError(f"{name} must hold integers, not {tensor.dtype}: take the argmax of the masks over slots")
        if tensor.numel() and int(tensor.min()) < 0:
            raise ValueError(f"{name} holds negative numbers")
    batch = labels.shape[0]
    true, slot = labels.flatten(1).long(), predicted.flatten(1).long()
    n_true = int(true.max()) + 1 if true.numel() else 1
    n_slot = int(slot.max()) + 1 if slot.numel() else 1
    table = torch.zeros(batch, n_true * n_slot, dtype=torch.int64, device=labels.device)
    table.scatter_add_(1, true * n_slot + slot, torch.ones_like(true))
    return table.view(batch, n_true, n_slot)


def _overlaps(table: Tensor) -> Tensor:
    """IoU of every true region with every slot: [B, G, P] float64; absent ones overlap nothing."""
    union = table.sum(dim=2, keepdim=True) + table.sum(dim=1, keepdim=True) - table
    return table.double() / union.clamp(min=1)


def _rand_index(table: Tensor) -> Tensor:
    """Adjusted Rand index of each table: [B, G, P] -> [B] float64, NaN for an empty table.

    Of whole batches, where they are: scikit-learn's `adjusted_rand_score` takes one image at a time, on the CPU. Counts
    of ordered pairs (as its `pair_confusion_matrix`) are exact integers below 2^53 up to images of 9,000 x 9,000
    pixels; only their products round.
    """
    points = table.sum(dim=(1, 2))
    same_both = table.square().sum(dim=(1, 2)) - points
    same_true = table.sum(dim=2).square().sum(dim=1) - points
    same_slot = table.sum(dim=1).square().sum(dim=1) - points
    both, only_true, only_slot = (t.double() for t in (same_both, same_true - same_both, same_slot - same_both))
    neither = (points * (points - 1)).double() - both - only_true - only_slot
    numerator = 2 * (both * neither - only_true * only_slot)
    denominator = (both + only_true) * (only_true + neither) + (both + only_slot) * (only_slot + neither)
    index = torch.where((only_true == 0) & (only_slot == 0), 1.0, numerator / denominator)
    return torch.where(points > 0, index, torch.nan)
