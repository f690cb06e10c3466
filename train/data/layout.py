"""What a store holds: where its images come from, what is known about them, and the arrays that this takes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import DTypeLike

ANGLES = {"turn": 1.0, "rad": 2 * math.pi, "degree": 360.0}
"""Full turn by unit; a hue is an angle as well, with red at 0 and at 1 turn."""


class FactorInfo(TypedDict):
    """One ground-truth property of every object, such as its colour."""

    kind: Literal["continuous", "categorical"]
    values: list[str] | None
    """Names of the categories in the order of their numbers; None for continuous factors."""
    unit: str | None
    """Those of `ANGLES` begin again after a full turn."""


@dataclass(frozen=True)
class StoreDescription:
    """What is known of a store before and after it is written.

    Labels below `background_labels` are background; the object with index e in the factors has label
    `background_labels + e`.

    Attributes:
        dataset, split: names.
        source: the file, folder or program that the images come from.
        licence: of the images.
        height, width: of the images, pixels.
        seed: of what was drawn at random; None: nothing was.
        background_labels: number of labels that are background.
        factors: by name.
        camera_fields: names of the columns of cameras.npy.
        options: the settings that the store is made with, as far as they decide its contents; JSON.
    """

    dataset: str
    split: str
    source: str
    licence: str
    height: int
    width: int
    seed: int | None = None
    background_labels: int = 1
    factors: Mapping[str, FactorInfo] = field(default_factory=dict)
    camera_fields: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """One array of a store: rows of `dtype` and `shape` behind a header of fixed size."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def header(self, count: int) -> bytes:
        """The beginning of a .npy file of `count` rows, as long as that of any other number of rows."""
        # NumPy pads headers so that the first axis can grow.
        buffer = io.BytesIO()
        fields = {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class StoreLayout(StoreDescription):
    """A store to be made.

    Attributes:
        labels, depth, groups: whether it has them.
        entities: the E of the factors' shape [N, E], the largest number of objects in an image.
    Raises:
        ValueError: factors without `entities`.
    """

    labels: bool = False
    depth: bool = False
    groups: bool = False
    entities: int = 0

    def __post_init__(self) -> None:
        if self.factors and self.entities < 1:
            raise ValueError("factors need `entities`, the largest number of objects in an image")

    def columns(self) -> dict[str, Column]:
        """The arrays by name, as in Manifest.arrays."""
        height, width = self.height, self.width
        columns: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {"images": (np.uint8, (height, width, 3))}
        if self.labels:
            columns["labels"] = (np.uint8, (height, width))
        if self.depth:
            columns["depth"] = (np.uint16, (height, width))
        if self.camera_fields:
            columns["cameras"] = (np.float32, (len(self.camera_fields),))
        if self.groups:
            columns["groups"] = (np.int32, ())
        for name, factor in self.factors.items():
            columns[f"factors/{name}"] = (np.float32 if factor["kind"] == "continuous" else np.int16, (self.entities,))
        return {name: Column(np.dtype(dtype), shape) for name, (dtype, shape) in columns.items()}
