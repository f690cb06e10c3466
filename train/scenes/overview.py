"""One page that shows every kind of scene, images above their label maps, to be looked at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from monet_perception.palette import label_colours
from train.scenes.assets import Sources
from train.scenes.drawing import RenderJob, SceneDrawer
from train.scenes.kinds import KINDS, drawable

_TILE, _GAP, _TITLE = 128, 4, 22
_BLACK = (0, 0, 0)


def overview(columns: int = 10, seed: int = 0, sources: Sources | None = None) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB: for every kind a title, a row of images and a row of their labels in false colours.

    Without sources, the kinds that need none.
    """
    return np.vstack([_strip(name, columns, seed, sources) for name in drawable(sources)])


def _strip(name: str, columns: int, seed: int, sources: Sources | None) -> NDArray[np.uint8]:
    kind = KINDS[name]
    job = RenderJob(
        name,
        columns,
        seed,
        kind.size,
        kind.size,
        shadow_size=kind.shadow_size,
        sources=sources if kind.foreign else None,
    )
    drawer = SceneDrawer(job)
    arrays = drawer.draw(0, columns)
    drawer.close()
    images = _row(arrays["images"], cv2.INTER_CUBIC)
    labels = _row(label_colours()[arrays["labels"]], cv2.INTER_NEAREST)
    title = np.full((_TITLE, images.shape[1], 3), 255, np.uint8)
    cv2.putText(title, name, (_GAP, _TITLE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _BLACK, 1, cv2.LINE_AA)
    return np.vstack([title, images, labels])


def _row(tiles: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
    large = [cv2.resize(tile, (_TILE, _TILE), interpolation=interpolation) for tile in tiles]
    framed = [cv2.copyMakeBorder(t, 0, _GAP, 0, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for t in large]
    return np.hstack(framed)
