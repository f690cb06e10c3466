"""Models of real things, from files or catalogues of Sweet Home 3D, as what the renderer draws.

A catalogue (`.sh3f`, Debian: sweethome3d-furniture) is an archive of OBJ files with a list of what they are. trimesh
reads these and every other format. Sweet Home 3D and glTF point y upwards, as their specifications say; of other files
z is taken to, as ROS does (REP 103).
"""

from __future__ import annotations

import dataclasses
import functools
import io
import posixpath
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.scenes.foreign import find_files
from train.scenes.scene import Vector

CATALOGUE = ".sh3f"
_GLTF = (".gltf", ".glb")
SUFFIXES = (CATALOGUE, *_GLTF, ".obj", ".stl", ".ply", ".off")
FEWEST_TRIANGLES, MOST_TRIANGLES = 12, 10_000
"""Fewer are a sheet of paper, more take longer to draw than all the rest of a scene."""
MOST_PARTS = 9
"""Of a model, of different colours or textures: the largest ones are drawn. Six such objects and the background make 59
of the renderer's 64 shapes."""
TEXTURE_SIDE = 128
_INDEX = "PluginFurnitureCatalog.properties"
_LARGEST_FILE = 200 * MOST_TRIANGLES
"""Bytes of an OBJ file that can't have so few triangles."""
_OPAQUE = 0.3
"""Alpha from which on a part is drawn; what can be seen through more has no outline to learn."""
_THINNEST = 1e-3
"""Extent that a flat model is given, in units of its largest."""
_SMALLEST_AREA = 1e-6
"""Of a part, in units of the model's box: MuJoCo refuses surfaces without area."""
_FEWEST_VERTICES = 4
"""Of a part: fewer are refused too."""
_FROM_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


class ModelError(ValueError):
    """Models can't be read; the message says which and why."""


@dataclass(frozen=True)
class Part:
    """Triangles of one material.

    Attributes:
        vertices: float64 [V, 3] in the box of half extents (1, 1, 1) that the whole model fills.
        normals: float64 [V, 3], unit vectors of the surface in that box; stretching it turns them as OpenGL does.
        coordinates: float64 [V, 2] in the texture, v upwards; None without a texture.
        triangles: int [T, 3], indices of vertices.
        colour: red, green and blue in [0, 1]; a texture is multiplied by it.
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
    """A model before it is read.

    Attributes:
        name: of the model.
        format: that trimesh reads it as.
        turn: from its axes to ones with z upwards, 3x3.
        read: gives its bytes, and trimesh's way to the files beside it.
    """

    name: str
    format: str
    turn: NDArray[np.float64]
    read: Callable[[], tuple[bytes, Any]]


def read_models(paths: Sequence[Path]) -> list[Model]:
    """The models of these files, and of those in these folders, that can be drawn, in a fixed order.

    What can't be read, or has too few or too many triangles, is left out and counted in a warning. A catalogue's doors
    and windows are left out as well.

    Raises:
        FileNotFoundError: a path is not there.
        ModelError: trimesh is not installed, a catalogue is damaged, or no model can be drawn.
    """
    files = find_files(paths, SUFFIXES)
    where = ", ".join(map(str, paths))
    if not files:
        raise ModelError(f"no models in {where}; their files end in {', '.join(SUFFIXES)}")
    models: list[Model] = []
    failures: list[str] = []
    for source in (source for path in files for source in _sources(path)):
        try:
            model = _model(source)
        except Exception as error:  # whatever a foreign file makes of its reader
            failures.append(f"{source.name} ({' '.join(str(error).split())})")
            continue
        if model is not None:
            models.append(model)
    if not models:
        raise ModelError(f"no model in {where} can be drawn: {'; '.join(failures[:3]) or 'all are flat or empty'}")
    if failures:
        warnings.warn(f"{len(failures)} models are left out: {'; '.join(failures[:3])}", stacklevel=2)
    return models


def _sources(path: Path) -> Iterator[_Source]:
    suffix = path.suffix.lower()
    if suffix == CATALOGUE:
        return _catalogue(path)
    resolver = _trimesh().resolvers.FilePathResolver(str(path))
    turn = _FROM_Y_UP if suffix in _GLTF else np.eye(3)
    return iter([_Source(path.stem, suffix.removeprefix("."), turn, lambda: (path.read_bytes(), resolver))])


def _catalogue(path: Path) -> Iterator[_Source]:
    """The models of a catalogue of Sweet Home 3D, in its order."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {file.filename: file.file_size for file in archive.infolist()}
            for entry in _entries(archive.read(_INDEX).decode("latin-1")):
                file = entry.get("model", "").removeprefix("/")
                small = sizes.get(file, _LARGEST_FILE + 1) <= _LARGEST_FILE
                if not (small and file.lower().endswith(".obj")) or entry.get("doorOrWindow") == "true":
                    continue
                turn = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
                read = functools.partial(_read_from, archive, file)
                yield _Source(entry.get("name", file), "obj", _FROM_Y_UP @ turn, read)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a catalogue of Sweet Home 3D, or a damaged one ({error})") from error


