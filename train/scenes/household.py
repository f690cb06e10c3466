"""Household things from 3D models on photographed surfaces, for pre-training that holds on real cameras.

Like clutter (random poses, cameras, lights and backgrounds, no rooms). But most objects are models of real things,
surfaces show pieces of photographs, lamps cast shadows and the faults of cameras are imitated.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np

from train.scenes.assets import Assets
from train.scenes.film import Film
from train.scenes.scene import IDENTITY, Colour, Light, SimulatedScene, Thing, Vector, yaw_rotation
from train.scenes.shapes import model_number, model_shape
from train.scenes.staging import (
    DISTANCE,
    SHAPES,
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

APPARENT_RADIUS = (0.15, 1.0)
"""Of objects, in units of half the picture."""
REPEATS = (0.07, 0.2, 0.55)
"""Of photographs, see `Assets`: hung far behind, on walls and the ground, on small things."""
_FAR, _LARGE, _SMALL = (0.9, 0.1, 0.0), (0.3, 0.5, 0.2), (0.1, 0.4, 0.5)
"""How often each of the repeats is taken for the far plane, other backgrounds and objects."""


def sample_household(generator: np.random.Generator, assets: Assets) -> SimulatedScene:
    """A scene drawn at random."""
    decorator = _Decorator(generator, assets)
    grounded = generator.random() < 0.75
    view = sample_view(generator)
    things = sample_background(generator, view.camera, grounded, decorator.surface, far_share=0.8)
    items = place_items(generator, lambda number: _sample_item(generator, view, grounded, decorator, label=1 + number))
    things += [item.thing for item in items]
    return SimulatedScene(things, view.camera, _lights(generator), place_factors(items), film=Film.sample(generator))


class _Decorator:
    """Shapes, colours and materials of one scene."""

    def __init__(self, generator: np.random.Generator, assets: Assets) -> None:
        self._generator = generator
        self._models = assets.models
        self._photographs = 0 if assets.textures is None else len(assets.textures)
        self._alike = self._any_model() if generator.random() < 0.15 else None

    def shape(self) -> tuple[str, Vector]:
        """Of an object: its name, and its half extents where the largest is 1."""
        generator = self._generator
        if generator.random() < 0.8:
            number = self._any_model() if self._alike is None else self._alike
            return model_shape(number), self._models[number].half
        shape = SHAPES[int(generator.integers(len(SHAPES)))]
        wide, deep = generator.uniform(0.45, 1.0, 2).tolist()
        if shape == "sphere":
            return shape, (1.0, 1.0, 1.0)
        if shape in ("cylinder", "capsule"):
            return shape, (0.8 * wide, 0.8 * wide, 1.0)
        return shape, ((1.0, 1.0, 0.4) if shape == "torus" else (wide, deep, 1.0))

    def finish(self, shape: str) -> tuple[Colour, int | None]:
        """Colour and texture of an object. A model has its own, and is often dark: its colour multiplies them."""
        if model_number(shape) is None:
            return self.paint(_SMALL)
        tint = (
            self._generator.uniform(0.5, 1.0, 3)
            if self._generator.random() < 0.3
            else self._generator.uniform(0.8, 1.6)
        )
        red, green, blue = np.broadcast_to(tint, 3).tolist()
        return (red, green, blue), None

    def paint(self, shares: tuple[float, float, float]) -> tuple[Colour, int | None]:
        """Colour and texture of what is no model: a photograph, or plain."""
        generator = self._generator
        if self._photographs and generator.random() < 0.65:
            photograph = int(generator.integers(self._photographs))
            repeats = int(generator.choice(len(REPEATS), p=shares))
            bright = generator.uniform(0.6, 1.0) * (generator.uniform(0.7, 1.0, 3) if generator.random() < 0.3 else 1.0)
            red, green, blue = np.broadcast_to(bright, 3).tolist()
            return (red, green, blue), repeats * self._photographs + photograph
        hue, saturation, value = random_hsv(generator, saturated=False)
        if generator.random() < 0.5:
            saturation *= 0.3
        return colorsys.hsv_to_rgb(hue, saturation, value), None

    def surface(
        self, size: Vector, position: Vector, rotation: tuple[float, ...] = IDENTITY, *, far: bool = False
    ) -> Thing:
        """A slab of background."""
        colour, texture = self.paint(_FAR if far else _LARGE)
        return Thing("box", size, position, colour, 0, rotation, texture=texture, specular=0.05)

    def _any_model(self) -> int:
        return int(self._generator.integers(len(self._models)))


def _sample_item(
    generator: np.random.Generator, view: View, grounded: bool, decorator: _Decorator, label: int
) -> Item | None:
    """An object in view, or None where this draw isn't."""
    across, up = generator.uniform(-0.9, 0.9, 2).tolist()
    depth = float(generator.uniform(*DISTANCE))
    apparent = APPARENT_RADIUS[0] * (APPARENT_RADIUS[1] / APPARENT_RADIUS[0]) ** generator.random()
    shape, proportions = decorator.shape()
    # 1.2: in most directions a box looks smaller than the sphere around it
    scale = 1.2 * apparent * depth * view.tangent / math.hypot(*proportions)
    half = (scale * proportions[0], scale * proportions[1], scale * proportions[2])
    rotation = (
        yaw_rotation(2 * math.pi * generator.random()) if generator.random() < 0.85 else random_rotation(generator)
    )
    point = view.point(across, up, depth)
    if grounded:
        upright = sum(abs(rotation[6 + axis]) * half[axis] for axis in range(3))  # of the box around it
        point[2] = upright if generator.random() < 0.9 else max(point[2], upright)
        across, up, depth = view.seen(point)
        if depth < 1.0 or max(abs(across), abs(up)) > 0.95:
            return None
    apparent = math.hypot(*half) / depth / view.tangent
    if apparent > 1.2 * APPARENT_RADIUS[1]:
        return None
    colour, texture = decorator.finish(shape)
    x, y, z = point.tolist()
    thing = Thing(
        shape, half, (x, y, z), colour, label, rotation, texture=texture, specular=float(generator.uniform(0, 0.5))
    )
    return Item(thing, math.hypot(half[0], half[1]), across, up, depth, apparent)


def _lights(generator: np.random.Generator) -> tuple[Light, Light]:
    lamp, sun = sample_lights(generator)
    ambient = lamp.ambient + float(generator.uniform(0, 0.25))
    return dataclasses.replace(lamp, ambient=ambient, casts_shadow=generator.random() < 0.5), sun
