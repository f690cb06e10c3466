"""One line on the screen and one in `validation.jsonl` for every validation."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from monet_perception.files import write_text
from train.data.module import Batch
from train.runs import VALIDATION_NAME, read_validations

SHOWN = ("ari", "ari_multi", "msc", "mse", "accuracy", "object_accuracy", "total", "active_slots", "mask_entropy")


class ValidationReport(Callback):
    """Prints each validation and appends it to the run's `validation.jsonl`.

    A line holds `step`, `images` seen by all processes together, `minutes` of training (what an interrupted run had
    spent by its checkpoint counts, what it lost doesn't), and every `val/` value by its name.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / VALIDATION_NAME
        self._start = time.monotonic()
        self._minutes_before = 0.0
        self._images: int | None = 0  # None: not known, as of runs that an earlier version began

    @property
    def minutes(self) -> float:
        """Of training so far."""
        return self._minutes_before + (time.monotonic() - self._start) / 60

    def state_dict(self) -> dict[str, Any]:
        return {"minutes": self.minutes, "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._minutes_before = state_dict["minutes"]
        self._images = state_dict.get("images")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()
        if trainer.is_global_zero and self.path.exists():
            # a killed run may have validated beyond the step that it resumes from
            self._write([line for line in read_validations(self._folder) if line["step"] <= trainer.global_step])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._images is not None:
            self._images += len(batch["images"]) * trainer.world_size

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        values = {
            name.removeprefix("val/"): round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        minutes = round(self.minutes, 2)
        seen = {} if self._images is None else {"images": self._images}
        line = {"step": trainer.global_step, **seen, "minutes": minutes, **values}
        try:
            self._write([*read_validations(self._folder), line])
        except OSError as error:
            rank_zero_warn(f"{self.path} was not written: {error}; training goes on")
        shown = "  ".join(f"{name} {values[name]:.4g}" for name in SHOWN if name in values)
        pl_module.print(f"step {trainer.global_step}  {minutes} min  {shown}")

    def _write(self, lines: list[dict[str, Any]]) -> None:
        """Anew as a whole: a full disk would leave half a line."""
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in lines))
