"""Kinds of scenes by name: how one is drawn at random, and what the store of many says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monet_perception.labels import FIRST_OBJECT_LABEL
from train.data.layout import FactorInfo
from train.scenes import clutter, rooms, tabletop
from train.scenes.scene import SimulatedScene
from train.scenes.textures import textures

LICENCE = "rendered by monet_perception (Apache-2.0); no rights of others"


@dataclass(frozen=True)
class Kind:
    """A family of scenes.

    Attributes:
        sample: draws a scene.
        dataset: name in the manifest.
        objects: most objects in a scene.
        background_labels: labels from this one on are objects.
        factors: what is known about an object.
        size: default height and width, pixels.
        shadow_size: side of the shadow map, pixels; 0: no shadows.
        textures: makes the renderer's textures.
    """

    sample: Callable[[np.random.Generator], SimulatedScene]
    dataset: str
    objects: int
    background_labels: int
    factors: Mapping[str, FactorInfo]
    size: int = 64
    shadow_size: int = 0
    textures: Callable[[], NDArray[np.uint8]] | None = None

    def factor_rows(self, scenes: list[SimulatedScene]) -> dict[str, NDArray[Any]]:
        """[n, objects] for each factor; NaN or -1 where a scene has fewer objects."""
        rows: dict[str, NDArray[Any]] = {}
        for name, factor in self.factors.items():
            absent, dtype = (np.nan, np.float32) if factor["kind"] == "continuous" else (-1, np.int16)
            rows[name] = np.full((len(scenes), self.objects), absent, dtype)
            for row, scene in zip(rows[name], scenes, strict=True):
                row[: len(scene.factors[name])] = scene.factors[name]
        return rows


def _room_kind(variant: rooms.RoomVariant) -> Kind:
    objects = rooms.OBJECTS[variant][1]
    return Kind(
        sample=lambda generator: rooms.sample_room(generator, variant),
        dataset="rooms" if variant == "train" else f"rooms_{variant}",
        objects=objects,
        background_labels=FIRST_OBJECT_LABEL,
        factors=rooms.FACTORS if objects else {},
    )


KINDS: dict[str, Kind] = {
    **{f"rooms/{variant}": _room_kind(variant) for variant in rooms.OBJECTS},
    "tabletop": Kind(
        sample=tabletop.sample_tabletop,
        dataset="tabletop",
        objects=tabletop.OBJECTS[1],
        background_labels=1,
        factors=tabletop.FACTORS,
        size=128,
        shadow_size=1024,
        textures=tabletop.metal,
    ),
    "clutter": Kind(
        sample=clutter.sample_clutter,
        dataset="clutter",
        objects=clutter.OBJECTS[1],
        background_labels=1,
        factors=clutter.FACTORS,
        textures=textures,
    ),
}
"""By name; a name and not the Kind itself travels to the processes that draw."""


def scene_at(kind: str, seed: int, index: int) -> SimulatedScene:
    """Scene number `index` of those with this seed: the same whoever draws it, and whatever was drawn before."""
    return KINDS[kind].sample(np.random.default_rng((seed, index)))
