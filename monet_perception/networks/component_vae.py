"""The component VAE (section 4.1.2): a slot's pixels to a Gaussian latent, and a latent back to pixels and mask."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# exp(2 * 10) is far from float32's end and far outside any useful posterior: a bound that only a diverging step meets.
LOG_SIGMA_BOUND = 10.0


class ComponentEncoder(nn.Module):
    """q(z_k | x, m_k): image and log mask of each slot to mean and log sigma.

    Four 3x3 convolutions of stride 2 with 32, 32, 64, 64 channels, then an MLP of 256 and 2 L.
    """

    def __init__(self, image_size: int, latent_size: int) -> None:
        super().__init__()
        channels = (4, 32, 32, 64, 64)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(channels):
            layers += [nn.Conv2d(i, o, kernel_size=3, stride=2, padding=1), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        flat = channels[-1] * math.ceil(image_size / 16) ** 2
        self.mlp = nn.Sequential(nn.Linear(flat, 256), nn.ReLU(inplace=True), nn.Linear(256, 2 * latent_size))

    def forward(self, images: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, 3, H, W] and log masks [N, 1, H, W] to mean and log sigma [N, L], float32."""
        x = self.convolutions(torch.cat([images, log_masks.to(images.dtype)], dim=1))
        mean, log_sigma = self.mlp(x.flatten(1)).float().chunk(2, dim=1)
        return mean, log_sigma.clamp(-LOG_SIGMA_BOUND, LOG_SIGMA_BOUND)


def coordinates(size: int) -> Tensor:
    """Channels x and y from -1 to 1, [1, 2, size, size]."""
    line = torch.linspace(-1.0, 1.0, size, device="cpu")  # on the meta device torch would import TorchDynamo for it
    grid = torch.empty(1, 2, size, size)
    grid[:, 0], grid[:, 1] = line, line[:, None]
    return grid


class Broadcast(nn.Module):
    """First layer of a spatial broadcast decoder: a 3x3 convolution over a tiled latent and two coordinate channels.

    The tiled latent is the same at every pixel, so without padding its convolution is one vector per slot, and the
    coordinates' convolution is one image for all slots. Both are computed apart and added: the same result as the
    convolution of the tiling (a test holds them together), without writing the tiling or convolving it.
    """

    grid: Tensor

    def __init__(self, latent_size: int, channels: int, size: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.convolution = nn.Conv2d(latent_size + 2, channels, kernel_size=3)
        self.register_buffer("grid", coordinates(size), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [N, L] to [N, C, size - 2, size - 2]."""
        weight = self.convolution.weight
        latent_part = F.linear(latents, weight[:, : self.latent_size].sum(dim=(2, 3)), self.convolution.bias)
        grid_part = F.conv2d(self.grid, weight[:, self.latent_size :])
        if torch.is_grad_enabled():
            # A product with ones and not broadcasting: its gradient is a product as well, and on CPUs 14 times as fast
            # as the sum over slots.
            pixels = grid_part.permute(0, 2, 3, 1)
            repeated = latent_part.new_ones(latents.shape[0], 1) @ pixels.flatten().unsqueeze(0)
            grid_part = repeated.view(-1, *pixels.shape[1:]).permute(0, 3, 1, 2)
        return latent_part[:, :, None, None] + grid_part


class BroadcastDecoder(nn.Module):
    """The thesis's decoder: the latent tiled 8 pixels wider than the image, four 3x3 convolutions without padding, 1x1.

    Latents [N, L] to RGB means [N, 3, H, W] and mask logits [N, 1, H, W].
    """

    def __init__(self, image_size: int, latent_size: int, channels: int = 32) -> None:
        super().__init__()
        self.broadcast = Broadcast(latent_size, channels, image_size + 8)
        layers: list[nn.Module] = [nn.ReLU(inplace=True)]
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, kernel_size=3), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers, nn.Conv2d(channels, 4, kernel_size=1))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rgb, mask_logits = self.convolutions(self.broadcast(latents)).split([3, 1], dim=1)
        return rgb, mask_logits


def enlarge(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Sub-pixel convolution (Shi et al. 2016): 3x3 to four times the channels, shuffled to twice the size.

    Its receptive field is that of a transposed 5x5 convolution of stride two, which is slow in bf16 on CPUs.
    """
    return [nn.Conv2d(in_channels, 4 * out_channels, kernel_size=3, padding=1), nn.PixelShuffle(2)]


class UpsamplingDecoder(nn.Module):
    """A cheaper decoder for CPUs: the latent tiled onto a grid of an eighth of the image, then enlarged three times.

    No convolution runs at full size, where writing the activations costs more than computing them: forward and backward
    of 224 slots of 64x64 take 0.19 s in bf16 on two cores, with a 3x3 convolution at full size 0.66 s, with transposed
    convolutions 0.46 s.
    Latents [N, L] to RGB means [N, 3, H, W] and mask logits [N, 1, H, W].
    """

    def __init__(self, image_size: int, latent_size: int) -> None:
        super().__init__()
        self.broadcast = Broadcast(latent_size, 64, image_size // 8 + 2)
        self.convolutions = nn.Sequential(
            nn.ReLU(inplace=True),
            *enlarge(64, 64), nn.ReLU(inplace=True),
            *enlarge(64, 32), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, kernel_size=3, padding=1), nn.ReLU(inplace=True),
            *enlarge(32, 4),
        )  # fmt: skip

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rgb, mask_logits = self.convolutions(self.broadcast(latents)).split([3, 1], dim=1)
        return rgb, mask_logits


class ComponentVAE(nn.Module):
    """Encoder and decoder that every slot shares; all slots of all images go through as one batch."""

    def __init__(self, image_size: int, latent_size: int, decoder: str) -> None:
        super().__init__()
        self.encoder = ComponentEncoder(image_size, latent_size)
        decoder_type = BroadcastDecoder if decoder == "broadcast" else UpsamplingDecoder
        self.decoder = decoder_type(image_size, latent_size)

    def encode(self, images: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] and log masks [B, K, H, W] to latent mean and log sigma [B, K, L], float32."""
        slots = log_masks.shape[1]
        repeated = images.unsqueeze(1).expand(-1, slots, -1, -1, -1).flatten(0, 1)
        mean, log_sigma = self.encoder(repeated, log_masks.flatten(0, 1).unsqueeze(1))
        return mean.unflatten(0, (-1, slots)), log_sigma.unflatten(0, (-1, slots))

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, K, L] to RGB means [B, K, 3, H, W] and mask logits [B, K, H, W], float32."""
        slots = latents.shape[1]
        rgb, mask_logits = self.decoder(latents.flatten(0, 1))
        return rgb.float().unflatten(0, (-1, slots)), mask_logits.float().squeeze(1).unflatten(0, (-1, slots))
