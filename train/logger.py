"""TensorBoard's files, written by tensorboardX alone."""

from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

# More than a validation logs at once: a writer whose thread has died is noticed before the next values, not among them.
QUEUE = 1000


class TensorBoardXLogger(TensorBoardLogger):
    """Lightning's logger without torch.utils.tensorboard, which imports TensorFlow wherever that is installed: four
    seconds and 650 MB in every process.

    A write that fails (a full disk, say) is told once, and training goes on without TensorBoard. tensorboardX itself
    would end it, or, as its writing thread dies of the error, wait for ever until that takes the next values.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        from tensorboardX import SummaryWriter

        if self._experiment is None:
            self._experiment = SummaryWriter(logdir=self.log_dir, max_queue=QUEUE)
        elif not _is_writing(self._experiment):
            self._give_up("a write failed")
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        try:
            super().save()
        except OSError as error:
            self._give_up(error)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            super().finalize(status)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, reason: OSError | str) -> None:
        from tensorboardX import SummaryWriter

        rank_zero_warn(f"TensorBoard's files in {self.log_dir} are no longer written: {reason}; training goes on")
        abandoned: Any = self._experiment
        # Otherwise the process waits at its end until somebody takes what is left in the queue.
        abandoned.file_writer.event_writer._event_queue.cancel_join_thread()
        self._experiment = SummaryWriter(write_to_disk=False)


def _is_writing(writer: Any) -> bool:
    """Whether the thread of a SummaryWriter lives; one that writes nothing, or was closed, has none."""
    event_writer = getattr(writer.file_writer, "event_writer", None)
    return event_writer is None or event_writer._worker is None or event_writer._worker.is_alive()
