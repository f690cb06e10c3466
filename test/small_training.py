"""A store of coloured squares and a network of a few thousand weights, on which trainings take a second."""

from pathlib import Path

import numpy as np

from train.data.layout import StoreLayout
from train.data.store_writer import StoreWriter

IMAGE_SIZE = 16
NETWORK = "{image_size: 16, slots: 4, encoder: resnet18, decoder_channels: [8], unet_channels: [4, 4], latent_size: 4}"


def write_squares(path: Path, count: int = 60, seed: int = 0, labels: bool = True, background_labels: int = 1) -> Path:
    """Images of a grey ground with one to three squares; the factor `tone` says whether a square is dark or bright."""
    rng, size = np.random.default_rng(seed), IMAGE_SIZE
    images = np.full((count, size, size, 3), 100, np.uint8)
    images += rng.integers(0, 20, images.shape, np.uint8)
    masks = np.zeros((count, size, size), np.uint8)
    tone = np.full((count, 3), -1, np.int16)
    for image in range(count):
        for entity in range(rng.integers(1, 4)):
            width, bright = rng.integers(4, 7), rng.integers(2)
            y, x = rng.integers(0, size - width, 2)
            colour = rng.integers(170, 256, 3) if bright else rng.integers(0, 60, 3)
            images[image, y : y + width, x : x + width] = colour
            masks[image, y : y + width, x : x + width] = background_labels + entity
            tone[image, entity] = bright
    layout = StoreLayout(
        "squares", "train", "test", "CC0-1.0", height=size, width=size, labels=labels,
        background_labels=background_labels,
        factors={"tone": {"kind": "categorical", "values": ["dark", "bright"], "unit": None}}, entities=3,
    )  # fmt: skip
    with StoreWriter(path, layout, count) as writer:
        writer.write(0, images=images, labels=masks if labels else None, factors={"tone": tone})
    return path


def arguments(store: Path, run: Path, steps: int, **changes: object) -> list[str]:
    """A command line for train.fit and train.pretrain; `changes` overrides settings, with `__` for a dot."""
    settings: dict[str, object] = {
        "model.preset": "monet_rn18_star",
        "model.network": NETWORK,
        "data.store": store,
        "data.batch_size": 8,
        "data.val_fraction": 0.1,
        "run": run,
        "trainer.max_steps": steps,
        "trainer.accelerator": "cpu",
        "trainer.val_check_interval": 3,
        "trainer.enable_progress_bar": "false",
    }
    settings.update({name.replace("__", "."): value for name, value in changes.items()})
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]
