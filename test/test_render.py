"""Rendered scenes: the picture, the labels, the depth and the factors tell of the same world."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from train.data.manifest import StoreError
from train.data.store import Store
from train.data.store_writer import StoreWriter
from train.render import main
from train.scenes.drawing import RenderJob, draw_store

COUNT = 400  # more than one process's share
MILLIMETRE = 0.001


def render(path: Path, *arguments: object) -> Store:
    """A store made by the command."""
    assert main([str(argument) for argument in (*arguments, "--store", path)]) == 0
    return Store.open(path)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("rooms") / "store"
    return render(path, "rooms", "--count", COUNT, "--seed", 3, "--depth", "--processes", 2)


@pytest.fixture(scope="module")
def tabletop(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("tabletop") / "store"
    return render(path, "tabletop", "--count", 12, "--depth", "--processes", 1)


@pytest.fixture(scope="module")
def clutter(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("clutter") / "store"
    return render(path, "clutter", "--count", 60, "--depth", "--processes", 1)


def points(store: Store, index: int) -> np.ndarray:
    """[H, W, 3]: where in the world every pixel's surface is, from depth, intrinsics and camera pose."""
    camera = dict(zip(store.manifest.camera_fields, store.cameras[index].astype(float), strict=True))
    depth = store.depth[index] * MILLIMETRE
    rows, columns = np.indices(depth.shape)
    rays = np.stack(
        [(columns - camera["cx"]) / camera["fx"], (rows - camera["cy"]) / camera["fy"], np.ones_like(depth)], axis=-1
    )
    turn = Rotation.from_quat([camera[name] for name in ("qx", "qy", "qz", "qw")]).as_matrix()
    return (rays * depth[..., None]) @ turn.T + [camera[name] for name in "xyz"]


def objects(store: Store, index: int) -> list[dict[str, float]]:
    """Factors of the objects that are there, categories by name."""
    there = [entity for entity, x in enumerate(store.factors["x"][index]) if not math.isnan(x)]
    names = {name: factor["values"] for name, factor in store.manifest.factors.items()}
    values = {name: array[index] for name, array in store.factors.items()}
    return [
        {name: names[name][values[name][entity]] if names[name] else float(values[name][entity]) for name in names}
        for entity in there
    ]


def arrays(store: Store) -> dict[str, np.ndarray]:
    named = {"images": store.images, "labels": store.labels, "depth": store.depth, "cameras": store.cameras}
    return named | {f"factors/{name}": array for name, array in store.factors.items()}


def all_objects(store: Store):
    """Index, label and factors of every object of a store."""
    for index in range(len(store)):
        for place, item in enumerate(objects(store, index)):
            yield index, store.manifest.background_labels + place, item


def test_scenes_depend_on_seed_and_number_and_not_on_processes(rooms: Store, tmp_path: Path) -> None:
    fewer = render(tmp_path / "fewer", "rooms", "--count", 60, "--seed", 3, "--depth", "--processes", 1)
    for name, array in arrays(fewer).items():
        np.testing.assert_array_equal(array, arrays(rooms)[name][:60], err_msg=name)
    other = render(tmp_path / "other", "rooms", "--count", 5, "--seed", 4, "--processes", 1)
    assert not any(np.array_equal(a, b) for a, b in zip(other.images, rooms.images, strict=False))


def test_depth_puts_floor_and_walls_where_they_are(rooms: Store) -> None:
    for index in range(0, COUNT, 8):
        world, labels = points(rooms, index), rooms.labels[index]
        assert np.all(rooms.depth[index][labels == 0] == 0)  # sky
        np.testing.assert_allclose(world[labels == 1][:, 2], 0, atol=2 * MILLIMETRE)
        for label, axis in ((2, 0), (3, 1)):
            wall = world[labels == label]
            top = wall[:, 2] > 2 - 0.01  # the wall's upper side is seen where the camera looks along it
            np.testing.assert_allclose(np.abs(wall[~top][:, axis]), 3, atol=10 * MILLIMETRE)


