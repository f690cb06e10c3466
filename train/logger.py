"""TensorBoard's files, written by tensorboardX alone."""

from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoardXLogger(TensorBoardLogger):
    """Lightning's logger without torch.utils.tensorboard, which imports TensorFlow wherever that is installed: four
    seconds and 650 MB in every process."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            from tensorboardX import SummaryWriter

            self._experiment = SummaryWriter(logdir=self.log_dir)
        return self._experiment
