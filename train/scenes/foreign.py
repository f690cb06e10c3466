"""Files of others that scenes are made of, in an order that doesn't depend on where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path


def find_files(roots: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """Files that end so: of the roots in their order, those in a folder sorted by their place in it.

    Of links to one file the first counts: packages of wallpapers have one for every size of a screen.

    Raises:
        FileNotFoundError: a root is not there.
    """
    found: dict[Path, Path] = {}
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(f"{root}: no such file or folder")
        within = sorted(root.rglob("*"), key=lambda file: file.relative_to(root)) if root.is_dir() else [root]
        for file in within:
            if file.suffix.lower() in suffixes and file.is_file():
                found.setdefault(file.resolve(), file)
    return list(found.values())


def describe(root: Path, suffixes: Sequence[str]) -> dict[str, object]:
    """A root for a store's manifest, without the paths of this machine: its name, and how its files are to be known.

    Raises:
        FileNotFoundError: the root is not there.
    """
    files = find_files([root], suffixes)
    listed = "\n".join(f"{file.relative_to(root)} {file.stat().st_size}" for file in files)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return {"name": root.resolve().name, "files": len(files), "sha256_of_names_and_sizes": digest}
