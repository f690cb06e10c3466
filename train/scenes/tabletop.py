"""Tabletop scenes with CLEVR's factors: cubes, cylinders and spheres of two sizes, two materials and eight colours.

The view is that of the thesis's square crop of CLEVR's images (section 5.1); objects keep CLEVR's distances from each
other. All objects are inside the picture, and none is wholly behind another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.layout import FactorInfo
from train.scenes.scene import Camera, Light, SimulatedScene, Thing, yaw_rotation

OBJECTS = (3, 10)
"""Fewest and most objects."""
SHAPES = ("cube", "cylinder", "sphere")
SIZES = {"small": 0.35, "large": 0.7}
"""Half height of cylinders and spheres, metres; cubes are smaller by the square root of two, as in CLEVR."""
MATERIALS = {"rubber": (0.1, 0.1), "metal": (1.0, 0.85)}
"""Specular and shininess; metal also has the texture of `metal`."""
COLOURS = {
    "grey": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
FACTORS: dict[str, FactorInfo] = {
    **{name: {"kind": "continuous", "values": None, "unit": "m"} for name in ("x", "y", "z")},
    "rotation": {"kind": "continuous", "values": None, "unit": "degree"},
    "size": {"kind": "categorical", "values": list(SIZES), "unit": None},
    "shape": {"kind": "categorical", "values": list(SHAPES), "unit": None},
    "material": {"kind": "categorical", "values": list(MATERIALS), "unit": None},
    "colour": {"kind": "categorical", "values": list(COLOURS), "unit": None},
}

EYE, EYE_JITTER = (7.2, -6.6, 5.1), 0.5
FIELD_OF_VIEW = 31.0
REACH = 3.2
MARGIN = 0.3
"""Least distance between two objects, metres."""
_TABLE = (40.0, 40.0, 0.5)


def metal() -> NDArray[np.uint8]:
    """uint8 [1, 64, 64, 3]: what a polished surface mirrors; MuJoCo draws reflections in planes only.

    A bright horizon above a dark ground, brighter towards two sides.
    """
    down, around = np.indices((64, 64)) / 64
    horizon = np.exp(-(((down - 0.4) / 0.13) ** 2))
    ground = 1 / (1 + np.exp(-(down - 0.55) / 0.04))
    brightness = 0.8 + 0.2 * horizon - 0.28 * ground
    brightness *= 0.94 + 0.06 * np.cos(4 * np.pi * around)
    return np.repeat(np.rint(255 * brightness).astype(np.uint8)[None, ..., None], 3, axis=-1)


@dataclass(frozen=True)
class _Item:
    shape: str
    size: str
    material: str
    colour: str
    x: float
    y: float
    rotation: float

    @property
    def half_height(self) -> float:
        return SIZES[self.size] / (math.sqrt(2) if self.shape == "cube" else 1)

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def centre(self) -> tuple[float, float, float]:
        return self.x, self.y, self.half_height

    def thing(self, label: int) -> Thing:
        half = self.half_height
        specular, shininess = MATERIALS[self.material]
        red, green, blue = (channel / 255 for channel in COLOURS[self.colour])
        return Thing(
            "box" if self.shape == "cube" else self.shape, (half, half, half), self.centre, (red, green, blue), label,
            yaw_rotation(math.radians(self.rotation)), texture=0 if self.material == "metal" else None,
            specular=specular, shininess=shininess,
        )  # fmt: skip


def sample_tabletop(generator: np.random.Generator) -> SimulatedScene:
    """A tabletop drawn at random."""
    camera = _sample_camera(generator)
    count = int(generator.integers(OBJECTS[0], OBJECTS[1] + 1))
    lens = _Lens(camera)
    placed: list[tuple[_Item, _Disc]] = []
    attempts = 0
    while len(placed) < count:
        attempts += 1
        if attempts > 40 * count:  # the table is full of large ones
            placed, attempts = [], 0
        item = _sample_item(generator)
        disc = lens.project(item)
        if _fits(item, disc, placed):
            placed.append((item, disc))
    items = [item for item, _ in placed]
    table = Thing("box", _TABLE, (0.0, 0.0, -_TABLE[2]), (0.55, 0.55, 0.55), 0, specular=0.0)
    things = [table, *(item.thing(1 + place) for place, item in enumerate(items))]
    return SimulatedScene(things, camera, _sample_lights(generator), _factors(items), sky=False)


def _sample_camera(generator: np.random.Generator) -> Camera:
    x, y, z = (float(value + shift) for value, shift in zip(EYE, generator.uniform(-1, 1, 3) * EYE_JITTER, strict=True))
    pitch = -math.atan2(z - 0.3, math.hypot(x, y))
    return Camera.looking((x, y, z), math.atan2(-y, -x), pitch, FIELD_OF_VIEW)


def _sample_lights(generator: np.random.Generator) -> tuple[Light, ...]:
    """A key light that casts shadows, a fill and a back light, all moved a little, as in CLEVR."""
    key, fill, back = (generator.uniform(-1, 1, 3) for _ in range(3))

    def shining_from(x: float, y: float, z: float, diffuse: float, specular: float, shadow: bool = False) -> Light:
        length = math.sqrt(x * x + y * y + z * z)
        direction = (-x / length, -y / length, -z / length)
        return Light((x, y, z), direction, 0.0, diffuse, specular, directional=True, casts_shadow=shadow)

    return (
        Light((0.0, 0.0, 10.0), ambient=0.35, diffuse=0.0, specular=0.0),
        shining_from(6 + key[0], -2 + key[1], 8 + key[2], 0.55, 0.6, shadow=True),
        shining_from(-4 + fill[0], -8 + fill[1], 5 + fill[2], 0.2, 0.2),
        shining_from(-3 + back[0], 6 + back[1], 6 + back[2], 0.15, 0.2),
    )


def _sample_item(generator: np.random.Generator) -> _Item:
    shape, size, material, colour, x, y, rotation = generator.random(7).tolist()
    return _Item(
        shape=SHAPES[int(shape * len(SHAPES))],
        size=list(SIZES)[int(size * len(SIZES))],
        material=list(MATERIALS)[int(material * len(MATERIALS))],
        colour=list(COLOURS)[int(colour * len(COLOURS))],
        x=REACH * (2 * x - 1),
        y=REACH * (2 * y - 1),
        rotation=360 * rotation,
    )


class _Lens:
    """Where a camera sees things, in units of half the picture."""

    def __init__(self, camera: Camera) -> None:
        self._eye = camera.position
        self._axes = (tuple(np.cross(camera.forward, camera.up).tolist()), camera.up, camera.forward)
        self._focal = 1 / math.tan(math.radians(camera.field_of_view) / 2)

    def project(self, item: _Item) -> _Disc:
        offset = [a - b for a, b in zip(item.centre, self._eye, strict=True)]
        across, up, depth = (sum(a * b for a, b in zip(axis, offset, strict=True)) for axis in self._axes)
        scale = self._focal / depth
        return _Disc(across * scale, up * scale, depth, item.half_height * scale)


@dataclass(frozen=True)
class _Disc:
    """What an object looks like, roughly: centre and radius in units of half the picture, distance in metres."""

    across: float
    up: float
    depth: float
    radius: float

    def inside(self) -> bool:
        return max(abs(self.across), abs(self.up)) + 0.8 * self.radius <= 1

    def hides(self, other: _Disc) -> bool:
        """Whether the nearer one of both leaves too little of the other."""
        near = self if self.depth < other.depth else other
        apart = math.hypot(self.across - other.across, self.up - other.up)
        return apart < max(near.radius, 0.5 * (self.radius + other.radius))


def _fits(item: _Item, disc: _Disc, others: list[tuple[_Item, _Disc]]) -> bool:
    return disc.inside() and not any(
        math.hypot(item.x - other.x, item.y - other.y) < item.radius + other.radius + MARGIN or disc.hides(theirs)
        for other, theirs in others
    )


def _factors(items: list[_Item]) -> dict[str, list[float]]:
    return {
        "x": [item.x for item in items],
        "y": [item.y for item in items],
        "z": [item.half_height for item in items],
        "rotation": [item.rotation for item in items],
        "size": [list(SIZES).index(item.size) for item in items],
        "shape": [SHAPES.index(item.shape) for item in items],
        "material": [list(MATERIALS).index(item.material) for item in items],
        "colour": [list(COLOURS).index(item.colour) for item in items],
    }
