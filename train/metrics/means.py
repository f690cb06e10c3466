"""Means of named values over images: sums of a fixed size, which processes of a DDP run add up and need not gather."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedMeans(Metric):
    """Means of named values; one tensor of sums instead of a metric object for each name.

    What a batch adds is said by `update` of a subclass.

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

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Adds a batch: values [N, B] in the order of the names, NaN where an image has none, and weights [N, B]."""
        self.sums += values.nansum(dim=1)
        self.counts += weights.sum(dim=1)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each value over the images of all processes that have it, float64; NaN where none has."""
        return dict(zip(self.names, self.sums / self.counts, strict=True))


class NamedMeans(WeightedMeans):
    """Means of per-image values that are given by name."""

    def update(self, **values: Tensor) -> None:
        """Adds a batch: for each name, in any order, one value an image, [B]; NaN where an image has none."""
        columns = torch.stack([values[name].double() for name in self.names])
        self.add(columns, ~columns.isnan())
