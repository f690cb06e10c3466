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

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.manifest import MANIFEST_NAME, ArrayInfo, Manifest, StoreError


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
                if sha256_of(array_path(path, name)) != info["sha256"]:
                    raise StoreError(f"{array_path(path, name)} is damaged: its checksum differs; make the store again")
        return cls(path, manifest, arrays)

    def __len__(self) -> int:
        return self.manifest.count

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.path,)  # a pickled memory map would carry the whole array into every worker


def array_path(store: Path, name: str) -> Path:
    """The file of one of `Manifest.arrays` in the folder `store`."""
    return store / f"{name}.npy"


def _open_array(store: Path, name: str, info: ArrayInfo, manifest: Manifest) -> NDArray[Any]:
    path = array_path(store, name)
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


def sha256_of(path: Path) -> str:
    """What `sha256sum` prints of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
