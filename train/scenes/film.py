"""What a real camera does to a picture: exposure, white balance, haze, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Film:
    """How a picture is exposed.

    Attributes:
        gamma: exponent of intensities in [0, 1].
        gains: of red, green and blue.
        haze: grey that is added after contrast was reduced by as much, [0, 1).
        grey: whether all channels show their mean.
        blur: standard deviation in pixels; 0: none.
        noise: standard deviation of Gaussian noise, in units of white.
        seed: of the noise.
    """

    gamma: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    haze: float = 0.0
    grey: bool = False
    blur: float = 0.0
    noise: float = 0.0
    seed: int = 0

    @classmethod
    def sample(cls, generator: np.random.Generator) -> Self:
        """A camera at random; about half of the effects at a time."""
        gamma, haze, blur, noise = generator.uniform([0.5, 0.0, 0.3, 0.005], [1.3, 0.3, 0.9, 0.04]).tolist()
        red, green, blue = generator.uniform(0.75, 1.15, 3).tolist()
        bent, tinted, hazy, grey, blurred, noisy = (generator.random(6) < [0.7, 0.5, 0.3, 0.1, 0.35, 0.5]).tolist()
        return cls(
            gamma if bent else 1.0, (red, green, blue) if tinted else (1.0, 1.0, 1.0), haze if hazy else 0.0, grey,
            blur if blurred else 0.0, noise if noisy else 0.0, int(generator.integers(2**31)),
        )  # fmt: skip

    def expose(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, uint8 [H, W, 3], as this camera shows it."""
        light: NDArray[Any] = (image.astype(np.float32) / 255) ** self.gamma * np.array(self.gains, np.float32)
        light = (1 - self.haze) * light + self.haze
        if self.grey:
            light = np.repeat(light.mean(axis=2, keepdims=True), 3, axis=2)
        if self.blur:
            light = cv2.GaussianBlur(light, (0, 0), self.blur)
        if self.noise:
            light = light + self.noise * np.random.default_rng(self.seed).standard_normal(light.shape, np.float32)
        return np.rint(255 * light.clip(0, 1)).astype(np.uint8)
