"""A source that takes its time, and a process that prepares it: something to kill."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.data.layout import StoreLayout
from train.data.source import BrokenRecord, Sample
from train.prepare import prepare

RECORDS = 160
SIZE = 256  # 42 images are a chunk, so that there are a few of them
BROKEN = (3, 77)


def image_of(record: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), (record, 255 - record, 7), np.uint8)


class SlowSource:
    records = RECORDS
    layout = StoreLayout("slow", "train", "a test", "none", SIZE, SIZE, labels=True, groups=True)

    def __init__(self, seconds: float, interrupt_at: int | None = None) -> None:
        self.pause = seconds / RECORDS
        self.interrupt_at = interrupt_at
        self.began_at: int | None = None

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        self.began_at = start
        for record in range(start, RECORDS):
            time.sleep(self.pause)
            if record == self.interrupt_at:
                raise KeyboardInterrupt
            if record in BROKEN:
                yield BrokenRecord(record, "it is one of the broken ones")
            else:
                yield Sample(record, image_of(record), np.full((SIZE, SIZE), record % 5, np.uint8), group=record // 10)


def run(path: Path, seconds: float) -> None:
    prepare(SlowSource(seconds), path, skip_broken=True)
