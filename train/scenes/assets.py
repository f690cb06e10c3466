"""What things can be made of beside plain shapes, and the files of others that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.scenes.foreign import describe
from train.scenes.models import SUFFIXES as MODELS
from train.scenes.models import Model
from train.scenes.photographs import SUFFIXES as PHOTOGRAPHS


@dataclass(frozen=True, eq=False)
class Assets:
    """Textures and models that things name by number.

    Attributes:
        textures: uint8 [T, S, S, 3].
        repeats: MuJoCo's `texrepeat` with `texuniform`: how often a texture is repeated in a metre, or in two metres on
            MuJoCo's own solids. Number n * T + t is texture t, repeated `repeats[n]` times. Empty: each texture covers
            a side of its thing once.
        models: which things can be, named by `shapes.model_shape`.
    """

    textures: NDArray[np.uint8] | None = None
    repeats: Sequence[float] = ()
    models: Sequence[Model] = ()


@dataclass(frozen=True)
class Sources:
    """Files of others that scenes are made of: models (files, catalogues, folders), and folders of photographs."""

    models: tuple[Path, ...]
    photographs: tuple[Path, ...] = ()

    def options(self) -> dict[str, Any]:
        """What a store's manifest says of them, so that a store doesn't go on with other files.

        Raises:
            FileNotFoundError: one is not there.
        """
        return {
            "models": [describe(path, MODELS) for path in self.models],
            "photographs": [describe(path, PHOTOGRAPHS) for path in self.photographs],
        }
