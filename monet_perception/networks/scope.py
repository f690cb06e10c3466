"""From logits to masks that sum to one: the scope recursion of MONet, step by step or all at once, and a softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_sigmoid(logits: Tensor) -> Tensor:
    """log(sigmoid(x)), finite wherever x is.

    Not torch's logsigmoid: that one is exported to ONNX as Log(Sigmoid(x)), which is -inf from logits of -20 down,
    while softplus has an operator of its own.
    """
    return -F.softplus(-logits)


def scope_step(log_scope: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    """One slot takes its share of the scope (equations 4.4 to 4.6).

    Args:
        log_scope: log s_{k-1}, [B, 1, H, W], float32.
        logit: alpha_k, [B, 1, H, W], any range.
    Returns:
        log m_k and log s_k, both float32 like `log_scope`.
    """
    logit = logit.float()  # bf16 keeps three digits: a scope near one would lose its remainder
    # log(1 - sigmoid(a)) = log_sigmoid(-a) = -a + log_sigmoid(a), the form of equation 4.6, without its cancellation
    return log_scope + log_sigmoid(logit), log_scope + log_sigmoid(-logit)


def stick_breaking(logits: Tensor) -> Tensor:
    """Masks from K independent sigmoids (equations 4.2 to 4.6).

    Slot k takes its share of what slots 0..k-1 left over; the last slot takes the rest, so its logit is not used.

    Args:
        logits: [B, K, H, W], any range.
    Returns:
        Log masks [B, K, H, W] in float32; their exponentials sum to one over K.
    """
    alpha = logits[:, :-1].float()  # bf16 keeps three digits: a scope near one would lose its remainder
    log_scope = log_sigmoid(-alpha).cumsum(dim=1)
    log_scope = F.pad(log_scope, (0, 0, 0, 0, 1, 0))
    return torch.cat([log_scope[:, :-1] + log_sigmoid(alpha), log_scope[:, -1:]], dim=1)


def softmax_masks(logits: Tensor) -> Tensor:
    """Masks by a softmax over slots, the common alternative to `stick_breaking`.

    Args:
        logits: [B, K, H, W], any range.
    Returns:
        Log masks [B, K, H, W] in float32; their exponentials sum to one over K.
    """
    return F.log_softmax(logits.float(), dim=1)
