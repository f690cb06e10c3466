"""Rooms like those of DeepMind's Objects Room: coloured floor and walls, sky, and simple shapes of one colour each.

After section 5.1 of the thesis: hue uniform in [0, 1], saturation in [0.75, 1], value 1; the camera on a ring inside
the room, facing its centre, lifted by -25 to 22 degrees; three objects of six shapes, 1 to 3 of them visible; four to
six in the test sets `six_objects` and `identical_color`; none in `empty_room`. Two are not among the published sets:
`other_ring` sees the rooms of `train` from a smaller and lower ring (does a network hold off its training poses?), and
`up_to_six` has one to six objects, to train networks for crowded rooms.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monet_perception.labels import FIRST_OBJECT_LABEL
from train.data.layout import FactorInfo
from train.scenes.scene import Camera, Colour, Light, SimulatedScene, Thing, yaw_rotation

RoomVariant = Literal["train", "six_objects", "identical_color", "empty_room", "other_ring", "up_to_six"]

SKY, FLOOR, FIRST_WALLS, SECOND_WALLS = range(FIRST_OBJECT_LABEL)
"""Labels, in the order of the published masks; the wall's halves are the two pairs of walls that face each other, so
that every view of a corner shows both."""
OBJECTS: dict[RoomVariant, tuple[int, int]] = {
    "train": (3, 3),
    "six_objects": (4, 6),
    "identical_color": (4, 6),
    "empty_room": (0, 0),
    "other_ring": (3, 3),
    "up_to_six": (1, 6),
}
"""Fewest and most objects of a room."""
SHAPES = ("sphere", "box", "cylinder", "capsule", "ellipsoid", "cone")
PROPORTIONS: dict[str, tuple[float, float]] = {
    "sphere": (1.0, 1.0),
    "box": (0.8, 0.8),
    "cylinder": (0.75, 0.9),
    "capsule": (0.55, 1.2),
    "ellipsoid": (1.15, 0.7),
    "cone": (0.95, 1.1),
}
"""Half width and half height as multiples of an object's size."""
FACTORS: dict[str, FactorInfo] = {
    **{name: {"kind": "continuous", "values": None, "unit": "m"} for name in ("x", "y", "z", "size")},
    "hue": {"kind": "continuous", "values": None, "unit": "turn"},
    "saturation": {"kind": "continuous", "values": None, "unit": None},
    "rotation": {"kind": "continuous", "values": None, "unit": "rad"},
    "shape": {"kind": "categorical", "values": list(SHAPES), "unit": None},
}

HALF_WIDTH, WALL_HEIGHT = 3.0, 2.0
RING_RADIUS, EYE_HEIGHT = 2.6, 1.2
"""Of the ring that the camera stands on, metres."""
OTHER_RING_RADIUS, OTHER_EYE_HEIGHT = 2.3, 0.9
PITCH = (math.radians(-25), math.radians(22))
FIELD_OF_VIEW = 66.0
SIZE = (0.36, 0.64)
REACH = 1.9
"""Objects are centred within this distance of the room's axes, metres."""
LIGHTS = (
    Light((0.0, 0.0, 5.0), ambient=0.42, diffuse=0.5, specular=0.2),
    Light((0.0, 0.0, 1.0), direction=(0.45, 0.8, -0.4), diffuse=0.12, specular=0.0, directional=True),
)
"""A lamp above the middle, and a weak sun, so that the walls of a corner differ in brightness."""


@dataclass(frozen=True)
class RoomObject:
    """What decides one object; lengths in metres, angles in radians."""

    shape: str
    x: float
    y: float
    size: float
    hue: float
    saturation: float
    rotation: float

    @property
    def half_height(self) -> float:
        return PROPORTIONS[self.shape][1] * self.size

    @property
    def radius(self) -> float:
        """Of the upright cylinder around it."""
        return PROPORTIONS[self.shape][0] * self.size * (math.sqrt(2) if self.shape == "box" else 1)

    def thing(self, label: int) -> Thing:
        """The object standing on the floor."""
        width = PROPORTIONS[self.shape][0] * self.size
        size = (width, width if self.shape != "ellipsoid" else 0.75 * width, self.half_height)
        return Thing(
            self.shape, size, (self.x, self.y, self.half_height), saturated(self.hue, self.saturation), label,
            yaw_rotation(self.rotation),
        )  # fmt: skip


@dataclass(frozen=True)
class Eye:
    """Where the camera stands on its ring and how far it is lifted; radians and metres."""

    azimuth: float
    pitch: float
    radius: float
    height: float

    def camera(self) -> Camera:
        """Facing the centre of the room."""
        position = (self.radius * math.cos(self.azimuth), self.radius * math.sin(self.azimuth), self.height)
        return Camera.looking(position, self.azimuth + math.pi, self.pitch, FIELD_OF_VIEW)


def saturated(hue: float, saturation: float) -> Colour:
    """The colour of full brightness."""
    return colorsys.hsv_to_rgb(hue, saturation, 1.0)


