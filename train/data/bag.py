"""A robot's own recordings: camera images of a rosbag2 or MCAP, read by `rosbags` without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monet_perception.bags import BagError, deserialise, open_bag, raw_messages, read_rgb
from monet_perception.raw_images import read_labels
from monet_perception.region import Region, centre_square, resize_map
from monet_perception.stamps import NANOSECONDS
from train.data.crop import crop_text, cut, resize_image
from train.data.layout import StoreLayout
from train.data.source import BrokenRecord, Sample, SourceError

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
GROUP_SECONDS = 10
"""Frames of one such stretch stay on one side of a split: neighbours look the same."""
GROUPS = 20
"""Stretches of a bag that is too short for as many of that length: one of them is enough for validation."""


class Bag:
    """Every n-th image of a topic, cropped to a square and resized.

    Args:
        source: the bag: a rosbag2 folder, or an .mcap or .db3 file.
        size: height and width of the stored images.
        topic: of Image or CompressedImage; None: the bag's only one.
        every: take every n-th image.
        crop: a square to cut out; None: the largest in the centre.
        labels_topic: of mono8 or 8UC1 Images with label maps under the images' own stamps; None: no labels.
        background_labels: labels below this are background.
    Raises:
        SourceError: no bag, or no such topic of images in it.
    """

    def __init__(
        self,
        source: Path,
        size: int,
        topic: str | None = None,
        every: int = 1,
        crop: Region | None = None,
        labels_topic: str | None = None,
        background_labels: int = 1,
    ) -> None:
        if every < 1:
            raise SourceError(f"every has to be at least 1, not {every}")
        self.source, self.size, self.every, self.crop = source, size, every, crop
        with _open(source) as reader:
            self.topic = _image_topic(reader, topic, source)
            self.labels_topic = _image_topic(reader, labels_topic, source) if labels_topic else None
            messages, start = reader.topics[self.topic].msgcount, reader.start_time
            self.stretch = min(GROUP_SECONDS * NANOSECONDS, reader.duration // GROUPS + 1)  # ns
        self.records = -(-messages // every)
        self.layout = StoreLayout(
            dataset="bag",
            split="train",
            source=source.name,
            licence="the user's own recording",
            height=size,
            width=size,
            background_labels=background_labels,
            labels=self.labels_topic is not None,
            groups=True,
            options={
                "topic": self.topic,
                "labels_topic": self.labels_topic,
                "every": every,
                "messages": messages,
                "start": start,  # ns: tells recordings of one name and length apart
                "crop": crop_text(crop) if crop else None,
            },
        )

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Images from the `start`-th of those taken on; one that can't be decoded is a broken record.

        A damaged recording can't be read past the damage: it ends with one broken record, the first that is missing.
        """
        with _open(self.source) as reader:
            wanted = [c for c in reader.connections if c.topic == self.topic]
            place = -1
            try:
                for place, (connection, time, data) in enumerate(raw_messages(reader, wanted)):
                    record, rest = divmod(place, self.every)
                    if rest == 0 and record >= start:
                        yield self._read_one(reader, record, connection, time, data)
            except BagError as error:
                record = -(-(place + 1) // self.every)
                if record < self.records:  # otherwise all that were to be taken came before
                    yield BrokenRecord(record, str(error), final=True)

    def _read_one(
        self, reader: AnyReader, record: int, connection: Connection, time: int, data: bytes
    ) -> Sample | BrokenRecord:
        try:
            message = deserialise(reader, connection, data)
            labels = self._find_labels(reader, message, time)
            return self._sample(record, read_rgb(message), labels, time - reader.start_time)
        except ValueError as error:
            return BrokenRecord(record, str(error))

    def _sample(self, record: int, image: NDArray[np.uint8], labels: NDArray[np.uint8] | None, elapsed: int) -> Sample:
        if labels is not None and labels.shape != image.shape[:2]:
            raise ValueError(f"its labels are {labels.shape} and the image is {image.shape[:2]}")
        crop = self.crop or centre_square(*image.shape[:2])
        small = resize_image(cut(image, crop), self.size)
        small_labels = None if labels is None else resize_map(cut(labels, crop), self.size, self.size)
        return Sample(record, small, small_labels, group=elapsed // self.stretch)

    def _find_labels(self, reader: AnyReader, image: Any, time: int) -> NDArray[np.uint8] | None:
        """The label map with the image's stamp, among the messages of half a second around it."""
        if self.labels_topic is None:
            return None
        wanted = [c for c in reader.connections if c.topic == self.labels_topic]
        around = 500_000_000
        for connection, _, data in raw_messages(reader, wanted, time - around, time + around):
            message = deserialise(reader, connection, data)
            if message.header.stamp == image.header.stamp:
                return read_labels(message)
        raise ValueError(f"{self.labels_topic} has no message with its stamp")


@contextmanager
def _open(source: Path) -> Iterator[AnyReader]:
    try:
        with open_bag(source) as reader:
            yield reader
    except (BagError, OSError, ModuleNotFoundError) as error:
        raise SourceError(str(error)) from error


def _image_topic(reader: AnyReader, topic: str | None, source: Path) -> str:
    images = sorted(name for name, info in reader.topics.items() if info.msgtype in IMAGE_TYPES)
    listed = ", ".join(images) or "none"
    if topic is None:
        if len(images) != 1:
            raise SourceError(f"name one of the image topics of {source} with --topic: {listed}")
        return images[0]
    if topic not in images:
        raise SourceError(f"{source} has no images on {topic}; its image topics: {listed}")
    return topic
