"""The explorer, used as its users use it: the command is started, a real browser clicks and drags."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from painted_scenes import paint_store, save_network

from monet_perception.assessment import kl_per_latent
from monet_perception.checkpoint import load_checkpoint, save_checkpoint
from monet_perception.decomposer import Decomposer
from train.composition import compose
from train.data.store import Store
from train.exploration import Explorer, drag_latents, swap
from train.explore import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 60_000  # milliseconds; the machine may be busy


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return paint_store(tmp_path_factory.mktemp("stores") / "painted", count=160)


@pytest.fixture(scope="module")
def decomposer(network: Path) -> Decomposer:
    return Decomposer(network, device="cpu", backend="torch", precision="fp32", crop="whole")


def test_swapped_slots_carry_their_latents(decomposer: Decomposer, store: Store) -> None:
    explorer = Explorer(decomposer, store)
    first, second = explorer.scene(3), explorer.scene(7)
    left, right = swap(first, 1, second, 4)
    np.testing.assert_array_equal(left.latents[1], second.encoded[4])
    np.testing.assert_array_equal(right.latents[4], first.encoded[1])
    np.testing.assert_array_equal(np.delete(left.latents, 1, axis=0), np.delete(first.latents, 1, axis=0))
    back, _ = swap(left, 1, right, 4)
    np.testing.assert_array_equal(back.latents, first.latents)


def test_places_beyond_the_store_are_its_ends(decomposer: Decomposer, store: Store) -> None:
    explorer = Explorer(decomposer, store)
    assert explorer.scene(10_000).index == len(store) - 1
    assert explorer.scene(-1).index == 0


def test_only_dragged_latents_move(decomposer: Decomposer, store: Store) -> None:
    scene = Explorer(decomposer, store).scene(3)
    order = scene.order(2)
    values = [round(float(scene.latents[2, z]), 2) for z in order]
    np.testing.assert_array_equal(drag_latents(scene, 2, values).latents, scene.latents)
    values[1] += 0.01
    moved = drag_latents(scene, 2, values).latents
    assert moved[2, order[1]] == np.float32(values[1])
    assert (moved != scene.latents).sum() == 1


def test_errors_name_the_cause(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="the explorer needs gradio: pip install 'monet_perception[explore]'")
    assert main([str(network), "--store", str(tmp_path / "nowhere")]) == 1
    assert "there is no store at" in capsys.readouterr().err


def test_a_network_that_overflows_is_told_in_a_line(
    network: Path, decomposer: Decomposer, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gradio = pytest.importorskip("gradio", reason="the explorer needs gradio: pip install 'monet_perception[explore]'")
    from train.explorer_page import ExplorerPage

    monet, _ = load_checkpoint(network)
    with torch.no_grad():
        for layer in (0, -1):  # either alone stays within float32
            monet.component.encoder.mlp[layer].weight.mul_(1e25)
    broken = tmp_path / "broken.safetensors"
    save_checkpoint(broken, monet, dataset="painted", steps=0)
    assert main([str(broken), "--store", str(store.path), "--backend", "torch"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: network ")
    assert "values that are not finite for 1 of 1 images" in error

    page = ExplorerPage(Explorer(decomposer, store), "sound in its first scenes", 8, 0.0)
    page.explorer = Explorer(Decomposer(broken, device="cpu", backend="torch"), store)
    with pytest.raises(gradio.Error, match="values that are not finite for 8 of 8 images"):
        page.show_scores()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--min-iou", "7", "from 0 to 1, not 7"), ("--port", "70000", "at most 65535"), ("--port", "0", "at least 1")],
)
def test_options_name_their_range(
    option: str, value: str, message: str, network: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(network), "--store", str(store.path), option, value])
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(network: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The command, running."""
    pytest.importorskip("gradio", reason="the explorer needs gradio: pip install 'monet_perception[explore]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "train.explore", str(network), "--store", str(store.path), "--port", str(port)]
    command += ["--backend", "torch", "--min-iou", "0"]  # untrained slots hold no object
    log = tmp_path_factory.mktemp("explorer") / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield _when_served(f"http://127.0.0.1:{port}/", process, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _when_served(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + WAIT / 1000 * 2
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return url
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the explorer did not come up: {log.read_text()}")


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The page in a headless Chromium; `page.requested` are all addresses that it asked for."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven with playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(WAIT)
            page.requested = []
            page.on("request", lambda request: page.requested.append(request.url))
            page.goto(address)
            yield page
        finally:
            browser.close()


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def shown(page: Any, name: str) -> np.ndarray:
    """The picture that the page shows under a name, as RGB."""
    source = page.locator(f"#{name} img").get_attribute("src")
    raw = page.request.get(source).body()
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def eventually_shows(page: Any, name: str, expected: np.ndarray) -> None:
    """Waits until the page shows `expected`, up to rounding."""
    deadline = time.monotonic() + WAIT / 1000
    picture = None
    while time.monotonic() < deadline:
        if page.locator(f"#{name} img").count():
            picture = shown(page, name)
            if picture.shape == expected.shape and np.abs(picture.astype(int) - expected.astype(int)).max() <= 1:
                return
        page.wait_for_timeout(200)
    assert picture is not None, f"no picture at {name}"
    np.testing.assert_allclose(picture.astype(int), expected.astype(int), atol=1, err_msg=name)


def drag(page: Any, place: int, share: float) -> float:
    """Drags the slider at a place from the top to a share of its length; returns the value it then says."""
    slider = page.locator(f"#latent-{place} input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (0.5 + share) / 2, box["y"] + box["height"] / 2, steps=3)
    page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    return float(slider.input_value())


def test_a_user_explores(page: Any, decomposer: Decomposer, store: Store) -> None:
    # A scene is opened: what the network saw, and what it makes of it.
    page.locator("#scene input").fill("7")
    page.locator("#scene input").press("Enter")
    eventually_shows(page, "input", np.array(store.images[7]))
    seen = decomposer(np.array(store.images[7]))
    encoded, log_sigma = seen.latent_mean, seen.latent_log_sigma
    eventually_shows(page, "composed", to_bytes(compose(decomposer, encoded).image))

    # A slot is picked: its own picture, its most active latent on the top slider.
    page.locator("#slot label", has_text="S3").click()
    whole = compose(decomposer, encoded)
    eventually_shows(page, "unmasked", to_bytes(whole.reconstructions[2]))
    eventually_shows(page, "masked", to_bytes(whole.reconstructions[2] * whole.masks[2][..., None]))
    top = int(np.argmax(kl_per_latent(encoded[2], log_sigma[2])))
    page.locator("#latent-0", has_text=f"z{top + 1} ").wait_for()

    # Its latent is dragged: slot and scene are what the network decodes from the value that the slider says.
    value = drag(page, 0, 0.9)
    assert value > 1.5
    moved = encoded.copy()
    moved[2, top] = value
    dragged = compose(decomposer, moved)
    assert np.abs(dragged.image - whole.image).max() > 0.02  # there is something to see
    eventually_shows(page, "unmasked", to_bytes(dragged.reconstructions[2]))
    eventually_shows(page, "composed", to_bytes(dragged.image))

    # A second latent moves from there, not from the beginning.
    second = int(np.argsort(-kl_per_latent(encoded[2], log_sigma[2]), kind="stable")[1])
    moved[2, second] = drag(page, 1, 0.1)
    eventually_shows(page, "composed", to_bytes(compose(decomposer, moved).image))

    # A click on the segmentation picks the slot that owns the pixel, and a click on the button picks ours again.
    owner = int(seen.masks[:, 16, 16].argmax())
    page.locator("#segmentation img").click()
    page.locator("#slot label.selected", has_text=f"S{owner + 1}").wait_for()
    eventually_shows(page, "unmasked", to_bytes(compose(decomposer, moved).reconstructions[owner]))
    page.locator("#slot label", has_text="S3").click()
    eventually_shows(page, "unmasked", to_bytes(compose(decomposer, moved).reconstructions[2]))

    # The slot is swapped with one of another scene: both scenes change.
    page.locator("#other input").fill("11")
    page.locator("#other input").press("Enter")
    other = decomposer(np.array(store.images[11])).latent_mean.copy()
    eventually_shows(page, "other-composed", to_bytes(compose(decomposer, other).image))
    page.locator("#other-slot label", has_text="S2").click()
    page.locator("#swap").click()
    moved[2], other[1] = other[1].copy(), moved[2].copy()
    eventually_shows(page, "composed", to_bytes(compose(decomposer, moved).image))
    eventually_shows(page, "other-composed", to_bytes(compose(decomposer, other).image))

    # And everything is put back.
    page.locator("#reset").click()
    eventually_shows(page, "composed", to_bytes(whole.image))

    # Nothing came from anywhere but this machine.
    outside = [url for url in page.requested if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert outside == []


def test_scores_are_shown(page: Any) -> None:
    page.locator("#disentanglement button").first.click()
    page.locator("#score").click()
    page.locator("#scores", has_text="InfoM").first.wait_for()
    page.locator("#importance img").wait_for()
