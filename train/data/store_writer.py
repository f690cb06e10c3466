"""Writes stores, whole or not at all, and goes on where an interrupted attempt stopped."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from monet_perception.files import flush, write_text
from train.data.layout import StoreLayout
from train.data.manifest import MANIFEST_NAME, ArrayInfo, Manifest, StoreError, partial_path
from train.data.store import Store, array_path, sha256_of
from train.locks import locked

_PROGRESS_NAME = "progress.json"
_LOCK_NAME = "lock"
_SYNC_SECONDS = 1.0
_SYNC_BYTES = 256 << 20
_SPELT_LENGTH = 40
"""Longer values of a setting are not spelt out in an error."""


class StoreWriter:
    """Writes a store in a hidden folder beside `path` and renames it when everything is there.

    A writer that is opened again with the same arguments after an interruption goes on with what the last one had
    written. Only `count` may differ, if what was written fits into it, since no image may depend on how many there are;
    any other difference is an error, or with `overwrite` a clean start. Used as a context it finishes at the end, and
    after an error keeps what was written for the next attempt.

    ```
    layout = StoreLayout("rooms", "train", "...", "...", height=64, width=64, labels=True)
    with StoreWriter(path, layout, count=1000) as writer:
        for start, stop in writer.missing(chunk=100):
            writer.write(start, images=..., labels=...)
    ```

    Args:
        path: where the store will be; of a symbolic link, where it points to.
        layout: what it will hold.
        count: number of images, or None where it isn't known in advance; then images have to be gapless from 0.
        overwrite: replace a store that exists at `path` when the new one is complete; nothing but a store or an
            empty folder is replaced.
    Raises:
        StoreError: a store, or with `overwrite` anything else, exists at `path`; another process is writing it; or an
            attempt with other arguments was interrupted, and `overwrite` is off.
    """

    def __init__(
        self, path: str | os.PathLike[str], layout: StoreLayout, count: int | None = None, *, overwrite: bool = False
    ) -> None:
        self.path = Path(path).resolve()
        self.layout = layout
        self.count = count
        self._overwrite = overwrite
        if overwrite:
            _refuse_what_is_no_store(self.path)
        elif self.path.exists():
            raise StoreError(f"{self.path} exists; remove it, choose another path, or overwrite it (--overwrite)")
        self._columns = layout.columns()
        self._folder = partial_path(self.path)
        # One attribute, so that no interrupt comes between them: the ranges written, and the last `state` given.
        self._done: tuple[list[tuple[int, int]], dict[str, Any]] = ([], {})
        self._open_folder()

    @property
    def written(self) -> int:
        """Number of images written, those of interrupted attempts included."""
        return _total(self._done[0])

    @property
    def state(self) -> dict[str, Any]:
        """What the last `write` was given as `state`, also if an interrupted attempt did it; {} at the start."""
        return self._done[1]

    def missing(self, chunk: int) -> Iterator[tuple[int, int]]:
        """The ranges [start, stop) of at most `chunk` images that are still to be written.

        Raises:
            StoreError: the writer was made without `count`.
        """
        if self.count is None:
            raise StoreError("the number of images isn't known in advance, so neither is what is missing")
        edge = 0
        for start, stop in [*self._done[0], (self.count, self.count)]:
            for first in range(edge, start, chunk):
                yield first, min(first + chunk, start)
            edge = stop

    def write(
        self,
        start: int,
        *,
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8] | None = None,
        factors: Mapping[str, NDArray[Any]] | None = None,
        depth: NDArray[np.uint16] | None = None,
        cameras: NDArray[np.float32] | None = None,
        groups: NDArray[np.int32] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Write n images and what belongs to them to the places from `start`.

        Args:
            start: place of the first one.
            images, labels, factors, depth, cameras, groups: n rows each, shapes and dtypes as in the store.
            state: where the source is after these images (JSON); what `self.state` gives back on resume.
        Raises:
            StoreError: an array is missing, not expected, or of a wrong shape or dtype; or a label is that of an object
                beyond those that the factors describe.
        """
        given = {"images": images, "labels": labels, "depth": depth, "cameras": cameras, "groups": groups}
        arrays = {name: array for name, array in given.items() if array is not None}
        arrays.update({f"factors/{name}": array for name, array in (factors or {}).items()})
        rows = {name: self._rows(name, array, len(images)) for name, array in arrays.items()}
        if absent := sorted(self._columns.keys() - rows.keys()):
            raise StoreError(f"write() was not given {', '.join(absent)}, which this store has")
        stop = start + len(images)
        if start < 0 or (self.count is not None and stop > self.count):
            raise StoreError(f"images {start} to {stop} don't fit into a store of {self.count}")
        self._check_labels(labels)
        for name, array in rows.items():
            column = self._columns[name]
            # Plain writes: on a full disk a memory map would end the process with SIGBUS, pwrite raises.
            _write_all(self._files[name], memoryview(array).cast("B"), len(column.header(0)) + start * column.row_bytes)
            self._unsynced += array.nbytes
        self._done = (_merge([*self._done[0], (start, stop)]), dict(state or {}))
        if self._unsynced > _SYNC_BYTES or time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def _check_labels(self, labels: NDArray[np.uint8] | None) -> None:
        if labels is None or not self.layout.factors or not labels.size:
            return
        last = self.layout.background_labels + self.layout.entities - 1
        if labels.max() > last:
            raise StoreError(
                f"a label is {labels.max()}, but the factors describe {self.layout.entities} objects: the last has "
                f"label {last}"
            )

    def sync(self) -> None:
        """Bring everything written to the disk and note it as done: what a killed process leaves to the next one."""
        ranges, state = self._done
        for file in self._files.values():
            os.fsync(file.fileno())
        progress = {"specification": self._specification(), "ranges": ranges, "state": state}
        write_text(self._folder / _PROGRESS_NAME, json.dumps(progress))
        self._unsynced = 0
        self._synced = time.monotonic()

    def finish(self, statistics: Mapping[str, Any] | None = None) -> Store:
        """Complete the store and put it at its path.

        Args:
            statistics: for the manifest.
        Raises:
            StoreError: images are missing (`writer` stays usable), there are none, or something that is no store has
                come to its path.
        """
        ranges = self._done[0]
        count = ranges[-1][1] if ranges else 0
        if count == 0:
            raise StoreError(f"nothing was written for {self.path}: the source holds no usable image")
        if ranges != [(0, self.count or count)]:
            raise StoreError(
                f"{self.path} can't be finished: only images {_spell(ranges)} of {self.count or count} are there"
            )
        arrays: dict[str, ArrayInfo] = {}
        for name, column in self._columns.items():
            file = self._files[name]
            header = column.header(count)
            _write_all(file, memoryview(header), 0)
            # An earlier attempt may have gone further.
            os.ftruncate(file.fileno(), len(header) + count * column.row_bytes)
            os.fsync(file.fileno())
            sha256 = sha256_of(array_path(self._folder, name))
            arrays[name] = {"shape": [count, *column.shape], "dtype": column.dtype.str, "sha256": sha256}
        manifest = Manifest.of(self.layout, count, arrays, statistics or {})
        write_text(self._folder / MANIFEST_NAME, manifest.to_json())
        self._publish()
        return Store.open(self.path)

    def close(self) -> None:
        """Stop writing; what was synced stays for the next attempt."""
        for file in [*self._files.values(), self._lock]:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock.closed:  # finished in the block
            return
        try:
            if error is None:
                self.finish()
            elif self._done[0]:
                self.sync()
        finally:
            self.close()

    def _specification(self) -> dict[str, Any]:
        """What decides the contents: an attempt with another one can't be gone on with."""
        described = json.loads(Manifest.of(self.layout, self.count or 0, {}, {}).to_json())
        columns = {name: [column.dtype.str, *column.shape] for name, column in self._columns.items()}
        return {**described, "columns": columns, "fixed_count": self.count is not None}

    def _open_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = locked(self._folder / _LOCK_NAME)
        except BlockingIOError:
            raise StoreError(f"another process is writing {self.path}; wait for it or stop it") from None
        self._files: dict[str, IO[bytes]] = {}
        try:
            self._resume()
            for name in self._columns:
                path = array_path(self._folder, name)
                path.parent.mkdir(exist_ok=True)
                path.touch()
                self._files[name] = path.open("r+b", buffering=0)
        except BaseException:
            self.close()
            raise
        self._unsynced = 0
        self._synced = time.monotonic()

    def _resume(self) -> None:
        """Take over what an attempt of the same specification wrote, and remove everything else.

        Raises:
            StoreError: an attempt of another specification left images, and `overwrite` is off.
        """
        kept = {_LOCK_NAME}
        specification, ranges, state = self._read_progress()
        if ranges:
            changes = self._changes(specification, ranges[-1][1])
            if not changes:
                self._done = (ranges, state)
                kept |= {_PROGRESS_NAME, *(array_path(Path(), name).parts[0] for name in self._columns)}
            elif not self._overwrite:
                raise StoreError(
                    f"{self._folder} holds {_total(ranges):,} images of an unfinished attempt with other settings: "
                    f"{', '.join(changes)}. The settings it had go on with it; to begin anew use --overwrite, or "
                    "remove that folder"
                )
        for path in self._folder.iterdir():
            if path.name in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _read_progress(self) -> tuple[dict[str, Any], list[tuple[int, int]], dict[str, Any]]:
        """Specification, ranges written and state of the last attempt; all empty where none can be gone on with."""
        try:
            progress = json.loads((self._folder / _PROGRESS_NAME).read_text())
            ranges = [(start, stop) for start, stop in progress["ranges"]]
            return dict(progress["specification"]), ranges, progress["state"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}, [], {}

    def _changes(self, before: dict[str, Any], end: int) -> list[str]:
        """Where an attempt's specification differs from this one's; its count does where images to `end` don't fit."""
        now = self._specification()
        if self.count is not None and end <= self.count:
            before = {**before, "count": now["count"]}
        return [] if before == now else _spell_changes(before, now)

    def _rows(self, name: str, array: NDArray[Any], count: int) -> NDArray[Any]:
        if name not in self._columns:
            raise StoreError(f"write() was given {name}, which this store doesn't have")
        column = self._columns[name]
        array = np.asarray(array)
        if array.shape != (count, *column.shape):
            raise StoreError(f"{name} has shape {list(array.shape)} instead of {[count, *column.shape]}")
        if not np.can_cast(array.dtype, column.dtype, casting="same_kind"):
            raise StoreError(f"{name} has dtype {array.dtype} instead of {column.dtype}")
        rows = np.ascontiguousarray(array, dtype=column.dtype)
        if column.dtype.kind != "f" and not np.array_equal(rows, array):
            raise StoreError(f"{name} has values that don't fit into {column.dtype}")
        return rows

    def _publish(self) -> None:
        old = self.path.parent / f".{self.path.name}.old"
        if self.path.exists() and self._overwrite:
            _refuse_what_is_no_store(self.path)  # it may have come while the images were written
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
        try:
            self._folder.rename(self.path)
        except OSError as error:
            if old.exists() and not self.path.exists():
                old.rename(self.path)
            raise StoreError(
                f"{self.path} can't be put in place ({error}); what was written is in {self._folder}"
            ) from error
        flush(self.path.parent)
        self.close()
        for name in (_PROGRESS_NAME, _LOCK_NAME):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def _refuse_what_is_no_store(path: Path) -> None:
    """What is replaced is deleted: it may be a store or an empty folder, not somebody's photos.

    Raises:
        StoreError: `path` is anything else.
    """
    remedy = "it is not replaced; remove it, or choose another path"
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise StoreError(f"{path} is no store (it is a file): {remedy}")
    if not (path / MANIFEST_NAME).exists():
        raise StoreError(f"{path} is no store (it has no {MANIFEST_NAME}): {remedy}")
    try:
        Manifest.read(path)
    except StoreError as error:
        raise StoreError(f"{path} can't be told to be a store: {remedy} ({error})") from error


def _spell_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings in which two specifications differ, such as `height 64 (now 32)`."""
    old, new = _settings(before), _settings(now)
    changes = []
    for name in [*new, *(name for name in old if name not in new)]:
        was, is_now = old.get(name, "absent"), new.get(name, "absent")
        if was != is_now:
            short = max(len(str(was)), len(str(is_now))) <= _SPELT_LENGTH  # hashes and factors tell nothing
            changes.append(f"{name} {was} (now {is_now})" if short else name)
    return changes or ["the shapes of the arrays"]


def _settings(specification: dict[str, Any]) -> dict[str, Any]:
    """A specification's fields by name, with the options as fields of their own, and whether each array is there."""
    fields = {name: value for name, value in specification.items() if name not in ("options", "columns")}
    arrays = {f"{name}.npy": "there" for name in specification.get("columns", {})}
    return {**fields, **specification.get("options", {}), **arrays}


def _total(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _merge(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, without overlaps or touching ends."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif start < stop:
            merged.append((start, stop))
    return merged


def _spell(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start} to {stop - 1}" for start, stop in ranges)


def _write_all(file: IO[bytes], data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(file.fileno(), data, offset)
        data, offset = data[done:], offset + done
