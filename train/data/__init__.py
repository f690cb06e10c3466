"""The store of training images, what fills it, and the data module that feeds it to training."""

from train.data.store import Factor, Manifest, Store, StoreError, StoreWriter

__all__ = ["Factor", "Manifest", "Store", "StoreError", "StoreWriter"]
