"""Supervised loss of instance masks whose slots are free: each true mask is matched to the slot that fits it best."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

IGNORED = -1
SMALLEST_AREA = 20
"""Pixels below which an object's extra weight falls with its area: a speck of a few pixels teaches nothing."""


def instance_targets(labels: Tensor, background_labels: int, one_background: bool) -> Tensor:
    """Labels [B, H, W] as target numbers, int64: backgrounds first, then the objects.

    With `one_background` every background label becomes target 0 and the objects follow from 1; without, the labels
    are targets as they are.
    """
    labels = labels.long()
    return (labels - (background_labels - 1)).clamp(min=0) if one_background else labels


def matching_cost(log_masks: Tensor, targets: Tensor, dice_weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """What each slot would cost each target, and the targets' areas.

    The cost is the cross entropy in nats per pixel of the target plus `dice_weight` times the Dice loss
    1 - 2 |target and mask| / (|target| + |mask|) (Milletari et al. 2016), which also counts what lies outside.

    Args:
        log_masks: [B, K, H, W].
        targets: [B, H, W] int64.
        dice_weight: Of the Dice loss.
    Returns:
        Costs [B, T, K] float32 and areas [B, T] float32 in pixels, for T the highest target + 1.
    """
    one_hot = F.one_hot(targets.flatten(1)).float().transpose(1, 2)
    area = one_hot.sum(dim=2)
    with torch.autocast(log_masks.device.type, enabled=False):  # bf16 can't add up thousands of pixels
        log_masks = log_masks.detach().float().flatten(2)
        cost = -(one_hot @ log_masks.transpose(1, 2)) / area.clamp(min=1).unsqueeze(2)
        if dice_weight > 0:
            masks = log_masks.exp()
            total = area.unsqueeze(2) + masks.sum(dim=2).unsqueeze(1)
            cost = cost + dice_weight * (1 - 2 * (one_hot @ masks.transpose(1, 2)) / total)
    return cost, area


def assign_slots(cost: Tensor, present: Tensor, fixed: int) -> Tensor:
    """The slot of each target in each image, such that the sum of the costs is lowest.

    Args:
        cost: [B, T, K], of `matching_cost`.
        present: bool [B, T], the targets that an image shows.
        fixed: Targets below this number keep the slot of their own number.
    Returns:
        [B, T] int64 slots; `IGNORED` for a target that is absent, or for which no slot is left: of more targets than
        slots those that cost most are left out.
    """
    images, count, _ = cost.shape
    # One copy to the CPU for the whole batch. Where masks are not finite any assignment will do: the loss says so.
    costs, shown = np.nan_to_num(cost.cpu().numpy()), present.cpu().numpy()
    matched = torch.full((images, count), IGNORED)
    matched[:, :fixed] = torch.arange(min(fixed, count))
    for image in range(images):
        free = shown[image].nonzero()[0]
        free = free[free >= fixed]
        rows, columns = linear_sum_assignment(costs[image, free, fixed:])
        matched[image, free[rows]] = torch.from_numpy(columns + fixed)
    return matched.to(cost.device)


def matched_loss(
    log_masks: Tensor, targets: Tensor, matched: Tensor, area: Tensor, fixed: int, object_weight: float = 0.0
) -> Tensor:
    """Cross entropy of the matched slots, [B] float32 in nats per pixel.

    Args:
        log_masks: [B, K, H, W].
        targets: [B, H, W] int64.
        matched: [B, T], of `assign_slots`.
        area: [B, T] pixels, of `matching_cost`.
        fixed: Targets from this number on are objects.
        object_weight: Pixels that each object counts beside its own, shared among them, so that small objects are
            learnt too; fewer for an object of less than `SMALLEST_AREA` pixels.
    """
    flat = targets.flatten(1)
    slot = matched.gather(1, flat)
    log_likelihood = log_masks.float().flatten(2).gather(1, slot.clamp(min=0).unsqueeze(1)).squeeze(1)
    extra = object_weight / area.gather(1, flat).clamp(min=SMALLEST_AREA)
    weight = torch.where(flat >= fixed, 1 + extra, 1.0) * (slot != IGNORED)
    return -(weight * log_likelihood).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)
