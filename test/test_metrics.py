"""Segmentation scores against scikit-learn, brute force and values worked out by hand."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from sklearn.metrics import adjusted_rand_score

from train.metrics.means import NamedMeans, SegmentationMetrics
from train.metrics.segmentation import image_scores, mean_squared_error

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Random maps, from one label (degenerate) to more labels than pixels, uint8 or int64, with any background."""
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.uint8, np.int64]))
    true = draw(hnp.arrays(dtype, shape, elements=st.integers(0, draw(st.integers(0, 60)))))
    slot = draw(hnp.arrays(dtype, shape, elements=st.integers(0, draw(st.integers(0, 60)))))
    return true, slot, draw(st.integers(0, 6))


def covering_by_hand(true: np.ndarray, slot: np.ndarray, background_labels: int, weighted: bool) -> float:
    """The definition of section 5.2, mask by mask."""
    best, areas = [], []
    for label in [label for label in np.unique(true) if label >= background_labels]:
        region = true == label
        overlaps = [np.sum(region & (slot == s)) / np.sum(region | (slot == s)) for s in np.unique(slot)]
        best.append(max(overlaps))
        areas.append(region.sum())
    if not best:
        return math.nan
    return float(np.average(best, weights=areas if weighted else None))


def rand_index_by_sklearn(true: np.ndarray, slot: np.ndarray, background_labels: int) -> float:
    foreground = true >= background_labels
    return adjusted_rand_score(true[foreground], slot[foreground]) if foreground.any() else math.nan


@given(label_maps())
@settings(max_examples=200, deadline=None)
@example((np.zeros((1, 3, 3), np.uint8), np.arange(9, dtype=np.uint8).reshape(1, 3, 3), 0))  # one label, all split
@example((np.arange(9).reshape(1, 3, 3), np.arange(9)[::-1].reshape(1, 3, 3).copy(), 0))  # every pixel an object
@example((np.full((1, 1, 1), 5, np.uint8), np.zeros((1, 1, 1), np.uint8), 4))  # one foreground pixel
def test_scores_are_the_published_ones(maps: tuple[np.ndarray, np.ndarray, int]) -> None:
    true, slot, background_labels = maps
    scores = image_scores(torch.from_numpy(true), torch.from_numpy(slot), background_labels)
    for i in range(len(true)):
        pair = true[i], slot[i]
        assert float(scores.ari[i]) == pytest.approx(
            rand_index_by_sklearn(*pair, background_labels), abs=1e-12, nan_ok=True
        )
        assert float(scores.ari_all[i]) == pytest.approx(rand_index_by_sklearn(*pair, 0), abs=1e-12)
        for weighted, value in ((False, scores.msc[i]), (True, scores.covering[i])):
            expected = covering_by_hand(*pair, background_labels, weighted)
            assert float(value) == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert int(scores.objects[i]) == len([label for label in np.unique(true[i]) if label >= background_labels])


@given(label_maps(), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_slots_may_be_renumbered(maps: tuple[np.ndarray, np.ndarray, int], seed: int) -> None:
    true, slot, background_labels = maps
    permutation = np.random.default_rng(seed).permutation(int(slot.max()) + 1)
    before = image_scores(torch.from_numpy(true), torch.from_numpy(slot), background_labels)
    after = image_scores(torch.from_numpy(true), torch.from_numpy(permutation[slot]), background_labels)
    for name in ("ari", "ari_all", "msc", "covering", "best_overlap"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), equal_nan=True)


def test_a_scene_worked_out_by_hand() -> None:
    # Background 0; object 1 has two pixels, object 2 four; slot 1 holds object 1 and two background pixels.
    true = torch.tensor([[[1, 1, 0, 0], [2, 2, 2, 2]]])
    slot = torch.tensor([[[1, 1, 1, 1], [2, 2, 2, 3]]])
    scores = image_scores(true, slot, 1)
    assert scores.msc.item() == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert scores.covering.item() == pytest.approx((2 * 0.5 + 4 * 0.75) / 6)
    assert scores.ari.item() == pytest.approx(adjusted_rand_score([1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 2, 3]))


def test_specks_can_be_left_out() -> None:
    true = torch.ones(1, 8, 8, dtype=torch.uint8)
    true[0, 0, 0] = 2  # an object of one pixel
    slot = torch.zeros_like(true)
    assert image_scores(true, slot, 1).objects.item() == 2
    without = image_scores(true, slot, 1, min_pixels=2)
    assert without.objects.item() == 1
    assert without.ari.item() == 1
    assert without.msc.item() == pytest.approx(63 / 64)


def test_large_images_stay_exact() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 5, (1, 512, 512))
    slot = np.where(generator.random(true.shape) < 0.7, true, generator.integers(0, 7, true.shape))
    ours = image_scores(torch.from_numpy(true), torch.from_numpy(slot), 1).ari.item()
    assert ours == pytest.approx(rand_index_by_sklearn(true[0], slot[0], 1), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 5, dtype=torch.long), "must both be"),
        (torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4), "argmax"),
        (torch.full((1, 4, 4), -1), torch.zeros(1, 4, 4, dtype=torch.long), "negative"),
    ],
)
def test_bad_input_is_named(labels: torch.Tensor, predicted: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_scores(labels, predicted, 1)


def test_squared_error_takes_bytes_and_floats() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    shifted = images.float() / 255 + 0.1
    torch.testing.assert_close(mean_squared_error(images, shifted), torch.full((2,), 0.01, dtype=torch.float64))
    with pytest.raises(ValueError, match="differ"):
        mean_squared_error(images, shifted[:, :1])


def random_batch(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    objects = torch.randint(1, 6, (size, 1, 1), generator=generator)
    labels = torch.randint(0, 100, (size, 6, 6), generator=generator) % objects
    predicted = torch.randint(0, 4, (size, 6, 6), generator=generator)
    return labels.to(torch.uint8), predicted


def test_accumulated_means_are_those_of_the_images() -> None:
    labels, predicted = random_batch(0, 40)
    metrics = SegmentationMetrics(background_labels=1)
    for start in range(0, 40, 7):
        metrics.update(labels[start : start + 7], predicted[start : start + 7])
    scores = image_scores(labels, predicted, 1)
    result = metrics.compute()
    for name in ("ari", "ari_all", "msc", "covering"):
        torch.testing.assert_close(result[name], getattr(scores, name).nanmean())
    torch.testing.assert_close(result["mbo"], scores.best_overlap.sum() / scores.objects.sum())
    torch.testing.assert_close(result["ari_multi"], scores.ari[scores.objects >= 2].mean())
    assert len(result) == 6


def test_nothing_seen_is_not_a_number() -> None:
    metrics = SegmentationMetrics(background_labels=1)
    metrics.update(torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4, dtype=torch.long))
    result = metrics.compute()
    assert math.isnan(result["ari"])
    assert math.isnan(result["mbo"])


def test_a_value_that_an_image_lacks_is_left_out_of_its_mean_alone() -> None:
    means = NamedMeans(("loss", "accuracy"))
    means.update(loss=torch.tensor([1.0, 2.0]), accuracy=torch.tensor([0.5, torch.nan]))
    means.update(loss=torch.tensor([3.0]), accuracy=torch.tensor([1.0]))
    assert means.compute() == {"loss": 2.0, "accuracy": 0.75}
