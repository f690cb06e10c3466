"""Scores of a decomposition: segmentation, reconstruction and disentanglement."""

from train.metrics.segmentation import (
    SegmentationMetrics,
    image_scores,
    mean_squared_error,
)

__all__ = [
    "SegmentationMetrics",
    "image_scores",
    "mean_squared_error",
]
