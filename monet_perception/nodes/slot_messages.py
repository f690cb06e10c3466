"""Slots as messages and back: SlotArray from a decomposition, arrays from a SlotArray, latents of DecodeSlots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from monet_perception_msgs.msg import Slot, SlotArray
from monet_perception_msgs.srv import DecodeSlots
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from monet_perception.decomposition import Decomposition
from monet_perception.geometry import SlotGeometry
from monet_perception.nodes.conversions import float_array, image_message
from monet_perception.raw_images import (
    COLOUR_ENCODINGS,
    DEPTH_ENCODINGS,
    Encoding,
    MessageError,
    check_encoding,
    pixel_view,
)
from monet_perception.region import Region
from monet_perception.slots import background_slots, mask_area

MASK_ENCODINGS = {"mono8": COLOUR_ENCODINGS["mono8"], "32FC1": DEPTH_ENCODINGS["32FC1"]}
_RECONSTRUCTION_ENCODINGS = {"rgb8": COLOUR_ENCODINGS["rgb8"]}
MAX_DECODED = 64
"""Latent vectors that one request may hold: as many as a network may have slots. The node answers nothing else
meanwhile."""


def slot_array(
    header: Header,
    model_id: str,
    decomposition: Decomposition,
    track_ids: NDArray[np.int32],
    geometries: Sequence[SlotGeometry | None],
    *,
    mask_encoding: str = "mono8",
    with_reconstructions: bool = True,
) -> SlotArray:
    """All K slots of one frame as a message.

    Args:
        header: the image's; goes into the message and its images as it is.
        model_id: of the weights.
        decomposition: of one frame.
        track_ids: [K].
        geometries: K, None where a slot has none.
        mask_encoding: one of `MASK_ENCODINGS`.
        with_reconstructions: False leaves `Slot.reconstruction` empty.
    """
    masks = encode_masks(decomposition.masks) if mask_encoding == "mono8" else decomposition.masks
    reconstructions = None
    if with_reconstructions and decomposition.reconstructions is not None:
        reconstructions = encode_colours(decomposition.reconstructions)
    roi = decomposition.roi
    message = SlotArray(
        header=header,
        model_id=model_id,
        source_height=decomposition.source_height,
        source_width=decomposition.source_width,
        roi=RegionOfInterest(x_offset=roi.x, y_offset=roi.y, width=roi.width, height=roi.height),
    )
    area, background = mask_area(decomposition.masks), background_slots(decomposition.masks)
    for k in range(len(masks)):
        slot = Slot(
            index=k,
            track_id=int(track_ids[k]),
            area=float(area[k]),
            latent_mean=float_array(decomposition.latent_mean[k]),
            latent_log_sigma=float_array(decomposition.latent_log_sigma[k]),
            mask=image_message(header, masks[k], mask_encoding),
            background=bool(background[k]),
            occluding_share=math.nan,
        )
        if reconstructions is not None:
            slot.reconstruction = image_message(header, reconstructions[k], "rgb8")
        if (geometry := geometries[k]) is not None:
            slot.centroid = float_array(geometry.centroid, "d")
            slot.covariance = float_array(geometry.covariance, "d")
            slot.extent = float_array(geometry.extent, "d")
            slot.background = geometry.background
            slot.occluding_share = geometry.occluding_share
        message.slots.append(slot)
    return message


def read_masks(message: SlotArray) -> NDArray[np.float32]:
    """The masks of a message as float32 [K, H, W] in [0, 1].

    Raises:
        MessageError: no slots, masks of an encoding other than `MASK_ENCODINGS`, empty or of different sizes, or other
            data than their size says.
    """
    return _stacked([_read_mask(slot.mask) for slot in message.slots], "masks")


def object_slots(message: SlotArray) -> NDArray[np.bool_]:
    """Which slots of a message hold a tracked object, and not a background or nothing: bool [K]."""
    return np.array([slot.track_id >= 0 and not slot.background for slot in message.slots], bool)


def read_region(message: SlotArray) -> Region:
    """The source pixels that the masks of a message cover."""
    roi = message.roi
    return Region(roi.x_offset, roi.y_offset, roi.width, roi.height)


def read_reconstructions(message: SlotArray) -> NDArray[np.uint8] | None:
    """The reconstructions of a message as uint8 [K, H, W, 3] RGB; None if they were switched off.

    Raises:
        MessageError: no slots, reconstructions that aren't rgb8 or of different sizes, or other data than their size
            says.
    """
    images = [slot.reconstruction for slot in message.slots]
    if images and not all(image.height for image in images):
        return None
    reconstructions = [_read_image(image, "reconstruction", _RECONSTRUCTION_ENCODINGS) for image in images]
    return _stacked(reconstructions, "reconstructions")


def read_latents(request: DecodeSlots.Request, latent_size: int) -> NDArray[np.float32]:
    """The latent vectors of a request as float32 [N, L].

    Raises:
        MessageError: none, too many, of another size than the network's, or not finite.
    """
    values = np.array(request.latents, np.float32)
    if not 1 <= request.count <= MAX_DECODED:
        raise MessageError(f"count is {request.count}; it must be from 1 to {MAX_DECODED}")
    if len(values) != request.count * latent_size:
        raise MessageError(
            f"latents has {len(values)} values; {request.count} vectors of the network's {latent_size} latents "
            f"need {request.count * latent_size}"
        )
    if not np.isfinite(values).all():
        raise MessageError("latents holds values that are not finite")
    return values.reshape(request.count, latent_size)


def fill_decoded(
    response: DecodeSlots.Response, reconstructions: NDArray[np.float32], mask_logits: NDArray[np.float32]
) -> None:
    """Fills a response from `Decomposer.decode`.

    Args:
        response: is changed.
        reconstructions: [N, H, W, 3] in [0, 1].
        mask_logits: [N, H, W].
    """
    masks = expit(mask_logits) if len(mask_logits) == 1 else softmax(mask_logits, axis=0)
    header = Header()
    response.success = True
    response.reconstructions = [image_message(header, image, "rgb8") for image in encode_colours(reconstructions)]
    response.masks = [image_message(header, mask, "mono8") for mask in encode_masks(masks)]


def encode_masks(masks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[0, 1] to the nearest of 0 to 255; of any shape."""
    # One pass over the pixels instead of NumPy's three.
    levels = cv2.convertScaleAbs(masks.reshape(len(masks), -1), alpha=255)
    return np.asarray(levels, np.uint8).reshape(masks.shape)


def encode_colours(colours: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[0, 1] to the nearest of 0 to 255; a decoder's output is clipped, it may lie a little outside."""
    return encode_masks(np.maximum(colours, 0.0))  # what is above one saturates


def _stacked(arrays: Sequence[NDArray[Any]], what: str) -> NDArray[Any]:
    if not arrays:
        raise MessageError("the message has no slots")
    if not arrays[0].size or len({array.shape for array in arrays}) > 1:
        sizes = ", ".join(f"{array.shape[1]}x{array.shape[0]}" for array in arrays)
        raise MessageError(f"{what} must all have one size and some pixels, have {sizes}")
    return np.stack(arrays)


def _read_mask(image: Image) -> NDArray[np.float32]:
    values = _read_image(image, "mask", MASK_ENCODINGS)
    return np.asarray(values / np.float32(255) if values.dtype == np.uint8 else values, np.float32)


def _read_image(image: Image, name: str, encodings: Mapping[str, Encoding]) -> NDArray[Any]:
    """The pixels of an image [H, W] or [H, W, C]; errors begin with its name."""
    try:
        return pixel_view(image, check_encoding(image, encodings))
    except MessageError as error:
        raise MessageError(f"{name}: {error}") from error
