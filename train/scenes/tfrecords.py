"""Writes scenes as TFRecords in the encoding of DeepMind's multi_object_datasets, for code that reads those files.

Rooms become Objects Room (64x64), tabletops become CLEVR with masks (240x320, of which the usual crop shows what a
store holds). GZIP; every byte of an image or mask is a string of its own. `train.data.multi_object` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from monet_perception.files import replacing
from train.data.multi_object import CLEVR_CROP, CLEVR_OBJECTS, ENTITIES, import_tensorflow
from train.scenes.drawing import RenderJob, draw_ranges
from train.scenes.renderer import RenderError
from train.scenes.tabletop import FIELD_OF_VIEW

CLEVR_FRAME = (240, 320)
_CLEVR_FIELD_OF_VIEW = math.degrees(
    2 * math.atan(math.tan(math.radians(FIELD_OF_VIEW) / 2) * CLEVR_FRAME[0] / CLEVR_CROP.height)
)
_ONE_BYTE = [bytes([value]) for value in range(256)]

Features = Mapping[str, NDArray[Any]]


def published_job(kind: str, count: int, seed: int, shadow_size: int) -> RenderJob:
    """Scenes of the size and view that were published.

    Raises:
        RenderError: nothing like this kind was published.
    """
    if kind.startswith("rooms/") and kind.removeprefix("rooms/") in ENTITIES:
        return RenderJob(kind, count, seed, shadow_size=shadow_size)
    if kind == "tabletop":
        height, width = CLEVR_FRAME
        return RenderJob(kind, count, seed, height, width, shadow_size=shadow_size, field_of_view=_CLEVR_FIELD_OF_VIEW)
    raise RenderError(f"there is no published encoding for {kind}; TFRecords can be made of rooms and tabletops")


def write_tfrecords(
    job: RenderJob, folder: Path, *, processes: int, overwrite: bool = False, progress: Callable[[int], object]
) -> Path:
    """Draw a job into a file of the published name, which appears when it is complete.

    Args:
        job: from `published_job`.
        folder: where the file will be.
        processes: how many draw.
        overwrite: replace a file that is there.
        progress: called with the number of scenes written since the last call.
    Returns:
        The file.
    Raises:
        FileExistsError: there is a file, and `overwrite` is off.
        RenderError: scenes can't be drawn here.
        SourceError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    path = folder / file_name(job.kind)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; remove it, choose another folder, or replace it (--overwrite)")
    features_of = _clevr if job.kind == "tabletop" else _objects_room
    ranges = [(start, min(start + job.chunk, job.count)) for start in range(0, job.count, job.chunk)]
    with replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary), "GZIP") as writer:
        for _, arrays in draw_ranges(job, ranges, processes):
            for row in range(len(arrays["images"])):
                writer.write(_example(tf, features_of(job, arrays, row)).SerializeToString())
            progress(len(arrays["images"]))
    return path


def file_name(kind: str) -> str:
    """The published name for scenes of this kind."""
    if kind == "tabletop":
        return "clevr_with_masks_train.tfrecords"
    variant = kind.removeprefix("rooms/")
    return f"objects_room_{'train' if variant == 'train' else f'test_{variant}'}.tfrecords"


def _objects_room(job: RenderJob, arrays: Mapping[str, Any], row: int) -> Features:
    entities = next(count for variant, count in ENTITIES.items() if job.kind == f"rooms/{variant}")
    return {"image": arrays["images"][row], "mask": _masks(arrays["labels"][row], entities)}


def _clevr(job: RenderJob, arrays: Mapping[str, Any], row: int) -> Features:
    """All factors of CLEVR; entity 0 is the background, and categories are numbered from 1."""
    factors = {name: values[row] for name, values in arrays["factors"].items()}
    there = ~np.isnan(factors["x"])
    features: dict[str, NDArray[Any]] = {
        "image": arrays["images"][row],
        "mask": _masks(arrays["labels"][row], 1 + CLEVR_OBJECTS),
        "visibility": np.concatenate([[1], there]).astype(np.float32),
        "pixel_coords": _pixels(factors, arrays["cameras"][row], there),
    }
    for name in ("x", "y", "z", "rotation"):
        features[name] = np.concatenate([[0], np.where(there, factors[name], 0)]).astype(np.float32)
    for name, published in {"size": "size", "material": "material", "shape": "shape", "colour": "color"}.items():
        features[published] = np.concatenate([[0], factors[name] + 1]).astype(np.uint8)
    return features


def _pixels(factors: Features, camera: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[1 + objects, 3]: column, row and depth of the objects' centres, zeros where there is none."""
    centres = np.stack([factors[name][there] for name in "xyz"], axis=1) - camera[:3]
    right, down, depth = Rotation.from_quat(camera[3:7]).inv().apply(centres).T
    fx, fy, cx, cy = camera[7:]
    pixels = np.zeros((1 + len(there), 3), np.float32)
    pixels[1:][there] = np.stack([fx * right / depth + cx, fy * down / depth + cy, depth], axis=1)
    return pixels


def _masks(labels: NDArray[np.uint8], entities: int) -> NDArray[np.uint8]:
    """[H, W] to [entities, H, W, 1], 255 where the label is the entity's number."""
    return (labels == np.arange(entities)[:, None, None])[..., None] * np.uint8(255)


def _example(tf: Any, features: Features) -> Any:
    encoded = {}
    for name, array in features.items():
        values = array.ravel().tolist()
        if array.dtype == np.uint8:
            strings = tf.train.BytesList(value=map(_ONE_BYTE.__getitem__, values))
            encoded[name] = tf.train.Feature(bytes_list=strings)
        else:
            encoded[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=encoded))
