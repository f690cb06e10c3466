"""Objects Room and CLEVR with masks: the TFRecords of DeepMind's multi_object_datasets, read by TensorFlow.

Every byte of an image is a string of its own in these files, so reading them is slow whatever reads them. TensorFlow is
imported when the first record is read or written, and by `import_tensorflow` only: training has no need of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from monet_perception.region import Region, resize_map
from train.data.crop import crop_text, cut, resize_published
from train.data.layout import FactorInfo, StoreLayout
from train.data.source import BrokenRecord, Sample, SourceError

PublishedVariant = Literal["train", "six_objects", "identical_color", "empty_room"]
Split = Literal["train", "val", "test", "all"]

ENTITIES: dict[PublishedVariant, int] = {"train": 7, "six_objects": 10, "identical_color": 10, "empty_room": 4}
"""Masks per scene of Objects Room: sky, floor, two halves of the wall, and the objects."""
OBJECTS_ROOM_SPLITS: dict[str, tuple[int, int | None]] = {
    "train": (0, 980_000),
    "val": (980_000, 990_000),
    "test": (990_000, 1_000_000),
}
CLEVR_SPLITS: dict[str, tuple[int, int | None]] = {
    "train": (0, 70_000),
    "val": (70_000, 80_000),
    "test": (80_000, 90_000),
}
"""Record numbers of the thesis's splits; CLEVR's last 10,000 records are in none of them."""
CLEVR_CROP = Region(x=64, y=29, width=192, height=192)
CLEVR_OBJECTS = 10

_ALL: tuple[int, int | None] = (0, None)
_LICENCE = (
    "published for research by DeepMind in multi_object_datasets without a licence for the data; cite its authors"
)


class _RecordFile(ABC):
    """Records start..stop of a file of tf.train.Examples.

    Args:
        path: the file, GZIP-compressed as published or not.
        start, stop: record numbers; `stop` None: to the end.
        batch: records that are parsed at once.
    """

    def __init__(self, path: Path, start: int, stop: int | None, batch: int) -> None:
        self.path = path
        self.start, self.stop = start, stop
        self._batch = batch

    @property
    def records(self) -> int | None:
        return None if self.stop is None else self.stop - self.start

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Samples from the `start`-th of these records on; they carry the number that they have in the file.

        A damaged file can't be read past the damage: it ends with one broken record.

        Raises:
            SourceError: TensorFlow is not installed.
        """
        tf = import_tensorflow()
        first = self.start + start
        with self.path.open("rb") as file:
            compression = "GZIP" if file.read(2) == b"\x1f\x8b" else ""
        dataset = tf.data.TFRecordDataset(str(self.path), compression).skip(first)
        if self.stop is not None:
            dataset = dataset.take(self.stop - first)
        pending: list[bytes] = []
        number = first
        records = iter(dataset.prefetch(2 * self._batch).as_numpy_iterator())
        while True:
            try:
                pending.append(next(records))
            except StopIteration:
                break
            except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
                yield from self._samples(tf, number, pending)
                reason = f"the file is truncated or damaged from here on ({_first_line(error)})"
                yield BrokenRecord(number + len(pending), reason, final=True)
                return
            if len(pending) == self._batch:
                yield from self._samples(tf, number, pending)
                number, pending = number + len(pending), []
        yield from self._samples(tf, number, pending)

    def _samples(self, tf: Any, number: int, serialised: list[bytes]) -> Iterator[Sample | BrokenRecord]:
        if not serialised:
            return
        try:
            yield from list(self._parse(tf, number, serialised))
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            if len(serialised) == 1:
                yield BrokenRecord(number, f"it is not an Example of this data set ({_first_line(error)})")
                return
            for place, record in enumerate(serialised):  # find the broken one
                yield from self._samples(tf, number + place, [record])

    @abstractmethod
    def _parse(self, tf: Any, number: int, serialised: list[bytes]) -> Iterator[Sample]:
        """Samples of records `number`, ...; raises ValueError or TensorFlow's InvalidArgumentError."""


