"""An order of training images that is a function of (seed, epoch, offset), so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

_CHUNK = 1 << 16


class EpochSampler(DistributedSampler[int]):
    """Every epoch a new permutation, read from any offset, dealt out to the processes of a distributed run.

    A DistributedSampler by type, because Lightning replaces every other sampler in distributed training.

    Args:
        count: number of images.
        seed: of all permutations.
        rank, processes: this process and how many there are. Each epoch leaves out the images that can't be dealt out
            evenly, fewer than `processes`, others in each epoch.
    """

    def __init__(self, count: int, seed: int, *, rank: int = 0, processes: int = 1) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank {rank} is not one of {processes} processes")
        super().__init__(_Countable(count), num_replicas=processes, rank=rank, seed=seed, drop_last=True)
        self.count = count
        self.offset = 0
        """Images of this epoch that all processes together have already had."""

    @property
    def epoch_size(self) -> int:
        """Images that all processes together see in an epoch."""
        return self.count // self.num_replicas * self.num_replicas

    def __len__(self) -> int:
        """This process's images in a whole epoch, whatever the offset: what Lightning counts batches against."""
        return self.count // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        order = epoch_order(self.count, self.seed, self.epoch)
        remaining = (self.epoch_size - self.offset) // self.num_replicas
        order = order[self.offset + self.rank :: self.num_replicas][:remaining]
        for start in range(0, remaining, _CHUNK):
            yield from order[start : start + _CHUNK].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; to the current one or back changes nothing.

        Lightning names the epoch again and again, and after resuming from an epoch's last batch once the old one.
        """
        if epoch > self.epoch:
            self.epoch, self.offset = epoch, 0

    def state_dict(self, consumed: int = 0) -> dict[str, int]:
        """Where the order stands after `consumed` further images of this process."""
        return {"seed": self.seed, "epoch": self.epoch, "offset": self.offset + consumed * self.num_replicas}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a place that `state_dict` gave, also from a run with another number of processes."""
        self.seed, self.epoch, self.offset = state["seed"], state["epoch"], state["offset"]


class _Countable(Dataset[None]):
    """All that DistributedSampler asks of a dataset: its length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of `count` images in `epoch`: int64 [count]."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def split_indices(
    count: int, fraction: float, seed: int, groups: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide images at random into two sorted parts.

    Args:
        count: number of images.
        fraction: share of the second part, in [0, 1).
        seed: of the draw.
        groups: int32 [count]: images of one group, such as views of one trajectory, stay together.
    Raises:
        ValueError: the fraction is out of range, or leaves one of the parts empty.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the validation fraction has to be in [0, 1), not {fraction}")
    if fraction == 0:
        return np.arange(count), np.arange(0)
    _, group = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(sizes))
    # The group that crosses the wanted share goes to whichever side comes closer to it.
    taken = int(np.argmin(np.abs(np.cumsum(sizes[order]) - fraction * count))) + 1
    if taken == 1:  # the first may hold far more than wanted, where another comes close
        order = order[np.argsort(np.abs(sizes[order] - fraction * count), kind="stable")]
    if taken == len(sizes):
        what = "images" if groups is None else "groups of images"
        raise ValueError(
            f"{len(sizes)} {what} can't be divided into training and validation; "
            "give a store for validation (--data.val_store), or do without (--data.val_fraction 0)"
        )
    second = np.isin(group, order[:taken])
    return np.flatnonzero(~second), np.flatnonzero(second)
