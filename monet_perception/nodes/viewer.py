"""The demo's viewer: a live table of the slots, pictures of them, and how many frames were answered and separated."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from monet_perception_msgs.msg import SlotArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from sensor_msgs.msg import CompressedImage, Image

from monet_perception.labels import separated
from monet_perception.nodes.conversions import to_rgb
from monet_perception.nodes.process import LOG_EVERY, NOT_WRITTEN, ros, spin
from monet_perception.nodes.qos import BestAvailableSubscription
from monet_perception.nodes.slot_messages import read_masks, read_reconstructions, read_region
from monet_perception.nodes.tally import Tally
from monet_perception.nodes.viewer_table import slot_table
from monet_perception.pictures import Pictures, draw_panels
from monet_perception.raw_images import MessageError, read_labels
from monet_perception.region import Region
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds

KEPT = 60
"""Frames that wait for their missing parts."""
REFRESH = 0.25
"""Seconds between two refreshes of the table."""
LAST_MESSAGES = 0.5
"""Seconds without a message after which those that were on their way have come."""
PLAIN_REFRESH = 2.0
"""Seconds between two lines where the output is no terminal."""


class ViewerNode(Node):
    """Puts images, labels and slots of the same stamp together, in whatever order they come.

    Args:
        pictures: what to write; None: nothing.
        show: also in a window.
    """

    def __init__(self, pictures: Pictures | None, show: bool = False) -> None:
        super().__init__("viewer")
        self.tally = Tally()
        self.newest: SlotArray | None = None
        self._pictures = pictures
        self._show = show
        self._frames: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._arrivals: deque[float] = deque(maxlen=30)
        self._last = time.monotonic()
        self._not_drawn = ""
        image = self.resolve_topic_name("image")
        self._image_topics = (image, f"{image}/compressed")
        # Long, because it counts the frames, and may be slow to draw them.
        every = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_AVAILABLE)
        for kind, topic, callback in (
            (Image, self._image_topics[0], self._on_image),
            (CompressedImage, self._image_topics[1], self._on_image),
            (Image, "labels", lambda message: self._add("labels", message)),
            (SlotArray, "scene/slots", self._on_slots),
        ):
            BestAvailableSubscription(self, kind, topic, callback, every).open()

    def rate(self) -> float:
        """Slot messages a second, lately."""
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / (self._arrivals[-1] - self._arrivals[0])

    def finished(self) -> bool:
        """Whether the viewer may end now that it was asked to.

        At once while the camera runs, which could send for ever; else when nothing came for `LAST_MESSAGES` seconds.
        """
        camera_runs = any(self.count_publishers(name) for name in self._image_topics)
        return camera_runs or time.monotonic() - self._last > LAST_MESSAGES

    def why_no_picture(self) -> str:
        """Why slots, which came, gave no picture, as a sentence."""
        if self._not_drawn:
            return f"no frame could be drawn: {self._not_drawn}"
        if self.tally.images:
            return f"no image on {self._image_topics[0]} had the stamp of its slots: is it the camera of the slots?"
        return f"no image came on {' or '.join(self._image_topics)}: name the camera's topic with -r image:="

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.tally.add_image(stamp_nanoseconds(message.header))
        self._add("image", message)

    def _on_slots(self, message: SlotArray) -> None:
        stamp = stamp_nanoseconds(message.header)
        self._arrivals.append(time.monotonic())
        self.tally.add_slots(stamp, (self.get_clock().now().nanoseconds - stamp) / NANOSECONDS)
        self.newest = message
        self._add("slots", message)

    def _add(self, part: str, message: Any) -> None:
        """Keeps a part of a frame, and looks at the frame when nothing of it is missing."""
        self._last = time.monotonic()
        stamp = stamp_nanoseconds(message.header)
        parts = self._frames.setdefault(stamp, {})
        parts[part] = message
        while len(self._frames) > KEPT:
            self._frames.popitem(last=False)
        if {"image", "slots"} <= parts.keys() and ("labels" in parts or not self.count_publishers("labels")):
            del self._frames[stamp]
            try:
                self._look_at(stamp, **parts)
            except MessageError as error:
                self._not_drawn = str(error)
                self.get_logger().warning(f"frame not drawn: {error}", throttle_duration_sec=LOG_EVERY)

    def _look_at(
        self, stamp: int, image: Image | CompressedImage, slots: SlotArray, labels: Image | None = None
    ) -> None:
        masks, roi = read_masks(slots), read_region(slots)
        merit = self._score(masks, roi, labels)
        if self._pictures is None and not self._show:
            return
        rgb = to_rgb(image)
        tracks = [slot.track_id for slot in slots.slots]
        panels = draw_panels(rgb, masks, tracks, roi, read_reconstructions(slots))
        if self._pictures is not None:
            self._pictures.add(stamp / NANOSECONDS, panels, merit)
        if self._show:
            cv2.imshow("monet_perception", cv2.cvtColor(panels, cv2.COLOR_RGB2BGR))
            cv2.waitKey(1)

    def _score(self, masks: NDArray[np.float32], roi: Region, labels: Image | None) -> tuple[float, ...]:
        """Counts the frame's separated objects; returns its merit as a picture of what the network can do."""
        if labels is None:
            return (0.0, 0.0, float(len(np.unique(masks.argmax(axis=0)))))
        own, visible = separated(masks, roi, read_labels(labels))
        if visible:
            self.tally.labelled += 1
            self.tally.all_separated += own == visible
            self.tally.objects += visible
            self.tally.objects_separated += own
        return (float(own == visible), float(own), 0.0)


