"""Scores of a decomposition: segmentation, reconstruction and disentanglement."""
