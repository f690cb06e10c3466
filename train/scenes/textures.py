"""Patterns for surfaces: checks, stripes, gradients, dots and noise in two colours each."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64
COUNT = 96


def textures() -> NDArray[np.uint8]:
    """uint8 [COUNT, SIDE, SIDE, 3], always the same."""
    generator = np.random.default_rng(0)
    patterns = (_checks, _stripes, _gradient, _dots, _noise, _noise)
    return np.stack([_coloured(patterns[number % len(patterns)](generator), generator) for number in range(COUNT)])


def _coloured(pattern: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.uint8]:
    """A pattern in [0, 1] between two colours; the first is bright, so that a thing's own colour shows through."""
    first, second = generator.uniform(0.7, 1, 3), generator.uniform(0, 1, 3)
    if generator.random() < 0.5:  # shades of one colour
        second = first * generator.uniform(0.2, 0.7)
    return np.rint(255 * (first + pattern[..., None] * (second - first))).astype(np.uint8)


def _grid(generator: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates in [0, 1] of every pixel, turned by a random angle."""
    rows, columns = np.indices((SIDE, SIDE)) / SIDE
    angle = generator.uniform(0, 2 * np.pi)
    return np.cos(angle) * columns - np.sin(angle) * rows, np.sin(angle) * columns + np.cos(angle) * rows


def _checks(generator: np.random.Generator) -> NDArray[np.float64]:
    across, down = _grid(generator)
    count = generator.integers(2, 9)
    return ((np.floor(across * count) + np.floor(down * count)) % 2).astype(float)


def _stripes(generator: np.random.Generator) -> NDArray[np.float64]:
    across, _ = _grid(generator)
    return (np.sin(2 * np.pi * across * generator.integers(2, 9)) > generator.uniform(-0.6, 0.6)).astype(float)


def _gradient(generator: np.random.Generator) -> NDArray[np.float64]:
    across, down = _grid(generator)
    slope = np.hypot(across - across.mean(), down - down.mean()) if generator.random() < 0.4 else across
    return (slope - slope.min()) / np.ptp(slope)


def _dots(generator: np.random.Generator) -> NDArray[np.float64]:
    across, down = _grid(generator)
    count = generator.integers(2, 7)
    return (np.hypot(across * count % 1 - 0.5, down * count % 1 - 0.5) < generator.uniform(0.2, 0.4)).astype(float)


def _noise(generator: np.random.Generator) -> NDArray[np.float64]:
    cells = int(2 ** generator.integers(1, 6))
    coarse = generator.random((cells + 1, cells + 1))
    smooth = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    noise = 0.8 * smooth + 0.2 * generator.random((SIDE, SIDE))
    return (noise - noise.min()) / np.ptp(noise)