def _entries(index: str) -> list[dict[str, str]]:
    """Java properties `field#number=value` as a dictionary of fields for each number, in the order of the numbers."""
    entries: dict[int, dict[str, str]] = {}
    for key, _, value in (line.partition("=") for line in index.splitlines()):
        field, _, number = key.strip().partition("#")
        if number.isdecimal():
            entries.setdefault(int(number), {})[field] = value.strip()
    return [entries[number] for number in sorted(entries)]


def _read_from(archive: zipfile.ZipFile, file: str) -> tuple[bytes, Any]:
    """A model of an archive, and trimesh's way to the materials and textures in its folder."""
    folder = posixpath.dirname(file)
    names = [name for name in archive.namelist() if posixpath.dirname(name) == folder and not name.endswith("/")]
    files = {name: archive.read(name) for name in names}
    return files[file], _trimesh().resolvers.ZipResolver(files, folder)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise ModelError("models need trimesh: pip install 'monet_perception[render]'") from error
    return trimesh


def _model(source: _Source) -> Model | None:
    """None where there is nothing to draw.

    Raises:
        ModelError: too few or too many triangles.
    """
    data, resolver = source.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of textures that are not there and the like
        scene = _trimesh().load_scene(io.BytesIO(data), file_type=source.format, resolver=resolver)
        meshes = [mesh for mesh in scene.dump() if hasattr(mesh, "faces") and len(mesh.faces) and _opaque(mesh)]
    triangles = sum(len(mesh.faces) for mesh in meshes)
    if not FEWEST_TRIANGLES <= triangles <= MOST_TRIANGLES:
        raise ModelError(f"has {triangles:,} triangles, not {FEWEST_TRIANGLES} to {MOST_TRIANGLES:,}")
    parts = [_part(mesh, source.turn) for mesh in meshes]
    used = np.concatenate([part.vertices[part.triangles].reshape(-1, 3) for part in parts])
    low, high = used.min(axis=0), used.max(axis=0)
    half = (high - low) / 2
    if not np.isfinite(half).all() or half.max() <= 0:
        return None
    scale = np.maximum(half, _THINNEST * half.max())
    scaled = [_scaled(part, (low + high) / 2, scale) for part in _merged(parts)]
    areas = [_area(part) for part in scaled]
    largest = sorted(range(len(scaled)), key=lambda number: -areas[number])[:MOST_PARTS]
    kept = tuple(
        scaled[number]
        for number in largest
        if areas[number] > _SMALLEST_AREA and len(scaled[number].vertices) >= _FEWEST_VERTICES
    )
    x, y, z = (scale / half.max()).tolist()
    return Model(source.name, (x, y, z), kept) if kept else None


