"""What a store says about itself: the contents of its manifest.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from train.data.layout import StoreDescription, StoreLayout

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1


class StoreError(ValueError):
    """A store is missing, incomplete, damaged, or is asked for what it can't hold."""


class ArrayInfo(TypedDict):
    """One .npy file of the store."""

    shape: list[int]
    dtype: str
    sha256: str
    """Of the whole file, header included: what `sha256sum FILE` prints."""


@dataclass(frozen=True, kw_only=True)
class Manifest(StoreDescription):
    """Description of a store that is complete.

    Attributes:
        count: number of images.
        statistics: what happened while it was made, such as the number of records skipped; JSON.
        arrays: by file name without its suffix: images, labels, factors/size, ...
        version: of the format.
    """

    count: int
    statistics: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, ArrayInfo] = field(default_factory=dict)
    version: int = MANIFEST_VERSION

    @classmethod
    def of(
        cls, layout: StoreLayout, count: int, arrays: Mapping[str, ArrayInfo], statistics: Mapping[str, Any]
    ) -> Manifest:
        """The manifest of a store that was made after `layout`."""
        described = {f.name: getattr(layout, f.name) for f in dataclasses.fields(StoreDescription)}
        return cls(**described, count=count, arrays=arrays, statistics=statistics)

    @property
    def has_labels(self) -> bool:
        """Whether the store's images have labels."""
        return "labels" in self.arrays

    def to_json(self) -> str:
        """The contents of manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, store: Path) -> Manifest:
        """Read `store`/manifest.json.

        Raises:
            StoreError: it is missing, no JSON, of a version this code doesn't know, or lacks a field.
        """
        path = store / MANIFEST_NAME
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(_missing(store)) from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise StoreError(f"{path} is damaged ({error}); make the store again") from error
        if not isinstance(fields, dict) or "version" not in fields:
            raise StoreError(f"{path} is not the manifest of a store: it has no version")
        if fields["version"] != MANIFEST_VERSION:
            raise StoreError(
                f"{path} has version {fields['version']!r} and this code reads version {MANIFEST_VERSION}; "
                "make the store again or update monet_perception"
            )
        return cls._from_fields(fields, path)

    @classmethod
    def _from_fields(cls, fields: dict[str, Any], path: Path) -> Manifest:
        known = {f.name for f in dataclasses.fields(cls)}
        required = {
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        if missing := sorted(required - fields.keys()):
            raise StoreError(f"{path} lacks {', '.join(missing)}; make the store again")
        if unknown := sorted(fields.keys() - known):
            raise StoreError(f"{path} has fields that this code doesn't know: {', '.join(unknown)}")
        try:
            return cls(**{**fields, "camera_fields": tuple(fields.get("camera_fields", ()))})
        except TypeError as error:
            raise StoreError(f"{path} is damaged: {error}") from error


def partial_path(store: Path) -> Path:
    """The hidden folder beside `store` in which it is written until it is complete."""
    return store.parent / f".{store.name}.partial"


def _missing(store: Path) -> str:
    if partial_path(store).exists():
        return (
            f"the store {store} is not finished; run the command that makes it again and it goes on from where it was"
        )
    if store.is_dir():
        return f"{store} is no store: it has no {MANIFEST_NAME}"
    return f"there is no store at {store}; make one with `python -m train.prepare` or `python -m train.render`"
