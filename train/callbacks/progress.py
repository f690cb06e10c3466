"""A progress bar over the whole training: steps done of steps wanted, images per second, the loss."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

LOSS_STEPS = 20
"""Steps after which the loss beside the bar is renewed; reading it waits for the device."""


class RunProgress(ProgressBar):
    """One bar for the whole run (Lightning begins a new one every epoch); without a terminal, a line every 30 s."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self.is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False  # as Lightning does on all processes but the first

    def enable(self) -> None:
        self.is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        self._bar = tqdm(
            total=None if total == float("inf") else int(total),
            initial=trainer.global_step,
            desc="training",
            unit="step",
            disable=not self.is_enabled,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            dynamic_ncols=True,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._bar is not None
        if trainer.global_step % LOSS_STEPS == 0:
            values = {name.removeprefix("train/"): float(value) for name, value in trainer.progress_bar_metrics.items()}
            self._bar.set_postfix(values, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints above the bar."""
        tqdm.write(" ".join(str(arg) for arg in args), file=sys.stdout)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