def _part(mesh: Any, turn: NDArray[np.float64]) -> Part:
    """In the mesh's own units."""
    coordinates, texture = getattr(mesh.visual, "uv", None), _texture(mesh)
    if texture is None or coordinates is None or not np.isfinite(coordinates).all():
        coordinates = texture = None
    normals = np.nan_to_num(np.asarray(mesh.vertex_normals))
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 0.0, 1.0)
    vertices, triangles = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    # glTF multiplies a texture by its material's colour; what OBJ files have beside one is often left over.
    left_over = texture is not None and not hasattr(mesh.visual.material, "baseColorTexture")
    colour = (1.0, 1.0, 1.0) if left_over else _rgba(mesh)[:3]
    return Part(vertices @ turn.T, normals @ turn.T, coordinates, triangles, colour, texture)


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Untextured parts of one colour as one."""
    plain: dict[Vector, list[Part]] = {}
    for part in parts:
        if part.texture is None:
            plain.setdefault(part.colour, []).append(part)
    joined = []
    for colour, group in plain.items():
        starts = np.cumsum([0, *(len(part.vertices) for part in group[:-1])])
        joined.append(
            Part(
                np.concatenate([part.vertices for part in group]),
                np.concatenate([part.normals for part in group]),
                None,
                np.concatenate([part.triangles + start for part, start in zip(group, starts, strict=True)]),
                colour,
                None,
            )
        )
    return [*joined, *(part for part in parts if part.texture is not None)]


def _scaled(part: Part, centre: NDArray[np.float64], scale: NDArray[np.float64]) -> Part:
    """Moved and divided to fill the unit box. Normals go the other way, as those of a stretched surface do."""
    normals = part.normals * scale
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return dataclasses.replace(part, vertices=(part.vertices - centre) / scale, normals=normals)


def _area(part: Part) -> float:
    first, second, third = part.vertices[part.triangles].transpose(1, 0, 2)
    return float(np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2)


def _opaque(mesh: Any) -> bool:
    dissolve = getattr(getattr(mesh.visual, "material", None), "kwargs", {}).get("d", ["1"])  # OBJ's, unread by trimesh
    picture = _picture(mesh)
    alpha = 1.0 if picture is None else float(np.mean(_alpha(picture)))
    return min(_rgba(mesh)[3], float(dissolve[-1]), alpha) >= _OPAQUE


def _rgba(mesh: Any) -> tuple[float, float, float, float]:
    """Of the material, or the mean over a mesh that is painted vertex by vertex or face by face."""
    material = getattr(mesh.visual, "material", None)
    if material is not None and getattr(material, "baseColorFactor", material) is None:
        return 1.0, 1.0, 1.0, 1.0  # glTF's default, where trimesh's is grey
    colour = material.main_color if material is not None else np.mean(mesh.visual.face_colors, axis=0)
    red, green, blue, alpha = (np.asarray(colour, float) / 255).tolist()
    return red, green, blue, alpha


def _texture(mesh: Any) -> NDArray[np.uint8] | None:
    """uint8 [TEXTURE_SIDE, TEXTURE_SIDE, 3] of the material's picture, or None."""
    picture = _picture(mesh)
    if picture is None:
        return None
    pixels, alpha = np.asarray(picture.convert("RGB"), np.float32), _alpha(picture)[..., None]
    # Geometry has no holes here: where the picture does, in a net say, its mean colour fills them.
    pixels = alpha * pixels + (1 - alpha) * (alpha * pixels).mean(axis=(0, 1)) / max(float(alpha.mean()), 1e-3)
    small = cv2.resize(np.asarray(pixels), (TEXTURE_SIDE, TEXTURE_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(np.clip(small, 0, 255)), np.uint8)


def _picture(mesh: Any) -> Any:
    """The material's picture (PIL, RGBA), None where it has none."""
    material = getattr(mesh.visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if picture is None:
        return None
    opaque = getattr(material, "alphaMode", "MASK") in (None, "OPAQUE")  # glTF's: alpha is then something else
    return (picture.convert("RGB") if opaque else picture).convert("RGBA")


def _alpha(picture: Any) -> NDArray[np.float32]:
    """[H, W] of a picture (PIL, RGBA), in [0, 1]."""
    return np.asarray(np.asarray(picture, np.float32)[..., 3] / 255, np.float32)
