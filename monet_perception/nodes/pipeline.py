"""What happens to an image on its way to the outputs: read, decomposed, tracked, located in 3D, assessed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from monet_perception.assessment import Assessment, assess
from monet_perception.calibration import camera_intrinsics, check_size
from monet_perception.decomposition import Decomposition
from monet_perception.geometry import SlotGeometry, slot_geometry
from monet_perception.nodes.conversions import to_metres, to_rgb
from monet_perception.nodes.depth import DepthMatcher, NoDepthError
from monet_perception.nodes.network import Network
from monet_perception.projection import Intrinsics, measures_anything
from monet_perception.raw_images import MessageError
from monet_perception.scene_tracker import SceneTracker
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds

KEPT = 30
"""Images whose delay is remembered."""
Depth = tuple[NDArray[np.float32], Intrinsics]
"""A depth image [h, w] in metres, and the intrinsics of the image that it is registered to."""


@dataclass(frozen=True)
class DecomposedFrame:
    """An image and what was found in it, ready to be published.

    Attributes:
        header: the image's.
        image: [h, w, 3] uint8 RGB, the source image.
        decomposition: of the image.
        track_ids: [K].
        geometries: K, None where a slot has none.
        depth: None without depth, or where nobody wanted 3D.
        depth_fault: why there is none though it was wanted, or what is wrong with it; empty if nothing is.
        model_id: of the weights.
    """

    header: Header
    image: NDArray[np.uint8]
    decomposition: Decomposition
    track_ids: NDArray[np.int32]
    geometries: Sequence[SlotGeometry | None]
    depth: Depth | None
    depth_fault: str
    model_id: str


@dataclass
class Pipeline:
    """Decomposes images. To be used by one thread.

    Attributes:
        network: decomposes.
        tracker: gives slots their identity over time.
        depth: finds the depth image of an image.
        depth_broken: called with what is wrong with a depth image or camera_info; the frame then goes without 3D.
        rectified: whether the images are.

    Images without a stamp are tracked by the time at which they came, put on the clock of those that have one.
    """

    network: Network
    tracker: SceneTracker
    depth: DepthMatcher
    depth_broken: Callable[[MessageError], None]
    rectified: bool
    # Of the last images that have a stamp, by how many seconds it was ahead of their reception.
    _ahead: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), init=False, repr=False)
    _moment: float = field(default=0.0, init=False, repr=False)  # of the last image

    def run(
        self, message: Image | CompressedImage, *, received: float, reconstruct: bool, locate: bool
    ) -> DecomposedFrame:
        """What is in an image.

        Args:
            message: the image.
            received: when it came, in seconds; takes the place of a stamp that isn't set.
            reconstruct: whether anybody wants reconstructions.
            locate: whether anybody wants 3D.
        Raises:
            MessageError: the image can't be read.
            NetworkError: the network can't answer now.
        """
        header, depth, depth_fault = message.header, None, ""
        if locate:
            self.depth.expect(header)
        image = to_rgb(message)
        decomposition, model_id = self.network.decompose(image, reconstruct=reconstruct)
        track_ids = self.tracker.follow(decomposition, self._next_moment(header, received))
        if locate:  # looked up after the network ran, because that gives depth time to arrive
            depth, depth_fault = self._depth(header, decomposition)
        geometries: Sequence[SlotGeometry | None] = [None] * len(decomposition.masks)
        if depth is not None:
            geometries = slot_geometry(decomposition.masks, decomposition.roi, *depth)
        return DecomposedFrame(header, image, decomposition, track_ids, geometries, depth, depth_fault, model_id)

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

    def _next_moment(self, header: Header, received: float) -> float:
        """When an image was taken, in seconds."""
        stamp = stamp_nanoseconds(header) / NANOSECONDS
        if stamp:
            self._ahead.append(stamp - received)
            self._moment = stamp
        elif self._ahead:
            # The largest delay seen is assumed; with a smaller one the next stamped image might seem to be earlier.
            self._moment = max(self._moment, received + min(self._ahead))
        else:
            self._moment = received
        return self._moment

    def _depth(self, header: Header, decomposition: Decomposition) -> tuple[Depth | None, str]:
        """Depth of an image, None if there is none, and what is wrong with it."""
        try:
            image, info = self.depth.match(header)
            intrinsics = camera_intrinsics(info, rectified=self.rectified)
            check_size(intrinsics, decomposition.source_width, decomposition.source_height)
            metres = to_metres(image)
            doubt = (
                _other_frame("depth", header, image.header)
                or _other_frame("camera_info", header, info.header)
                or _other_aspect(metres, decomposition)
            )
            if not measures_anything(metres):  # with an empty cloud all the same, or viewers would keep the last one
                doubt = "no pixel of the depth image holds a measurement: the camera may be covered, or too near"
            return (metres, intrinsics), doubt
        except NoDepthError as error:
            return None, str(error)
        except MessageError as error:
            self.depth_broken(error)
            return None, str(error)


def _other_aspect(depth: NDArray[np.float32], decomposition: Decomposition) -> str:
    """What is to be said where depth has another ratio of width to height than the image; empty if it has the same."""
    width, height = decomposition.source_width, decomposition.source_height
    rows, columns = depth.shape
    if abs(columns * height - rows * width) <= max(width, height):  # a size may be rounded by a pixel
        return ""
    return f"depth is {columns}x{rows}, the image {width}x{height}: 3D is wrong, as they can't be registered"


REMEDIES = {
    "depth": "unless depth is registered to it",
    "camera_info": "unless that is the same camera: remap camera_info to the topic beside the image",
}
"""When it does no harm that a message names another frame than its image, or what to do about it."""


def _other_frame(what: str, of_image: Header, of_other: Header) -> str:
    """What is to be said where an image and its depth or camera_info name different frames; empty if they don't.

    Registered depth is in the frame of the image that it is registered to, but some drivers leave their depth camera's
    name on it.
    """
    image, other = of_image.frame_id, of_other.frame_id
    if not image or not other or image == other:
        return ""
    return f"{what} is in frame {other[:40]!r}, the image in {image[:40]!r}: 3D is wrong {REMEDIES[what]}"
