"""What validation adds up: means of named values over images, each image once however many processes share them."""

from collections.abc import Sequence, Sized
from typing import cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric


class NamedMeans(Metric):
    """Means of named per-image values; one tensor of sums instead of a metric object for each name.

    Args:
        names: names of the values.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in ("sums", "counts"):
            self.add_state(name, torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, **values: Tensor) -> None:
        """Adds a batch: for each name, in any order, one value an image, [B]; NaN where an image has none."""
        columns = torch.stack([values[name].double() for name in self.names])
        self.sums += columns.nansum(dim=1)
        self.counts += (~columns.isnan()).sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each value over the images of all processes that have it; NaN where none has."""
        return dict(zip(self.names, self.sums / self.counts, strict=True))


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
