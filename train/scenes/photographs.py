"""Pieces of photographs as textures: wood, cloth, leaves and walls as cameras see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SIDE = 128
_SMALLEST = 2 * SIDE
"""Pixels of a photograph along its shorter side."""
_CROP = (0.2, 1.0)
"""Side of a piece, in units of the shorter side."""


def photograph_textures(folders: Sequence[Path], count: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, SIDE, SIDE, 3] RGB: square pieces at random, of each photograph in turn.

    The same folders and seed give the same pieces. What can't be read as a picture or is smaller than `2 * SIDE` pixels
    is passed over.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: they hold no photograph.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of photographs")
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES]
    np.random.default_rng(seed).shuffle(files)
    each = math.ceil(count / max(len(files), 1))
    pieces = [piece for number, file in enumerate(files[:count]) for piece in _pieces(file, each, (seed, number))]
    if not pieces:
        raise ValueError(
            f"no photograph of at least {_SMALLEST} pixels in {', '.join(map(str, folders))}; they end in "
            f"{', '.join(SUFFIXES)}"
        )
    return np.stack([pieces[number % len(pieces)] for number in range(count)])


def _pieces(file: Path, count: int, seed: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Pieces of one photograph; none where there is no photograph in the file."""
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    if picture is None or min(picture.shape[:2]) < _SMALLEST:
        return []
    generator = np.random.default_rng(seed)
    return [_piece(np.asarray(picture, np.uint8), generator) for _ in range(count)]


def _piece(photograph: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    height, width = photograph.shape[:2]
    side = int(min(height, width) * generator.uniform(*_CROP))
    top, left = generator.integers((height - side + 1, width - side + 1)).tolist()
    square = photograph[top : top + side, left : left + side]
    return np.rot90(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA), generator.integers(4))
