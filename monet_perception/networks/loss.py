"""The loss of equation 4.7, its three terms apart, in float32 and log space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monet_perception.networks.config import MonetConfig
from monet_perception.networks.monet import MonetOutput


class MonetLoss(NamedTuple):
    """Per image [B], float32, in nats: the three terms without their weights, and `total` with them."""

    reconstruction: Tensor
    latent_kl: Tensor
    mask_kl: Tensor
    total: Tensor


def reconstruction_loss(
    output: MonetOutput, images: Tensor, sigma_background: float, sigma_foreground: float
) -> Tensor:
    """-log sum_k m_k p(x | z_k), summed over pixels: [B].

    p is a Gaussian of fixed scale over the three channels of a pixel together, because a pixel belongs to one slot and
    not its red to one and its blue to another.
    """
    sigma = images.new_full((output.log_masks.shape[1],), sigma_foreground, dtype=torch.float32)
    sigma[0] = sigma_background
    squared_error = (output.reconstructions - images.float().unsqueeze(1)).square().sum(dim=2)
    log_normaliser = 3.0 * (sigma.log() + 0.5 * math.log(2.0 * math.pi))
    log_likelihood = -squared_error / (2.0 * sigma.square()).view(1, -1, 1, 1) - log_normaliser.view(1, -1, 1, 1)
    return -torch.logsumexp(output.log_masks + log_likelihood, dim=1).sum(dim=(1, 2))


def kl_per_latent(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(q(z_k | x, m_k) || N(0, 1)) of each latent, in nats: [B, K, L] from [B, K, L]."""
    return 0.5 * (mean.square() + (2.0 * log_sigma).exp() - 1.0) - log_sigma


def mask_kl(log_masks: Tensor, mask_logits: Tensor) -> Tensor:
    """KL(attention mask || decoded mask), summed over slots and pixels: [B] from [B, K, H, W]."""
    difference = log_masks - F.log_softmax(mask_logits, dim=1)
    return (log_masks.exp() * difference).sum(dim=(1, 2, 3))


def monet_loss(
    output: MonetOutput,
    images: Tensor,
    config: MonetConfig,
    beta: float = 0.5,
    gamma: float = 0.5,
    sigma_scale: float = 1.0,
) -> MonetLoss:
    """Equation 4.7.

    Args:
        output: of `Monet.forward`.
        images: [B, 3, H, W] in [0, 1].
        config: for the likelihood's scales.
        beta: weight of the latent KL.
        gamma: weight of the mask KL.
        sigma_scale: factor on both scales.
    """
    sigmas = config.sigma_background * sigma_scale, config.sigma_foreground * sigma_scale
    with torch.autocast(device_type=images.device.type, enabled=False):
        reconstruction = reconstruction_loss(output, images, *sigmas)
        latent = kl_per_latent(output.latent_mean, output.latent_log_sigma).sum(dim=(1, 2))
        mask = mask_kl(output.log_masks, output.mask_logits)
        return MonetLoss(reconstruction, latent, mask, reconstruction + beta * latent + gamma * mask)
