"""Supervised loss of instance masks whose slots are free: each true mask is matched to the slot that fits it best."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

IGNORED = -1


def instance_targets(labels: Tensor, background_labels: int, one_background: bool) -> Tensor:
    """Labels [B, H, W] as target numbers, int64: backgrounds first, then the objects.

    With `one_background` every background label becomes target 0 and the objects follow from 1; without, the labels
    are targets as they are.
    """
    labels = labels.long()
    return (labels - (background_labels - 1)).clamp(min=0) if one_background else labels


def match_slots(log_masks: Tensor, targets: Tensor, fixed: int, balanced: bool = False) -> Tensor:
    """The slot of each target in each image, such that the sum of all log likelihoods is highest.

    Args:
        log_masks: [B, K, H, W].
        targets: [B, H, W] int64.
        fixed: Targets below this number keep the slot of their own number.
        balanced: Give each target the same weight, instead of each pixel.
    Returns:
        [B, T] int64 slots for T the highest target + 1; `IGNORED` for a target that is absent, or for which no slot
        is left: of more targets than slots those that cost least are left out.
    """
    slots = log_masks.shape[1]
    one_hot = torch.nn.functional.one_hot(targets.flatten(1), int(targets.max()) + 1).float()
    with torch.autocast(log_masks.device.type, enabled=False):  # bf16 can't add up thousands of pixels
        cost = -(one_hot.transpose(1, 2) @ log_masks.detach().float().flatten(2).transpose(1, 2))
    area = one_hot.sum(dim=1)
    if balanced:
        cost = cost / area.clamp(min=1).unsqueeze(2)
    # one copy to the CPU for the whole batch
    costs, present = cost.cpu().numpy(), (area > 0).cpu().numpy()
    matched = torch.full((len(targets), one_hot.shape[2]), IGNORED)
    matched[:, :fixed] = torch.arange(min(fixed, one_hot.shape[2]))
    for image in range(len(targets)):
        free = present[image].nonzero()[0]
        free = free[free >= fixed]
        rows, columns = linear_sum_assignment(costs[image, free, fixed:slots])
        matched[image, free[rows]] = torch.from_numpy(columns + fixed)
    return matched.to(log_masks.device)


def matched_loss(log_masks: Tensor, targets: Tensor, matched: Tensor, balanced: bool = False) -> Tensor:
    """Cross entropy of the matched slots, [B] float32 in nats per pixel (or per target, the mean over its pixels).

    Args:
        log_masks: [B, K, H, W].
        targets: [B, H, W] int64.
        matched: [B, T], of `match_slots`.
        balanced: The mean over an image's targets, so that a small object counts as much as a wall.
    """
    flat = targets.flatten(1)
    slot = matched.gather(1, flat)
    log_likelihood = log_masks.float().flatten(2).gather(1, slot.clamp(min=0).unsqueeze(1)).squeeze(1)
    weight = (slot != IGNORED).float()
    if balanced:
        area = torch.zeros(matched.shape, device=weight.device).scatter_add_(1, flat, weight)
        weight = weight / area.gather(1, flat).clamp(min=1)
    return -(weight * log_likelihood).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)
