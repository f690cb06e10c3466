"""Scores of a network on a store, image by image, and what they come to: means, bootstrap intervals, by objects.

What is measured is what the robot runs: images go through `monet_perception.decomposer.Decomposer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap

from monet_perception.checkpoint import CheckpointInfo
from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import Decomposition, mixture
from train.data.store import Store
from train.inference import decompose_store, reconstructed
from train.metrics.segmentation import image_scores, mean_squared_error
from train.runs import Training

Floats = NDArray[np.float64]
OF_AN_IMAGE = ("ari", "ari_all", "msc", "covering", "mse", "mse_decoded")
"""Scores that each image has and that are averaged over images; mBO is averaged over objects instead."""


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one store.

    Attributes:
        model: its name in tables; checkpoints of one name are seeds of one model.
        checkpoint: the file, as given.
        info: what the file says about itself.
        store: the store's folder, as given.
        runs_on: device, precision and backend.
        seconds: that decomposing and scoring took.
        scores: each float64 [N], one value an image (NaN where it has none), by the names of `OF_AN_IMAGE`,
            and `best_overlap`, the sum of the best IoU of its objects.
        objects: int64 [N], visible objects; -1 where the store has no labels.
        training: how the network was trained; None where the checkpoint is not in the folder of its run.
    """

    model: str
    checkpoint: Path
    info: CheckpointInfo
    store: Path
    runs_on: str
    seconds: float
    scores: Mapping[str, Floats]
    objects: NDArray[np.int64]
    training: Training | None = None

    def chosen(self, where: NDArray[np.bool_]) -> dict[str, float]:
        """Means over the chosen images."""
        means = {name: _mean(self.scores[name][where]) for name in OF_AN_IMAGE}
        means["mbo"] = _ratio(self.scores["best_overlap"][where], self.objects[where])
        return means

    def means(self) -> dict[str, float]:
        """Means over all images, and `ari_multi` over those with two visible objects or more."""
        everywhere = self.chosen(np.ones(len(self.objects), dtype=bool))
        return {**everywhere, "ari_multi": _mean(self.scores["ari"][self.objects >= 2])}

    def by_objects(self) -> dict[int, dict[str, float]]:
        """Means over the images with each number of visible objects, and how many `images` those are."""
        return {
            int(n): {"images": int((self.objects == n).sum()), **self.chosen(self.objects == n)}
            for n in np.unique(self.objects)
        }

    def intervals(self, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
        """95 % percentile bootstrap intervals over images of everything in `means`."""
        random = np.random.default_rng(seed)
        found = {name: _interval((self.scores[name],), _resampled_mean, resamples, random) for name in OF_AN_IMAGE}
        multi = self.scores["ari"][self.objects >= 2]
        found["ari_multi"] = _interval((multi,), _resampled_mean, resamples, random)
        some = self.objects > 0
        pair = (self.scores["best_overlap"][some], self.objects[some].astype(np.float64))
        found["mbo"] = _interval(pair, _resampled_ratio, resamples, random)
        return found


def evaluate(
    decomposer: Decomposer,
    store: Store,
    *,
    batch_size: int = 64,
    limit: int | None = None,
    min_pixels: int = 1,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """Scores of every image: `Evaluation.scores` and `Evaluation.objects`.

    Args:
        batch_size: images decomposed at a time.
        limit: only the first so many images.
        min_pixels: visible pixels, at the network's resolution, that an object needs in order to count.
        progress: told the number of images after each batch.
    """
    columns: dict[str, list[Floats]] = {name: [] for name in (*OF_AN_IMAGE, "best_overlap")}
    objects: list[NDArray[np.int64]] = []
    for batch in decompose_store(decomposer, store, batch_size=batch_size, limit=limit, progress=progress):
        scores = reconstruction_scores(batch.decomposition)
        count = np.full(len(batch.index), -1)
        if batch.labels is not None:
            labels = torch.from_numpy(batch.labels)
            found = image_scores(
                labels, torch.from_numpy(batch.predicted), store.manifest.background_labels, min_pixels
            )
            names = ("ari", "ari_all", "msc", "covering", "best_overlap")
            scores.update({name: getattr(found, name).numpy() for name in names})
            count = found.objects.numpy()
        for name, column in columns.items():
            column.append(scores.get(name, np.full(len(batch.index), np.nan)))
        objects.append(count)
    return {name: np.concatenate(column) for name, column in columns.items()}, np.concatenate(objects)


def reconstruction_scores(decomposition: Decomposition) -> dict[str, Floats]:
    """MSE of each image of a batch, mixed by the attention's masks (`mse`) and by the decoded ones (`mse_decoded`)."""
    pictures, masks = reconstructed(decomposition)
    images = torch.from_numpy(decomposition.image)
    mixtures = {"mse": decomposition.reconstruction(), "mse_decoded": mixture(masks, pictures)}
    return {name: mean_squared_error(images, torch.from_numpy(one)).numpy() for name, one in mixtures.items()}


def average_by_objects(evaluations: Sequence[Evaluation]) -> dict[int, dict[str, float]]:
    """`Evaluation.by_objects`, averaged over the networks of one model (the images are the same)."""
    tables = [one.by_objects() for one in evaluations]
    return {n: {name: float(np.mean([t[n][name] for t in tables])) for name in tables[0][n]} for n in tables[0]}


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(sums: Floats, counts: NDArray[np.int64]) -> float:
    total = counts[counts > 0].sum()
    return float(np.nansum(sums) / total) if total else float("nan")


def _resampled_mean(values: Floats, axis: int) -> Floats:
    return values.mean(axis=axis)


def _resampled_ratio(sums: Floats, counts: Floats, axis: int) -> Floats:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _interval(
    data: tuple[Floats, ...], statistic: Callable[..., Floats], resamples: int, random: np.random.Generator
) -> tuple[float, float]:
    known = ~np.isnan(data[0])
    if known.sum() < 2:
        return float("nan"), float("nan")
    # Percentile, not BCa: its jackknife costs N^2, and over thousands of images the two agree.
    found = bootstrap(
        tuple(column[known] for column in data),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        method="percentile",
        batch=64,
        rng=random,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
