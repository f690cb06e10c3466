"""A room in motion: a camera that sways on its ring and objects that circle or stand, smoothly and without end."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from monet_perception.labels import FIRST_OBJECT_LABEL
from train.scenes.rooms import (
    EYE_HEIGHT,
    FIELD_OF_VIEW,
    LIGHTS,
    RING_RADIUS,
    SHAPES,
    RoomObject,
    factors_of,
    room_things,
    saturated,
)
from train.scenes.scene import Camera, SimulatedScene

REACH = 1.4
"""Objects stay within this distance of the room's middle, metres: the middle square of the picture shows all of it."""
SIZE = (0.34, 0.48)
CIRCLE = 0.22
"""Radius of a moving object's path, metres."""
GAP = 0.1
"""Least distance between objects at any time, metres."""
SWAY, PITCH = 0.7, -0.22
"""Of the camera: half the arc it sways over, and its middle pitch, radians."""


@dataclass(frozen=True)
class _Mover:
    """An object that circles around where it would stand; `radius` 0: it stands."""

    item: RoomObject
    radius: float
    turns: int
    """Of the circle, in one period; negative: clockwise."""
    phase: float

    def at(self, phase: float) -> RoomObject:
        angle = self.turns * phase + self.phase
        return dataclasses.replace(
            self.item,
            x=self.item.x + self.radius * math.cos(angle),
            y=self.item.y + self.radius * math.sin(angle),
            rotation=self.item.rotation + (angle if self.radius else 0.0),
        )


class RoomSequence:
    """A room that moves, drawn at random; after `period` seconds everything is where it was.

    Colours are spread over the hues and shapes taken in turn, so that no two things look alike.

    Args:
        seed: another one gives another room.
        objects: number of objects.
        moving: how many of them move.
        period: seconds.
    Raises:
        ValueError: so many objects don't fit.
    """

    def __init__(self, seed: int = 0, objects: int = 3, moving: int = 2, period: float = 15.0) -> None:
        if not 0 <= moving <= objects:
            raise ValueError(f"{moving} of {objects} objects can't move")
        generator = np.random.default_rng(seed)
        self.period = period
        hues = (generator.random() + generator.permutation(objects + 2) / (objects + 2)) % 1
        colours = [(float(hue), float(generator.uniform(0.75, 1))) for hue in hues]
        self._room = room_things(saturated(*colours[0]), saturated(*colours[1]))
        self._azimuth = generator.uniform(0, 2 * math.pi)
        shapes = generator.permutation(len(SHAPES))
        self._movers: list[_Mover] = []
        attempts = 0
        while len(self._movers) < objects:
            attempts += 1
            if attempts % (50 * objects) == 0:  # what stands already leaves no room
                self._movers = []
            if attempts == 1000 * objects:
                raise ValueError(
                    f"{objects} objects, {moving} of them moving, don't fit into the room; take fewer, or another seed"
                )
            place = len(self._movers)
            shape = SHAPES[shapes[place % len(SHAPES)]]
            mover = _sample_mover(generator, shape, colours[2 + place], place < moving)
            if all(_apart(mover, other) for other in self._movers):
                self._movers.append(mover)

    def objects(self, seconds: float) -> list[RoomObject]:
        """The objects at a time; the first has label 4."""
        phase = 2 * math.pi * seconds / self.period
        return [mover.at(phase) for mover in self._movers]

    def scene(self, seconds: float) -> SimulatedScene:
        """Everything at a time."""
        objects = self.objects(seconds)
        things = [*self._room, *(item.thing(FIRST_OBJECT_LABEL + place) for place, item in enumerate(objects))]
        return SimulatedScene(things, self._camera(seconds), LIGHTS, factors_of(objects))

    def _camera(self, seconds: float) -> Camera:
        phase = 2 * math.pi * seconds / self.period
        azimuth = self._azimuth + SWAY * math.sin(phase)
        radius = RING_RADIUS + 0.12 * math.cos(2 * phase)
        position = (radius * math.cos(azimuth), radius * math.sin(azimuth), EYE_HEIGHT + 0.1 * math.sin(2 * phase))
        return Camera.looking(position, azimuth + math.pi, PITCH + 0.05 * math.sin(phase + 1), FIELD_OF_VIEW)


def _sample_mover(generator: np.random.Generator, shape: str, colour: tuple[float, float], moves: bool) -> _Mover:
    reach, bearing, size, rotation, phase, sense = generator.random(6).tolist()
    radius = CIRCLE if moves else 0.0
    distance = (REACH - radius) * math.sqrt(reach)
    item = RoomObject(
        shape=shape,
        x=distance * math.cos(2 * math.pi * bearing),
        y=distance * math.sin(2 * math.pi * bearing),
        size=SIZE[0] + size * (SIZE[1] - SIZE[0]),
        hue=colour[0],
        saturation=colour[1],
        rotation=2 * math.pi * rotation,
    )
    return _Mover(item, radius, 2 if sense < 0.5 else -2, 2 * math.pi * phase)


def _apart(one: _Mover, other: _Mover) -> bool:
    """Whether both never come too close, wherever they are on their circles."""
    between = math.hypot(one.item.x - other.item.x, one.item.y - other.item.y)
    return between > one.item.radius + other.item.radius + one.radius + other.radius + GAP
