"""Means over images: sums of a fixed size, which processes of a DDP run add up and need not gather.

Apart from the scores of an image, because torchmetrics takes two to four seconds to import, and only trainings need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from train.metrics.segmentation import image_scores

MEANS = ("ari", "ari_all", "msc", "covering", "mbo", "ari_multi")
"""The scores that `SegmentationMetrics` returns, in the order of its state."""


class WeightedMeans(Metric):
    """Means of named values; one tensor of sums instead of a metric object for each name.

    Subclasses define `update`, which adds a batch.

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


class SegmentationMetrics(WeightedMeans):
    """Means of `MEANS` over all images seen, each over those that have it; NaN where none has.

    `ari_multi` is the ARI over images with two objects or more.

    Args:
        background_labels: labels below this one are background.
    """

    def __init__(self, background_labels: int) -> None:
        super().__init__(MEANS)
        self.background_labels = background_labels

    def update(self, labels: Tensor, predicted: Tensor) -> None:
        """Add a batch.

        Args:
            labels: [B, H, W] integer, true labels.
            predicted: [B, H, W] integer, the argmax of the masks over slots.
        Raises:
            ValueError: as `image_scores`.
        """
        scores = image_scores(labels, predicted, self.background_labels)
        multi = torch.where(scores.objects >= 2, scores.ari, torch.nan)
        # mBO is a mean over objects, so its terms are sums over an image's objects and its weights their number.
        columns = (scores.ari, scores.ari_all, scores.msc, scores.covering, scores.best_overlap, multi)
        values = torch.stack([column.to(torch.float64) for column in columns])
        weights = (~values.isnan()).to(torch.float64)
        weights[MEANS.index("mbo")] = scores.objects.to(torch.float64)
        self.add(values, weights)
