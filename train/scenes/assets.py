"""What things can be made of beside plain shapes, and the files of others that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.scenes.models import Model


@dataclass(frozen=True, eq=False)
class Assets:
    """Textures and models that things name by number.

    Attributes:
        textures: uint8 [T, S, S, 3].
        repeats: how often a texture is repeated in a metre; number n * T + t is texture t with the n-th of them. Empty:
            each fills a side of its thing once.
        models: that things can be, as `shapes.model_shape`.
    """

    textures: NDArray[np.uint8] | None = None
    repeats: Sequence[float] = ()
    models: Sequence[Model] = ()


@dataclass(frozen=True)
class Sources:
    """Files of others that scenes are made of: models (files, catalogues, folders), and folders of photographs."""

    models: tuple[Path, ...]
    photographs: tuple[Path, ...] = ()

    def options(self) -> dict[str, object]:
        """What a store's manifest says of them: names, no paths of this machine."""
        return {
            "models": [path.name for path in self.models],
            "photographs": [path.name for path in self.photographs],
        }
