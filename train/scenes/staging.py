"""Random cameras, lamps and backgrounds, and objects that leave each other room: what clutter and household share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from train.data.layout import FactorInfo
from train.scenes.scene import IDENTITY, Camera, Light, Thing, Vector
from train.scenes.shapes import SHAPES as ALL_SHAPES

OBJECTS = (1, 6)
SHAPES = tuple(shape for shape in ALL_SHAPES if shape != "plane")
PLACE_FACTORS: dict[str, FactorInfo] = {
    name: {"kind": "continuous", "values": None, "unit": "m"} for name in ("x", "y", "z", "size")
}
DISTANCE = (1.6, 6.0)
"""Of objects from the camera, metres along its view."""
_FAR_PLANE = 25.0


Hsv = tuple[float, float, float]


class Surface(Protocol):
    """Makes a background slab of half extents `size`; `far`: it fills the view behind everything."""

    def __call__(
        self, size: Vector, position: Vector, rotation: tuple[float, ...] = IDENTITY, *, far: bool = False
    ) -> Thing: ...


@dataclass(frozen=True)
class View:
    """What a camera sees: the tangent of half its angle of view is the unit of half the picture."""

    camera: Camera
    tangent: float

    def point(self, across: float, up: float, depth: float) -> NDArray[np.float64]:
        """The point of the world [3] that is seen there, in units of half the picture, at that depth in metres."""
        scale = self.tangent
        return np.array(self.camera.position) + self.camera.rotation @ (
            across * scale * depth,
            -up * scale * depth,
            depth,
        )

    def seen(self, point: NDArray[np.float64]) -> tuple[float, float, float]:
        """Where a point of the world is seen: across, up, and its depth in metres."""
        right, down, depth = (self.camera.rotation.T @ (point - self.camera.position)).tolist()
        return right / depth / self.tangent, -down / depth / self.tangent, depth


@dataclass(frozen=True)
class Item:
    """An object in its place.

    Attributes:
        thing: what is drawn.
        radius: within which nothing else stands, more or less, metres.
        across, up: where its centre is seen, in units of half the picture.
        distance: metres along the view.
        apparent: radius as it is seen, in units of half the picture.
    """

    thing: Thing
    radius: float
    across: float
    up: float
    distance: float
    apparent: float

    def clear_of(self, other: Item) -> bool:
        """Whether both stand apart and the nearer one leaves enough of the other."""
        between = math.dist(self.thing.position, other.thing.position)
        if between < 0.85 * (self.radius + other.radius):
            return False
        near, far = (self, other) if self.distance < other.distance else (other, self)
        return math.hypot(near.across - far.across, near.up - far.up) > near.apparent - 0.2 * far.apparent


def place_items[T: Item](generator: np.random.Generator, sample: Callable[[int], T | None]) -> list[T]:
    """A random number of objects that stand clear of each other; fewer where no more find room.

    Args:
        generator: draws their number.
        sample: draws the object that would be the i-th, or None where this draw isn't in view.
    """
    count = int(generator.integers(OBJECTS[0], OBJECTS[1] + 1))
    items: list[T] = []
    for _ in range(40 * count):
        item = sample(len(items))
        if item is not None and all(item.clear_of(other) for other in items):
            items.append(item)
            if len(items) == count:
                break
    return items


def place_factors(items: Sequence[Item]) -> dict[str, list[float]]:
    """Values of `PLACE_FACTORS`."""
    return {
        **{name: [item.thing.position[axis] for item in items] for axis, name in enumerate("xyz")},
        "size": [max(item.thing.size) for item in items],
    }


def random_hsv(generator: np.random.Generator, saturated: bool) -> Hsv:
    """Hue, saturation and value; `saturated`: of full brightness and nearly pure."""
    hue, saturation, value = generator.random(3).tolist()
    return (hue, 0.7 + 0.3 * saturation, 1.0) if saturated else (hue, saturation, 0.25 + 0.75 * value)


def random_rotation(generator: np.random.Generator) -> tuple[float, ...]:
    """3x3, row by row; uniform over all rotations."""
    return tuple(Rotation.from_quat(generator.normal(size=4)).as_matrix().ravel().tolist())


def sample_view(generator: np.random.Generator) -> View:
    """A camera above the origin that looks along x, more or less."""
    height = generator.uniform(0.7, 3.2)
    looked_at = generator.uniform(1.8, 9.0)
    pitch = -math.atan2(height - 0.4, looked_at) + math.radians(generator.uniform(-8, 12))
    roll = math.radians(generator.uniform(-10, 10)) if generator.random() < 0.3 else 0.0
    angle = generator.uniform(40, 75)
    return View(Camera.looking((0.0, 0.0, height), 0.0, pitch, angle, roll), math.tan(math.radians(angle) / 2))


def sample_background(
    generator: np.random.Generator, camera: Camera, grounded: bool, surface: Surface, far_share: float = 0.5
) -> list[Thing]:
    """The ground or a wall first, then planes behind: `far_share` of the grounds have one that fills the view."""
    things: list[Thing] = []
    if grounded:
        things.append(surface((40.0, 40.0, 0.5), (0.0, 0.0, -0.5)))
    for _ in range(int(generator.integers(0 if grounded else 1, 4))):
        things.append(_plane_behind(generator, camera, generator.uniform(5.5, 12.0), surface))
    if generator.random() < (far_share if grounded else 1.0):
        things.append(_plane_behind(generator, camera, _FAR_PLANE, surface, far=True))
    return things


def _plane_behind(
    generator: np.random.Generator, camera: Camera, distance: float, surface: Surface, far: bool = False
) -> Thing:
    """A large tilted slab, `distance` metres along the view; a smaller one may leave the sky in view."""
    ahead, down, right = camera.rotation[:, 2], camera.rotation[:, 1], camera.rotation[:, 0]
    turn, tilt = (0.0, 0.0) if far else generator.uniform([-0.8, -0.35], [0.8, 0.35]).tolist()
    normal = ahead + math.tan(turn) * right + math.tan(tilt) * down
    normal /= np.linalg.norm(normal)
    side = np.cross(normal, -down)
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(normal, side), normal], axis=1)
    wide, high = (30.0, 30.0) if far else generator.uniform([2.0, 1.2], [9.0, 7.0]).tolist()
    centre = np.array(camera.position) + distance * ahead
    if not far:
        centre = centre + generator.uniform(-3, 3) * right + generator.uniform(-1, 2.5) * down
    x, y, z = centre.tolist()
    return surface((wide, high, 0.2), (x, y, z), tuple(axes.ravel().tolist()), far=far)


def sample_lights(generator: np.random.Generator) -> tuple[Light, Light]:
    """A lamp, and a weak sun."""
    ambient, diffuse, specular, second, across, along, height, side = generator.random(8).tolist()
    lamp = (8 * across - 2, 8 * along - 4, 4 + 5 * height)
    direction = (0.3, 2 * side - 1, -0.5)
    return (
        Light(lamp, ambient=0.25 + 0.3 * ambient, diffuse=0.3 + 0.4 * diffuse, specular=0.5 * specular),
        Light((0.0, 0.0, 3.0), direction, diffuse=0.25 * second, specular=0.0, directional=True),
    )
