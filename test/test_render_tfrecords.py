"""Rendered scenes in the published encoding, read back by the readers of the published files."""

from pathlib import Path

import numpy as np
import pytest

from train.data.multi_object import Clevr, ObjectsRoom
from train.data.store import Store
from train.render import main

pytest.importorskip("tensorflow")


def test_rooms_read_as_objects_room(tmp_path: Path) -> None:
    arguments = ["rooms", "--variant", "six_objects", "--count", "4", "--seed", "9", "--processes", "1"]
    assert main([*arguments, "--store", str(tmp_path / "store"), "--tfrecords", str(tmp_path)]) == 0
    store = Store.open(tmp_path / "store")
    samples = list(ObjectsRoom(tmp_path, "six_objects").read())
    assert np.array_equal([sample.image for sample in samples], store.images)
    assert np.array_equal([sample.labels for sample in samples], store.labels)


def test_tabletops_read_as_clevr(tmp_path: Path) -> None:
    arguments = ["tabletop", "--count", "2", "--seed", "9", "--processes", "1", "--shadow-size", "0"]
    assert main([*arguments, "--store", str(tmp_path / "store"), "--tfrecords", str(tmp_path)]) == 0
    store = Store.open(tmp_path / "store")
    samples = list(Clevr(tmp_path, records=(0, None)).read())
    assert len(samples) == len(store)
    for row, sample in enumerate(samples):
        for name, values in store.factors.items():
            np.testing.assert_array_equal(sample.factors[name], values[row], err_msg=name)
        there = ~np.isnan(store.factors["x"][row])
        assert set(np.unique(sample.labels)) <= set(range(there.sum() + 1))
        centres = [
            sample.labels[round(float(y)), round(float(x))]
            for x, y in zip(sample.factors["pixel_x"][there], sample.factors["pixel_y"][there], strict=True)
        ]
        own = np.arange(1, there.sum() + 1)
        assert np.mean(np.array(centres) == own) > 0.6, "the middle of an object shows it, unless another is in front"
        # CLEVR's crop is 5 rows off the middle of its images; apart from that both show the same.
        shift = round(5 * 128 / 192)
        moved = np.roll(store.labels[row], -shift, axis=0)[:-shift]
        assert np.mean(sample.labels[:-shift] == moved) > 0.97
