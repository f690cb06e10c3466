"""Kinds of scenes by name: how one is drawn at random, and what the store of many says about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monet_perception.labels import FIRST_OBJECT_LABEL
from train.data.layout import FactorInfo
from train.scenes import clutter, household, rooms, tabletop
from train.scenes.assets import Assets, Sources
from train.scenes.models import ModelError, read_models
from train.scenes.photographs import photograph_textures
from train.scenes.scene import SimulatedScene
from train.scenes.staging import OBJECTS, PLACE_FACTORS
from train.scenes.textures import textures

PHOTOGRAPHS = 160
"""Pieces of photographs; with their repeats they leave 520 of MuJoCo's 1,000 materials for models."""


@dataclass(frozen=True)
class Kind:
    """A family of scenes.

    Attributes:
        sample: draws a scene of the assets.
        dataset: name in the manifest.
        objects: most objects in a scene.
        background_labels: labels from this one on are objects.
        factors: what is known about an object.
        size: default height and width, pixels.
        shadow_size: side of the shadow map, pixels; 0: no shadows.
        assets: what things can be made of; of the sources where the kind is made of others' files.
        foreign: whether it is made of others' files.
        licence: of the pictures.
    """

    sample: Callable[[np.random.Generator, Assets], SimulatedScene]
    dataset: str
    objects: int
    background_labels: int
    factors: Mapping[str, FactorInfo]
    size: int = 64
    shadow_size: int = 0
    assets: Callable[[Sources | None], Assets] = lambda sources: Assets()
    foreign: bool = False
    licence: str = "rendered by monet_perception (Apache-2.0); no rights of others"

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
        sample=lambda generator, _: rooms.sample_room(generator, variant),
        dataset="rooms" if variant == "train" else f"rooms_{variant}",
        objects=objects,
        background_labels=FIRST_OBJECT_LABEL,
        factors=rooms.FACTORS if objects else {},
    )


def _household_assets(sources: Sources | None) -> Assets:
    """Models, on photographs or else on the patterns of clutter."""
    if sources is None:
        raise ModelError("household scenes are made of models; which? Give --models")
    surfaces = photograph_textures(sources.photographs, PHOTOGRAPHS) if sources.photographs else textures()
    return Assets(surfaces, household.REPEATS, read_models(sources.models))


KINDS: dict[str, Kind] = {
    **{f"rooms/{variant}": _room_kind(variant) for variant in rooms.OBJECTS},
    "tabletop": Kind(
        sample=lambda generator, _: tabletop.sample_tabletop(generator),
        dataset="tabletop",
        objects=tabletop.OBJECTS[1],
        background_labels=1,
        factors=tabletop.FACTORS,
        size=128,
        shadow_size=1024,
        assets=lambda _: Assets(tabletop.metal()),
    ),
    "clutter": Kind(
        sample=lambda generator, _: clutter.sample_clutter(generator),
        dataset="clutter",
        objects=OBJECTS[1],
        background_labels=1,
        factors=clutter.FACTORS,
        assets=lambda _: Assets(textures()),
    ),
    "household": Kind(
        sample=household.sample_household,
        dataset="household",
        objects=OBJECTS[1],
        background_labels=1,
        factors=PLACE_FACTORS,
        shadow_size=1024,
        assets=_household_assets,
        foreign=True,
        licence="rendered by monet_perception (Apache-2.0) from models and photographs of others, whose licences hold",
    ),
}
"""By name; a name and not the Kind itself travels to the processes that draw."""


def drawable(sources: Sources | None) -> list[str]:
    """Names of the kinds that can be drawn of these sources."""
    return [name for name, kind in KINDS.items() if sources or not kind.foreign]


def scene_at(kind: str, seed: int, index: int, assets: Assets | None = None) -> SimulatedScene:
    """Scene number `index` of those with this seed: the same whoever draws it, and whatever was drawn before."""
    return KINDS[kind].sample(np.random.default_rng((seed, index)), assets or Assets())
