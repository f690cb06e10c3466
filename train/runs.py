"""How a network was trained, read from the folder of its run: what stands beside its scores in a table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIG_NAME = "config.yaml"
VALIDATION_NAME = "validation.jsonl"
BEST_NAME, LAST_NAME = RUN_CHECKPOINTS = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class Training:
    """A training of train.fit, up to the step at which a checkpoint was written.

    Attributes:
        steps: optimiser steps.
        images: seen, those seen twice counted twice (`images_seen`).
        images_per_step: of all processes together, by the run's present settings; too few where `devices: auto` found
            several GPUs.
        minutes: spent training and validating up to the last validation at or before the checkpoint; None without one.
        seed: of the run.
        initialisation: of what was not pre-trained, `kaiming` or `default`.
        pretrained: where the attention started: `imagenet`, `coco` or a file; None: from scratch.
        fine_tuned: the file where the whole network started; None: nowhere.
        command: trains it anew.
    """

    steps: int
    images: int
    images_per_step: int
    minutes: float | None
    seed: int
    initialisation: str
    pretrained: str | None
    fine_tuned: str | None
    command: str


def read_training(checkpoint: Path, steps: int) -> Training | None:
    """The training that a checkpoint in a run's folder came from; None where no run of train.fit left it.

    Args:
        checkpoint: `best.safetensors` or `last.safetensors` of a run.
        steps: optimiser steps that the checkpoint tells.
    Raises:
        OSError: a file of the run can't be read.
    """
    run = checkpoint.parent
    config, validations = read_config(run), read_validations(run)
    try:
        return _training(config, run, steps, validations)
    except (AttributeError, KeyError, TypeError, ValueError):  # of another command
        return None


def read_config(run: Path) -> Any:
    """What a run's `config.yaml` holds; None where there is none, or one that is no plain YAML."""
    path = run / CONFIG_NAME
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (yaml.YAMLError, ValueError):  # also text that isn't UTF-8, and dates that no calendar has
        return None


def _training(config: Any, run: Path, steps: int, validations: Sequence[Mapping[str, Any]]) -> Training:
    """What a configuration says of a training; raises what comes where it isn't one of train.fit."""
    model, again = config["model"], run.with_name(f"{run.name}_again")
    if not isinstance(model["initialisation"], str):
        raise TypeError("an initialisation has a name")
    images_per_process = int(config["data"]["batch_size"]) * int(config["trainer"]["accumulate_grad_batches"])
    images_per_step = images_per_process * _processes(config)
    return Training(
        steps=steps,
        images=images_seen(validations, steps, images_per_step),
        images_per_step=images_per_step,
        minutes=_minutes(validations, steps),
        seed=int(config["seed_everything"]),
        initialisation=model["initialisation"],
        pretrained=_named(model["pretrained"]),
        fine_tuned=_named(model.get("fine_tune")),  # which runs of version 0.1 lack
        command=shlex.join(["python", "-m", "train.fit", "--config", str(run / CONFIG_NAME), "--run", str(again)]),
    )


def images_seen(validations: Sequence[Mapping[str, Any]], steps: int, images_per_step: int) -> int:
    """Images that a run had seen after some of its steps.

    Args:
        validations: of the run, oldest first. What they say counts, because a run that was resumed may have gone on
            with another batch size or number of GPUs.
        steps: optimiser steps.
        images_per_step: in the steps since the last validation; in all where none says `images`, as of version 0.1.
    """
    said = [line for line in validations if line["step"] <= steps and isinstance(line.get("images"), int)]
    last = said[-1] if said else {"step": 0, "images": 0}
    return int(last["images"] + (steps - last["step"]) * images_per_step)


def _named(start: object) -> str | None:
    return None if start is None else str(start)


def _processes(config: dict[str, Any]) -> int:
    """How many processes shared the run; `auto` is taken for one, as the run's folder doesn't tell what it found."""
    devices = config["trainer"]["devices"]
    if isinstance(devices, str) and "," in devices:  # Lightning's way to choose GPUs: "0,1", and "2," for one
        devices = [device for device in devices.strip("[]").split(",") if device.strip()]
    if isinstance(devices, list):
        devices = len(devices)
    return int(config["trainer"]["num_nodes"]) * (1 if devices in ("auto", -1, "-1") else int(devices))


def _minutes(validations: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    known = [line.get("minutes") for line in validations if line["step"] <= steps]
    return float(known[-1]) if known and isinstance(known[-1], (int, float)) else None


def read_validations(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `validation.jsonl`, oldest first; none where it has not come to a validation.

    Lines that are none are left out: a file that is copied while its run writes it may end in half a line.
    """
    path = run / VALIDATION_NAME
    if not path.is_file():
        return []
    found = map(_validation, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in found if line is not None]


def _validation(text: str) -> dict[str, Any] | None:
    """One line of a `validation.jsonl`; None where it isn't."""
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
