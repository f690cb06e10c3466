"""Models of real things, from files or catalogues of Sweet Home 3D, as what the renderer draws.

A catalogue (`.sh3f`, Debian: sweethome3d-furniture) is an archive of OBJ files with a list of what they are. trimesh
reads these and every other format. Sweet Home 3D and glTF point y upwards, as their specifications say; of other files
z is taken to, as ROS does (REP 103).
"""

from __future__ import annotations

import io
import posixpath
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.scenes.scene import Vector

CATALOGUE = ".sh3f"
_GLTF = (".gltf", ".glb")
SUFFIXES = (CATALOGUE, *_GLTF, ".obj", ".stl", ".ply", ".dae", ".off")
FEWEST_TRIANGLES, MOST_TRIANGLES = 12, 10_000
"""Fewer are a sheet of paper, more take longer to draw than all the rest of a scene."""
MOST_PARTS = 6
"""Of a model: the largest ones are drawn."""
TEXTURE_SIDE = 128
_INDEX = "PluginFurnitureCatalog.properties"
_LARGEST_FILE = 200 * MOST_TRIANGLES
"""Bytes of an OBJ file that can't have so few triangles."""
_OPAQUE = 0.3
"""Alpha from which on a part is drawn; what can be seen through more has no outline to learn."""
_FROM_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


class ModelError(ValueError):
    """Models can't be read; the message says which and why."""


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: float64 [V, 3] in the box of half extents (1, 1, 1) that the whole model fills.
        normals: float64 [V, 3].
        coordinates: float64 [V, 2] in the texture, v upwards, or None where there is no texture.
        triangles: int [T, 3], indices of vertices.
        colour: red, green and blue in [0, 1].
        texture: uint8 [S, S, 3], or None.
    """

    vertices: NDArray[np.float64]
    normals: NDArray[np.float64]
    coordinates: NDArray[np.float64] | None
    triangles: NDArray[np.int64]
    colour: Vector
    texture: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Model:
    """A thing: its name, its proportions (half extents, the largest is 1), z upwards, and its parts."""

    name: str
    half: Vector
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Source:
    """A model before it is read: its name, its bytes, their format, where its materials lie, and its axes in z up."""

    name: str
    data: bytes
    format: str
    resolver: Any
    turn: NDArray[np.float64]


def read_models(paths: tuple[Path, ...]) -> list[Model]:
    """The models of these files, and of those in these folders, that can be drawn, in a fixed order.

    What can't be read is left out and counted in a warning. A catalogue's doors and windows are left out as well.

    Raises:
        FileNotFoundError: a path is not there.
        ModelError: trimesh is not installed, a catalogue is damaged, or no model can be drawn.
    """
    models: list[Model] = []
    failures: list[str] = []
    for source in (source for path in _files(paths) for source in _sources(path)):
        try:
            model = _model(source)
        except Exception as error:  # whatever a foreign file makes of the reader
            failures.append(f"{source.name} ({error})")
            continue
        if model is not None:
            models.append(model)
    if failures:
        warnings.warn(f"{len(failures)} models can't be read: {'; '.join(failures[:3])}", stacklevel=2)
    if not models:
        raise ModelError(
            f"no model in {', '.join(map(str, paths))} can be drawn; it needs {FEWEST_TRIANGLES} to "
            f"{MOST_TRIANGLES:,} triangles"
        )
    return models


def _files(paths: tuple[Path, ...]) -> list[Path]:
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; --models says where models are")
        found.update(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ModelError(f"no models in {', '.join(map(str, paths))}; their files end in {', '.join(SUFFIXES)}")
    return sorted(found)


def _sources(path: Path) -> Iterator[_Source]:
    suffix = path.suffix.lower()
    if suffix == CATALOGUE:
        yield from _catalogue(path)
    else:
        turn = _FROM_Y_UP if suffix in _GLTF else np.eye(3)
        resolver = _trimesh().resolvers.FilePathResolver(str(path))
        yield _Source(path.stem, path.read_bytes(), suffix.removeprefix("."), resolver, turn)


def _catalogue(path: Path) -> Iterator[_Source]:
    """The models of a catalogue of Sweet Home 3D, in its order."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = set(archive.namelist())
            for entry in _entries(archive.read(_INDEX).decode("latin-1")):
                file = entry.get("model", "").removeprefix("/")
                small = file in files and archive.getinfo(file).file_size <= _LARGEST_FILE
                if not (small and file.lower().endswith(".obj")) or entry.get("doorOrWindow") == "true":
                    continue
                turn = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
                name, beside = entry.get("name", file), _beside(archive, file)
                yield _Source(name, archive.read(file), "obj", beside, _FROM_Y_UP @ turn)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a catalogue of Sweet Home 3D, or a damaged one ({error})") from error


