"""Random changes of images and their labels, so that a network learns objects from few scenes and not their colours."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask


@dataclass(frozen=True)
class AugmentationOptions:
    """How much each training image is changed, at random and each in its own way.

    Args:
        flip: Probability of mirroring image and labels left to right.
        permute_channels: Whether red, green and blue change places.
        brightness: Largest relative change of brightness, in [0, 1].
        contrast: Largest relative change of contrast, in [0, 1].
        saturation: Largest relative change of saturation, in [0, 1].
        hue: Largest shift of the hue, in turns of the colour circle, in [0, 0.5].
    """

    flip: float = 0.0
    permute_channels: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, highest in {"flip": 1, "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5}.items():
            if not 0 <= getattr(self, name) <= highest:
                raise ValueError(f"augmentation.{name} must lie in [0, {highest}], got {getattr(self, name)}")


class Augmentation:
    """The random changes that the options describe; draws from PyTorch's global generator.

    Args:
        options: How much to change.
    """

    def __init__(self, options: AugmentationOptions) -> None:
        jitter = (options.brightness, options.contrast, options.saturation, options.hue)
        transforms: list[v2.Transform] = []
        if options.flip > 0:
            transforms.append(v2.RandomHorizontalFlip(options.flip))
        if options.permute_channels:
            transforms.append(v2.RandomChannelPermutation())
        if any(jitter):
            transforms.append(v2.ColorJitter(*jitter))
        self._transform = v2.Compose(transforms) if transforms else None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 3, H, W] and labels uint8 [B, H, W], changed; the same tensors where nothing changes."""
        if self._transform is None:
            return images, labels
        # torchvision changes a whole batch alike; one by one costs 1 ms an image, where training on it costs 25
        pairs = [self._transform(Image(image), Mask(mask)) for image, mask in zip(images, labels, strict=True)]
        changed, masks = zip(*pairs, strict=True)
        return torch.stack(changed), torch.stack(masks)
