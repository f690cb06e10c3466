"""The recurrent U-Net attention of MONet (section 4.1.1): one pass per slot, each seeing the scope that is left."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monet_perception.networks.scope import scope_step


class Block(nn.Sequential):
    """3x3 bias-free convolution, instance norm with a learned weight and bias, ReLU: [B, C, H, W] -> [B, C', H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.InstanceNorm2d(out_channels, affine=True),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """The U-Net f of equation 4.1: image and log scope [B, 4, H, W] to one logit a pixel [B, 1, H, W].

    Resizes by nearest neighbour between blocks, not after the last block of either path. The deepest tensor also goes
    through an MLP with hidden layers of 128, which ties the weights to one image size.

    Args:
        channels: output channels of the down-sampling blocks; (64, 128, 256, 512, 512) gives the 13,925,825 weights
            that table 5.5 rounds to 13.926 M.
        image_size: height and width in pixels, divisible by 2 ** (len(channels) - 1).
    """

    def __init__(self, channels: tuple[int, ...], image_size: int) -> None:
        super().__init__()
        inputs = (4, *channels[:-1])
        self.down = nn.ModuleList(Block(i, o) for i, o in zip(inputs, channels, strict=True))
        size = image_size // 2 ** (len(channels) - 1)
        self.bottleneck_shape = (channels[-1], size, size)
        flat = channels[-1] * size * size
        self.mlp = nn.Sequential(
            nn.Linear(flat, 128), nn.ReLU(inplace=True),
            nn.Linear(128, 128), nn.ReLU(inplace=True),
            nn.Linear(128, flat), nn.ReLU(inplace=True),
        )  # fmt: skip
        skips = channels[::-1]
        outputs = (*skips[1:], channels[0])
        inputs = (channels[-1], *outputs[:-1])
        self.up = nn.ModuleList(Block(i + s, o) for i, s, o in zip(inputs, skips, outputs, strict=True))
        self.head = nn.Conv2d(channels[0], 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for index, block in enumerate(self.down):
            x = block(x[:, :, ::2, ::2] if index else x)  # a stride of two is nearest-neighbour resizing by a half
            skips.append(x)
        x = self.mlp(x.flatten(1)).unflatten(1, self.bottleneck_shape)
        for index, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") if index else x
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.head(x)


class RecurrentAttention(nn.Module):
    """MONet's attention: K - 1 passes of one U-Net, cost linear in K.

    Images [B, 3, H, W] in [0, 1] to log masks [B, K, H, W] in float32 that sum to one over K.
    """

    def __init__(self, slots: int, channels: tuple[int, ...], image_size: int) -> None:
        super().__init__()
        self.slots = slots
        self.unet = UNet(channels, image_size)

    def forward(self, images: Tensor) -> Tensor:
        log_scope = torch.zeros_like(images[:, :1], dtype=torch.float32)
        log_masks = []
        for _ in range(self.slots - 1):
            logit = self.unet(torch.cat([images, log_scope.to(images.dtype)], dim=1))
            log_mask, log_scope = scope_step(log_scope, logit)
            log_masks.append(log_mask)
        return torch.cat([*log_masks, log_scope], dim=1)  # the last slot explains what is left (s_{K-1})
