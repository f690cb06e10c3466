"""Reads the checkpoints of a table, and refuses those that can't count as seeds of one model."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monet_perception.checkpoint import CheckpointError, CheckpointInfo, read_info
from train import report
from train.model_names import name_by_run, structure_name
from train.runs import CONFIG_NAME, LAST_NAME, Training, images_seen, read_config, read_training, read_validations

UNCOMPARED = ("model.pretrained", "model.fine_tune", "model.compile")
"""Settings of a model that may differ between seeds of one: where it starts is told beside its scores."""


@dataclass(frozen=True)
class Network:
    """A checkpoint that is to be measured.

    Attributes:
        path: as given.
        info: what the file says about itself.
        training: how the network was trained; None where the checkpoint is not in the folder of its run.
        model: its name in tables; networks of one name share a row, as seeds of a model.
        named: whether that name was given, and not made of structure and training.
    """

    path: Path
    info: CheckpointInfo
    training: Training | None
    model: str
    named: bool


def open_networks(named: Sequence[tuple[str | None, Path]], table: str) -> list[Network]:
    """Reads what checkpoints and the folders of their runs tell.

    Args:
        named: checkpoints, each with the name that it was given, if any.
        table: of the thesis; in 5.1 the initialisation is a part of the name.
    Raises:
        CheckpointError: a file is no checkpoint, or two would share a row that are no seeds of one model.
    """
    infos = [read_info(path) for _, path in named]
    unnamed = [info.config for (name, _), info in zip(named, infos, strict=True) if not name]
    networks = []
    for (name, path), info in zip(named, infos, strict=True):
        training = read_training(path, info.steps)
        model = name or name_by_run(structure_name(info.config, unnamed), training, table)
        networks.append(Network(path, info, training, model, named=bool(name)))
    _refuse_false_seeds(networks)
    return networks


def _refuse_false_seeds(networks: Sequence[Network]) -> None:
    for one, other in itertools.combinations(networks, 2):
        if one.info.model_id == other.info.model_id:
            raise CheckpointError(f"{one.path} and {other.path} are the same network and would count as two seeds")
        if one.model == other.model and (reason := _difference_from_seeds(one, other)):
            names = report.unique_names([one.path, other.path])
            raise CheckpointError(
                f"{one.path} and {other.path} {reason} and would count as two seeds: leave one out, or give each a "
                f"name ({names[0]}={one.path} {names[1]}={other.path})"
            )


def _difference_from_seeds(one: Network, other: Network) -> str | None:
    """Why two networks of one row are no seeds of one model; None where they may be, as far as their folders tell."""
    if one.path.parent.resolve() == other.path.parent.resolve() and (one.path.parent / CONFIG_NAME).is_file():
        return "are of one training"
    sizes = one.info.config.image_size, other.info.config.image_size
    if sizes[0] != sizes[1]:
        return f"take images of different sizes ({sizes[0]} and {sizes[1]} pixels)"
    if one.training is None or other.training is None:
        return None
    if _beginning(one.training) == _beginning(other.training):
        return f"were both trained with seed {one.training.seed}"
    images = _images_seen(one.path, one.training), _images_seen(other.path, other.training)
    if one.named and other.named:
        return None
    if images[0] != images[1]:
        return f"were trained on different numbers of images ({images[0]:,} and {images[1]:,})"
    return _difference_in_settings(one.path.parent, other.path.parent)


def _difference_in_settings(one: Path, other: Path) -> str | None:
    """The first setting of two runs that seeds of one model share, and these don't."""
    first, second = _settings(one), _settings(other)
    for name in sorted(first.keys() & second.keys()):  # of other versions, one may lack some
        if first[name] != second[name]:
            return f"were trained with different settings ({name}: {first[name]} and {second[name]})"
    return None


def _settings(run: Path) -> dict[str, Any]:
    """What makes a run's network, but its seed and start, by dotted name."""
    return {
        name: value
        for name, value in _dotted(read_config(run))
        if (name.startswith("model.") and name not in UNCOMPARED) or name in ("data.store", "data.batch_size")
    }


def _dotted(value: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """What nested dictionaries hold, by the names on the way."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _dotted(inner, *path, str(name))
    else:
        yield ".".join(path), value


def _beginning(training: Training) -> tuple[int, str | None, str | None]:
    """Seed and start: networks of one seed that start from different ones are different."""
    return training.seed, training.pretrained, training.fine_tuned


def _images_seen(path: Path, training: Training) -> int:
    """Images of the whole training; `best.safetensors` may be from long before its end, which the run's last file
    tells, or the validations as far as they go."""
    validations = read_validations(path.parent)
    steps = [training.steps, *(line["step"] for line in validations)]
    with contextlib.suppress(CheckpointError, FileNotFoundError):
        steps.append(read_info(path.parent / LAST_NAME).steps)
    return images_seen(validations, max(steps), training.images_per_step)
