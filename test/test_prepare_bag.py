"""`python -m train.prepare bag`: recordings that rosbags wrote come into the store, without ROS."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from train.data.sampler import split_indices
from train.data.store import Store
from train.prepare import main

TYPES = get_typestore(Stores.ROS2_JAZZY)
RATE = 10
HEIGHT, WIDTH = 30, 40


def header(frame: int) -> Any:
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=frame // RATE, nanosec=frame % RATE * 100_000_000)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def image(frame: int, array: NDArray[np.uint8], encoding: str, padding: int = 0) -> Any:
    rows = array.reshape(array.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(frame),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def compressed(frame: int, array: NDArray[np.uint8]) -> Any:
    _, data = cv2.imencode(".png", cv2.cvtColor(array, cv2.COLOR_RGB2BGR))
    return TYPES.types["sensor_msgs/msg/CompressedImage"](header=header(frame), format="png", data=data.reshape(-1))


def write_bag(
    path: Path,
    topics: dict[str, list[Any]],
    storage: StoragePlugin = StoragePlugin.MCAP,
    *,
    chunks: bool = False,
    start: int = 0,
) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    if chunks:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(topic, messages[0].__msgtype__, typestore=TYPES)
            for topic, messages in topics.items()
        }
        for frame in range(max(map(len, topics.values()))):
            for topic, messages in topics.items():
                if frame < len(messages):
                    message = messages[frame]
                    data = message if isinstance(message, bytes) else TYPES.serialize_cdr(message, message.__msgtype__)
                    writer.write(connections[topic], start + frame * 1_000_000_000 // RATE, data)
    return path


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, HEIGHT, WIDTH, 3), np.uint8)


def run(bag: Path, store: Path, *options: object) -> int:
    return main(["bag", "--source", str(bag), "--store", str(store), *map(str, options)])


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("kind", ["rgb8", "bgr8", "padded", "mono8", "compressed"])
def test_every_kind_of_image(tmp_path: Path, frames: NDArray[np.uint8], kind: str, storage: StoragePlugin) -> None:
    expected = frames[:4]
    if kind == "mono8":
        expected = expected[..., :1].repeat(3, axis=3)
    messages = {
        "rgb8": lambda n, array: image(n, array, "rgb8"),
        "bgr8": lambda n, array: image(n, array[..., ::-1], "bgr8"),
        "padded": lambda n, array: image(n, array, "rgb8", padding=8),
        "mono8": lambda n, array: image(n, array[..., 0], "mono8"),
        "compressed": compressed,
    }[kind]
    bag = write_bag(tmp_path / "bag", {"/image": [messages(*item) for item in enumerate(expected)]}, storage)
    assert run(bag, tmp_path / "store", "--size", HEIGHT) == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "store").images, expected[:, :, 5:35])


def test_topic_every_crop_size_and_labels(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    labels = frames[..., 0] % 9
    images = [image(n, array, "rgb8") for n, array in enumerate(frames)]
    maps = [image(n, array, "mono8") for n, array in enumerate(labels)]
    maps.reverse()  # paired by stamp, not by place
    bag = write_bag(tmp_path / "bag", {"/camera/image": images, "/other": images, "/labels": maps})
    options = ("--topic", "/camera/image", "--labels-topic", "/labels", "--background-labels", 4)
    assert (
        run(bag, tmp_path / "store", *options, "--every", 5, "--crop", "4:24,10:30", "--size", 20, "--skip-broken") == 0
    )
    store = Store.open(tmp_path / "store", verify=True)
    # Frame 0's labels were recorded 1.1 s later: beyond half a second they don't count as the same moment's.
    np.testing.assert_array_equal(store.images, frames[[5], 4:24, 10:30])
    np.testing.assert_array_equal(store.labels, labels[[5], 4:24, 10:30])
    assert store.manifest.background_labels == 4
    assert store.manifest.statistics == {"records": 3, "skipped": 2, "broken": [0, 2], "unread": 0}


def test_a_single_mcap_file_and_groups_of_ten_seconds(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    images = [image(n, frames[n % 12], "rgb8") for n in range(2100)]
    bag = write_bag(tmp_path / "bag", {"/image": images})
    (file,) = bag.glob("*.mcap")
    assert run(file, tmp_path / "store", "--size", 8, "--every", 20) == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "store").groups, np.arange(0, 2100, 20) // 100)


def test_a_short_bag_keeps_most_of_its_images_for_training(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    bag = write_bag(tmp_path / "bag", {"/image": [image(n, frames[n % 12], "rgb8") for n in range(150)]})
    assert run(bag, tmp_path / "store", "--size", 8) == 0
    groups = Store.open(tmp_path / "store").groups
    assert groups is not None
    assert (np.diff(groups) >= 0).all(), "neighbours stay together"
    for seed in range(5):
        _, val = split_indices(len(groups), 0.02, seed, groups)
        assert 3 <= len(val) <= 8


def test_broken_messages_are_named_and_skipped(
    tmp_path: Path, frames: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    messages: list[Any] = [compressed(n, array) for n, array in enumerate(frames[:5])]
    messages[2].data = messages[2].data[:50]
    messages[4] = b"\x00\x01\x00\x00nonsense"
    bag = write_bag(tmp_path / "bag", {"/image": messages})
    assert run(bag, tmp_path / "store", "--size", HEIGHT) == 1
    assert "record 2: data (format 'png') can't be unpacked" in capsys.readouterr().err
    assert run(bag, tmp_path / "store", "--size", HEIGHT, "--skip-broken") == 0
    np.testing.assert_array_equal(Store.open(tmp_path / "store").images, frames[[0, 1, 3], :, 5:35])


def test_another_recording_of_the_same_name_and_length_is_not_gone_on_with(
    tmp_path: Path, frames: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    messages: list[Any] = [compressed(n, array) for n, array in enumerate(frames[:5])]
    messages[2].data = messages[2].data[:50]
    monday, tuesday = (
        write_bag(tmp_path / day / "bag", {"/image": messages}, start=start)
        for day, start in (("monday", 0), ("tuesday", 86_400_000_000_000))
    )
    assert run(monday, tmp_path / "store", "--size", HEIGHT) == 1
    capsys.readouterr()
    assert run(tuesday, tmp_path / "store", "--size", HEIGHT, "--skip-broken") == 1
    assert "start 0 (now 86400000000000)" in capsys.readouterr().err


def test_a_damaged_chunk_ends_the_bag_there(
    tmp_path: Path, frames: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    # Frames that compress: what zstd stores as it is carries no sign of damage.
    large = frames.repeat(20, axis=1).repeat(20, axis=2)
    images = [image(n, large[n % 12], "rgb8") for n in range(60)]
    (file,) = write_bag(tmp_path / "bag", {"/image": images}, chunks=True).glob("*.mcap")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    file.write_bytes(content)
    assert run(file, tmp_path / "store", "--size", 8) == 1
    assert "damaged from here on" in (error := capsys.readouterr().err)
    assert "--skip-broken keeps what comes before it" in error
    assert run(file, tmp_path / "store", "--size", 8, "--skip-broken") == 0
    end = len(Store.open(tmp_path / "store"))
    assert 0 < end < 60
    statistics = {"records": end + 1, "skipped": 1, "broken": [end], "unread": 59 - end}
    assert Store.open(tmp_path / "store").manifest.statistics == statistics
    output = capsys.readouterr()
    assert f"the source ends in damage at record {end}; {59 - end} of 60 records were not read" in output.err
    assert f"1 broken records skipped; {59 - end} records not read." in output.out

    # Every n-th image: the first that is missing is none of those that came, and if all came nothing is missing.
    assert run(file, tmp_path / "some", "--size", 8, "--skip-broken", "--every", end - 1) == 0
    assert Store.open(tmp_path / "some").manifest.statistics["broken"] == [2]
    assert run(file, tmp_path / "first", "--size", 8, "--every", 60) == 0
    assert len(Store.open(tmp_path / "first")) == 1


def test_labels_behind_the_damage_are_missed_in_a_sentence(
    tmp_path: Path, frames: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    large = frames.repeat(20, axis=1).repeat(20, axis=2)
    images = [image(n, array, "rgb8") for n, array in enumerate(large)]
    late = [image(max(n - 3, 0), array[..., 0], "mono8") for n, array in enumerate(large)]
    (file,) = write_bag(tmp_path / "bag", {"/image": images, "/labels": late}, chunks=True).glob("*.mcap")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    file.write_bytes(content)
    command = (file, tmp_path / "store", "--topic", "/image", "--labels-topic", "/labels", "--size", 8)
    assert run(*command) == 1
    assert "the recording is damaged from here on" in capsys.readouterr().err
    assert run(*command, "--skip-broken") == 0
    assert 0 < len(Store.open(tmp_path / "store")) < 6


def test_wrong_bags_and_topics(tmp_path: Path, frames: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]) -> None:
    images = [image(n, array, "rgb8") for n, array in enumerate(frames[:2])]
    bag = write_bag(tmp_path / "bag", {"/left": images, "/right": images})
    assert run(bag, tmp_path / "store") == 1
    assert "with --topic: /left, /right" in capsys.readouterr().err
    assert run(bag, tmp_path / "store", "--topic", "/middle") == 1
    assert "no images on /middle; its image topics: /left, /right" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", tmp_path / "store") == 1
    assert "no recording at" in capsys.readouterr().err
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-40])
    assert run(file, tmp_path / "store", "--topic", "/left") == 1
    assert "cut off" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
