"""Folders of images, with label maps beside them where there are some."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from monet_perception.region import Region, centre_square, resize_map
from train.data.crop import crop_text, cut, resize_image
from train.data.decode import read_image, read_map
from train.data.layout import StoreLayout
from train.data.source import BrokenRecord, Sample, SourceError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageFolder:
    """All images below a folder, sorted by path, cropped to squares and resized.

    Args:
        source: the folder.
        size: height and width of the stored images.
        crop: a square to cut out; None: the largest in the centre.
        labels: a folder with label maps, 8-bit PNGs of one channel, under the images' names with the suffix .png; may
            lie inside `source`, but not be it.
        background_labels: labels below this are background.
    Raises:
        SourceError: there are no images.
    """

    def __init__(
        self,
        source: Path,
        size: int,
        crop: Region | None = None,
        labels: Path | None = None,
        background_labels: int = 1,
    ) -> None:
        if not source.is_dir():
            raise SourceError(f"{source} is no folder")
        if labels is not None and not labels.is_dir():
            raise SourceError(f"{labels} is no folder")
        maps = None if labels is None else _as_in(source, labels)
        if maps is not None and source.is_relative_to(maps):
            raise SourceError(f"{labels} holds the images {source} themselves: labels need a folder of their own")
        found = (path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        self._paths = sorted(path for path in found if maps is None or not path.is_relative_to(maps))
        if not self._paths:
            raise SourceError(f"{source} holds no image; they end in {', '.join(sorted(SUFFIXES))}")
        self._source, self._labels = source, labels
        self.size, self.crop = size, crop
        self.layout = StoreLayout(
            dataset="images",
            split="train",
            source=source.name,
            licence="unknown",
            height=size,
            width=size,
            background_labels=background_labels,
            labels=labels is not None,
            # A folder that changed between two attempts, or another one, must not be taken for the same.
            options={
                "crop": crop_text(crop) if crop else None,
                "images": _identity(source, self._paths),
                "labels": _identity(labels) if labels else None,
            },
        )

    @property
    def records(self) -> int:
        """How many images there are."""
        return len(self._paths)

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Images from the `start`-th on; one that can't be decoded, or has no labels, is a broken record."""
        for record, path in enumerate(self._paths[start:], start):
            try:
                yield self._sample(record, path)
            except (OSError, ValueError) as error:
                yield BrokenRecord(record, str(error))

    def _sample(self, record: int, path: Path) -> Sample:
        image = read_image(path)
        labels = None
        if self._labels is not None:
            label_path = (self._labels / path.relative_to(self._source)).with_suffix(".png")
            labels = read_map(label_path)
            if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
                raise ValueError(
                    f"{label_path} is {labels.dtype} {labels.shape}, not a label map of {path.name}'s size"
                )
        crop = self.crop or centre_square(*image.shape[:2])
        labels = None if labels is None else resize_map(cut(labels, crop), self.size, self.size)
        return Sample(record, resize_image(cut(image, crop), self.size), labels)


def _as_in(folder: Path, path: Path) -> Path:
    """A path that begins as `folder` does where it lies in it, however it was written; elsewhere as it is."""
    whole = path.resolve()
    return folder / whole.relative_to(folder.resolve()) if whole.is_relative_to(folder.resolve()) else path


def _identity(folder: Path, paths: Sequence[Path] = ()) -> str:
    """Tells a folder from another one with files of the same names; renamed or mounted elsewhere it is the same."""
    names = "\n".join(str(path.relative_to(folder)) for path in paths)
    return hashlib.sha256(f"{folder.stat().st_ino}\n{names}".encode()).hexdigest()[:12]
