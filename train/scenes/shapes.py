"""The shapes that scenes are built of: MuJoCo's own solids, and meshes that are made here.

Every shape fills the box of half extents (1, 1, 1) around its centre before it is scaled by a thing's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Triangles = NDArray[np.float64]
"""[n, 3, 3]: corners of n triangles, counter-clockwise seen from outside."""

SOLIDS = ("sphere", "box", "cylinder", "capsule", "ellipsoid", "plane")
"""Shapes that MuJoCo draws by itself."""


def _hull(points: NDArray[np.float64]) -> Triangles:
    """The convex hull of the points, moved and scaled to fill the unit box."""
    low, high = points.min(axis=0), points.max(axis=0)
    points = (2 * points - low - high) / (high - low)
    hull = ConvexHull(points)
    triangles = points[hull.simplices]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    inward = (normals * hull.equations[:, :3]).sum(axis=1) < 0
    triangles[inward] = triangles[inward, ::-1]
    return triangles


def _ring(corners: int, height: float, radius: float = 1.0) -> NDArray[np.float64]:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(corners, height)], axis=1)


def _pyramid(corners: int) -> Triangles:
    return _hull(np.vstack([_ring(corners, -1), [[0, 0, 1]]]))


def _prism(corners: int, top: float = 1.0) -> Triangles:
    return _hull(np.vstack([_ring(corners, -1), _ring(corners, 1, top)]))


def _square_pyramid() -> Triangles:
    return _hull(np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [0, 0, 1]], float))


def _wedge() -> Triangles:
    return _hull(np.array([[-1, y, -1] for y in (-1, 1)] + [[1, y, z] for y in (-1, 1) for z in (-1, 1)], float))


def _octahedron() -> Triangles:
    return _hull(np.vstack([np.eye(3), -np.eye(3)]))


def _icosahedron() -> Triangles:
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    return _hull(np.array([np.roll(corner, turn) for corner in corners for turn in range(3)], float))


def _torus() -> Triangles:
    around, across, thickness = 24, 12, 0.36
    turn, roll = np.meshgrid(
        2 * np.pi * np.arange(around) / around, 2 * np.pi * np.arange(across) / across, indexing="ij"
    )
    radius = 1 - thickness + thickness * np.cos(roll)
    grid = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.sin(roll)], axis=-1)
    right, up = np.roll(grid, -1, axis=0), np.roll(grid, -1, axis=1)
    both = np.roll(right, -1, axis=1)
    quads = np.concatenate([np.stack([grid, right, both], axis=2), np.stack([grid, both, up], axis=2)])
    return quads.reshape(-1, 3, 3)


MESHES: dict[str, Callable[[], Triangles]] = {
    "cone": lambda: _pyramid(28),
    "frustum": lambda: _prism(28, 0.5),
    "pyramid": _square_pyramid,
    "tetrahedron": lambda: _pyramid(3),
    "wedge": _wedge,
    "triangular_prism": lambda: _prism(3),
    "hexagonal_prism": lambda: _prism(6),
    "octahedron": _octahedron,
    "icosahedron": _icosahedron,
    "torus": _torus,
}
SMOOTH = {"cone", "frustum", "torus"}
"""Meshes that stand for curved surfaces; the others show their faces."""
SHAPES = (*SOLIDS, *MESHES)
_MODEL = "model "


def model_shape(number: int) -> str:
    """The name of the shape that is a model of the renderer's."""
    return f"{_MODEL}{number}"


def model_number(shape: str) -> int | None:
    """The number of the model that a shape names, or None where it names no model."""
    return int(shape.removeprefix(_MODEL)) if shape.startswith(_MODEL) else None


def normals_of(name: str, triangles: Triangles) -> Triangles:
    """[n, 3, 3]: a normal for every corner; in smooth meshes the mean over faces that meet at less than 50 degrees."""
    faces = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    units = faces / np.linalg.norm(faces, axis=1, keepdims=True)
    normals = np.repeat(units[:, None], 3, axis=1)
    if name not in SMOOTH:
        return normals
    corners = triangles.reshape(-1, 3)
    owners = np.repeat(np.arange(len(triangles)), 3)
    for number, corner in enumerate(corners):
        meeting = owners[np.linalg.norm(corners - corner, axis=1) < 1e-6]
        alike = meeting[units[meeting] @ units[owners[number]] > math.cos(math.radians(50))]
        mean = faces[alike].sum(axis=0)
        normals[owners[number], number % 3] = mean / np.linalg.norm(mean)
    return normals
