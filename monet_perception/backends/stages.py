"""The two halves of a network as every backend runs them: frames to slots, latents to pixels."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from monet_perception.networks import Monet

Part = Literal["encoder", "decoder"]
Floats = NDArray[np.float32]


class Backend(Protocol):
    """What runs a network.

    Attributes:
        name: `torch`, `onnx` or `openvino`.
        device: `cpu` or `cuda:N`.
        precision: `fp32`, `bf16`, `fp16` or `int8`.
    """

    name: str
    device: str
    precision: str

    def encode(self, frames: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        """See `FrameEncoder`."""
        ...

    def decode(self, latents: Floats) -> tuple[Floats, Floats]:
        """See `LatentDecoder`."""
        ...

    def close(self) -> None:
        """Frees the network and its memory."""
        ...


class FrameEncoder(nn.Module):
    """Frames to masks and posteriors.

    Frames uint8 [B, H, W, 3], H = W = config.image_size, to masks [B, K, H, W] that sum to one over K, and latent mean
    and log sigma [B, K, L]; float32. Bytes go in, so that a GPU is sent a quarter of what floats weigh.
    """

    def __init__(self, monet: Monet) -> None:
        super().__init__()
        self.attention = monet.attention
        self.component = nn.ModuleDict({"encoder": monet.component.encoder})
        self.encode = monet.encode

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoding = self.encode(frames.permute(0, 3, 1, 2).float() / 255.0)
        return encoding.log_masks.exp(), encoding.latent_mean, encoding.latent_log_sigma


class LatentDecoder(nn.Module):
    """Latents to pixels: [N, L] to reconstructions [N, H, W, 3] in [0, 1] and mask logits [N, H, W]; float32."""

    def __init__(self, monet: Monet) -> None:
        super().__init__()
        self.component = nn.ModuleDict({"decoder": monet.component.decoder})

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rgb, mask_logits = self.component["decoder"](latents)
        return rgb.float().clamp(0.0, 1.0).permute(0, 2, 3, 1), mask_logits.float().squeeze(1)
