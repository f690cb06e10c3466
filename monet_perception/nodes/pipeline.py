"""What happens to an image on its way to the outputs: read, decomposed, tracked, located in 3D, assessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from monet_perception.assessment import Assessment, assess
from monet_perception.decomposition import Decomposition
from monet_perception.geometry import Intrinsics, SlotGeometry, slot_geometry
from monet_perception.nodes.calibration import to_intrinsics
from monet_perception.nodes.conversions import MessageError, compressed_to_rgb, to_metres, to_rgb
from monet_perception.nodes.depth import DepthMatcher
from monet_perception.nodes.network import Network
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds
from monet_perception.tracking import Tracker


@dataclass(frozen=True)
class DecomposedFrame:
    """An image and what was found in it, ready to be published.

    Attributes:
        header: the image's.
        image: [h, w, 3] uint8 RGB, the source image.
        decomposition: of the image.
        track_ids: [K].
        geometries: K, None where a slot has none.
        depth: [h, w] float32 metres, and the intrinsics it goes with; None without depth.
        model_id: of the weights.
    """

    header: Header
    image: NDArray[np.uint8]
    decomposition: Decomposition
    track_ids: NDArray[np.int32]
    geometries: Sequence[SlotGeometry | None]
    depth: tuple[NDArray[np.float32], Intrinsics] | None
    model_id: str


@dataclass
class Pipeline:
    """Decomposes images. To be used by one thread.

    Attributes:
        network: decomposes.
        tracker: gives slots their identity over time.
        depth: finds the depth image of an image.
        depth_broken: called with what is wrong with a depth image or camera_info; the frame then goes without 3D.
    """

    network: Network
    tracker: Tracker
    depth: DepthMatcher
    depth_broken: Callable[[MessageError], None]

    def run(self, message: Image | CompressedImage, *, reconstruct: bool, locate: bool) -> DecomposedFrame:
        """What is in an image.

        Args:
            message: the image.
            reconstruct: whether anybody wants reconstructions.
            locate: whether anybody wants 3D.
        Raises:
            MessageError: the image can't be read.
            NetworkError: the network can't answer now.
        """
        image = to_rgb(message) if isinstance(message, Image) else compressed_to_rgb(message)
        decomposition = self.network.decompose(image, reconstruct=reconstruct)
        track_ids = self.tracker.update(
            decomposition.masks,
            decomposition.latent_mean,
            decomposition.latent_log_sigma,
            stamp_nanoseconds(message.header) / NANOSECONDS,
        )
        # Looked up after the network ran, because that gives depth time to arrive.
        depth = self._depth(message.header, decomposition) if locate else None
        geometries: Sequence[SlotGeometry | None] = [None] * len(decomposition.masks)
        if depth is not None:
            geometries = slot_geometry(decomposition.masks, decomposition.roi, *depth)
        model_id = self.network.info().model_id
        return DecomposedFrame(message.header, image, decomposition, track_ids, geometries, depth, model_id)

    def assess(self, frame: DecomposedFrame) -> Assessment:
        """Label-free measures of a frame, decoded for them where it wasn't yet.

        Raises:
            NetworkError: the network can't answer now.
        """
        decomposition = frame.decomposition
        if decomposition.reconstructions is None:
            reconstructions, _ = self.network.decode(decomposition.latent_mean)
            decomposition = replace(decomposition, reconstructions=reconstructions)
        return assess(decomposition)

    def _depth(self, header: Header, decomposition: Decomposition) -> tuple[NDArray[np.float32], Intrinsics] | None:
        found = self.depth.match(header)
        if found is None:
            return None
        image, info = found
        try:
            return to_metres(image), to_intrinsics(info, decomposition.source_width, decomposition.source_height)
        except MessageError as error:
            self.depth_broken(error)
            return None
