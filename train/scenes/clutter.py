"""Domain-randomised clutter for supervised pre-training: one to six objects of any shape before any background.

Deliberately no rooms: what is trained on labels of these scenes and tested on rooms has never seen a label of a room.
Everything is random: shapes, proportions, poses, colours (often several objects of one colour, sometimes that of the
background), patterns, planes behind, camera and lights.
"""

from __future__ import annotations

import colorsys
import functools
import math
from dataclasses import dataclass

import numpy as np

from train.data.layout import FactorInfo
from train.scenes.scene import IDENTITY, Colour, SimulatedScene, Thing, Vector, yaw_rotation
from train.scenes.staging import (
    DISTANCE,
    PLACE_FACTORS,
    SHAPES,
    Hsv,
    Item,
    View,
    place_factors,
    place_items,
    random_hsv,
    random_rotation,
    sample_background,
    sample_lights,
    sample_view,
)
from train.scenes.textures import COUNT as TEXTURES

FACTORS: dict[str, FactorInfo] = {
    **PLACE_FACTORS,
    "hue": {"kind": "continuous", "values": None, "unit": "turn"},
    **{name: {"kind": "continuous", "values": None, "unit": None} for name in ("saturation", "value")},
    "shape": {"kind": "categorical", "values": list(SHAPES), "unit": None},
}
APPARENT_RADIUS = (0.11, 0.42)
"""Of objects, in units of half the picture."""


@dataclass(frozen=True)
class _Item(Item):
    hsv: Hsv


def sample_clutter(generator: np.random.Generator) -> SimulatedScene:
    """A scene drawn at random."""
    grounded = generator.random() < 0.65
    view = sample_view(generator)
    background = sample_background(generator, view.camera, grounded, functools.partial(_surface, generator))
    paint = _Paint(generator, background[0].colour)
    items = place_items(
        generator, lambda number: _sample_item(generator, view, grounded, label=1 + number, paint=paint)
    )
    things = [*background, *(item.thing for item in items)]
    sky = generator.random() < 0.7
    return SimulatedScene(things, view.camera, sample_lights(generator), _factors(items), sky=sky)


class _Paint:
    """Colours and patterns of the objects of one scene."""

    def __init__(self, generator: np.random.Generator, background: Colour) -> None:
        self._generator = generator
        self._patterned = generator.random() < 0.3
        self._saturated = generator.random() < 0.7
        self._shared: Hsv | None = None
        style = generator.random()
        if style < 0.35:
            self._shared = random_hsv(generator, self._saturated)
        elif style < 0.42:
            hue, saturation, value = colorsys.rgb_to_hsv(*background)
            self._shared = ((hue + generator.uniform(-0.06, 0.06)) % 1, saturation, value)

    def sample(self) -> tuple[Hsv, int | None]:
        """A colour, and a texture or None."""
        texture = random_texture(self._generator) if self._patterned and self._generator.random() < 0.6 else None
        return self._shared or random_hsv(self._generator, self._saturated), texture


def random_texture(generator: np.random.Generator) -> int:
    """Number of a texture."""
    return int(generator.integers(TEXTURES))


def _surface(
    generator: np.random.Generator,
    size: Vector,
    position: Vector,
    rotation: tuple[float, ...] = IDENTITY,
    *,
    far: bool = False,
) -> Thing:
    hsv = random_hsv(generator, saturated=generator.random() < 0.7)
    texture = random_texture(generator) if generator.random() < 0.3 else None
    return Thing("box", size, position, colorsys.hsv_to_rgb(*hsv), 0, rotation, texture=texture, specular=0.05)


def _sample_item(generator: np.random.Generator, view: View, grounded: bool, label: int, paint: _Paint) -> _Item | None:
    """An object in view, or None where this draw isn't."""
    shape, across, up, near, large, wide, deep, standing, yaw = generator.random(9).tolist()
    across, up = 1.8 * across - 0.9, 1.8 * up - 0.9
    depth = DISTANCE[0] + near * (DISTANCE[1] - DISTANCE[0])
    apparent = APPARENT_RADIUS[0] * (APPARENT_RADIUS[1] / APPARENT_RADIUS[0]) ** large
    size = apparent * depth * view.tangent
    name = SHAPES[int(shape * len(SHAPES))]
    half = _proportions(name, size, wide, deep)
    rotation = yaw_rotation(2 * math.pi * yaw) if standing < 0.6 else random_rotation(generator)
    point = view.point(across, up, depth)
    if grounded:
        upright = sum(abs(rotation[6 + axis]) * half[axis] for axis in range(3))  # of the box around it
        point[2] = upright if standing < 0.8 else max(point[2], upright)
        across, up, depth = view.seen(point)
        if depth < 1.0:
            return None
        apparent = size / depth / view.tangent
        if max(abs(across), abs(up)) > 0.95 or apparent > 1.3 * APPARENT_RADIUS[1]:
            return None
    hsv, texture = paint.sample()
    position = (float(point[0]), float(point[1]), float(point[2]))
    specular = float(generator.uniform(0, 0.5))
    thing = Thing(
        name, half, position, colorsys.hsv_to_rgb(*hsv), label, rotation, texture=texture, specular=specular
    )  # fmt: skip
    return _Item(thing, max(half), across, up, depth, apparent, hsv)


def _proportions(shape: str, size: float, wide: float, deep: float) -> tuple[float, float, float]:
    """Half extents; what MuJoCo draws round is as wide as it is deep."""
    width, depth = size * (0.55 + 0.6 * wide), size * (0.55 + 0.6 * deep)
    if shape == "sphere":
        return size, size, size
    if shape in ("cylinder", "capsule"):
        return min(width, 0.8 * size), min(width, 0.8 * size), size
    if shape == "torus":
        return size, size, 0.4 * size
    return width, depth, size


def _factors(items: list[_Item]) -> dict[str, list[float]]:
    return {
        **place_factors(items),
        **{name: [item.hsv[part] for item in items] for part, name in enumerate(("hue", "saturation", "value"))},
        "shape": [SHAPES.index(item.thing.shape) for item in items],
    }
