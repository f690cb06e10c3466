"""Pictures of a decomposition over its source image: tinted and outlined slots, and the label image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from monet_perception.palette import track_colours
from monet_perception.region import Region

TINT = 0.45
"""Share of the slot's colour in a tinted pixel."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def label_image(masks: NDArray[np.floating], roi: Region, height: int, width: int) -> NDArray[np.uint16]:
    """Index of the slot with the largest mask at each source pixel, uint16 [height, width]; K beyond the roi.

    Looked up, not interpolated: each pixel shows what the network said there. 16 bits, because rviz and Foxglove spread
    the values of such images over their greys or colours; in 8 bits they show 0 to K as almost black.

    Args:
        masks: [K, H, W].
        roi: source pixels that the masks cover.
        height, width: of the source image.
    """
    labels = np.full((height, width), len(masks), np.uint16)
    owner = masks.argmax(axis=0).astype(np.uint16)
    inside = cv2.resize(owner, (roi.width, roi.height), interpolation=cv2.INTER_NEAREST_EXACT)
    roi.cut(labels)[...] = inside
    return labels


def draw_overlay(
    image: NDArray[np.uint8],
    masks: NDArray[np.floating],
    track_ids: ArrayLike,
    roi: Region,
    *,
    longest_side: int = 640,
) -> NDArray[np.uint8]:
    """The image with each slot's region tinted and outlined in its track's colour, and the slot's index written on it.

    Slots without a track stay untinted: they are empty, a fragment of another slot's object, or too new.

    Args:
        image: [h, w, 3] uint8 RGB, the source image.
        masks: [K, H, W] in [0, 1].
        track_ids: [K], -1: none.
        roi: source pixels that the masks cover.
        longest_side: pixels; larger images are drawn smaller, with their sides' ratio kept.
    Returns:
        uint8 [h', w', 3] RGB.
    """
    track_ids = np.asarray(track_ids)
    scale = min(1.0, longest_side / max(image.shape[:2]))
    canvas = _scaled(image, scale)
    left, top = round(roi.x * scale), round(roi.y * scale)
    right = min(canvas.shape[1], max(left + 1, round((roi.x + roi.width) * scale)))
    bottom = min(canvas.shape[0], max(top + 1, round((roi.y + roi.height) * scale)))
    window = canvas[top:bottom, left:right]
    if window.size == 0:
        return canvas
    owner = _owner(np.asarray(masks, np.float32), window.shape[1], window.shape[0])
    colours, tracked = track_colours(track_ids), track_ids >= 0
    painted = _looked_up(colours, owner)
    tinted = _looked_up(np.where(tracked, 255, 0)[:, None], owner)[..., 0]
    drawn = cv2.copyTo(cv2.addWeighted(window, 1 - TINT, painted, TINT, 0), tinted, window.copy())
    window[...] = cv2.copyTo(painted, tinted * _edges(owner), drawn)
    _write_indices(window, masks, tracked)
    return canvas


def _scaled(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1.0:
        return image.copy()
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _owner(masks: NDArray[np.float32], width: int, height: int) -> NDArray[np.uint8]:
    """Index of the largest mask, interpolated before it is decided, which gives smooth outlines: [height, width]."""
    owner = np.zeros((height, width), np.uint8)
    largest = np.zeros((height, width), np.float32)
    for slot, mask in enumerate(masks):  # five times as fast as argmax over a stack of them
        resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        np.copyto(owner, slot, where=resized > largest)
        np.maximum(largest, resized, out=largest)
    return owner


def _looked_up(table: ArrayLike, owner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows [K, C] of a table by pixel, uint8 [height, width, C]; OpenCV's look-up is ten times as fast as NumPy's."""
    whole = np.zeros((256, np.shape(table)[1]), np.uint8)
    whole[: len(np.asarray(table))] = table
    return np.dstack([cv2.LUT(owner, column) for column in np.ascontiguousarray(whole.T)])


def _edges(owner: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another owner: outlines two pixels wide, one on each side."""
    edge = np.zeros(owner.shape, bool)
    across, down = owner[:, 1:] != owner[:, :-1], owner[1:] != owner[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _write_indices(window: NDArray[np.uint8], masks: NDArray[np.floating], tracked: NDArray[np.bool_]) -> None:
    """Writes each tracked slot's index where its region is widest, so that it stands inside even of a ring."""
    owner = masks.argmax(axis=0)
    height, width = owner.shape
    size = max(0.35, min(window.shape[:2]) / 700)
    pixels = np.ascontiguousarray(window)
    for slot in np.flatnonzero(tracked):
        # A rim of zeros: the image's border counts as the region's.
        region = np.pad((owner == slot).astype(np.uint8), 1)
        distance = cv2.distanceTransform(region, cv2.DIST_L2, 3)[1:-1, 1:-1]
        if distance.max() <= 0:
            continue
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        text = str(slot)
        (text_width, text_height), _ = cv2.getTextSize(text, _FONT, size, 1)
        x = int((column + 0.5) / width * pixels.shape[1]) - text_width // 2
        y = int((row + 0.5) / height * pixels.shape[0]) + text_height // 2
        draw_text(pixels, text, x, y, size)
    window[...] = pixels


def draw_text(canvas: NDArray[np.uint8], text: str, x: int, y: int, size: float) -> None:
    """Draws white text with a black rim, (x, y) its lower left corner, onto a contiguous RGB image."""
    # The rim from shifted copies: since OpenCV 5 thicker letters are also wider, and wouldn't lie under the thin ones.
    for shift_x, shift_y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        cv2.putText(canvas, text, (x + shift_x, y + shift_y), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
