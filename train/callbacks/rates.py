"""Learning rates of a run that goes on with other ones."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from train.optimisation import set_rates
from train.task import Task


class LearningRates(Callback):
    """Lets the learning rates of the settings hold, also where the checkpoint was trained with others.

    A callback, as Lightning asks those when the weights are loaded: a checkpoint of another network is told as that.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raises ConfigError where the checkpoint has the state of another optimiser."""
        set_rates(cast(Task, pl_module).optimiser_options, checkpoint)
