"""Files to resume from, whole or absent: at fixed steps, at the end, and when the process is told to end."""

import errno
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from monet_perception.files import replacing

CHECKPOINT_NAME = "last.ckpt"
_NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")


class DamagedCheckpoint(RuntimeError):
    """A checkpoint that is not whole; the message names the file."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that the last good file stays until its successor is safe on disk.

    A write that fails (a full disk, say) is told and remembered in `error`, and training goes on: the next
    checkpoint may find room. Raising would also leave the other processes of a DDP run waiting for this one.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        try:
            with replacing(target) as temporary:
                _write(checkpoint, temporary)
            self.error = None
        except OSError as error:
            self.error = error
            kept = f"{target} of an earlier step is kept" if target.exists() else "there is no earlier one"
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            rank_zero_warn(f"the checkpoint of step {checkpoint['global_step']} was not written: {reason}; {kept}")

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Lightning's.

        Raises:
            DamagedCheckpoint: the file is truncated, empty or something else.
            OSError: it can't be read.
        """
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
            missing = {name for name in _NEEDED if name not in checkpoint or checkpoint[name] == []}
        except (OSError, MemoryError):
            raise
        except Exception as error:  # damaged bytes may raise anything in torch.load
            raise DamagedCheckpoint(f"{path} is truncated or damaged") from error
        if missing:
            raise DamagedCheckpoint(f"{path} is truncated or damaged: it has no {', '.join(sorted(missing))}")
        return checkpoint


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """torch.save to a path that raises OSError, where torch.save hides a failed write behind RuntimeError."""
    with path.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


class RunCheckpoint(Checkpoint):
    """Saves `last.ckpt` of a run every `every_n_steps` optimiser steps, at its end, on SIGTERM and on Ctrl-C.

    Saves only between optimiser steps, where a resumed run continues exactly. Takes both signals over from Lightning,
    whose SIGTERM handler communicates between the processes from wherever the signal happens to find them. A second
    signal ends at once, without saving.

    Args:
        folder: The run's folder.
        every_n_steps: Optimiser steps between two checkpoints.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ValueError(f"the steps between two checkpoints must be at least one, got {every_n_steps}")
        self.path = folder / CHECKPOINT_NAME
        self.every_n_steps = every_n_steps
        self._saved_step = -1
        self._told_to_end = False
        self._former_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for leftover in self.path.parent.glob(".*.part.*"):  # of a process killed while it wrote
                leftover.unlink()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former_handlers[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if trainer.fit_loop._should_accumulate():
            return
        due = step % self.every_n_steps == 0 or step >= trainer.estimated_stepping_batches
        end = self._any_told_to_end(trainer)
        if (due or end) and step != self._saved_step:
            self._save(trainer)
        if end:
            self._end(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        # one process alone can't know here whether the others have as many batches left
        if not (trainer.world_size == 1 and self._told_to_end) or trainer.state.fn != "fit":
            return
        if trainer.fit_loop._should_accumulate():  # the validation came between the batches of one step
            return
        # a resumed run goes on with the next training batch; the validation is given up, as its sums are not saved
        self._save(trainer)
        self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # otherwise a run that resumes from this step would leave its validation out or do it twice
        if not trainer.sanity_checking and trainer.global_step == self._saved_step:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step != self._saved_step:  # ended early, by --trainer.max_time for example
            self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler)
        self._former_handlers.clear()

    def _any_told_to_end(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._told_to_end, all=False)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # that is, with the optimiser's state
        self._saved_step = trainer.global_step

    def _end(self, trainer: Trainer) -> None:
        rank_zero_info(f"ended at step {trainer.global_step} as told; --resume goes on from {self.path}")
        raise SIGTERMException

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._told_to_end:
            raise KeyboardInterrupt
        self._told_to_end = True
        rank_zero_info(f"{signal.Signals(signum).name}: saving and ending after this step; once more ends without")
