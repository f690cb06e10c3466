"""A store of coloured squares and a network of a few thousand weights, on which trainings take a second."""

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file

from train import fit
from train.cli import RunCLI
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


def with_callback(callback: Callback) -> Callable[[Sequence[str]], RunCLI]:
    """train.fit's `make_cli`, with a callback before the run's own."""

    def make_cli(argv: Sequence[str]) -> RunCLI:
        cli = fit.make_cli(argv)
        cli.trainer.callbacks.insert(0, callback)
        return cli

    return make_cli


class FileSizeLimit(Callback):
    """Stands for a full disk: the kernel refuses files above `limit` bytes from one step on and up to another.

    It begins and ends with the validation at its step, or with the training batch after it.
    """

    def __init__(self, limit: int, from_step: int, to_step: int) -> None:
        self.limit, self.from_step, self.to_step = limit, from_step, to_step

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._apply(trainer)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self._apply(trainer)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        self._set(resource.RLIM_INFINITY)

    def on_exception(self, *args: Any) -> None:
        self._set(resource.RLIM_INFINITY)

    def _apply(self, trainer: Trainer) -> None:
        here = self.from_step <= trainer.global_step < self.to_step
        self._set(self.limit if here else resource.RLIM_INFINITY)

    def _set(self, limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the run's newest network."""
    return load_file(run / "last.safetensors")


def checkpoint(run: Path) -> dict[str, Any]:
    """What the run resumes from."""
    return torch.load(run / "last.ckpt", weights_only=True)


def validations(run: Path) -> dict[int, dict[str, float]]:
    """What was measured, by step."""
    path = run / "validation.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["step"]: {name: value for name, value in line.items() if name != "minutes"} for line in lines}


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, running statistics and the optimiser's state, bit by bit, and what both measured on the way."""
    a, b = checkpoint(one), checkpoint(other)
    assert a["global_step"] == b["global_step"]
    assert_equal_tensors(a["state_dict"], b["state_dict"])
    states = [c["optimizer_states"][0]["state"] for c in (a, b)]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        assert_equal_tensors(state, states[1][index])
    values = validations(one)
    assert all(line == values[step] for step, line in validations(other).items())
    assert_equal_tensors(weights(one), weights(other))


def assert_equal_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Names and, bit by bit, values."""
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
