"""The ResNet-18, -34 and -50 of He et al. (2016), as torchvision has them, up to a stage.

Own code, because `import torchvision` imports TorchDynamo: a process that loads a network, the node first of all,
imports its modules in 3.2 s of one core instead of 5.6. Names and order of the parameters and the initial values'
distribution are torchvision's, so its weights load as they are and the outputs are the same (test_networks.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What torchvision's ImageNet and COCO weights were trained with; kept inside so that every caller passes [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Number of residual blocks of every stage."""
BOTTLENECK = {"resnet50"}
EXPANSION = 4
"""By how much a bottleneck block's output is wider than what its 3x3 convolution sees."""


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or as a bottleneck 1x1, 3x3, 1x1, added to the block's input.

    [B, inputs, H, W] -> [B, outputs, H / stride, W / stride], `outputs` being `width`, or 4 `width` for a bottleneck.
    The 3x3 convolution carries a bottleneck's stride ("ResNet v1.5").
    """

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = EXPANSION * width if bottleneck else width
        convolutions = (
            [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if bottleneck
            else [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        )
        self.depth = len(convolutions)
        for index, shape in enumerate(convolutions, start=1):
            setattr(self, f"conv{index}", _convolution(*shape))
            setattr(self, f"bn{index}", nn.BatchNorm2d(shape[1]))
        self.downsample = (
            nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for index in range(1, self.depth + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.depth:
                y = F.relu(y, inplace=True)
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class ResNetEncoder(nn.Module):
    """The stem and the first stages of a ResNet, returning the tensor of every stage.

    Images [B, 3, H, W] in [0, 1], normalised inside, -> one [B, channels[i], H / s, W / s] a stage i, s being
    2 ** (i + 1), and twice that with the stem's max-pool.

    Args:
        name: `resnet18`, `resnet34` or `resnet50`.
        stages: how many of the four are built.
        stem_pool: whether the stem ends with its max-pool.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, stages: int, stem_pool: bool) -> None:
        super().__init__()
        bottleneck = name in BOTTLENECK
        inputs = 64
        self.conv1 = nn.Conv2d(3, inputs, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if stem_pool else nn.Identity()
        self.stage_names = [f"layer{i + 1}" for i in range(stages)]
        self.channels: list[int] = []
        for index, (stage, blocks) in enumerate(zip(self.stage_names, BLOCKS[name], strict=False)):
            width, stride = 64 << index, 2 if index else 1
            outputs = EXPANSION * width if bottleneck else width
            first = ResidualBlock(inputs, width, stride, bottleneck)
            rest = [ResidualBlock(outputs, width, 1, bottleneck) for _ in range(blocks - 1)]
            setattr(self, stage, nn.Sequential(first, *rest))
            self.channels.append(outputs)
            inputs = outputs
        for module in self.modules():
            # On the meta device there is nothing to draw, and torch would import TorchDynamo for it.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.pool(F.relu(self.bn1(self.conv1((images - self.mean) / self.std)), inplace=True))
        features = []
        for stage in self.stage_names:
            x = getattr(self, stage)(x)
            features.append(x)
        return features
