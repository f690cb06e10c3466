"""Makes explorer.png: starts the latent explorer, moves a latent in a headless Chromium and takes a picture.

python docs/images/explorer.py CHECKPOINT STORE --scene 3 --latent 0 --to 0.85 --backend torch
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("store")
    parser.add_argument("--scene", type=int, default=3)
    parser.add_argument("--latent", type=int, default=0, help="which slider from the top is dragged")
    parser.add_argument("--to", type=float, default=0.85, help="as a share of its length")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("explorer.png"))
    options, rest = parser.parse_known_args()  # the rest goes to train.explore
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "train.explore", options.checkpoint, "--store", options.store, "--port", str(port)]
    command += rest
    server = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}/"
        wait_for(address, server)
        take_picture(address, options)
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the page is served; raise if the server ends before."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise SystemExit("the explorer ended before it served its page")


def take_picture(address: str, options: argparse.Namespace) -> None:
    """Open a scene, drag a slider, wait until the network has answered, save the page as a picture."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1250})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator("#scene input").fill(str(options.scene))
        page.locator("#latent-0", has_text="nats").wait_for()
        page.locator("#other-composed img").wait_for()
        page.wait_for_timeout(10_000)
        slider = page.locator(f"#latent-{options.latent} input[type=range]")
        box = slider.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * options.to, middle, steps=5)
        page.mouse.up()
        page.wait_for_timeout(10_000)
        page.screenshot(path=options.output)
        browser.close()


if __name__ == "__main__":
    main()
