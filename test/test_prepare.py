"""`python -m train.prepare`: what the published files hold comes into the store, whatever happens on the way."""

import multiprocessing
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import slow_source
from numpy.typing import NDArray
from painted_scenes import CONFIG
from PIL import Image
from published_files import clevr, objects_room, scenenet_trajectory, write_tfrecords, write_view
from slow_source import SlowSource

from monet_perception.checkpoint import save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.networks import Monet
from monet_perception.region import Region
from train.data.crop import cut, parse_crop, resize_published
from train.data.manifest import StoreError
from train.data.multi_object import Clevr, ObjectsRoom
from train.data.source import SourceError
from train.data.store import Store
from train.prepare import main, prepare

ENTITIES = {"train": 7, "six_objects": 10, "identical_color": 10, "empty_room": 4}


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


# TFRecords


@pytest.mark.parametrize("variant", ENTITIES)
def test_objects_room_comes_back_array_by_array(tmp_path: Path, variant: str) -> None:
    name = "objects_room_train" if variant == "train" else f"objects_room_test_{variant}"
    arrays = objects_room(5, ENTITIES[variant])
    write_tfrecords(tmp_path / f"{name}.tfrecords", arrays, ENTITIES[variant])
    assert run("objects_room", "--source", tmp_path, "--store", tmp_path / "store", "--variant", variant) == 0
    store = Store.open(tmp_path / "store", verify=True)
    np.testing.assert_array_equal(store.images, arrays["image"])
    np.testing.assert_array_equal(store.labels, arrays["labels"])
    assert store.manifest.background_labels == 4
    assert store.manifest.split == ("train" if variant == "train" else "test")


def test_clevr_comes_back_with_its_factors(tmp_path: Path) -> None:
    arrays = clevr(3)
    write_tfrecords(tmp_path / "clevr_with_masks_train.tfrecords", arrays, 11)
    assert run("clevr", "--source", tmp_path, "--store", tmp_path / "store") == 0
    store = Store.open(tmp_path / "store", verify=True)
    assert store.labels is not None
    assert store.images.shape == (3, 128, 128, 3)
    nearest = np.floor((np.arange(128) + 0.5) * 1.5).astype(int)
    for scene in range(3):
        crop = arrays["image"][scene, 29:221, 64:256]
        np.testing.assert_array_equal(store.images[scene], cv2.resize(crop, (128, 128)))
        labels = arrays["labels"][scene, 29:221, 64:256]
        np.testing.assert_array_equal(store.labels[scene], labels[nearest[:, None], nearest])
    there = arrays["visibility"][:, 1:] == 1
    pixels = arrays["pixel_coords"][:, 1:]
    expected = {name: arrays[name][:, 1:] for name in ("x", "y", "z", "rotation")}
    expected["pixel_x"] = (pixels[..., 0] - 64 + 0.5) * 128 / 192 - 0.5
    expected["pixel_y"] = (pixels[..., 1] - 29 + 0.5) * 128 / 192 - 0.5
    expected["pixel_depth"] = pixels[..., 2]
    for name, values in expected.items():
        np.testing.assert_allclose(store.factors.pop(name), np.where(there, values, np.nan), rtol=1e-5, atol=1e-5)
    for name, published in {"size": "size", "material": "material", "shape": "shape", "colour": "color"}.items():
        codes = arrays[published][:, 1:].astype(int) - 1
        np.testing.assert_array_equal(store.factors.pop(name), np.where(there, codes, -1))
    assert not store.factors


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[Any]]]:
    """70 scenes: more than TensorFlow is given to parse at once."""
    arrays = objects_room(70, 7, seed=1)
    path = tmp_path_factory.mktemp("rooms") / "objects_room_train.tfrecords"
    write_tfrecords(path, arrays, 7)
    return path, arrays


