"""What every source of training images has in common: numbered samples and broken records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from train.data.layout import StoreLayout


class SourceError(ValueError):
    """A source can't be read as asked: files are missing, of another kind, or a setting doesn't fit them."""


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it; shapes and dtypes are those of one row of a store."""

    record: int
    """Its number in the source, counted from 0."""
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None = None
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    depth: NDArray[np.uint16] | None = None
    camera: NDArray[np.float32] | None = None
    group: int | None = None


@dataclass(frozen=True)
class BrokenRecord:
    """A record that can't be read, and why."""

    record: int
    reason: str
    final: bool = False
    """Whether nothing behind it can be read: it is the last that the source yields."""


class Source(Protocol):
    """Numbered records, always the same in the same order, to be read from any of them on."""

    @property
    def layout(self) -> StoreLayout:
        """Of the store that holds what is read."""

    @property
    def records(self) -> int | None:
        """How many there are; None where only reading tells."""

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Records from number `start` on."""
