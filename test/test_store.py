"""The store: what is written comes back, what is wrong doesn't open, what was interrupted goes on."""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.layout import FactorInfo, StoreLayout
from train.data.manifest import StoreError
from train.data.store import Store
from train.data.store_writer import StoreWriter

FACTORS: dict[str, FactorInfo] = {
    "size": {"kind": "continuous", "values": None, "unit": "m"},
    "shape": {"kind": "categorical", "values": ["cube", "ball"], "unit": None},
}
LAYOUT = StoreLayout(
    dataset="made up",
    split="train",
    source="a test",
    licence="none",
    height=6,
    width=8,
    seed=3,
    background_labels=4,
    labels=True,
    factors=FACTORS,
    entities=2,
    depth=True,
    camera_fields=("fx", "fy"),
    groups=True,
    options={"crop": "0:6,0:8", "records": (0, None)},
)
COUNT = 12


def contents(count: int = COUNT) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "images": random.integers(0, 256, (count, 6, 8, 3), np.uint8),
        "labels": random.integers(0, 6, (count, 6, 8), np.uint8),
        "factors": {
            "size": np.where(random.random((count, 2)) < 0.5, np.nan, random.random((count, 2))).astype(np.float32),
            "shape": random.integers(-1, 2, (count, 2)).astype(np.int16),
        },
        "depth": random.integers(0, 1 << 16, (count, 6, 8), np.uint16),
        "cameras": random.random((count, 2), np.float32),
        "groups": np.arange(count, dtype=np.int32) // 3,
    }


def rows(start: int, stop: int) -> dict[str, Any]:
    whole = contents()
    part = {name: array[start:stop] for name, array in whole.items() if name != "factors"}
    return part | {"factors": {name: array[start:stop] for name, array in whole["factors"].items()}}


def assert_holds_contents(store: Store, count: int = COUNT) -> None:
    expected = contents()
    assert len(store) == count
    for name in ("images", "labels", "depth", "cameras", "groups"):
        np.testing.assert_array_equal(getattr(store, name), expected[name][:count])
    assert store.factors.keys() == FACTORS.keys()
    for name, array in store.factors.items():
        np.testing.assert_array_equal(array, expected["factors"][name][:count])


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    with StoreWriter(tmp_path / "store", LAYOUT, COUNT) as writer:
        writer.write(0, **rows(0, COUNT))
    return tmp_path / "store"


def test_everything_comes_back(finished: Path) -> None:
    store = Store.open(finished, verify=True)
    assert_holds_contents(store)
    assert store.manifest.factors == FACTORS
    assert store.manifest.camera_fields == ("fx", "fy")
    assert (store.manifest.seed, store.manifest.background_labels) == (3, 4)
    assert {path.name for path in finished.iterdir()} == {
        *("manifest.json", "images.npy", "labels.npy", "factors", "depth.npy", "cameras.npy", "groups.npy")
    }
    assert not list(finished.parent.glob(".*")), "nothing hidden is left"


def test_arrays_are_plain_npy_files_that_open_without_reading(finished: Path) -> None:
    np.testing.assert_array_equal(np.load(finished / "images.npy"), contents()["images"])
    assert isinstance(Store.open(finished).images, np.memmap)


def test_a_pickled_store_is_its_path(finished: Path) -> None:
    data = pickle.dumps(Store.open(finished))
    assert len(data) < 1000
    assert_holds_contents(pickle.loads(data))