def _entries(index: str) -> list[dict[str, str]]:
    """Java properties `field#number=value` as a dictionary of fields for each number, in the order of the numbers."""
    entries: dict[int, dict[str, str]] = {}
    for key, _, value in (line.partition("=") for line in index.splitlines()):
        field, _, number = key.strip().partition("#")
        if number.isdecimal():
            entries.setdefault(int(number), {})[field] = value.strip()
    return [entries[number] for number in sorted(entries)]


def _beside(archive: zipfile.ZipFile, file: str) -> Any:
    """Materials and textures in the folder of a model in an archive, where trimesh looks for them."""
    folder = posixpath.dirname(file)
    names = [name for name in archive.namelist() if posixpath.dirname(name) == folder and not name.endswith("/")]
    return _trimesh().resolvers.ZipResolver({name: archive.read(name) for name in names}, folder)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise ModelError("models need trimesh: pip install 'monet_perception[render]'") from error
    return trimesh


def _model(source: _Source) -> Model | None:
    """None where there is nothing to draw or too much."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of textures that are not there and the like
        scene = _trimesh().load_scene(io.BytesIO(source.data), file_type=source.format, resolver=source.resolver)
        meshes = [mesh for mesh in scene.dump() if hasattr(mesh, "faces") and len(mesh.faces) and _opaque(mesh)]
    if not FEWEST_TRIANGLES <= sum(len(mesh.faces) for mesh in meshes) <= MOST_TRIANGLES:
        return None
    corners = [np.asarray(mesh.vertices) @ source.turn.T for mesh in meshes]
    used = np.concatenate([points[np.unique(mesh.faces)] for points, mesh in zip(corners, meshes, strict=True)])
    low, high = used.min(axis=0), used.max(axis=0)
    half = (high - low) / 2
    if not np.isfinite(half).all() or half.max() <= 0:
        return None
    scale = np.maximum(half, 1e-3 * half.max())  # what is flat stays thin
    parts = [_part(m, (p - (low + high) / 2) / scale, source.turn) for p, m in zip(corners, meshes, strict=True)]
    x, y, z = (scale / half.max()).tolist()
    largest = sorted(range(len(parts)), key=lambda number: -meshes[number].area)[:MOST_PARTS]
    return Model(source.name, (x, y, z), tuple(parts[number] for number in largest))


def _part(mesh: Any, vertices: NDArray[np.float64], turn: NDArray[np.float64]) -> Part:
    coordinates, texture = getattr(mesh.visual, "uv", None), _texture(mesh)
    if coordinates is None or len(coordinates) != len(vertices) or not np.isfinite(coordinates).all():
        coordinates = texture = None
    normals = np.nan_to_num(np.asarray(mesh.vertex_normals) @ turn.T)
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    return Part(vertices, normals, coordinates, np.asarray(mesh.faces), _rgba(mesh)[:3], texture)


def _opaque(mesh: Any) -> bool:
    dissolve = getattr(getattr(mesh.visual, "material", None), "kwargs", {}).get("d", ["1"])  # OBJ's, unread by trimesh
    return min(_rgba(mesh)[3], float(dissolve[0])) >= _OPAQUE


def _rgba(mesh: Any) -> tuple[float, float, float, float]:
    material = getattr(mesh.visual, "material", None)
    colour = material.main_color if material is not None else mesh.visual.main_color
    red, green, blue, alpha = (np.asarray(colour, float) / 255).tolist()
    return red, green, blue, alpha


def _texture(mesh: Any) -> NDArray[np.uint8] | None:
    """uint8 [TEXTURE_SIDE, TEXTURE_SIDE, 3] of the material's picture, or None."""
    material = getattr(mesh.visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if picture is None:
        return None
    pixels = np.asarray(picture.convert("RGB"))
    return np.asarray(cv2.resize(pixels, (TEXTURE_SIDE, TEXTURE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
