"""The truncated-normal initialisations of section 4.3."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def variance_bound(layer: nn.Module, heuristic: Literal["default", "kaiming"]) -> float:
    """k of section 4.3: 1 / fan_in for `default`, 2 / output features for `kaiming`."""
    if isinstance(layer, nn.Linear):
        fan_in, features = layer.in_features, layer.out_features
    elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        fan_in, features = layer.in_channels * math.prod(layer.kernel_size), layer.out_channels
    else:
        raise TypeError(f"section 4.3 initialises linear and convolutional layers, not {type(layer).__name__}")
    return 1.0 / fan_in if heuristic == "default" else 2.0 / features


def initialise(module: nn.Module, heuristic: Literal["default", "kaiming"]) -> None:
    """Draws every linear and convolutional weight from N(0, sqrt(k / 3)) cut at +-sqrt(k); biases become zero.

    Call it before pre-trained weights are loaded: it knows no layer to spare.
    """
    if heuristic not in ("default", "kaiming"):
        raise ValueError(f"initialisation {heuristic!r} is unknown; choose 'default' or 'kaiming'")
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            k = variance_bound(layer, heuristic)
            nn.init.trunc_normal_(layer.weight, mean=0.0, std=math.sqrt(k / 3.0), a=-math.sqrt(k), b=math.sqrt(k))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