@given(st.permutations(range(COUNT)), st.sets(st.integers(1, COUNT - 1)), st.data())
@settings(max_examples=25)  # each of them waits for the disk many times
def test_chunks_in_any_order_with_interruptions(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], edges: set[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("stores") / "store"
    layout = StoreLayout("made up", "train", "a test", "none", height=6, width=8)
    images = contents()["images"]
    chunks = list(itertools.pairwise(sorted({0, COUNT, *edges})))
    for start, stop in sorted(chunks, key=lambda chunk: order.index(chunk[0])):
        writer = StoreWriter(path, layout, COUNT)
        writer.write(start, images=images[start:stop])
        if data.draw(st.booleans(), "noted down"):
            writer.sync()
        with pytest.raises(StoreError, match="not finished"):
            Store.open(path)
        writer.close()  # as far as the files go, what a killed process leaves
    with StoreWriter(path, layout, COUNT) as writer:
        for start, stop in list(writer.missing(chunk=5)):
            writer.write(start, images=images[start:stop])
    np.testing.assert_array_equal(Store.open(path, verify=True).images, images)


def test_a_store_of_unknown_count_ends_where_writing_ends(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", LAYOUT)
    writer.write(0, **rows(0, 9), state={"record": 11})
    writer.sync()
    writer.write(9, **rows(9, 12), state={"record": 15})
    writer.close()
    with StoreWriter(tmp_path / "store", LAYOUT) as writer:
        assert (writer.written, writer.state) == (9, {"record": 11})
        store = writer.finish({"skipped": 2})
    assert_holds_contents(store, count=9)
    assert store.manifest.statistics == {"skipped": 2}
    Store.open(tmp_path / "store", verify=True)


def test_an_error_keeps_what_was_written(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), StoreWriter(tmp_path / "store", LAYOUT, COUNT) as writer:
        writer.write(0, **rows(0, 5))
        raise ZeroDivisionError
    assert list(StoreWriter(tmp_path / "store", LAYOUT, COUNT).missing(chunk=100)) == [(5, COUNT)]


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", LAYOUT, COUNT)
    writer.write(0, **rows(0, COUNT))
    writer.sync()
    writer.close()
    (tmp_path / ".store.partial" / ".progress.0123abcd.part.json").write_text("{")
    (tmp_path / ".store.partial" / "manifest.json").write_text("{}")
    with StoreWriter(tmp_path / "store", LAYOUT, COUNT) as writer:
        assert writer.written == COUNT
    assert_holds_contents(Store.open(tmp_path / "store", verify=True))
    assert not list((tmp_path / "store").glob(".*"))


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Path of a store of which an attempt has written five images."""
    writer = StoreWriter(tmp_path / "store", LAYOUT, COUNT)
    writer.write(0, **rows(0, 5))
    writer.sync()
    writer.close()
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed 3 (now 4)."),
        ({"options": {"crop": "0:6,0:8"}}, "records [0, None] (now absent)."),
        ({"width": 9}, "width 8 (now 9)."),
        ({"depth": False}, "depth.npy there (now absent)."),
        ({"entities": 3}, "the shapes of the arrays."),
    ],
)
def test_an_attempt_with_other_settings_is_thrown_away_only_on_request(
    interrupted: Path, change: dict[str, Any], named: str
) -> None:
    other = dataclasses.replace(LAYOUT, **change)
    with pytest.raises(StoreError, match=r"holds 5 images of an unfinished attempt.*--overwrite") as caught:
        StoreWriter(interrupted, other, COUNT)
    assert f"other settings: {named}" in str(caught.value)
    kept = StoreWriter(interrupted, LAYOUT, COUNT)
    assert kept.written == 5
    kept.close()
    assert StoreWriter(interrupted, other, COUNT, overwrite=True).written == 0


def test_another_count_goes_on_where_what_was_written_fits_into_it(interrupted: Path) -> None:
    with pytest.raises(StoreError, match=r"other settings: count 12 \(now 4\)"):
        StoreWriter(interrupted, LAYOUT, 4)
    smaller = StoreWriter(interrupted, LAYOUT, 7)
    assert list(smaller.missing(chunk=100)) == [(5, 7)]
    smaller.write(5, **rows(5, 7))
    smaller.sync()
    smaller.close()
    with StoreWriter(interrupted, LAYOUT, COUNT) as writer:
        assert list(writer.missing(chunk=100)) == [(7, COUNT)]
        writer.write(7, **rows(7, COUNT))
    assert_holds_contents(Store.open(interrupted, verify=True))


def test_finish_refuses_gaps_and_nothing(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", LAYOUT, COUNT)
    with pytest.raises(StoreError, match="nothing was written"):
        writer.finish()
    writer.write(0, **rows(0, 3))
    writer.write(7, **rows(7, COUNT))
    with pytest.raises(StoreError, match="only images 0 to 2, 7 to 11 of 12"):
        writer.finish()
    assert not (tmp_path / "store").exists()
    writer.write(3, **rows(3, 7))
    assert_holds_contents(writer.finish())


def test_two_writers_at_once(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", LAYOUT, COUNT) as writer:
        with pytest.raises(StoreError, match="another process"):
            StoreWriter(tmp_path / "store", LAYOUT, COUNT)
        writer.write(0, **rows(0, COUNT))
    assert_holds_contents(Store.open(tmp_path / "store"))


def test_a_file_system_without_locks_is_told_and_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="can't be locked .No locks available.: see that no other process"):
        writer = StoreWriter(tmp_path / "store", LAYOUT, COUNT)
    with writer:
        writer.write(0, **rows(0, COUNT))
    assert_holds_contents(Store.open(tmp_path / "store"))


def test_a_store_is_replaced_only_on_request_and_only_when_the_new_one_is_whole(finished: Path) -> None:
    with pytest.raises(StoreError, match="exists"):
        StoreWriter(finished, LAYOUT, 1)
    with StoreWriter(finished, LAYOUT, 3, overwrite=True) as writer:
        writer.write(0, **rows(0, 3))
        assert_holds_contents(Store.open(finished))
    assert_holds_contents(Store.open(finished, verify=True), count=3)
    assert not list(finished.parent.glob(".*"))


def test_nothing_but_a_store_is_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("work")
    extension = tmp_path / "extension"
    extension.mkdir()
    (extension / "manifest.json").write_text('{"name": "of a browser", "version": "1.0"}')
    for path, message in (
        (thesis, r"thesis is no store \(it has no manifest.json\): it is not replaced"),
        (tmp_path / "file", r"file is no store \(it is a file\): it is not replaced"),
        (extension, r"extension can't be told to be a store: it is not replaced; .*version '1.0'"),
    ):
        with pytest.raises(StoreError, match=message):
            StoreWriter(path, LAYOUT, 3, overwrite=True)
    assert (thesis / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "work"
    assert not list(tmp_path.glob(".*")), "nothing hidden is left"


def test_what_comes_to_the_path_while_a_store_is_written_is_not_replaced(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", LAYOUT, 3, overwrite=True)
    writer.write(0, **rows(0, 3))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "note.txt").write_text("just now")
    with pytest.raises(StoreError, match="is no store"):
        writer.finish()
    (tmp_path / "store" / "note.txt").unlink()
    assert_holds_contents(writer.finish(), count=3)  # an empty folder is


def test_a_link_leads_to_the_store_that_is_replaced(finished: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    finished.rename(disk / "store")
    link = tmp_path / "link"
    link.symlink_to(disk / "store")
    with StoreWriter(link, LAYOUT, 3, overwrite=True) as writer:
        writer.write(0, **rows(0, 3))
    assert link.is_symlink()
    assert_holds_contents(Store.open(disk / "store", verify=True), count=3)
    assert sorted(path.name for path in (*tmp_path.iterdir(), *disk.iterdir())) == ["disk", "link", "store"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((1, 6, 9, 3), np.uint8)}, "images has shape"),
        ({"images": np.zeros((1, 6, 8, 3), np.float32)}, "images has dtype float32"),
        ({"labels": None}, "not given labels"),
        ({"labels": np.zeros((2, 6, 8), np.uint8)}, "labels has shape"),
        ({"labels": np.full((1, 6, 8), 6, np.uint8)}, "a label is 6, .* 2 objects: the last has label 5"),
        ({"factors": {"size": np.zeros((1, 2)), "shape": np.full((1, 2), 1 << 20)}}, "don't fit"),
        ({"factors": {"size": np.zeros((1, 2))}}, "not given factors/shape"),
        ({"factors": {"weight": np.zeros((1, 2))}}, "factors/weight, which this store doesn't have"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_lost(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    writer = StoreWriter(tmp_path / "store", LAYOUT, 1)
    with pytest.raises(StoreError, match=message):
        writer.write(0, **{**rows(0, 1), **change})
    assert writer.written == 0
    with pytest.raises(StoreError, match="don't fit into a store of 1"):
        writer.write(1, **rows(0, 1))
    writer.write(0, **rows(0, 1))
    assert len(writer.finish()) == 1


def edit(manifest: Path, **changes: Any) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_stores_that_are_not_whole_say_what_is_wrong(finished: Path, tmp_path: Path) -> None:
    def refused(message: str, name: str, damage: Any) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(finished, copy)
        damage(copy / name)
        with pytest.raises(StoreError, match=message):
            Store.open(copy)
        shutil.rmtree(copy)

    refused("labels.npy is missing", "labels.npy", Path.unlink)
    refused(r"size.npy is missing", "factors/size.npy", Path.unlink)
    refused("truncated or damaged", "images.npy", lambda path: path.open("r+b").truncate(path.stat().st_size - 1))
    refused("truncated or damaged", "images.npy", lambda path: path.open("ab").write(b"more"))
    refused("no .npy file", "depth.npy", lambda path: path.write_bytes(b"nonsense, and enough of it"))
    refused("no .npy file", "depth.npy", lambda path: path.write_bytes(b""))
    refused("holds int64", "labels.npy", lambda path: np.save(path, np.zeros((COUNT, 6, 8), np.int64)))
    refused("is no store", "manifest.json", Path.unlink)
    refused("damaged", "manifest.json", lambda path: path.write_text("{"))
    refused("no version", "manifest.json", lambda path: path.write_text("[]"))
    refused("version 99", "manifest.json", lambda path: edit(path, version=99))
    refused("doesn't know: colours", "manifest.json", lambda path: edit(path, colours=1))
    refused("lists no factors/shape, factors/size, images", "manifest.json", lambda path: edit(path, arrays={}))
    refused("11 images", "manifest.json", lambda path: edit(path, count=11))
    with pytest.raises(StoreError, match=r"no store at .*nowhere.*train.prepare"):
        Store.open(tmp_path / "nowhere")


def test_checksums_find_a_single_changed_byte(finished: Path) -> None:
    with (finished / "labels.npy").open("r+b") as file:
        file.seek(-5, 2)
        byte = file.read(1)[0]
        file.seek(-5, 2)
        file.write(bytes([byte ^ 1]))
    Store.open(finished)
    with pytest.raises(StoreError, match=r"labels.npy is damaged: its checksum differs"):
        Store.open(finished, verify=True)
