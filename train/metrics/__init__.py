"""Scores of a decomposition: segmentation, reconstruction and disentanglement."""

from train.metrics.segmentation import (
    SCORES,
    SegmentationMetrics,
    adjusted_rand_index,
    image_scores,
    mean_squared_error,
    overlaps,
    segmentation_covering,
)

__all__ = [
    "SCORES",
    "SegmentationMetrics",
    "adjusted_rand_index",
    "image_scores",
    "mean_squared_error",
    "overlaps",
    "segmentation_covering",
]
