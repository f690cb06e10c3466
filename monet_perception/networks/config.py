"""What a network is made of: one frozen configuration, checked when it is made, and the presets of the thesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ENCODER_STRIDE_OF_STEM = 2
UPSAMPLING_STRIDE = 8
WIDEST = 8192
"""Most channels of a layer: a foreign file may ask for any number."""

ATTENTION_FIELDS = {
    "unet": ("attention", "image_size", "unet_channels"),  # not slots: it makes one mask a pass
    "resnet": ("attention", "slots", "encoder", "decoder_channels", "skip_connections", "stem_pool"),
}
"""Fields of a MonetConfig that shape the weights of either attention network."""
COMPONENT_FIELDS = ("image_size", "latent_size", "component_decoder")
"""Those that shape the weights of the component VAE."""


class ConfigError(ValueError):
    """A configuration that describes no network; the message names the field, its value and what is allowed."""


@dataclass(frozen=True)
class MonetConfig:
    """Structure of a network. Everything that shapes its weights or its likelihood, nothing of its training.

    Attributes:
        attention: `unet`, the recurrent attention of MONet (section 4.1.1), or `resnet`, the one-pass segmentation
            network of MONet-RN50 and RN50* (section 4.2).
        slots: K, the number of masks.
        image_size: height and width of the input in pixels; a multiple of `stride`.
        unet_channels: output channels of the U-Net's down-sampling blocks, one entry per block.
        encoder: which torchvision ResNet encodes the image.
        decoder_channels: output channels of the transposed convolutions, one per ResNet stage that is kept. Four
            entries are the thesis; three drop the deepest stage, which holds three quarters of a ResNet-18's weights.
        skip_connections: whether each transposed convolution also sees the encoder's stage of its size (RN50*).
        stem_pool: whether the ResNet keeps the max-pool of its stem. The thesis contradicts itself here; without the
            pool the decoder ends at the input's size, with it at half of that, and logits are resized by two.
        head: how K channels become masks that sum to one: `stick_breaking` (equations 4.2 to 4.6) or `softmax`.
        latent_size: L, latent dimensions of a slot.
        component_decoder: `broadcast`, the spatial broadcast decoder at full size (section 4.1.2), or `upsampling`,
            which broadcasts onto a grid of an eighth of the size: an eighth of the FLOP on a CPU.
        sigma_background: scale of the first slot's Gaussian likelihood, in image units of [0, 1].
        sigma_foreground: scale of the other slots' likelihood.

    Raises:
        ConfigError: a field is out of its range.
    """

    attention: Literal["unet", "resnet"] = "resnet"
    slots: int = 7
    image_size: int = 64
    unet_channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    encoder: Literal["resnet18", "resnet34", "resnet50"] = "resnet50"
    decoder_channels: tuple[int, ...] = (512, 128, 64, 16)
    skip_connections: bool = True
    stem_pool: bool = False
    head: Literal["stick_breaking", "softmax"] = "stick_breaking"
    latent_size: int = 16
    component_decoder: Literal["broadcast", "upsampling"] = "broadcast"
    sigma_background: float = 0.09
    sigma_foreground: float = 0.11

    def __post_init__(self) -> None:
        # JSON and command lines bring lists; a frozen configuration is hashable only with tuples.
        object.__setattr__(self, "unet_channels", tuple(self.unet_channels))
        object.__setattr__(self, "decoder_channels", tuple(self.decoder_channels))
        self._check_choices()
        self._check_numbers()
        self._check_size()

    @property
    def stride(self) -> int:
        """By how much the attention network divides the image at its deepest point."""
        if self.attention == "unet":
            return int(2 ** (len(self.unet_channels) - 1))
        return int(ENCODER_STRIDE_OF_STEM * 2 ** (len(self.decoder_channels) - 1) * (2 if self.stem_pool else 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MonetConfig:
        """Reads what `to_dict` wrote.

        Raises:
            ConfigError: unknown fields, or values of a wrong type or range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown fields in the network's configuration: {', '.join(unknown)}")
        try:
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"unreadable network configuration: {error}") from error

    def _check_choices(self) -> None:
        choices = {
            "attention": tuple(ATTENTION_FIELDS),
            "encoder": ("resnet18", "resnet34", "resnet50"),
            "head": ("stick_breaking", "softmax"),
            "component_decoder": ("broadcast", "upsampling"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.attention == "unet" and self.head != "stick_breaking":
            raise ConfigError("the recurrent attention (attention: unet) has no softmax head; use stick_breaking")

    def _check_numbers(self) -> None:
        for name, least, most in (("slots", 2, 64), ("latent_size", 1, 1024), ("image_size", 16, 2048)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
        for name, least, most in (("unet_channels", 2, 8), ("decoder_channels", 1, 4)):
            channels = getattr(self, name)
            if not least <= len(channels) <= most or not all(isinstance(c, int) and 0 < c <= WIDEST for c in channels):
                raise ConfigError(
                    f"{name} is {channels!r}; it must be {least} to {most} whole numbers from 1 to {WIDEST}"
                )
        for name in ("skip_connections", "stem_pool"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name} is {value!r}; it must be true or false")
        for name in ("sigma_background", "sigma_foreground"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0.0 < value <= 10.0:
                raise ConfigError(f"{name} is {value!r}; it must be in (0, 10]")

    def _check_size(self) -> None:
        if self.image_size % self.stride:
            raise ConfigError(f"image_size {self.image_size} is not a multiple of the network's stride {self.stride}")
        if self.attention == "unet" and self.image_size == self.stride:
            raise ConfigError(
                f"image_size {self.image_size} leaves one pixel after {len(self.unet_channels)} unet_channels, and an "
                "instance norm has nothing to normalise there; use fewer of them or a larger image"
            )
        if self.component_decoder == "upsampling" and self.image_size % UPSAMPLING_STRIDE:
            raise ConfigError(
                f"image_size {self.image_size} is not a multiple of {UPSAMPLING_STRIDE}, the grid of component_decoder "
                "upsampling; use broadcast or another size"
            )


PRESETS: dict[str, MonetConfig] = {
    "monet": MonetConfig(attention="unet"),
    "monet_rn50": MonetConfig(decoder_channels=(512, 256, 128, 64), skip_connections=False),
    "monet_rn50_star": MonetConfig(),
    # For CPUs: three stages of a ResNet-18 at full resolution, 4.7 M weights (docs/results.md).
    "monet_rn18_star": MonetConfig(encoder="resnet18", decoder_channels=(128, 64, 32), component_decoder="upsampling"),
}


def network_config(preset: str, changes: dict[str, Any] | None) -> MonetConfig:
    """A preset with fields changed.

    Raises:
        ConfigError: unknown preset, or a field that does not exist or does not fit.
    """
    if preset not in PRESETS:
        raise ConfigError(f"there is no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    return MonetConfig.from_dict({**PRESETS[preset].to_dict(), **(changes or {})})
