"""The demo as a user runs it: three processes over DDS, on a stand-in clip of a second and a half."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from ray_cast import CLIP_FRAMES, COMPRESSED, COMPRESSED_DEPTH, write_clip

from monet_perception.checkpoint import save_checkpoint
from monet_perception.clip import DEMO_CLIP
from monet_perception.networks import PRESETS, Monet
from monet_perception.nodes.camera import Clip
from monet_perception.pictures import ANIMATION_FRAMES, Pictures, draw_panels, write_gif
from monet_perception.region import Region


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mcap")


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monet_perception.nodes.demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_the_demo_ends_by_itself_with_a_video_a_picture_and_a_summary(clip, tmp_path):
    checkpoint = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint, Monet(PRESETS["monet_rn18_star"]), dataset="none", steps=0)
    run = demo("--clip", clip, "--checkpoint", checkpoint, "--output", tmp_path / "out", "--gif")
    assert run.returncode == 0, run.stderr
    answered, seen = map(int, re.findall(r"(\d+) of (\d+) frames answered", run.stdout)[-1])
    assert seen == CLIP_FRAMES
    assert 0 < answered <= seen
    assert "every visible object in a slot of its own" in run.stdout
    assert re.search(r"latency, image stamp to slots: median [\d.]+ ms", run.stdout)
    for name in ("overlay.mp4", "overlay.png", "overlay.gif"):
        assert f"{tmp_path / 'out' / name}" in run.stdout
    video = cv2.VideoCapture(str(tmp_path / "out/overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == answered
    assert cv2.imread(str(tmp_path / "out/overlay.png")).shape == (360, 3 * 360 + 12, 3)
    # Depth and camera_info found their way: slots have a place in 3D.
    assert re.search(r"[+-]\d\.\d\d [+-]\d\.\d\d \+\d\.\d\d", run.stdout)


@pytest.mark.parametrize(("pressed", "pause"), [(2, 0.3), (200, 0.002)], ids=["twice", "hammered"])
def test_ctrl_c_again_leaves_no_process_behind(pressed, pause, clip, tmp_path):
    """Their sessions are their own, so nothing else would end them."""
    command = [sys.executable, "-m", "monet_perception.nodes.demo", "--clip", str(clip), "--loop"]
    run = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )
    deadline = time.monotonic() + 60
    while not (children := _children(run.pid, 3)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children
    for _ in range(pressed):
        run.send_signal(signal.SIGINT)
        time.sleep(pause)
    assert run.wait(60) == 1, "not by what the interruption raised"
    while (left := [child for child in children if _runs(child)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _children(parent: int, count: int) -> list[int]:
    """Process ids of a demo's children, once there are as many."""
    found = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return found if len(found) == count else []


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_clip_of_compressed_images_is_answered_too(tmp_path):
    checkpoint = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint, Monet(PRESETS["monet_rn18_star"]), dataset="none", steps=0)
    clip = write_clip(tmp_path / "clip.mcap", COMPRESSED, COMPRESSED_DEPTH)
    run = demo("--clip", clip, "--checkpoint", checkpoint, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert re.search(rf"[1-9]\d* of {CLIP_FRAMES} frames answered", run.stdout)
    # The ball is there, in its colour: the images were decoded, not only counted.
    camera = cv2.imread(str(tmp_path / "out/overlay.png"))[30:, :360]
    assert (np.abs(camera.astype(int) - [157, 61, 238]).max(axis=2) < 40).mean() > 0.05
    assert re.search(r"[+-]\d\.\d\d [+-]\d\.\d\d \+\d\.\d\d", run.stdout), "the depth likewise"


def test_without_slots_the_demo_fails_and_shows_why(clip, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"PK\x03\x04 no checkpoint")
    run = demo("--clip", clip, "--checkpoint", tmp_path / "broken.safetensors", "--output", tmp_path / "out")
    assert run.returncode == 1
    assert "No slots arrived" in run.stderr
    assert "it may run code when it is loaded" in run.stderr  # what decompose said


@pytest.mark.parametrize(("option", "name"), [("--clip", "clip"), ("--checkpoint", "checkpoint")])
def test_a_missing_file_is_named_at_once(clip, tmp_path, option, name):
    run = demo("--clip", clip, option, tmp_path / "none", "--output", tmp_path / "out")
    assert run.returncode == 1
    assert f"no {name} at {tmp_path / 'none'}" in run.stderr


def test_a_clip_that_is_none_is_refused_at_once(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"nothing")
    run = demo("--clip", tmp_path / "a.mcap", "--output", tmp_path / "out")
    assert run.returncode == 1
    assert re.search(r"demo: .*a\.mcap can't be read as a rosbag2 folder", run.stderr)
    assert not (tmp_path / "out").exists()  # no node was started


def test_a_clip_that_is_damaged_further_on_ends_the_camera_with_a_line(tmp_path):
    content = bytearray(DEMO_CLIP.read_bytes())
    place = len(content) // 10
    content[place : place + 5000] = bytes(5000)
    (tmp_path / "damaged.mcap").write_bytes(content)
    command = [sys.executable, "-m", "monet_perception.nodes.camera", "--clip", tmp_path / "damaged.mcap"]
    run = subprocess.run([*command, "--wait-for", "0"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert re.search(r"^camera: .*damaged\.mcap: the recording is damaged from here on", run.stderr, re.MULTILINE)
    assert "Traceback" not in run.stderr


def test_a_folder_that_cannot_be_written_is_named(clip, tmp_path):
    (tmp_path / "taken").write_text("a file")
    run = demo("--clip", clip, "--output", tmp_path / "taken")
    assert run.returncode == 1
    assert run.stderr.startswith(f"demo: can't write to {tmp_path / 'taken'}: File exists")


def test_the_shipped_clip_is_what_the_demo_needs():
    clip = Clip(DEMO_CLIP)
    assert {"/camera/depth", "/camera/camera_info", "/camera/labels", "/camera/pose"} <= set(clip.topics)
    times = [message.time for message in clip if message.topic == clip.image_topic]
    assert 10 <= (times[-1] - times[0]) / 1e9 <= 20
    assert DEMO_CLIP.stat().st_size <= 8_000_000


def test_animations_keep_frames_from_all_of_a_run(tmp_path):
    pictures = Pictures(tmp_path, animation=True)
    for index in range(200):
        pictures.add(index / 10, np.full((40, 120, 3), index, np.uint8), (0.0,))
    pictures.close()
    with PillowImage.open(pictures.gif) as gif:
        assert ANIMATION_FRAMES // 2 <= gif.n_frames <= ANIMATION_FRAMES
        gif.seek(gif.n_frames - 1)
        assert np.asarray(gif.convert("RGB")).mean() > 190


def panels(index: int, reconstructions: bool) -> np.ndarray:
    """Panels of a frame whose camera image gets brighter with the index."""
    image, masks = np.full((48, 48, 3), 8 * index, np.uint8), np.ones((1, 8, 8), np.float32)
    decoded = np.full((1, 8, 8, 3), 8 * index, np.uint8) if reconstructions else None
    return draw_panels(image, masks, [1], Region(0, 0, 48, 48), decoded)


@pytest.mark.parametrize("first", [True, False])
def test_reconstructions_that_come_and_go_leave_every_file_its_size(tmp_path, first):
    pictures, switches = Pictures(tmp_path, animation=True), (5, 15)  # before and after the video is begun
    for index in range(20):
        with_reconstruction = first ^ (switches[0] <= index < switches[1])
        pictures.add(index / 10, panels(index, with_reconstruction), (float(index == 10),))
    assert pictures.close() == [pictures.video, pictures.still, pictures.gif]
    shape = (360, 3 * 360 + 12 if first else 2 * 360 + 6, 3)

    video = cv2.VideoCapture(str(pictures.video))
    frames = [frame for ok, frame in iter(video.read, (False, None)) if ok]
    assert [frame.shape for frame in frames] == [shape] * 20
    brightness = np.array([frame[100:300, 100:300].mean() for frame in frames])
    np.testing.assert_allclose(brightness, 8 * np.arange(20), atol=6)  # none was left out, each is where it was
    still = cv2.imread(str(pictures.still))
    assert still.shape == shape
    assert not first or (still[:, 740:] == 255).all()
    with PillowImage.open(pictures.gif) as gif:
        sizes = []
        for number in range(gif.n_frames):
            gif.seek(number)
            sizes.append(gif.size)
    assert len(sizes) == 20
    assert set(sizes) == {(min(800, shape[1]), round(min(800, shape[1]) * 360 / shape[1]))}


def test_pictures_of_an_earlier_run_stay_until_there_are_new_ones(tmp_path):
    pictures = Pictures(tmp_path)
    pictures.video.write_bytes(b"an earlier run")
    for index in range(20):
        pictures.add(index / 10, panels(index, reconstructions=True), (0.0,))
    assert pictures.video.read_bytes() == b"an earlier run"
    pictures.close()
    assert cv2.VideoCapture(str(pictures.video)).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overlay.mp4", "overlay.png"]


@pytest.mark.parametrize("name", ["overlay.mp4", "overlay.png", "overlay.gif"])
def test_a_picture_that_cannot_be_written_is_not_reported_as_written(tmp_path, name):
    (tmp_path / name).mkdir()
    pictures = Pictures(tmp_path, animation=True)
    pictures.add(0.0, panels(1, reconstructions=True), (0.0,))
    with pytest.raises(OSError, match=re.escape(name)):
        pictures.close()
    assert not list(tmp_path.glob(".overlay*"))


def test_animations_stay_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (4, 60, 200, 3), np.uint8)
    write_gif(tmp_path / "a.gif", list(enumerate(noise)), largest=15_000)
    assert (tmp_path / "a.gif").stat().st_size <= 15_000
