"""Small painted scenes with labels and factors, and a small untrained network, for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import Monet, MonetConfig
from train.data.layout import FactorInfo, StoreLayout
from train.data.store import Store
from train.data.store_writer import StoreWriter

BACKGROUND = 2  # floor and wall
ENTITIES = 3
# The U-Net is the smallest there is: a ResNet-18 takes longer to initialise than to test.
CONFIG = MonetConfig(attention="unet", unet_channels=(8, 8, 8), slots=5, image_size=32, latent_size=6)


def paint_store(path: Path, count: int = 24, size: int = 32, seed: int = 0, labels: bool = True) -> Store:
    """Discs and squares before a wall and a floor; image i shows i % 4 of them, at least in part."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, size, size, 3), np.uint8)
    truth = np.zeros((count, size, size), np.uint8)
    factors = {name: np.full((count, ENTITIES), np.nan, np.float32) for name in ("x", "y", "size")}
    shapes = np.full((count, ENTITIES), -1, np.int16)
    for i in range(count):
        truth[i, size // 2 :] = 1
        images[i] = random.integers(0, 80, (2, 3))[truth[i]]
        for entity in range(i % (ENTITIES + 1)):
            x, y, radius = random.uniform(6, size - 6), random.uniform(6, size - 6), random.uniform(3, 6)
            shape = int(random.integers(2))
            mask = np.zeros((size, size), np.uint8)
            if shape == 0:
                cv2.circle(mask, (round(x), round(y)), round(radius), 1, -1)
            else:
                corners = [round(v) for v in (x - radius, y - radius, x + radius, y + radius)]
                cv2.rectangle(mask, tuple(corners[:2]), tuple(corners[2:]), 1, -1)
            truth[i][mask == 1] = BACKGROUND + entity
            images[i][mask == 1] = random.integers(100, 256, 3)
            for name, value in (("x", x), ("y", y), ("size", radius)):
                factors[name][i, entity] = value
            shapes[i, entity] = shape
    described: dict[str, FactorInfo] = {name: {"kind": "continuous", "values": None, "unit": "px"} for name in factors}
    described["shape"] = {"kind": "categorical", "values": ["disc", "square"], "unit": None}
    layout = StoreLayout(
        "painted", "test", "test", "none", height=size, width=size, seed=seed, background_labels=BACKGROUND,
        labels=labels, factors=described, entities=ENTITIES,
    )  # fmt: skip
    with StoreWriter(path, layout, count) as writer:
        writer.write(0, images=images, labels=truth if labels else None, factors={**factors, "shape": shapes})
    return Store.open(path)


def save_network(path: Path, seed: int = 0, config: MonetConfig = CONFIG) -> Path:
    """An untrained network, as different from others as its seed, scaled so that images move latents and latents move
    pictures: what a network draws at the start is all but grey."""
    torch.manual_seed(seed)
    monet = Monet(config, initialisation=None).eval()
    with torch.no_grad():
        noise = torch.rand(64, 3, 32, 32)
        mean, _ = monet.component.encoder(noise, torch.rand(64, 1, 32, 32).log())
        to_mean = monet.component.encoder.mlp[-1]
        scale = 0.5 / mean.std(dim=0)
        to_mean.bias[: config.latent_size] = scale * (to_mean.bias[: config.latent_size] - mean.mean(dim=0))
        to_mean.weight[: config.latent_size] *= scale[:, None]
        first = monet.component.decoder.broadcast.convolution
        first.weight[:, : config.latent_size].mul_(3)  # else coordinates drown the latents
        pictures = torch.cat(monet.component.decoder(torch.randn(64, config.latent_size)), dim=1)
        last = monet.component.decoder.convolutions[-1]
        scale = torch.tensor([0.15, 0.15, 0.15, 1.0]) / pictures.std(dim=0).mean(dim=(1, 2))
        last.weight.mul_(scale[:, None, None, None])
        last.bias.copy_(scale * (last.bias - pictures.mean(dim=(0, 2, 3))) + 0.5)
    save_checkpoint(path, monet, dataset="painted", steps=seed)
    return path
