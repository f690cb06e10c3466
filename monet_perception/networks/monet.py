"""The whole network: attention finds the slots, the component VAE describes and redraws each of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from monet_perception.networks.component_vae import ComponentVAE
from monet_perception.networks.config import MonetConfig
from monet_perception.networks.initialisation import initialise
from monet_perception.networks.segmentation import SegmentationAttention
from monet_perception.networks.unet import RecurrentAttention


def make_attention(config: MonetConfig) -> nn.Module:
    """The module that `config.attention` names: images [B, 3, H, W] in [0, 1] to log masks [B, K, H, W]."""
    if config.attention == "unet":
        return RecurrentAttention(config.slots, config.unet_channels, config.image_size)
    return SegmentationAttention(config)


class Encoding(NamedTuple):
    """What the network sees in an image.

    log_masks [B, K, H, W], latent_mean and latent_log_sigma [B, K, L], all float32.
    """

    log_masks: Tensor
    latent_mean: Tensor
    latent_log_sigma: Tensor


class Decoding(NamedTuple):
    """What latents look like.

    reconstructions [B, K, 3, H, W], the RGB means (not clamped: the likelihood is a Gaussian), and mask_logits
    [B, K, H, W], whose softmax over K gives the decoded masks; both float32.
    """

    reconstructions: Tensor
    mask_logits: Tensor


class MonetOutput(NamedTuple):
    """`Encoding` and `Decoding` of one pass, as the loss takes them."""

    log_masks: Tensor
    latent_mean: Tensor
    latent_log_sigma: Tensor
    reconstructions: Tensor
    mask_logits: Tensor

    def mixture(self) -> Tensor:
        """The reconstructed image [B, 3, H, W]: every slot's reconstruction weighted by the attention's mask."""
        return (self.log_masks.exp().unsqueeze(2) * self.reconstructions).sum(dim=1)


class Monet(nn.Module):
    """MONet and its siblings; `config` decides which one.

    Args:
        config: structure of the network.
        initialisation: `kaiming` or `default` (section 4.3); None keeps PyTorch's own, for weights that are loaded.
    """

    def __init__(self, config: MonetConfig, initialisation: Literal["default", "kaiming"] | None = "kaiming") -> None:
        super().__init__()
        self.config = config
        self.attention = make_attention(config)
        self.component = ComponentVAE(config.image_size, config.latent_size, config.component_decoder)
        if initialisation is not None:
            initialise(self, initialisation)

    def encode(self, images: Tensor) -> Encoding:
        """Masks and posteriors only; the decoder does not run.

        Args:
            images: [B, 3, H, W] in [0, 1], H = W = config.image_size.
        """
        log_masks = self.attention(images)
        return Encoding(log_masks, *self.component.encode(images, log_masks))

    def decode(self, latents: Tensor) -> Decoding:
        """Reconstructions and mask logits of latents [B, K, L]; K need not be the network's."""
        return Decoding(*self.component.decode(latents))

    def forward(self, images: Tensor) -> MonetOutput:
        """Encodes and decodes; latents are sampled while training and the posterior's mean otherwise.

        Args:
            images: [B, 3, H, W] in [0, 1], H = W = config.image_size.
        Returns:
            The fields of `Encoding` and `Decoding`.
        """
        encoding = self.encode(images)
        latents = encoding.latent_mean
        if self.training:
            latents = latents + encoding.latent_log_sigma.exp() * torch.randn_like(latents)
        return MonetOutput(*encoding, *self.decode(latents))
