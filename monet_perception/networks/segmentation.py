"""The one-pass attention of MONet-RN50 and RN50* (section 4.2): ResNet encoder, transposed-convolution decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monet_perception.networks.config import MonetConfig
from monet_perception.networks.resnet import ResNetEncoder
from monet_perception.networks.scope import softmax_masks, stick_breaking

# Input channels from which a CPU spends more time on reordering the kernel than on the convolution.
WIDE = 1024


class TransposedConvolution(nn.ConvTranspose2d):
    """A 5x5 transposed convolution of stride 2, [B, C, H, W] -> [B, C', 2 H, 2 W].

    On CPUs a wide one is computed as what it is by definition, a matrix product and a sum of overlapping patches:
    oneDNN reorders the 26 million weights of MONet-RN50*'s first one in every call, the matrix product takes them as
    they lie. A training step of that layer (batch 8, 4x4, one core) takes 0.26 s instead of 0.58 in bf16, 0.31 instead
    of 0.71 in fp32.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=5, stride=2, padding=2, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if x.device.type != "cpu" or self.in_channels < WIDE or torch.compiler.is_compiling():
            return super().forward(x, output_size)
        size = (2 * x.shape[2], 2 * x.shape[3])
        # In this order a channels_last kernel is a matrix as it lies: putting it into fold's costs a sixth of the step.
        patches = x.flatten(2).transpose(1, 2) @ self.weight.permute(0, 2, 3, 1).flatten(1)
        columns = patches.unflatten(2, (25, self.out_channels)).permute(0, 3, 2, 1).flatten(1, 2)
        y = F.fold(columns, size, kernel_size=5, stride=2, padding=2)
        assert self.bias is not None
        return y + self.bias.to(y.dtype).view(-1, 1, 1)


class SegmentationAttention(nn.Module):
    """K masks in one pass, cost flat in K.

    Images [B, 3, H, W] in [0, 1] to log masks [B, K, H, W] in float32 that sum to one over K. With skip connections
    (RN50*) every transposed convolution but the first also sees the encoder's tensor of its size.
    """

    def __init__(self, config: MonetConfig) -> None:
        super().__init__()
        outputs = config.decoder_channels
        self.skip_connections = config.skip_connections
        self.stem_pool = config.stem_pool
        self.to_log_masks = stick_breaking if config.head == "stick_breaking" else softmax_masks
        self.encoder = ResNetEncoder(config.encoder, stages=len(outputs), stem_pool=config.stem_pool)
        skips = self.encoder.channels[-2::-1] if config.skip_connections else [0] * (len(outputs) - 1)
        inputs = [self.encoder.channels[-1]] + [o + s for o, s in zip(outputs[:-1], skips, strict=True)]
        self.decoder = nn.ModuleList(TransposedConvolution(i, o) for i, o in zip(inputs, outputs, strict=True))
        self.head = nn.Conv2d(outputs[-1], config.slots, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(images)
        for index, layer in enumerate(self.decoder):
            if index and self.skip_connections:
                x = torch.cat([x, skips[-index]], dim=1)
            x = F.relu(layer(x))
        logits = self.head(x)
        if self.stem_pool:
            logits = F.interpolate(logits.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.to_log_masks(logits)
