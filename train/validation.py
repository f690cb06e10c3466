"""What a validation says: each image once however many processes share them, and its values by name."""

from collections.abc import Sized
from typing import cast

from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric


def collect(metric: Metric) -> dict[str, Tensor]:
    """A metric's values over all processes as `val/NAME`, float32, and the metric starts anew.

    A score that no image has (NaN) is left out.
    """
    values = metric.compute()
    metric.reset()
    return {f"val/{name}": value.float() for name, value in values.items() if not value.isnan()}


def first_visits(trainer: Trainer, batch_idx: int, count: int) -> int:
    """How many of the `count` images of a validation batch are met for the first time.

    In a distributed run the sampler deals images out in turn and, for each process to have as many, repeats the first
    images at the very end: an evaluation that counted them would depend on the number of processes.
    """
    loader = trainer.val_dataloaders
    assert isinstance(loader, DataLoader)
    assert loader.batch_size is not None
    first = trainer.global_rank + trainer.world_size * batch_idx * loader.batch_size
    left = len(cast(Sized, loader.dataset)) - first
    return max(min(count, -(-left // trainer.world_size)), 0)
