"""The truncated-normal initialisations of section 4.3: Kaiming's, and the thesis's adaptation of PyTorch's default."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def variance_bound(layer: nn.Module, heuristic: Literal["default", "kaiming"]) -> float:
    """k of section 4.3: 1 / fan_in for `default`, 2 / fan_out for `kaiming`.

    The thesis calls the latter's divisor "the number of output features". For convolutions this is read as He et al.'s
    fan_out, output channels times kernel area: with output channels alone the untrained MONet-RN50 starts at a loss of
    4e14, with the kernel's area at 2e5, and only the second trains. Transposed convolutions are counted likewise;
    PyTorch's `nn.init` exchanges their two fans.

    Raises:
        TypeError: the layer is neither linear nor convolutional.
    """
    if isinstance(layer, nn.Linear):
        fan_in, fan_out = layer.in_features, layer.out_features
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        area = math.prod(layer.kernel_size)
        fan_in, fan_out = layer.in_channels * area, layer.out_channels * area
    else:
        raise TypeError(f"section 4.3 initialises linear and convolutional layers, not {type(layer).__name__}")
    return 1.0 / fan_in if heuristic == "default" else 2.0 / fan_out


def initialise(module: nn.Module, heuristic: Literal["default", "kaiming"]) -> None:
    """Draws every linear and convolutional weight from N(0, sqrt(k / 3)) cut at +-sqrt(k); biases become zero.

    Call it before pre-trained weights are loaded: it overwrites every layer.

    Raises:
        ValueError: the heuristic is unknown.
    """
    if heuristic not in ("default", "kaiming"):
        raise ValueError(f"initialisation {heuristic!r} is unknown; choose 'default' or 'kaiming'")
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            k = variance_bound(layer, heuristic)
            nn.init.trunc_normal_(layer.weight, mean=0.0, std=math.sqrt(k / 3.0), a=-math.sqrt(k), b=math.sqrt(k))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
