"""Track ids for the decomposed images of one camera, also where it turns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monet_perception.decomposition import Decomposition
from monet_perception.picture_shift import PictureShift
from monet_perception.tracking import DEFAULT_SETTINGS, Tracker, TrackerSettings


class SceneTracker(Tracker):
    """A tracker that finds out by itself how far each picture moved as a whole.

    Args:
        settings: what it goes by.
    """

    def __init__(self, settings: TrackerSettings = DEFAULT_SETTINGS) -> None:
        super().__init__(settings)
        self._shift = PictureShift()

    def follow(self, scene: Decomposition, stamp: float) -> NDArray[np.int32]:
        """Takes the next decomposed image and says which track each of its slots continues.

        Args:
            scene: of one image.
            stamp: when it was taken, in seconds.
        Returns:
            Track ids [K], as `Tracker.update`.
        Raises:
            ValueError: as `Tracker.update`.
        """
        moved = self._shift.update(scene.image)
        return self.update(scene.masks, scene.latent_mean, scene.latent_log_sigma, stamp, moved)
