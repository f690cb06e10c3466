"""What a network makes of a frame, as NumPy arrays. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monet_perception.region import Region

Floats = NDArray[np.float32]


def mixture(masks: Floats, reconstructions: Floats) -> Floats:
    """An image [..., H, W, 3] of K slots: their reconstructions [..., K, H, W, 3] weighed by masks [..., K, H, W]."""
    image: Floats = np.einsum("...khw,...khwc->...hwc", masks, reconstructions)
    return image


@dataclass(frozen=True)
class Decomposition:
    """A frame's slots, or those of a batch of frames, whose arrays then begin with B. NumPy arrays of their own.

    Attributes:
        masks: float32 [K, H, W], summing to one over K.
        latent_mean: float32 [K, L], mean of each slot's posterior.
        latent_log_sigma: float32 [K, L], log of its standard deviation.
        roi: the source pixels that the masks cover.
        source_height: height of the frame as it came, in pixels.
        source_width: its width.
        image: uint8 [H, W, 3], RGB: what the network saw.
        reconstructions: float32 [K, H, W, 3] in [0, 1], each slot's decoded pixels; None unless asked for.
        decoded_masks: float32 [K, H, W], the masks that the decoder expects, summing to one; None unless asked for.
    """

    masks: Floats
    latent_mean: Floats
    latent_log_sigma: Floats
    roi: Region
    source_height: int
    source_width: int
    image: NDArray[np.uint8]
    reconstructions: Floats | None = None
    decoded_masks: Floats | None = None

    def reconstruction(self) -> Floats:
        """The whole image [H, W, 3] in [0, 1]: each slot's reconstruction weighted by its attention mask.

        Raises:
            ValueError: the frame was decomposed without `reconstruct=True`.
        """
        if self.reconstructions is None:
            raise ValueError("there are no reconstructions: call the decomposer with reconstruct=True")
        return mixture(self.masks, self.reconstructions)
