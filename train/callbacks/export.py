"""Writes the best and the newest network of a run as checkpoints that the node loads."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

FALLBACK = "val/total"


class Exportable(Protocol):
    """A task that can write its network."""

    def export(self, path: Path, dataset: str, steps: int, metrics: Mapping[str, float]) -> None:
        """Writes the network, whole or not at all."""


class Export(Callback):
    """Writes `best.safetensors` and `last.safetensors` after every validation, and the latter at the end.

    A run that is told to end writes `last.safetensors` as well, so that what it has learnt can be used and measured.

    The task, an `Exportable`, does the writing.

    Args:
        folder: The run's folder.
        dataset: Name of the training data, for the files' metadata.
        monitor: What decides which network is best; where the validation images have no such score (labels are
            missing), the lowest loss does.
        mode: Whether the highest or the lowest value is.
    """

    def __init__(self, folder: Path, dataset: str, monitor: str, mode: Literal["max", "min"]) -> None:
        self.folder = folder
        self.dataset = dataset
        self.monitor = monitor
        self.mode = mode
        self.best = -math.inf
        self._metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self._metrics = {name.removeprefix("val/"): value for name, value in values.items() if math.isfinite(value)}
        self._write(trainer, pl_module, "last.safetensors")
        monitor, mode = (self.monitor, self.mode) if self.monitor in values else (FALLBACK, "min")
        score = values.get(monitor, math.nan) * (1 if mode == "max" else -1)
        if score > self.best:
            if not self._write(trainer, pl_module, "best.safetensors"):
                return  # a network that comes near may be written later
            self.best = score
            pl_module.print(f"best so far: {monitor} {values[monitor]:.4f} at step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer, pl_module, "last.safetensors")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):
            self.on_train_end(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule, name: str) -> bool:
        """Whether the disk took it."""
        path = self.folder / name
        try:
            cast(Exportable, pl_module).export(path, self.dataset, trainer.global_step, self._metrics)
        except OSError as error:
            rank_zero_warn(f"{path} was not written: {error}; training goes on")
            return False
        return True
