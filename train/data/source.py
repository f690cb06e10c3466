"""What every source of training images has in common: samples, broken records, and the layout of the store to fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from train.data.manifest import Factor
from train.data.store import StoreWriter


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


@dataclass(frozen=True)
class Layout:
    """The store that a source fills; see Manifest and StoreWriter for the fields."""

    dataset: str
    split: str
    source: str
    licence: str
    height: int
    width: int
    background_labels: int = 1
    seed: int | None = None
    labels: bool = False
    factors: Mapping[str, Factor] = field(default_factory=dict)
    entities: int = 0
    depth: bool = False
    camera_fields: Sequence[str] = ()
    groups: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def writer(self, path: Path, overwrite: bool = False) -> StoreWriter:
        """A writer for as many samples as turn out to be readable."""
        return StoreWriter(path, **vars(self), overwrite=overwrite)


class Source(Protocol):
    """Numbered records, always the same in the same order, to be read from any of them on."""

    @property
    def layout(self) -> Layout:
        """Of the store that holds what is read."""

    @property
    def records(self) -> int | None:
        """How many there are; None where only reading tells."""

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Records from number `start` on."""
