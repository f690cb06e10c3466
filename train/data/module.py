"""The Lightning data module: batches from stores of images, in an order that survives interruption."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import lightning
import numpy as np
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.data.manifest import Manifest, StoreError
from train.data.sampler import EpochSampler, split_indices
from train.data.store import Store


class Batch(TypedDict):
    """What the loaders yield."""

    images: Tensor
    """uint8 [B, 3, H, W] in channels-last memory."""
    index: Tensor
    """int64 [B], places in the store."""
    labels: NotRequired[Tensor]
    """uint8 [B, H, W], where the store has labels."""


class StoreDataset(Dataset[Batch]):
    """Some images of a store, read a batch at a time.

    Args:
        store: the store.
        indices: int64 [n], the places in it that belong to this part; None: all.
    """

    def __init__(self, store: Store, indices: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.indices = indices

    def __len__(self) -> int:
        return len(self.store) if self.indices is None else len(self.indices)

    def __getitem__(self, place: int) -> Batch:
        return self.__getitems__([place])

    def __getitems__(self, places: Sequence[int]) -> Batch:
        """One fancy index per array instead of one per image, which is five times as fast."""
        index = np.asarray(places, np.int64) if self.indices is None else self.indices[places]
        images = torch.from_numpy(self.store.images[index])
        batch: Batch = {"images": images.permute(0, 3, 1, 2), "index": torch.from_numpy(index)}
        if self.store.labels is not None:
            batch["labels"] = torch.from_numpy(self.store.labels[index])
        return batch


class SceneLoader(DataLoader[Batch]):
    """A DataLoader whose place in the epoch goes into Lightning's checkpoints and back."""

    trainer: lightning.Trainer | None = None
    """Who uses it; set after construction, as Lightning constructs loaders with DataLoader's own arguments."""
    _epoch = -1
    _delivered = 0
    """Batches given out in epoch `_epoch`, since its iteration began."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator in place of torch's iterator class
        batches = super().__iter__()
        self._epoch, self._delivered = getattr(self.sampler, "epoch", 0), 0
        return self._counted(batches)

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place after the last batch that was trained on; {} where something else orders the images."""
        if not isinstance(self.sampler, EpochSampler):
            return {}
        if self._epoch != self.sampler.epoch:  # the sampler is in the next epoch, and its iteration hasn't begun
            return self.sampler.state_dict()
        assert self.batch_size is not None
        return self.sampler.state_dict(consumed=(self._delivered - self._unfinished()) * self.batch_size)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next iteration at the place that `state_dict` gave."""
        if not state or not isinstance(self.sampler, EpochSampler):
            return
        self.sampler.load_state_dict(state)
        assert self.batch_size is not None
        trained = len(self) * self.batch_size * self.sampler.num_replicas
        if self.sampler.offset >= trained:
            self.sampler.set_epoch(self.sampler.epoch + 1)

    def _unfinished(self) -> int:
        """1 while a batch was delivered and not yet trained on: one that an exception interrupted is given again."""
        if self.trainer is None:
            return 0
        progress = cast(_ProcessedTracker, self.trainer.fit_loop.epoch_loop.batch_progress.current)
        return progress.ready - progress.processed


class SceneData(lightning.LightningDataModule):
    """Training and validation batches from stores.

    Batches are dicts, see Batch. Every epoch is a permutation that depends on `order_seed` and the epoch alone; a
    resumed run goes on with the next batch, also in the middle of an epoch.

    Args:
        store: folder of the training store (`python -m train.prepare` and `python -m train.render` make them).
        batch_size: images in a batch of one process.
        val_store: folder of the validation store; None: a share of the training store.
        val_fraction: that share, in [0, 1). Images of one group (trajectory, recording) stay on one side.
        seed: of the split.
        order_seed: of the order of the training images; the commands give it `--seed_everything`.
        workers: processes that read ahead. 0 is fastest from a warm cache on few cores (45,000 against 600,000
            images a second); a few pay off where the store is larger than memory.
        pin_memory: copy batches to page-locked memory for the transfer to a GPU; None: where there is a GPU.
    """

    def __init__(
        self,
        store: Path,
        batch_size: int = 64,
        val_store: Path | None = None,
        val_fraction: float = 0.02,
        seed: int = 0,
        order_seed: int = 0,
        workers: int = 0,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size has to be at least 1, not {batch_size}")
        if workers < 0:
            raise ValueError(f"workers must not be negative, got {workers}")
        self.store = Path(store)
        self.batch_size = batch_size
        self.val_store = None if val_store is None else Path(val_store)
        self.val_fraction = val_fraction
        self.seed = seed
        self.order_seed = order_seed
        self.workers = workers
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.train_set: StoreDataset | None = None
        self.val_set: StoreDataset | None = None

    @property
    def manifest(self) -> Manifest:
        """Of the training store; needs no `setup`."""
        return Manifest.read(self.store)

    @property
    def val_manifest(self) -> Manifest:
        """Of the store that the validation images come from, which may have other labels; needs no `setup`."""
        return Manifest.read(self.val_store or self.store)

    def setup(self, stage: str | None = None) -> None:
        """Open the stores.

        Raises:
            StoreError: a store can't be opened or divided, or the two hold images of different sizes.
        """
        store = Store.open(self.store)
        if self.val_store is None:
            try:
                train, val = split_indices(len(store), self.val_fraction, self.seed, store.groups)
            except ValueError as error:
                raise StoreError(f"{self.store}: {error}") from error
            self.train_set, self.val_set = StoreDataset(store, train), StoreDataset(store, val)
            rank_zero_info(f"{self.store}: {len(train)} images for training, {len(val)} for validation")
            return
        val_store = Store.open(self.val_store)
        if val_store.images.shape[1:] != store.images.shape[1:]:
            sizes = [f"{s.manifest.height}x{s.manifest.width}" for s in (store, val_store)]
            raise StoreError(f"{self.store} has images of {sizes[0]} and {self.val_store} of {sizes[1]}")
        if _same_scenes(store.manifest, val_store.manifest):
            rank_zero_warn(
                f"{self.val_store} was rendered with the seed of {self.store} and holds scenes that are trained on: "
                "render it with another --seed"
            )
        self.train_set, self.val_set = StoreDataset(store), StoreDataset(val_store)

    def train_dataloader(self) -> SceneLoader:
        """Shuffled, full batches only (all of them have one shape), sharded over the processes of a distributed run.

        Raises:
            StoreError: the store has fewer images for training than a batch of every process.
            RuntimeError: `setup` wasn't called.
        """
        dataset = self._part(self.train_set)
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(len(dataset), self.order_seed, rank=rank, processes=processes)
        if len(sampler) < self.batch_size:
            raise StoreError(
                f"{self.store} has {len(dataset)} images for training: fewer than a batch of {self.batch_size} "
                f"for each of {processes} process(es); lower the batch size"
            )
        loader = SceneLoader(dataset, sampler=sampler, drop_last=True, **self._options())
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> SceneLoader | list[SceneLoader]:
        """In the store's order; [] where no image is set apart for validation.

        Raises:
            RuntimeError: `setup` wasn't called.
        """
        dataset = self._part(self.val_set)
        return SceneLoader(dataset, shuffle=False, **self._options()) if len(dataset) else []

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": self.pin_memory,
            "collate_fn": _as_it_is,
            "worker_init_fn": _obey_parent,
        }

    def _part(self, dataset: StoreDataset | None) -> StoreDataset:
        if dataset is None:
            raise RuntimeError("call setup() first")
        return dataset


def scene_data(trainer: lightning.Trainer) -> SceneData:
    """The data module that a trainer was given."""
    data = cast(Any, trainer).datamodule
    assert isinstance(data, SceneData)
    return data


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _obey_parent(worker: int) -> None:
    """Lets the training process alone end its workers: Ctrl-C and schedulers signal the whole process group."""
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(parent,), daemon=True).start()


def _end_when_told(parent: int) -> None:
    # Not just ignored: Python's exit ends the workers that are left by SIGTERM, and waits for them.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _same_scenes(one: Manifest, other: Manifest) -> bool:
    """Whether two stores were rendered from one seed: the smaller is then a part of the larger."""
    rendered = (one.source, other.source) == ("train.render", "train.render")
    return rendered and (one.dataset, one.seed, one.options) == (other.dataset, other.seed, other.options)
