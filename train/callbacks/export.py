"""Writes the best and the newest network of a run as checkpoints that the node loads."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from monet_perception.networks import MonetLoss
from train.runs import BEST_NAME, LAST_NAME

FALLBACK = "val/total"
LOWEST_IS_BEST = frozenset(f"val/{name}" for name in (*MonetLoss._fields, "mse"))
"""Losses and errors; of every other value the highest is."""


class Exportable(Protocol):
    """A task that can write its network."""

    def export(self, path: Path, dataset: str, steps: int, metrics: Mapping[str, float]) -> None:
        """Writes the network, whole or not at all."""


class UnknownMonitor(ValueError):
    """A validation has no value of the name that is to choose the best network; the message lists those there are."""


class Export(Callback):
    """Writes `best.safetensors` and `last.safetensors` after every validation, and the latter at the end.

    A run that is told to end writes `last.safetensors` as well, so that what it has learnt can be used and measured.

    The task, an `Exportable`, does the writing.

    Args:
        folder: The run's folder.
        dataset: Name of the training data, for the files' metadata.
        monitor: What decides which network is best.
        mode: Whether the highest or the lowest value is; None: the lowest of losses and errors, the highest of scores.
        else_loss: Whether the lowest loss decides where the validation images have no such score, as labels are
            missing; otherwise that is an error.
    """

    def __init__(
        self, folder: Path, dataset: str, monitor: str, mode: Literal["max", "min"] | None, *, else_loss: bool
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.monitor = monitor
        self.mode = mode or ("min" if monitor in LOWEST_IS_BEST else "max")
        self.else_loss = else_loss
        self.best = -math.inf
        self._metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "chosen_by": [self.monitor, self.mode], "metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._metrics = state_dict.get("metrics", {})  # which runs of version 0.1 lack, as what they were chosen by
        if state_dict.get("chosen_by", [self.monitor, self.mode]) == [self.monitor, self.mode]:
            self.best = state_dict["best"]
        else:
            rank_zero_info(f"the best network is chosen anew, by the {self.mode}imum of {self.monitor}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (self.folder / BEST_NAME).exists():  # of the time before the run was interrupted
            return
        if not any(trainer.num_val_batches):
            remedy = "set images apart for it (--data.val_fraction, --data.val_store, --trainer.limit_val_batches)"
        elif _ends_before_validation(trainer):
            remedy = "lower --trainer.val_check_interval"
        else:
            return
        rank_zero_warn(f"no validation will happen: there will be no {BEST_NAME} (use {LAST_NAME}); {remedy}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises UnknownMonitor, in all processes, where the validation had no value of the monitor's name."""
        if trainer.state.fn != "fit":
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self.monitor not in values and not self.else_loss:
            self._tell_unknown(list(values), only_warn=trainer.sanity_checking)
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        self._metrics = {name.removeprefix("val/"): value for name, value in values.items() if math.isfinite(value)}
        self._write(trainer, pl_module, LAST_NAME)
        monitor, mode = (self.monitor, self.mode) if self.monitor in values else (FALLBACK, "min")
        score = values.get(monitor, math.nan) * (1 if mode == "max" else -1)
        if score > self.best:
            if not self._write(trainer, pl_module, BEST_NAME):
                return  # a network that comes near may be written later
            self.best = score
            pl_module.print(f"best so far: {monitor} {values[monitor]:.4f} at step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer, pl_module, LAST_NAME)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):
            self.on_train_end(trainer, pl_module)

    def _tell_unknown(self, names: list[str], only_warn: bool) -> None:
        text = (
            f"the validation has no value {self.monitor!r} that could choose the best network: set --monitor to one of "
            f"{', '.join(sorted(names))}"
        )
        if not only_warn:
            raise UnknownMonitor(text)
        # the first images alone may lack a score that others have
        rank_zero_warn(f"{text}; otherwise training ends at its first validation")

    def _write(self, trainer: Trainer, pl_module: LightningModule, name: str) -> bool:
        """Whether the disk took it."""
        path = self.folder / name
        try:
            cast(Exportable, pl_module).export(path, self.dataset, trainer.global_step, self._metrics)
        except OSError as error:
            rank_zero_warn(f"{path} was not written: {error}; training goes on")
            return False
        return True


def _ends_before_validation(trainer: Trainer) -> bool:
    """Whether the steps that are left end before a validation is due; False where that can't be known."""
    interval, batches = trainer.val_check_batch, trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
    if trainer.check_val_every_n_epoch is not None or interval is None or not math.isfinite(interval):
        return False  # counted by epochs or by the clock
    return math.isfinite(batches) and batches // interval <= (trainer.fit_loop.total_batch_idx + 1) // interval