def test_depth_of_objects_lies_on_their_surface(rooms: Store) -> None:
    seen = set()
    for index, label, item in all_objects(rooms):
        surface = points(rooms, index)[rooms.labels[index] == label] - [item[axis] for axis in "xyz"]
        if len(surface) == 0:
            continue
        seen.add(item["shape"])
        assert np.abs(surface[:, 2]).max() <= item["z"] + 6 * MILLIMETRE  # it stands on the floor
        if item["shape"] == "sphere":
            np.testing.assert_allclose(np.linalg.norm(surface, axis=1), item["size"], rtol=0.02)
        if item["shape"] == "cylinder":
            width = np.hypot(surface[:, 0], surface[:, 1])
            assert width.max() <= 0.75 * item["size"] + 6 * MILLIMETRE
        if item["shape"] == "box":
            turned = surface @ Rotation.from_euler("z", item["rotation"]).as_matrix()
            np.testing.assert_allclose(np.abs(turned).max(axis=1), item["z"], atol=6 * MILLIMETRE)
    assert seen == {"sphere", "box", "cylinder", "capsule", "ellipsoid", "cone"}


def test_objects_have_the_hue_of_their_factors(rooms: Store) -> None:
    compared = 0
    for index, label, item in all_objects(rooms):
        mask = cv2.erode((rooms.labels[index] == label).astype(np.uint8), np.ones((3, 3)))
        hsv = cv2.cvtColor(rooms.images[index].astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[mask > 0]
        bright = hsv[hsv[:, 2] > 0.3]
        if len(bright) >= 10:
            off = (np.median(bright[:, 0]) / 360 - item["hue"] + 0.5) % 1 - 0.5
            assert abs(off) < 0.02
            compared += 1
    assert compared > COUNT


def test_train_rooms_have_three_objects_and_one_to_three_in_view(rooms: Store) -> None:
    visible = [len(np.unique(labels[labels >= 4])) for labels in rooms.labels]
    assert min(visible) >= 1
    assert set(visible) <= {1, 2, 3}
    assert all(len(objects(rooms, index)) == 3 for index in range(COUNT))
    hues, saturations = rooms.factors["hue"], rooms.factors["saturation"]
    assert 0 <= hues.min() < 0.02
    assert 0.98 < hues.max() <= 1
    assert 0.75 <= saturations.min() < 0.76
    assert saturations.max() <= 1


def test_camera_looks_from_a_ring_to_the_middle(rooms: Store) -> None:
    x, y, _, qx, qy, qz, qw = rooms.cameras[:, :7].T
    np.testing.assert_allclose(np.hypot(x, y), 2.6, atol=1e-5)
    forward = Rotation.from_quat(np.stack([qx, qy, qz, qw], axis=1)).apply([0, 0, 1])
    np.testing.assert_allclose(np.arctan2(forward[:, 1], forward[:, 0]), np.arctan2(-y, -x), atol=1e-4)
    pitch = np.degrees(np.arcsin(forward[:, 2]))
    assert -25 <= pitch.min() < -23
    assert 20 < pitch.max() <= 22


def test_other_variants_are_as_published(tmp_path: Path) -> None:
    six = render(tmp_path / "six", "rooms", "--variant", "six_objects", "--count", 30, "--processes", 1)
    same = render(tmp_path / "same", "rooms", "--variant", "identical_color", "--count", 30, "--processes", 1)
    empty = render(tmp_path / "empty", "rooms", "--variant", "empty_room", "--count", 5, "--processes", 1)
    for store in (six, same):
        assert {len(objects(store, index)) for index in range(30)} == {4, 5, 6}
        assert store.manifest.background_labels == 4
    for index in range(30):
        assert len({item["hue"] for item in objects(same, index)}) == 1
        assert len({item["hue"] for item in objects(six, index)}) > 1
    assert empty.labels.max() <= 3
    assert empty.factors == {}


def test_up_to_six_has_every_number_of_objects(tmp_path: Path) -> None:
    store = render(tmp_path / "rooms", "rooms", "--variant", "up_to_six", "--count", 60, "--processes", 1)
    assert {len(objects(store, index)) for index in range(60)} == {1, 2, 3, 4, 5, 6}


def test_tabletop_follows_clevr(tabletop: Store) -> None:
    assert tabletop.images.shape[1:3] == (128, 128)
    for index, label, item in all_objects(tabletop):
        mask = tabletop.labels[index] == label
        assert mask.any(), "every object is in view"
        surface = points(tabletop, index)[mask] - [item[axis] for axis in "xyz"]
        if item["shape"] == "sphere":
            radius = {"small": 0.35, "large": 0.7}[item["size"]]
            np.testing.assert_allclose(np.linalg.norm(surface, axis=1), radius, rtol=0.02)
        assert np.abs(surface[:, 2]).max() <= item["z"] + 10 * MILLIMETRE
    numbers = [len(objects(tabletop, index)) for index in range(len(tabletop))]
    assert min(numbers) >= 3
    assert max(numbers) <= 10
    assert [tabletop.labels[index].max() for index in range(len(tabletop))] == numbers


def test_tabletop_casts_shadows_unless_told_not_to(tabletop: Store, tmp_path: Path) -> None:
    bare = render(tmp_path / "bare", "tabletop", "--count", 12, "--shadow-size", 0, "--processes", 1)
    assert np.array_equal(bare.labels, tabletop.labels)
    table = bare.labels == 0
    darker = bare.images[table].mean(axis=1) - tabletop.images[table].mean(axis=1) > 10
    assert 0.01 < darker.mean() < 0.5


def test_clutter_labels_only_objects_that_are_there(clutter: Store) -> None:
    for index in range(len(clutter)):
        there = objects(clutter, index)
        assert 1 <= len(there) <= 6
        assert clutter.labels[index].max() <= len(there)
    for index, label, item in all_objects(clutter):
        surface = points(clutter, index)[clutter.labels[index] == label] - [item[axis] for axis in "xyz"]
        if len(surface):
            assert np.linalg.norm(surface, axis=1).max() <= math.sqrt(3) * item["size"] + 0.02
    assert len(np.unique(clutter.factors["shape"])) > 10


def test_killed_at_random_moments_it_goes_on_and_leaves_nothing_wrong(rooms: Store, tmp_path: Path) -> None:
    """Also no drawing process that outlives the command."""
    path = tmp_path / "store"
    command = [sys.executable, "-m", "train.render", "rooms", "--store", str(path)]
    command += ["--count", str(COUNT), "--seed", "3", "--depth", "--processes", "2"]
    random = np.random.default_rng()
    for _ in range(3):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        before = written(tmp_path)
        while process.poll() is None and written(tmp_path) <= before:  # it would still be importing
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert ends_soon(process.pid)
        try:
            Store.open(path, verify=True)
        except StoreError:
            continue
        break  # it was done before it was killed
    else:
        subprocess.run(command, check=True, capture_output=True)
    whole = Store.open(path, verify=True)
    assert {name: info["sha256"] for name, info in whole.manifest.arrays.items()} == {
        name: info["sha256"] for name, info in rooms.manifest.arrays.items()
    }


def written(folder: Path) -> int:
    """Bytes of images in the stores of a folder, also in unfinished ones."""
    sizes = []
    for path in folder.rglob("images.npy"):
        with contextlib.suppress(FileNotFoundError):  # an unfinished store may be renamed at any time
            sizes.append(path.stat().st_size)
    return sum(sizes)


def ends_soon(session: int) -> bool:
    """Whether all processes of a session end within ten seconds."""
    for _ in range(200):
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rooms", "--store", "{taken}", "--count", "1"], "exists"),
        (["rooms"], "nothing to make"),
        (["rooms", "--store", "{new}"], "--count"),
        (["rooms", "--sequence", "{new}.mcap", "--seconds", "0.1", "--store", "{new}"], "--count"),
        (["rooms", "--sequence", "{new}.mcap", "--seconds", "0.1", "--store", "{taken}", "--count", "1"], "exists"),
        (["clutter", "--tfrecords", "{new}", "--count", "1"], "no published encoding for clutter"),
        (["clutter", "--store", "{new}", "--tfrecords", "{taken}", "--count", "1"], "no published encoding"),
        (["rooms", "--variant", "up_to_six", "--tfrecords", "{new}", "--count", "1"], "no published encoding"),
        (["rooms", "--sequence", "{new}.mcap", "--objects", "60"], "take fewer"),
        (
            ["rooms", "--sequence", "{new}.mcap", "--variant", "empty_room", "--size", "32"],
            "--size, --variant: of stores",
        ),
        (["rooms", "--sequence", "{new}.mcap", "--seconds", "0.01"], "0.01 seconds at 10 images a second make no"),
        (["rooms", "--store", "{thesis}", "--count", "1", "--overwrite"], "thesis is no store"),
        (["rooms", "--sequence", "{new}", "--store", "{thesis}", "--count", "1", "--overwrite"], "thesis is no store"),
        (["overview", "--output", "{new}.xyz"], "new.xyz doesn't end as a picture does"),
    ],
)
def test_a_mistake_is_named(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {name: tmp_path / name for name in ("taken", "thesis", "new")}
    names["taken"].mkdir()
    names["thesis"].mkdir()
    (names["thesis"] / "chapter.txt").write_text("years of work")
    assert main([argument.format(**names) for argument in arguments]) == 1
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["chapter.txt", "taken", "thesis"]


@pytest.mark.parametrize("arguments", [["rooms", "--store", "x", "--count", "0"], ["rooms", "--seed", "-1"]])
def test_senseless_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error" in capsys.readouterr().err


def test_without_opengl_the_error_names_the_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.render", "rooms", "--count", "1", "--store", str(tmp_path / "store")]
    surroundings = {**os.environ, "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}  # no driver there
    run = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert run.returncode == 1
    assert "apt install libegl1 libgl1-mesa-dri libgles2" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_way_to_draw_that_mujoco_doesn_t_know_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.render", "rooms", "--count", "1", "--store", str(tmp_path / "store")]
    run = subprocess.run(command, env={**os.environ, "MUJOCO_GL": "banana"}, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: MuJoCo can't be loaded")
    assert "banana); MUJOCO_GL has to be egl or unset" in run.stderr


@pytest.mark.parametrize("frame", ["320", "320x", "7x320"])
def test_the_size_of_a_frame_is_explained(frame: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rooms", "--sequence", "a.mcap", "--frame", frame])
    assert "a size is written" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--size", "--shadow-size"])
def test_pictures_too_large_for_opengl_are_named_as_the_reason(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rooms", "--count", "1", "--processes", "1", "--store", str(tmp_path / "store")]
    assert main([*command, option, "100000"]) == 1
    assert "take a smaller --size, --frame or --shadow-size" in (error := capsys.readouterr().err)
    assert "apt install" not in error


@pytest.mark.parametrize(("option", "name"), [("--tfrecords", "."), ("--sequence", "room.mcap")])
def test_a_file_that_is_told_to_end_leaves_nothing(option: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    command = [sys.executable, "-m", "train.render", "rooms", option, str(folder / name)]
    command += ["--count", "100000", "--processes", "1", "--seconds", "10000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folder.is_dir() and any(folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any(folder.iterdir()), "it has begun"
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert ends_soon(process.pid)
    assert list(folder.iterdir()) == []


def test_more_scenes_go_on_with_fewer(rooms: Store, tmp_path: Path) -> None:
    job = RenderJob("rooms/train", COUNT, seed=3, depth=True)
    writer = StoreWriter(tmp_path / "store", job.layout, 100)
    named = {name: arrays(rooms)[name][:50] for name in ("images", "labels", "depth", "cameras")}
    writer.write(0, **named, factors={name: array[:50] for name, array in rooms.factors.items()})
    writer.sync()
    writer.close()
    drawn: list[int] = []
    more = draw_store(job, tmp_path / "store", processes=1, progress=drawn.append)
    assert drawn[0] == 50, "those were not drawn again"
    for name, array in arrays(more).items():
        np.testing.assert_array_equal(array, arrays(rooms)[name], err_msg=name)


def test_renderers_don_t_disturb_each_other() -> None:
    code = """
import numpy as np
from train.scenes.drawing import SceneDrawer, RenderJob
first = SceneDrawer(RenderJob("tabletop", 4))
before = first.draw(0, 1)["images"]
second = SceneDrawer(RenderJob("clutter", 4))
again = second.draw(0, 1)["images"]
assert np.array_equal(first.draw(0, 1)["images"], before)
del first
assert np.array_equal(second.draw(0, 1)["images"], again)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_overview_shows_every_kind(tmp_path: Path) -> None:
    # In a process of its own, as it draws in the process that is asked (train/scenes/renderer.py).
    page = tmp_path / "page.png"
    run = subprocess.run(
        [sys.executable, "-m", "train.render", "overview", "--columns", "1", "--output", str(page)], capture_output=True
    )
    assert run.returncode == 0
    assert cv2.imread(str(page)).std() > 30
