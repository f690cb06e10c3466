"""Images, labels and factors in memory-mapped NumPy arrays: a folder that is complete or absent.

```
STORE/manifest.json         what it holds and where it comes from (train.data.manifest.Manifest)
      images.npy            uint8 [N, H, W, 3] RGB
      labels.npy            uint8 [N, H, W], optional
      factors/NAME.npy      [N, E] float32 (continuous; NaN: no such object) or int16 (categorical; -1), optional
      depth.npy             uint16 [N, H, W], millimetres along z, 0: unknown, optional
      cameras.npy           float32 [N, F], columns named in the manifest, optional
      groups.npy            int32 [N]: images of one recording or trajectory, optional; splits keep groups whole
```
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from train.data.manifest import MANIFEST_NAME, ArrayInfo, Factor, Manifest, StoreError, partial_path

__all__ = ["Factor", "Manifest", "Store", "StoreError", "StoreWriter"]

_PROGRESS_NAME = "progress.json"
_LOCK_NAME = "lock"
_SYNC_SECONDS = 1.0
_SYNC_BYTES = 256 << 20


class Store:
    """A complete store, opened for reading.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
        images: uint8 [N, H, W, 3].
        labels: uint8 [N, H, W] or None.
        factors: by name, [N, E].
        depth: uint16 [N, H, W] in millimetres or None.
        cameras: float32 [N, F] or None.
        groups: int32 [N] or None.
    """

    def __init__(self, path: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path = path
        self.manifest = manifest
        self.images = arrays["images"]
        self.labels = arrays.get("labels")
        self.depth = arrays.get("depth")
        self.cameras = arrays.get("cameras")
        self.groups = arrays.get("groups")
        self.factors = {name: arrays[f"factors/{name}"] for name in manifest.factors}

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> Store:
        """Open the store at `path`; nothing is read before it is used.

        Args:
            path: the store's folder.
            verify: read everything once and compare it with the checksums.
        Raises:
            StoreError: no store, not finished, of another version, or a file is missing, truncated or damaged.
        """
        path = Path(path)
        manifest = Manifest.read(path)
        expected = {"images", *(f"factors/{name}" for name in manifest.factors)}
        if absent := sorted(expected - manifest.arrays.keys()):
            raise StoreError(f"{path / MANIFEST_NAME} lists no {', '.join(absent)}; make the store again")
        arrays = {name: _open_array(path, name, info, manifest) for name, info in manifest.arrays.items()}
        if verify:
            for name, info in manifest.arrays.items():
                if _sha256(_array_path(path, name)) != info["sha256"]:
                    raise StoreError(
                        f"{_array_path(path, name)} is damaged: its checksum differs; make the store again"
                    )
        return cls(path, manifest, arrays)

    def __len__(self) -> int:
        return self.manifest.count

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.path,)  # a pickled memory map would carry the whole array into every worker


def _array_path(store: Path, name: str) -> Path:
    return store / f"{name}.npy"


def _open_array(store: Path, name: str, info: ArrayInfo, manifest: Manifest) -> NDArray[Any]:
    path = _array_path(store, name)
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise StoreError(f"{path} is of another version of the .npy format; make the store again")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; make the store again") from None
    except ValueError as error:
        raise StoreError(f"{path} is no .npy file ({error}); make the store again") from error
    if list(shape) != list(info["shape"]) or dtype != np.dtype(info["dtype"]) or shape[:1] != (manifest.count,):
        raise StoreError(
            f"{path} holds {dtype} {list(shape)} where the manifest says {info['dtype']} {info['shape']} "
            f"and {manifest.count} images; make the store again"
        )
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if size != expected:
        raise StoreError(
            f"{path} has {size} bytes instead of {expected}: it is truncated or damaged; make the store again"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Column:
    """One array under construction: rows of `dtype` and `shape` behind a header of fixed size."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def header(self, count: int) -> bytes:
        # NumPy pads headers so that the first axis can grow: their size doesn't depend on `count`.
        buffer = io.BytesIO()
        fields = {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()


class StoreWriter:
    """Writes a store in a hidden folder beside `path` and renames it when everything is there.

    A writer that is opened again with the same arguments after an interruption goes on with what the last one had
    written; with other arguments it starts clean. Used as a context it finishes at the end, and after an error keeps
    what was written for the next attempt.

    ```
    with StoreWriter(path, dataset="rooms", split="train", source="...", licence="...", height=64, width=64,
                     count=1000, labels=True) as writer:
        for start, stop in writer.missing(chunk=100):
            writer.write(start, images=..., labels=...)
    ```

    Args:
        path: where the store will be.
        dataset, split, source, licence, seed, background_labels, options: see Manifest.
        height, width: of the images, pixels.
        count: number of images, or None where it isn't known in advance; then images have to be gapless from 0.
        labels, depth, groups: whether the store has them.
        factors: descriptions by name; `entities` is the E of their shape [N, E].
        camera_fields: names of the columns of `cameras`.
        overwrite: replace a store that exists at `path` when the new one is complete.
    Raises:
        StoreError: a store exists at `path`, or another process is writing it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dataset: str,
        split: str,
        source: str,
        licence: str,
        height: int,
        width: int,
        count: int | None = None,
        seed: int | None = None,
        background_labels: int = 1,
        labels: bool = False,
        factors: Mapping[str, Factor] | None = None,
        entities: int = 0,
        depth: bool = False,
        camera_fields: Sequence[str] = (),
        groups: bool = False,
        options: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        self.count = count
        self._overwrite = overwrite
        if self.path.exists() and not overwrite:
            raise StoreError(f"{self.path} exists; remove it, choose another path, or overwrite it (--overwrite)")
        self._manifest = Manifest(
            dataset=dataset, split=split, source=source, licence=licence, count=count or 0, height=height, width=width,
            seed=seed, background_labels=background_labels, factors=dict(factors or {}),
            camera_fields=tuple(camera_fields), options=dict(options or {}),
        )  # fmt: skip
        self._columns = _columns(self._manifest, entities, labels=labels, depth=depth, groups=groups)
        self._folder = partial_path(self.path)
        # One attribute, so that no interrupt comes between them: the ranges written, and the last `state` given.
        self._done: tuple[list[tuple[int, int]], dict[str, Any]] = ([], {})
        self._open_folder()

    @property
    def written(self) -> int:
        """Number of images written, those of interrupted attempts included."""
        return sum(stop - start for start, stop in self._done[0])

    @property
    def state(self) -> dict[str, Any]:
        """What the last `write` was given as `state`, also if an interrupted attempt did it; {} at the start."""
        return self._done[1]

    def missing(self, chunk: int) -> Iterator[tuple[int, int]]:
        """The ranges [start, stop) of at most `chunk` images that are still to be written; needs a known `count`."""
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
            StoreError: an array is missing, not expected, or of a wrong shape or dtype.
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
        for name, array in rows.items():
            column = self._columns[name]
            # Plain writes: on a full disk a memory map would end the process with SIGBUS, pwrite raises.
            _write_all(self._files[name], memoryview(array).cast("B"), len(column.header(0)) + start * column.row_bytes)
            self._unsynced += array.nbytes
        self._done = (_merge([*self._done[0], (start, stop)]), dict(state or {}))
        if self._unsynced > _SYNC_BYTES or time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Bring everything written to the disk and note it as done: what a killed process leaves to the next one."""
        ranges, state = self._done
        for file in self._files.values():
            os.fsync(file.fileno())
        progress = {"recipe": self._recipe(), "ranges": ranges, "state": state}
        _write_whole(self._folder / _PROGRESS_NAME, json.dumps(progress))
        self._unsynced = 0
        self._synced = time.monotonic()

    def finish(self, statistics: Mapping[str, Any] | None = None) -> Store:
        """Complete the store and put it at its path.

        Args:
            statistics: for the manifest.
        Raises:
            StoreError: images are missing (`writer` stays usable), or there are none.
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
            os.ftruncate(
                file.fileno(), len(header) + count * column.row_bytes
            )  # an earlier attempt may have gone further
            os.fsync(file.fileno())
            sha256 = _sha256(_array_path(self._folder, name))
            arrays[name] = {"shape": [count, *column.shape], "dtype": column.dtype.str, "sha256": sha256}
        fields = {**vars(self._manifest), "count": count, "arrays": arrays, "statistics": dict(statistics or {})}
        _write_whole(self._folder / MANIFEST_NAME, Manifest(**fields).to_json())
        self._publish()
        return Store.open(self.path)

    def discard(self) -> None:
        """Remove everything written so far."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Stop writing; what was synced stays for the next attempt."""
        for file in [*self._files.values(), self._lock]:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock.closed:  # finished or discarded in the block
            return
        try:
            if error is None:
                self.finish()
            elif self._done[0]:
                self.sync()
        finally:
            self.close()

    def _recipe(self) -> dict[str, Any]:
        columns = {name: [column.dtype.str, *column.shape] for name, column in self._columns.items()}
        return {**json.loads(self._manifest.to_json()), "columns": columns, "fixed_count": self.count is not None}

    def _open_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[bytes] = (self._folder / _LOCK_NAME).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when a process is killed
        except BlockingIOError:
            self._lock.close()
            raise StoreError(f"another process is writing {self.path}; wait for it or stop it") from None
        self._resume()
        self._files: dict[str, IO[bytes]] = {}
        for name in self._columns:
            path = _array_path(self._folder, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
            self._files[name] = path.open("r+b", buffering=0)
        self._unsynced = 0
        self._synced = time.monotonic()

    def _resume(self) -> None:
        try:
            progress = json.loads((self._folder / _PROGRESS_NAME).read_text())
            usable = progress["recipe"] == self._recipe()
        except (OSError, ValueError, KeyError, TypeError):
            usable = False
        if usable:
            self._done = ([(start, stop) for start, stop in progress["ranges"]], progress["state"])
            return
        for path in self._folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK_NAME:
                path.unlink()

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
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
        try:
            self._folder.rename(self.path)
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be put in place ({error}); what was written is in {self._folder}"
            ) from error
        _sync_folder(self.path.parent)
        self.close()
        for name in (_PROGRESS_NAME, _LOCK_NAME):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def _columns(manifest: Manifest, entities: int, *, labels: bool, depth: bool, groups: bool) -> dict[str, _Column]:
    height, width = manifest.height, manifest.width
    columns: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {"images": (np.uint8, (height, width, 3))}
    if labels:
        columns["labels"] = (np.uint8, (height, width))
    if depth:
        columns["depth"] = (np.uint16, (height, width))
    if manifest.camera_fields:
        columns["cameras"] = (np.float32, (len(manifest.camera_fields),))
    if groups:
        columns["groups"] = (np.int32, ())
    if manifest.factors and entities < 1:
        raise StoreError("factors need `entities`, the largest number of objects in an image")
    for name, factor in manifest.factors.items():
        columns[f"factors/{name}"] = (np.float32 if factor["kind"] == "continuous" else np.int16, (entities,))
    return {name: _Column(np.dtype(dtype), shape) for name, (dtype, shape) in columns.items()}


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


def _write_whole(path: Path, text: str) -> None:
    """Replace `path` in one step."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
