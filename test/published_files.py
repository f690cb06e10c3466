"""Files in the encodings of the published data sets, with random contents that the tests know."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = dict[str, NDArray[Any]]


def masks_of(labels: NDArray[np.uint8], entities: int) -> NDArray[np.uint8]:
    """Label maps [N, H, W] as the published masks [N, E, H, W, 1] of 0 and 255."""
    return (labels[:, None, :, :, None] == np.arange(entities)[:, None, None, None]).astype(np.uint8) * 255


def objects_room(count: int, entities: int, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (count, 64, 64, 3), np.uint8),
        "labels": random.integers(0, entities, (count, 64, 64), np.uint8),
    }


def clevr(count: int, seed: int = 0) -> Arrays:
    """Entity 0 is the background; objects beyond the scene's number are zeros, as published."""
    random = np.random.default_rng(seed)
    objects = random.integers(3, 11, count)
    there = np.arange(11) <= objects[:, None]
    labels = random.integers(0, 11, (count, 30, 40), np.uint8) % (objects[:, None, None] + 1).astype(np.uint8)
    is_object = there & (np.arange(11) > 0)
    arrays: Arrays = {
        "image": random.integers(0, 256, (count, 240, 320, 3), np.uint8),
        "labels": labels.repeat(8, axis=1).repeat(8, axis=2),
        "visibility": there.astype(np.float32),
        "pixel_coords": random.uniform(0, 240, (count, 11, 3)).astype(np.float32) * is_object[..., None],
    }
    for name in ("x", "y", "z", "rotation"):
        arrays[name] = random.normal(size=(count, 11)).astype(np.float32) * is_object
    for name, categories in {"size": 2, "material": 2, "shape": 3, "color": 8}.items():
        arrays[name] = random.integers(1, categories + 1, (count, 11)).astype(np.uint8) * is_object
    return arrays


def write_tfrecords(path: Path, arrays: Arrays, entities: int) -> None:
    """The arrays as DeepMind published them: GZIP, uint8 values as strings of one byte each."""
    import tensorflow as tf

    features = {name: array for name, array in arrays.items() if name != "labels"}
    features["mask"] = masks_of(arrays["labels"], entities)
    one_byte = [bytes([value]) for value in range(256)]
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in range(len(arrays["image"])):
            feature = {}
            for name, array in features.items():
                values = array[row].ravel().tolist()
                if array.dtype == np.uint8:
                    strings = tf.train.BytesList(value=[one_byte[value] for value in values])
                    feature[name] = tf.train.Feature(bytes_list=strings)
                else:
                    feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One protobuf field on the wire; written by hand, so that the reader's own schema is not its own witness."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + np.float32(value).tobytes()
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def scenenet_trajectory(render_path: str, frames: list[int], instances: dict[int, int]) -> bytes:
    """A Trajectory with `instances` (id to type); the camera moves along x with the frame's number."""

    def pose(x: float) -> bytes:
        camera = field(1, x) + field(2, 1.5) + field(3, -2.0)
        lookat = field(1, x) + field(2, 1.0) + field(3, 0.0)
        return field(1, camera) + field(2, lookat) + field(3, 0.5)

    message = field(1, field(1, 2) + field(2, "bedroom/model"))  # the layout, which the reader passes over
    for identity, kind in instances.items():
        names = field(2, "04379243") + field(3, "table")
        message += field(2, field(1, identity) + names + field(4, kind))
    for frame in frames:
        view = field(1, frame) + field(2, pose(frame / 25)) + field(3, pose(frame / 25 + 0.5))
        message += field(3, view)
    return field(1, message + field(4, render_path))


def write_view(folder: Path, frame: int, photo: NDArray[np.uint8], depth: NDArray[Any], instance: NDArray[Any]) -> None:
    for kind, suffix, array in (("photo", "jpg", photo), ("depth", "png", depth), ("instance", "png", instance)):
        path = folder / kind / f"{frame}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **({"quality": 95} if suffix == "jpg" else {}))