def sample_room(generator: np.random.Generator, variant: RoomVariant = "train") -> SimulatedScene:
    """A room drawn at random."""
    eye = Eye(
        generator.uniform(0, 2 * math.pi),
        generator.uniform(*PITCH),
        *((OTHER_RING_RADIUS, OTHER_EYE_HEIGHT) if variant == "other_ring" else (RING_RADIUS, EYE_HEIGHT)),
    )
    floor, wall = (saturated(*random_colour(generator)) for _ in range(2))
    fewest, most = OBJECTS[variant]
    count = int(generator.integers(fewest, most + 1))
    objects = _sample_objects(generator, count, eye, one_colour=variant == "identical_color")
    things = [
        *room_things(floor, wall),
        *(item.thing(FIRST_OBJECT_LABEL + place) for place, item in enumerate(objects)),
    ]
    return SimulatedScene(things, eye.camera(), LIGHTS, factors_of(objects))


def random_colour(generator: np.random.Generator) -> tuple[float, float]:
    """Hue and saturation."""
    return generator.uniform(0, 1), generator.uniform(0.75, 1)


def room_things(floor: Colour, wall: Colour) -> list[Thing]:
    """Floor and walls around the origin."""
    half, thin, height = HALF_WIDTH, 0.1, WALL_HEIGHT / 2
    things = [Thing("box", (half + thin, half + thin, thin), (0.0, 0.0, -thin), floor, FLOOR, specular=0.0)]
    for side in (-1, 1):
        along_x, along_y = (thin, half, height), (half, thin, height)
        offset = side * (half + thin)
        things.append(Thing("box", along_x, (offset, 0.0, height), wall, FIRST_WALLS, specular=0.0))
        things.append(Thing("box", along_y, (0.0, offset, height), wall, SECOND_WALLS, specular=0.0))
    return things


def factors_of(objects: list[RoomObject]) -> dict[str, list[float]]:
    """Values of `FACTORS` for each object."""
    factors = {name: [getattr(item, name) for item in objects] for name in ("x", "y", "size", "hue", "saturation")}
    factors["z"] = [item.half_height for item in objects]
    factors["rotation"] = [item.rotation for item in objects]
    factors["shape"] = [SHAPES.index(item.shape) for item in objects]
    return factors


def _sample_objects(generator: np.random.Generator, count: int, eye: Eye, one_colour: bool) -> list[RoomObject]:
    """Objects that stand apart, none wholly behind another, at least one of them in view; in random order."""
    objects: list[RoomObject] = []
    shared = random_colour(generator)
    while len(objects) < count:
        shrink = 1.0
        while True:
            item = _random_object(generator, shrink, shared if one_colour else random_colour(generator))
            view = _View.of(item, eye)
            if _stands_free(item, view, objects, eye) and (objects or view.inside):
                objects.append(item)
                break
            shrink *= 0.98  # a full room takes smaller ones
    return [objects[place] for place in generator.permutation(count)]


def _random_object(generator: np.random.Generator, shrink: float, colour: tuple[float, float]) -> RoomObject:
    shape, x, y, size, rotation = generator.random(5).tolist()
    return RoomObject(
        shape=SHAPES[int(shape * len(SHAPES))],
        x=REACH * (2 * x - 1),
        y=REACH * (2 * y - 1),
        size=max(SIZE[0], (SIZE[0] + size * (SIZE[1] - SIZE[0])) * shrink),
        hue=colour[0],
        saturation=colour[1],
        rotation=2 * math.pi * rotation,
    )


@dataclass(frozen=True)
class _View:
    """How an object is seen: distance on the floor, bearing from the view's axis, half its angle; metres, radians."""

    distance: float
    bearing: float
    half_angle: float
    inside: bool

    @classmethod
    def of(cls, item: RoomObject, eye: Eye) -> _View:
        ahead = eye.radius - item.x * math.cos(eye.azimuth) - item.y * math.sin(eye.azimuth)
        aside = item.y * math.cos(eye.azimuth) - item.x * math.sin(eye.azimuth)
        distance, bearing = math.hypot(ahead, aside), math.atan2(aside, ahead)
        half_view = math.radians(FIELD_OF_VIEW) / 2
        top = math.atan2(1.6 * item.half_height - eye.height, distance)
        inside = abs(bearing) < 0.75 * half_view and top > eye.pitch - half_view + math.radians(2)
        return cls(distance, bearing, math.atan2(item.radius, distance), inside)


def _stands_free(item: RoomObject, view: _View, others: list[RoomObject], eye: Eye) -> bool:
    if view.distance < 0.75 + item.radius:
        return False
    for other in others:
        if math.hypot(item.x - other.x, item.y - other.y) < item.radius + other.radius + 0.05:
            return False
        theirs = _View.of(other, eye)
        near, far = (view, theirs) if view.distance < theirs.distance else (theirs, view)
        if abs(near.bearing - far.bearing) < near.half_angle - 0.4 * far.half_angle:
            return False
    return True
