"""Makes foxglove.png: opens a recording of record.py in Lichtblick, the open viewer that goes on from Foxglove Studio,
with the shipped layout, in a headless Chromium.

    python docs/images/viewer.py lichtblick/web/.webpack scene.mcap --seconds 9

The first argument is Lichtblick's web application as its `yarn web:build:prod` leaves it. The picture in the docs was
brought to 256 colours: `convert foxglove.png -dither None -colors 256 foxglove.png`.
"""

import argparse
import json
import mimetypes
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Route, sync_playwright
from rosbags.highlevel import AnyReader

LAYOUT = Path(__file__).parents[2] / "config" / "foxglove.json"
ADDRESS = "http://localhost"  # nothing listens there: the browser's requests are answered here
PLACEHOLDER = "/*LICHTBLICK_SUITE_DEFAULT_LAYOUT_PLACEHOLDER*/"


class Files:
    """Answers the browser's requests: the viewer's files, with the layout as its default, and the recording.

    Args:
        viewer: folder of the web application.
        recording: MCAP file.
    """

    def __init__(self, viewer: Path, recording: Path) -> None:
        self._viewer = viewer
        self._recording = recording.read_bytes()

    def answer(self, route: Route) -> None:
        """Fulfils one request."""
        name = route.request.url.removeprefix(ADDRESS).split("?")[0].strip("/") or "index.html"
        if name == "scene.mcap":
            self._answer_with_range(route)
            return
        path = self._viewer / name
        if not route.request.url.startswith(ADDRESS) or not path.is_file():
            route.fulfill(status=404)
            return
        body = path.read_bytes()
        if name == "index.html":
            layout = json.dumps(json.loads(LAYOUT.read_text()))
            body = body.replace(PLACEHOLDER.encode(), layout.encode())
        route.fulfill(body=body, content_type=mimetypes.guess_type(name)[0] or "application/octet-stream")

    def _answer_with_range(self, route: Route) -> None:
        size = len(self._recording)
        headers = {"accept-ranges": "bytes", "content-type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", route.request.headers.get("range", ""))
        if wanted is None:
            route.fulfill(body=self._recording, headers={**headers, "content-length": str(size)})
            return
        first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        headers["content-range"] = f"bytes {first}-{last}/{size}"
        route.fulfill(status=206, body=self._recording[first : last + 1], headers=headers)


def instant(recording: Path, seconds: float) -> str:
    """So many seconds after the beginning of a recording, as the viewer's address takes it."""
    with AnyReader([recording]) as reader:
        moment = datetime.fromtimestamp(reader.start_time / 1e9 + seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("viewer", type=Path)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--seconds", type=float, default=9.0, help="which moment of the recording (%(default)s)")
    parser.add_argument("--patience", type=float, default=180.0, help="seconds for drawing without a GPU (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("foxglove.png"))
    options = parser.parse_args()
    query = {
        "ds": "remote-file",
        "ds.url": f"{ADDRESS}/scene.mcap",
        "time": instant(options.recording, options.seconds),
    }
    with sync_playwright() as driver:
        drawn = "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=drawn)
        context = browser.new_context(viewport={"width": 1400, "height": 900}, service_workers="block")
        context.route("**/*", Files(options.viewer, options.recording).answer)
        page = context.new_page()
        page.on("pageerror", lambda error: print(error))
        page.goto(f"{ADDRESS}/?{urlencode(query)}")
        page.wait_for_timeout(1000 * options.patience)
        page.screenshot(path=options.output)
        browser.close()


if __name__ == "__main__":
    main()