class ObjectsRoom(_RecordFile):
    """Objects Room, 64x64. Labels: entity 0 sky, 1 floor, 2 and 3 wall, objects from 4.

    Args:
        source: the file, or a folder with files of the published names.
        variant: `train`, or one of the three test sets of about 1,000 scenes.
        split: of variant `train`: 980,000, 10,000 and 10,000 scenes as in the thesis; the others are test sets whole.
        records: instead of a split, numbers of the first record and the one after the last.
    """

    def __init__(
        self,
        source: Path,
        variant: PublishedVariant = "train",
        split: Split | None = None,
        records: tuple[int, int | None] | None = None,
    ) -> None:
        if variant not in get_args(PublishedVariant):
            raise SourceError(
                f"{variant} is no variant of Objects Room; they are {', '.join(get_args(PublishedVariant))}"
            )
        name = "objects_room_train" if variant == "train" else f"objects_room_test_{variant}"
        if variant != "train" and split not in (None, "test", "all"):
            raise SourceError(f"{variant} is a test set and has no split {split}")
        split = split or ("train" if variant == "train" else "all")
        splits = OBJECTS_ROOM_SPLITS if variant == "train" else {}
        start, stop = records or splits.get(split, _ALL)
        super().__init__(_find(source, name), start, stop, batch=64)
        self.entities = ENTITIES[variant]
        self.layout = StoreLayout(
            dataset="objects_room" if variant == "train" else f"objects_room_{variant}",
            split="test" if variant != "train" else split,
            source=self.path.name,
            licence=_LICENCE,
            height=64,
            width=64,
            background_labels=4,
            labels=True,
            options={"variant": variant, "records": [start, stop], "bytes": self.path.stat().st_size},
        )

    def _parse(self, tf: Any, number: int, serialised: list[bytes]) -> Iterator[Sample]:
        bytes_of = {"image": [64, 64, 3], "mask": [self.entities, 64, 64, 1]}
        arrays = _parse_examples(tf, serialised, bytes_of, {})
        labels = _label_maps(arrays["mask"])
        for place, (image, label) in enumerate(zip(arrays["image"], labels, strict=True)):
            yield Sample(number + place, image, label)


