"""Pieces of photographs as textures: wood, cloth, leaves and walls as cameras see them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.decode import read_image
from train.scenes.foreign import find_files

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SIDE = 128
_SMALLEST = 2 * SIDE
"""Pixels of a photograph along its shorter side."""
_CROP = (0.2, 1.0)
"""Side of a piece, in units of the shorter side."""


def photograph_textures(folders: Sequence[Path], count: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, SIDE, SIDE, 3] RGB: square pieces at random, one of each photograph, then another of each, ...

    The same folders and seed give the same pieces. What can't be read as a picture or is smaller than `2 * SIDE` pixels
    is passed over.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: they hold no photograph.
    """
    files = find_files(folders, SUFFIXES)
    np.random.default_rng(seed).shuffle(files)
    pieces = list(itertools.islice(_pieces(files, seed), count))
    if not pieces:
        raise ValueError(
            f"no photograph of at least {_SMALLEST} pixels in {', '.join(map(str, folders))}; they end in "
            f"{', '.join(SUFFIXES)}"
        )
    return np.stack(pieces)


def _pieces(files: list[Path], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Without end, unless no file is a photograph."""
    for turn in itertools.count():
        usable = []
        for number, file in enumerate(files):
            if (photograph := _read(file)) is not None:
                usable.append(file)
                yield _piece(photograph, np.random.default_rng((seed, turn, number)))
        files = usable
        if not files:
            return


def _read(file: Path) -> NDArray[np.uint8] | None:
    """RGB; None where there is no photograph in the file."""
    try:
        picture = read_image(file)
    except (OSError, ValueError):
        return None
    return None if min(picture.shape[:2]) < _SMALLEST else picture


def _piece(photograph: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    height, width = photograph.shape[:2]
    side = int(min(height, width) * generator.uniform(*_CROP))
    top, left = generator.integers((height - side + 1, width - side + 1)).tolist()
    square = photograph[top : top + side, left : left + side]
    return np.rot90(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), generator.integers(4))