def _screen(node: ViewerNode) -> Group:
    tally = node.tally
    latency = f"{1e3 * float(np.median(tally.latencies)):.0f} ms" if tally.latencies else "-"
    line = f"{node.rate():.1f} Hz   latency {latency}   {tally.answered} of {tally.images} frames answered"
    newest = node.newest
    return Group(Text(line), Text("waiting for slots on scene/slots") if newest is None else slot_table(newest))


def _watch(node: ViewerNode, console: Console, stop: threading.Event) -> None:
    """Shows the table while the node runs: live in a terminal, as a line now and then elsewhere."""
    shown = 0.0

    def show(live: Live | None) -> bool:
        nonlocal shown
        if time.monotonic() - shown >= (PLAIN_REFRESH if live is None else REFRESH):
            shown = time.monotonic()
            if live is None:
                console.print(_screen(node).renderables[0])
            else:
                live.update(_screen(node), refresh=True)
        return stop.is_set() and node.finished()

    if console.is_terminal:
        with Live(_screen(node), console=console, auto_refresh=False) as live:
            spin(node, lambda: show(live))
    else:
        spin(node, lambda: show(None))
        if node.newest is not None:
            console.print(slot_table(node.newest))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monet-viewer",
        description="Shows the slots on scene/slots as a live table and writes them as pictures. Ends with Ctrl-C.",
        epilog="examples:\n  monet-viewer --ros-args -r image:=/camera/image_raw\n"
        "  monet-viewer --output /tmp/slots --gif",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, help="folder for overlay.mp4 and overlay.png (none is written)")
    parser.add_argument("--gif", action="store_true", help="also write overlay.gif, at most 3 MB")
    parser.add_argument("--show", action="store_true", help="also show the pictures in a window")
    return parser


def main(args: list[str] | None = None) -> int:
    """Runs the viewer until it is told to stop; returns 0, or 1 if no slots arrived, or `NOT_WRITTEN`."""
    os.nice(5)  # drawing must not take the time of the network that it shows
    arguments = sys.argv if args is None else args
    options = _parser().parse_args(remove_ros_args(arguments)[1:])
    if options.show and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("viewer: --show needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set", file=sys.stderr)
        return 1  # asked first, because Qt would end the process
    pictures = Pictures(options.output, animation=options.gif) if options.output else None
    try:
        return _run(arguments, pictures, options.show)
    except OSError as error:
        print(f"viewer: {error}", file=sys.stderr)
        return NOT_WRITTEN


def _run(arguments: list[str], pictures: Pictures | None, show: bool) -> int:
    console = Console()
    with ros(arguments) as stop:
        node = ViewerNode(pictures, show=show)
        try:
            _watch(node, console, stop)
        finally:
            node.destroy_node()
    for line in node.tally.lines():
        console.print(line, soft_wrap=True)
    if pictures is not None and pictures.animation and node.tally.slots:
        console.print("drawing the animation, which takes up to a minute")
    written = pictures.close() if pictures is not None else []
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    if not node.tally.slots:
        return 1
    if pictures is not None and not written:
        print(f"viewer: nothing was written to {pictures.folder}: {node.why_no_picture()}", file=sys.stderr)
        return NOT_WRITTEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