class Clevr(_RecordFile):
    """CLEVR with masks, cropped to 192x192 and resized as in the thesis. Labels: 0 background, objects from 1.

    Factors of the 10 possible objects; an object is there where the file's `visibility` says so. Categories are
    numbered as in the file less one (0 stands for "no object" there), and nobody published their names. `pixel_x` and
    `pixel_y` are moved into the stored image, and may lie outside of it.

    Args:
        source: the file, or a folder with a file of the published name.
        split: 70,000, 10,000 and 10,000 scenes as in the thesis.
        records: instead of a split, numbers of the first record and the one after the last.
        size: height and width of the stored images.
        crop: what is cut out of the 240x320 images; a square.
    """

    def __init__(
        self,
        source: Path,
        split: Split = "train",
        records: tuple[int, int | None] | None = None,
        size: int = 128,
        crop: Region = CLEVR_CROP,
    ) -> None:
        if crop.height != crop.width or not crop.inside(240, 320):
            raise SourceError(f"the crop {crop_text(crop)} is not a square inside CLEVR's 240x320 images")
        start, stop = records or CLEVR_SPLITS.get(split, _ALL)
        super().__init__(_find(source, "clevr_with_masks"), start, stop, batch=8)
        self.size, self.crop = size, crop
        self.layout = StoreLayout(
            dataset="clevr",
            split=split,
            source=self.path.name,
            licence=_LICENCE,
            height=size,
            width=size,
            background_labels=1,
            labels=True,
            factors=_clevr_factors(),
            entities=CLEVR_OBJECTS,
            options={"records": [start, stop], "crop": crop_text(crop), "bytes": self.path.stat().st_size},
        )

    def _parse(self, tf: Any, number: int, serialised: list[bytes]) -> Iterator[Sample]:
        entities = [CLEVR_OBJECTS + 1]
        bytes_of = {"image": [240, 320, 3], "mask": [*entities, 240, 320, 1]}
        bytes_of |= dict.fromkeys(("size", "material", "shape", "color"), entities)
        floats_of = dict.fromkeys(("x", "y", "z", "rotation", "visibility"), entities)
        arrays = _parse_examples(tf, serialised, bytes_of, {**floats_of, "pixel_coords": [*entities, 3]})
        for place in range(len(serialised)):
            scene = {name: array[place] for name, array in arrays.items()}
            labels = _label_maps(cut(scene["mask"].transpose(1, 2, 0, 3), self.crop).transpose(2, 0, 1, 3)[None])[0]
            image = resize_published(cut(scene["image"], self.crop), self.size)
            yield Sample(number + place, image, resize_map(labels, self.size, self.size), self._factors(scene))

    def _factors(self, scene: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        objects = {name: array[1:] for name, array in scene.items() if name not in ("image", "mask")}
        visible = objects["visibility"] > 0
        scale = self.size / self.crop.width
        pixels = objects["pixel_coords"]
        continuous = {name: objects[name] for name in ("x", "y", "z", "rotation")}
        # Pixel centres are at whole numbers, as in OpenCV's resizing.
        continuous["pixel_x"] = (pixels[:, 0] - self.crop.x + 0.5) * scale - 0.5
        continuous["pixel_y"] = (pixels[:, 1] - self.crop.y + 0.5) * scale - 0.5
        continuous["pixel_depth"] = pixels[:, 2]
        categorical = {"colour": objects["color"], **{name: objects[name] for name in ("size", "material", "shape")}}
        factors = {name: np.where(visible, values, np.nan).astype(np.float32) for name, values in continuous.items()}
        codes = {name: values.astype(np.int16) - 1 for name, values in categorical.items()}
        return factors | {name: np.where(visible, values, -1).astype(np.int16) for name, values in codes.items()}


def _clevr_factors() -> dict[str, FactorInfo]:
    units = {"x": None, "y": None, "z": None, "rotation": "degree"}
    units |= {"pixel_x": "pixel", "pixel_y": "pixel", "pixel_depth": None}
    factors: dict[str, FactorInfo] = {
        name: {"kind": "continuous", "values": None, "unit": unit} for name, unit in units.items()
    }
    for name, categories in {"size": 2, "material": 2, "shape": 3, "colour": 8}.items():
        names = [f"{name} {code}" for code in range(1, categories + 1)]
        factors[name] = {"kind": "categorical", "values": names, "unit": None}
    return factors


def _parse_examples(
    tf: Any, serialised: list[bytes], bytes_of: Mapping[str, list[int]], floats_of: Mapping[str, list[int]]
) -> dict[str, NDArray[Any]]:
    """Features of n Examples: uint8 [n, ...] where every value is a one-byte string, float32 [n, ...] the others."""
    spec = {name: tf.io.FixedLenFeature(shape, tf.string) for name, shape in bytes_of.items()}
    spec |= {name: tf.io.FixedLenFeature(shape, tf.float32) for name, shape in floats_of.items()}
    parsed = tf.io.parse_example(serialised, spec)
    arrays = {name: parsed[name].numpy() for name in floats_of}
    for name in bytes_of:
        decoded = tf.io.decode_raw(parsed[name], tf.uint8).numpy()
        if decoded.shape[-1] != 1:
            raise ValueError(f"the entries of {name} have {decoded.shape[-1]} bytes instead of one")
        arrays[name] = decoded[..., 0]
    return arrays


def _label_maps(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, E, H, W, 1] masks of 0 and 255 to uint8 [n, H, W], the number of the entity in front."""
    return masks[..., 0].argmax(axis=1).astype(np.uint8)


def _find(source: Path, name: str) -> Path:
    """The file itself, or the one in a folder whose name starts with `name`."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise SourceError(f"{source} doesn't exist; it should be a folder with {name}*.tfrecords, or the file itself")
    found = sorted(path for path in source.rglob(f"{name}*.tfrecord*") if path.is_file())
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise SourceError(f"{source} holds {what} named {name}*.tfrecords; name the file itself with --source")
    return found[0]


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0][:200]


def import_tensorflow() -> Any:
    """TensorFlow's module, which keeps quiet and leaves the GPU alone.

    Raises:
        SourceError: it is not installed.
    """
    # It would greet on stderr, in the middle of the progress bar.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise SourceError(
            "TFRecords need TensorFlow, which training itself doesn't: "
            "pip install 'monet_perception[tensorflow]' (where possible in an environment of its own)"
        ) from error
    tf.config.set_visible_devices([], "GPU")
    return tf