def test_record_ranges(
    rooms: tuple[Path, dict[str, NDArray[Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, arrays = rooms
    assert run("objects_room", "--source", path, "--store", tmp_path / "some", "--records", "3:69") == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "some").images, arrays["image"][3:69])
    assert "warning" not in capsys.readouterr().err
    assert run("objects_room", "--source", path, "--store", tmp_path / "fewer", "--records", "30:1000") == 0
    assert "the source holds 40 records instead of the 970 asked for" in capsys.readouterr().err
    assert Store.open(tmp_path / "fewer").manifest.statistics["unread"] == 930
    assert run("objects_room", "--source", path, "--store", tmp_path / "none", "--split", "val") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("reader", "name", "sizes"),
    [
        (ObjectsRoom, "objects_room_train", (980_000, 10_000, 10_000)),
        (Clevr, "clevr_with_masks", (70_000, 10_000, 10_000)),
    ],
)
def test_splits_have_the_thesis_s_sizes_and_no_record_in_common(
    tmp_path: Path, reader: type[ObjectsRoom | Clevr], name: str, sizes: tuple[int, ...]
) -> None:
    path = tmp_path / f"{name}.tfrecords"
    path.touch()
    splits: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
    first = 0
    for split, size in zip(splits, sizes, strict=True):
        opened = reader(path, split=split)
        assert (opened.start, opened.records) == (first, size)
        first += size


def test_a_truncated_file_names_the_record(
    rooms: tuple[Path, dict[str, NDArray[Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, arrays = rooms
    broken = tmp_path / "objects_room_train.tfrecords"
    broken.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.95)])
    command = ("objects_room", "--source", broken, "--store", tmp_path / "store")
    assert run(*command) == 1
    error = capsys.readouterr().err
    assert "truncated or damaged" in error
    assert "--skip-broken" in error
    assert not (tmp_path / "store").exists()
    assert run(*command, "--skip-broken") == 0
    store = Store.open(tmp_path / "store")
    assert 60 < len(store) < 70
    np.testing.assert_array_equal(store.images, arrays["image"][: len(store)])
    assert f"record {len(store)}:" in error
    end, unread = len(store), 980_000 - len(store) - 1
    assert store.manifest.statistics == {"records": end + 1, "skipped": 1, "broken": [end], "unread": unread}
    output = capsys.readouterr()
    assert f"the source ends in damage at record {end}; {unread:,} of 980,000 records were not read" in output.err
    assert f"1 broken records skipped; {unread:,} records not read." in output.out
    assert run(*command, "--skip-broken", "--overwrite", "--split", "all") == 0
    assert Store.open(tmp_path / "store").manifest.statistics["unread"] is None
    output = capsys.readouterr()
    assert f"ends in damage at record {end}; the rest was not read" in output.err
    assert "the rest not read." in output.out


def test_a_record_of_another_kind_is_named_and_skipped(
    rooms: tuple[Path, dict[str, NDArray[Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    records = [record.numpy() for record in tf.data.TFRecordDataset(str(rooms[0]), "GZIP").take(6)]
    records[4] = tf.train.Example().SerializeToString()
    path = tmp_path / "mixed.tfrecords"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    command = ("objects_room", "--source", path, "--store", tmp_path / "store", "--records", "1:6")
    assert run(*command) == 1
    assert "record 4: it is not an Example of this data set" in capsys.readouterr().err
    assert run(*command, "--skip-broken") == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "store").images, rooms[1]["image"][[1, 2, 3, 5]])


def test_the_wrong_variant_and_missing_files_are_errors(
    rooms: tuple[Path, dict[str, NDArray[Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ("objects_room", "--source", rooms[0], "--store", tmp_path / "store", "--variant", "six_objects")
    assert run(*wrong) == 1
    assert "record 0" in capsys.readouterr().err
    assert run("clevr", "--source", rooms[0].parent, "--store", tmp_path / "store") == 1
    assert "no file named clevr_with_masks" in capsys.readouterr().err
    assert run("clevr", "--source", tmp_path / "nowhere", "--store", tmp_path / "store") == 1
    assert "doesn't exist" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_without_tensorflow_the_error_names_the_extra(
    rooms: tuple[Path, dict[str, NDArray[Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert run("objects_room", "--source", rooms[0], "--store", tmp_path / "store") == 1
    assert "monet_perception[tensorflow]" in capsys.readouterr().err


# SceneNet

INSTANCES = {0: 1, 7: 2, 300: 4, 12: 3, 41: 4}
"""Objects are 12, 41 and 300, which become labels 1, 2 and 3."""


@pytest.fixture
def scenenet(tmp_path: Path) -> tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]]:
    """Trajectories 0/0 and 0/1 of four views each in part 0 and 3/0 in part 3; part 5 wasn't downloaded."""
    random = np.random.default_rng(0)
    root = tmp_path / "scenenet"
    views: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}
    (root / "train_protobufs").mkdir(parents=True)
    parts = {0: ["0/0", "0/1"], 3: ["3/0"], 5: ["5/0"]}
    number = 0
    for part, paths in parts.items():
        message = b"".join(scenenet_trajectory(path, [0, 25, 50, 75], INSTANCES) for path in paths)
        (root / "train_protobufs" / f"scenenet_rgbd_train_{part}.pb").write_bytes(message)
        for path in paths if part != 5 else []:
            for frame in (0, 25, 50, 75):
                smooth = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (320, 240))
                view = {
                    "photo": smooth.astype(np.uint8),
                    "depth": random.integers(1000, 60000, (240, 320)).astype(np.uint16),
                    "instance": random.choice([*INSTANCES], (240, 320)).astype(np.uint16),
                }
                views[number, frame] = view
                write_view(root / "train" / path, frame, **view)
            number += 1
    return root, views


def test_scenenet_views_labels_depth_and_cameras(
    scenenet: tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]], tmp_path: Path
) -> None:
    root, views = scenenet
    assert run("scenenet", "--source", root, "--store", tmp_path / "store", "--views", 100) == 0
    store = Store.open(tmp_path / "store", verify=True)
    assert len(store) == len(views) == 12
    assert store.labels is not None
    assert store.depth is not None
    assert store.cameras is not None
    np.testing.assert_array_equal(store.groups, np.repeat([0, 1, 2], 4))
    # Rays by trigonometry, not by the intrinsics that the reader uses.
    rows, columns = np.mgrid[24:216, 64:256]
    x = np.tan(np.deg2rad(30)) * ((columns + 0.5) / 160 - 1)
    y = np.tan(np.deg2rad(22.5)) * ((rows + 0.5) / 120 - 1)
    for place, ((_, frame), view) in enumerate(views.items()):
        crop = {name: array[24:216, 64:256] for name, array in view.items()}
        difference = store.images[place].astype(int) - crop["photo"]
        assert np.abs(difference).mean() < 3, "JPEG loses little"
        labels = np.select([crop["instance"] == 12, crop["instance"] == 41, crop["instance"] == 300], [1, 2, 3])
        np.testing.assert_array_equal(store.labels[place], labels)
        expected_depth = np.rint(crop["depth"] / np.sqrt(1 + x**2 + y**2))
        np.testing.assert_allclose(store.depth[place], expected_depth, atol=1)
        camera = dict(zip(store.manifest.camera_fields, store.cameras[place], strict=True))
        assert camera["camera_x"] == pytest.approx(frame / 25 + 0.25)
        assert (camera["camera_z"], camera["lookat_y"]) == pytest.approx((-2.0, 1.0))
        rays = (np.array([64, 255]) + 0.5) / 160 - 1
        through = (np.array([0, 191]) - camera["cx"]) / camera["fx"]
        np.testing.assert_allclose(through, np.tan(np.deg2rad(30)) * rays, rtol=1e-5)


@pytest.mark.parametrize("size", [192, 48])
@pytest.mark.parametrize("crop", ["24:216,64:256", "10:202,100:292"])
def test_scenenet_intrinsics_are_those_of_the_stored_images(
    scenenet: tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]], tmp_path: Path, crop: str, size: int
) -> None:
    command = ("scenenet", "--source", scenenet[0], "--store", tmp_path / "store", "--views", 1)
    assert run(*command, "--crop", crop, "--size", size) == 0
    store = Store.open(tmp_path / "store")
    assert store.cameras is not None
    camera = dict(zip(store.manifest.camera_fields, store.cameras[0].astype(float), strict=True))
    # Rays through the edges of the stored image and of the crop, the latter by the angles of the published view.
    edges, seen = np.array([-0.5, size - 0.5]), parse_crop(crop)
    x = np.array([seen.x, seen.x + seen.width]) / 160 - 1
    y = np.array([seen.y, seen.y + seen.height]) / 120 - 1
    np.testing.assert_allclose((edges - camera["cx"]) / camera["fx"], np.tan(np.deg2rad(30)) * x, rtol=1e-5)
    np.testing.assert_allclose((edges - camera["cy"]) / camera["fy"], np.tan(np.deg2rad(22.5)) * y, rtol=1e-5)


def test_scenenet_skips_and_counts_what_is_missing_or_broken(
    scenenet: tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, _ = scenenet
    folder = root / "train" / "0"
    (folder / "0" / "photo" / "25.jpg").unlink()
    for name in ("0/photo/75.jpg", "1/depth/0.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "1" / "instance" / "50.png").write_bytes(b"")
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(root / "train" / "3" / "0" / "photo" / "0.jpg")
    command = ("scenenet", "--source", root, "--store", tmp_path / "store")
    assert run(*command, "--no-skip-broken") == 1
    assert "record 1:" in (error := capsys.readouterr().err)
    assert "25.jpg" in error
    assert run(*command) == 0
    store = Store.open(tmp_path / "store", verify=True)
    assert store.manifest.statistics == {"records": 12, "skipped": 5, "broken": [1, 3, 4, 6, 8], "unread": 0}
    np.testing.assert_array_equal(store.groups, [0, 0, 1, 1, 2, 2, 2])
    assert "5 broken records skipped" in capsys.readouterr().out


def test_scenenet_draws_views_by_seed(
    scenenet: tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]], tmp_path: Path
) -> None:
    def drawn(name: str, seed: int) -> NDArray[Any]:
        store = tmp_path / name
        assert (
            run("scenenet", "--source", scenenet[0], "--store", store, "--views", 5, "--seed", seed, "--size", 48) == 0
        )
        opened = Store.open(store)
        assert opened.images.shape == (5, 48, 48, 3)
        assert opened.cameras is not None
        return np.concatenate([np.asarray(opened.groups)[:, None], opened.cameras[:, 4:5]], axis=1)

    first = drawn("a", 1)
    assert len(np.unique(first, axis=0)) == 5
    np.testing.assert_array_equal(first, drawn("b", 1))
    assert not np.array_equal(first, drawn("c", 2))


def test_scenenet_with_another_layout_says_what_is_missing(
    scenenet: tuple[Path, dict[tuple[int, int], dict[str, NDArray[Any]]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, _ = scenenet
    assert run("scenenet", "--source", root, "--store", tmp_path / "store", "--split", "val") == 1
    assert "val doesn't exist" in capsys.readouterr().err
    protobuf = root / "train_protobufs" / "scenenet_rgbd_train_3.pb"
    protobuf.write_bytes(protobuf.read_bytes()[:-7])
    assert run("scenenet", "--source", root, "--store", tmp_path / "store") == 1
    assert "train_3.pb is truncated" in capsys.readouterr().err
    protobuf.unlink()
    assert run("scenenet", "--source", root, "--store", tmp_path / "store") == 1
    assert "train_3.pb is missing" in capsys.readouterr().err


# Folders of images


def test_labels_among_the_images_are_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever way the paths are written."""
    labels = tmp_path / "photos" / "labels"
    labels.mkdir(parents=True)
    for folder in (labels.parent, labels):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "0.png")
    command = ("images", "--source", tmp_path / "photos", "--size", 8, "--store", tmp_path / "store", "--labels")
    assert run(*command, tmp_path / "photos" / ".." / "photos" / "labels") == 0
    assert len(Store.open(tmp_path / "store")) == 1
    assert run(*command, tmp_path / "photos", "--overwrite") == 1
    assert "labels need a folder of their own" in capsys.readouterr().err


@pytest.mark.parametrize("records", ["5", "a:b", "4:4", "-1:3"])
def test_a_range_of_records_is_explained(records: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("objects_room", "--source", "a", "--store", "b", f"--records={records}")
    assert "records are written START:STOP, such as 0:1000" in capsys.readouterr().err


def test_a_folder_of_images_with_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 40, 60, 3), np.uint8)
    labels = generator.integers(0, 9, (3, 40, 60), np.uint8)
    for number, name in enumerate(("a/1.png", "a/2.png", "b.png")):
        for root, array in (("photos", images[number]), ("labels", labels[number])):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    (tmp_path / "photos" / "note.txt").write_text("no image")
    command = (
        "images",
        "--source",
        tmp_path / "photos",
        "--labels",
        tmp_path / "labels",
        "--store",
        tmp_path / "store",
    )
    assert run(*command, "--size", 40, "--background-labels", 2) == 0
    store = Store.open(tmp_path / "store")
    np.testing.assert_array_equal(store.images, images[:, :, 10:50])
    np.testing.assert_array_equal(store.labels, labels[:, :, 10:50])
    assert store.manifest.background_labels == 2

    shutil.copytree(tmp_path / "labels", tmp_path / "others")
    (tmp_path / "labels" / "a" / "2.png").unlink()
    part = ("images", "--source", tmp_path / "photos", "--store", tmp_path / "part", "--size", 40)
    assert run(*part, "--labels", tmp_path / "labels") == 1  # it ends at the image that lacks a label
    assert run(*part, "--labels", tmp_path / "others") == 1
    assert "an unfinished attempt with other settings: labels" in capsys.readouterr().err
    (tmp_path / "labels").rename(tmp_path / "moved")
    assert run(*part, "--labels", tmp_path / "moved", "--skip-broken") == 0
    (tmp_path / "moved").rename(tmp_path / "labels")
    assert run(*command, "--overwrite", "--skip-broken", "--crop", "0:20,5:25", "--size", 20) == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "store").images, images[[0, 2], :20, 5:25])
    assert run("images", "--source", tmp_path / "labels" / "a", "--store", tmp_path / "store") == 1
    assert "exists" in capsys.readouterr().err
    assert run("images", "--source", tmp_path / "store" / "factors", "--store", tmp_path / "other") == 1
    assert "is no folder" in capsys.readouterr().err


def test_images_that_are_to_replace_themselves_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((40, 60, 3), 9, np.uint8)).save(photos / "1.png")
    assert run("images", "--source", photos, "--store", photos, "--overwrite") == 1
    assert "photos is no store (it has no manifest.json): it is not replaced" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "1.png"]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_of_more_than_8_bits_are_refused(
    tmp_path: Path, dtype: type, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    suffix = "png" if dtype is np.uint16 else "tiff"
    Image.fromarray(np.full((40, 60), 3000, dtype)).save(tmp_path / "photos" / f"1.{suffix}")
    assert run("images", "--source", tmp_path / "photos", "--store", tmp_path / "store") == 1
    bits = np.dtype(dtype).itemsize * 8
    assert f"1.{suffix} has {bits} bits a pixel" in (error := capsys.readouterr().err)
    assert "convert it to 8" in error


@pytest.mark.parametrize("size", [32, 96, 128])
def test_a_network_is_trained_on_what_the_robot_shows_it(tmp_path: Path, size: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(frame).save(tmp_path / "photos" / "1.png")
    assert run("images", "--source", tmp_path / "photos", "--store", tmp_path / "store", "--size", size) == 0
    save_checkpoint(tmp_path / "network.safetensors", Monet(replace(CONFIG, image_size=size)), dataset="none", steps=0)
    with Decomposer(tmp_path / "network.safetensors", device="cpu", backend="torch") as robot:
        np.testing.assert_array_equal(Store.open(tmp_path / "store").images[0], robot(frame).image)


def test_published_images_are_averaged_only_where_interpolation_would_skip_pixels() -> None:
    lines = np.zeros((192, 192, 3), np.uint8)
    lines[:, ::8] = 255
    np.testing.assert_array_equal(resize_published(lines, 128), cv2.resize(lines, (128, 128)))
    assert np.abs(resize_published(lines, 24).astype(int) - 255 / 8).max() <= 1


def test_arguments_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, message in (
        (("--crop", "0:20,5:26"), "it has to be square"),
        (("--crop", "20:20,5:5"), "is empty"),
        (("--crop", "everything"), "TOP:BOTTOM,LEFT:RIGHT"),
        (("--size", "0"), "at least 1"),
    ):
        with pytest.raises(SystemExit):
            run("images", "--source", tmp_path, "--store", tmp_path / "store", *wrong)
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="reaches beyond"):
        cut(np.zeros((9, 20)), Region(0, 0, 10, 10))


def test_verify_reports_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(SlowSource(0), tmp_path / "store", skip_broken=True)
    assert run("verify", "--store", tmp_path / "store") == 0
    assert "158 images of 256x256" in capsys.readouterr().out
    with (tmp_path / "store" / "images.npy").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert run("verify", "--store", tmp_path / "store") == 1
    assert "checksum" in capsys.readouterr().err


# Interruptions


def assert_complete(path: Path) -> None:
    store = Store.open(path, verify=True)
    good = [record for record in range(slow_source.RECORDS) if record not in slow_source.BROKEN]
    np.testing.assert_array_equal(store.images[:, 0, 0, 0], good)
    np.testing.assert_array_equal(store.images[:, -1, -1, 1], 255 - np.array(good))
    assert store.labels is not None
    np.testing.assert_array_equal(store.labels[:, 9, 9], np.array(good) % 5)
    np.testing.assert_array_equal(store.groups, np.array(good) // 10)
    broken = list(slow_source.BROKEN)
    assert store.manifest.statistics == {"records": 160, "skipped": 2, "broken": broken, "unread": 0}


def test_interrupted_by_the_user_it_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(SlowSource(0, interrupt_at=100), tmp_path / "store", skip_broken=True)
    again = SlowSource(0)
    prepare(again, tmp_path / "store", skip_broken=True)
    assert again.began_at is not None
    assert 0 < again.began_at <= 100, "some of it was not read again"
    assert_complete(tmp_path / "store")


def test_a_broken_record_ends_it_and_skipping_goes_on_from_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="record 3: it is one of the broken ones"):
        prepare(SlowSource(0), tmp_path / "store")
    again = SlowSource(0)
    prepare(again, tmp_path / "store", skip_broken=True)
    assert again.began_at == 3
    assert_complete(tmp_path / "store")


def test_killed_at_random_moments_it_never_leaves_a_wrong_store(tmp_path: Path) -> None:
    """Twenty real SIGKILLs from the first record to the last rename, each going on from what the one before left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["slow_source"])
    moments = random.Random(0)
    path = tmp_path / "store"
    seconds, kills, completed = 1.0, 0, 0
    while kills < 20:
        process = context.Process(target=slow_source.run, args=(path, seconds))
        process.start()
        process.join(moments.uniform(0.1, 1.6))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -9)
        try:
            Store.open(path)
        except StoreError:
            assert process.exitcode == -9
            continue
        assert_complete(path)
        completed += 1
        shutil.rmtree(path)
        # What a kill between the last rename and the end leaves goes with the store; nothing else may be there.
        assert [hidden.name for hidden in tmp_path.iterdir()] == []
    prepare(SlowSource(0), path, skip_broken=True)
    assert_complete(path)
