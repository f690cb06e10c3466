"""Scores of a decomposition: segmentation, reconstruction and disentanglement."""

from train.metrics.means import NamedMeans
from train.metrics.segmentation import (
    SegmentationMetrics,
    image_scores,
    mean_squared_error,
)

__all__ = [
    "NamedMeans",
    "SegmentationMetrics",
    "image_scores",
    "mean_squared_error",
]
