"""The demo's camera: plays a recorded clip (MCAP or ROS 2 bag) at its own rate, without a ROS installation."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from monet_perception.bags import BagError, choose_images, open_bag, raw_messages
from monet_perception.clip import DEMO_CLIP
from monet_perception.nodes.process import TICK, ros
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds

PLAYED: dict[str, type] = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "visualization_msgs/msg/MarkerArray": MarkerArray,
}
"""Message types that are played; a clip may hold others, they are passed over."""
try:  # not on PyPI: installed with ROS only
    from tf2_msgs.msg import TFMessage

    PLAYED["tf2_msgs/msg/TFMessage"] = TFMessage
except ImportError:
    pass
ARRIVING = 1.0
"""Seconds that the last messages of all topics may take to reliable subscribers."""
_QOS = QoSProfile(depth=10)
# Who comes late still learns where the objects are, and how frames that don't move lie to each other: of those, several
# nodes of a robot each publish some.
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_STATIC_FRAMES = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True)
class Recorded:
    """One message of a clip; `time` is when it was recorded, in nanoseconds."""

    topic: str
    kind: str
    time: int
    data: bytes


class Clip:
    """A recorded sequence, read from the file as it is played.

    Raises:
        ModuleNotFoundError: rosbags is not installed.
        FileNotFoundError: no such file.
        BagError: the file is no recording, or has no images on `IMAGES`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_bag(path) as reader:
            self.topics: dict[str, str] = {c.topic: c.msgtype for c in reader.connections if c.msgtype in PLAYED}
        self.image_topic = choose_images(path, self.topics)

    def __iter__(self) -> Iterator[Recorded]:
        with open_bag(self._path) as reader:
            for connection, time_, data in raw_messages(reader, reader.connections):
                if connection.topic in self.topics:
                    yield Recorded(connection.topic, connection.msgtype, time_, bytes(data))


class CameraNode(Node):
    """Publishes a clip's messages on the topics they were recorded on.

    Stamps are moved as a whole, so that the clip seems to happen now; differences between them stay.

    Args:
        clip: what to play.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__("camera")
        self._clip = clip
        self._made: dict[str, Publisher] = {
            topic: self.create_publisher(PLAYED[kind], topic, _qos(topic, kind)) for topic, kind in clip.topics.items()
        }

    def viewers(self) -> int:
        """How many subscribe to the images."""
        return self._made[self._clip.image_topic].get_subscription_count()

    def play(self, executor: SingleThreadedExecutor, stop: threading.Event) -> int:
        """Plays the clip once, or until told to stop.

        Returns:
            Number of images published.
        """
        shift: int | None = None
        images = 0
        for recorded in self._clip:
            if shift is None:
                # both clocks at one moment, with the recording open: else messages would come before their stamps
                first, begin = recorded.time, time.monotonic()
                shift = self.get_clock().now().nanoseconds - recorded.time
            due = begin + (recorded.time - first) / NANOSECONDS
            while (left := due - time.monotonic()) > 0 and not stop.is_set():
                executor.spin_once(timeout_sec=min(left, TICK))
            if stop.is_set():
                return images
            message = deserialize_message(recorded.data, PLAYED[recorded.kind])
            _move_stamps(message, shift)
            self._made[recorded.topic].publish(message)
            images += recorded.topic == self._clip.image_topic
        return images

    def arrive(self) -> None:
        """Waits until all that was published has arrived: what is under way when a process ends is lost."""
        end = time.monotonic() + ARRIVING
        for publisher in self._made.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))


def _qos(topic: str, kind: str) -> QoSProfile:
    """As their publishers usually offer them: a recording doesn't say it in every format."""
    if topic.endswith("/tf_static"):
        return _STATIC_FRAMES
    # camera_info may have been recorded once, and whoever listens to it later needs it.
    return _LATCHED if PLAYED[kind] in (MarkerArray, CameraInfo) else _QOS


def _move_stamps(message: Any, shift: int) -> None:
    """Adds nanoseconds to the stamps of a message, or of the markers or transforms it holds; to those that are set."""
    for part in getattr(message, "markers", None) or getattr(message, "transforms", None) or [message]:
        # An empty list of them has no header.
        if hasattr(part, "header") and (stamp := stamp_nanoseconds(part.header)):
            seconds, nanoseconds = divmod(stamp + shift, NANOSECONDS)
            part.header.stamp = Time(sec=seconds, nanosec=nanoseconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monet-camera",
        description="Plays a recorded clip as a camera: image, depth, camera_info and what else it holds.",
        epilog="examples:\n  monet-camera\n  monet-camera --loop\n"
        "  monet-camera --clip run.mcap --ros-args -r /camera/image:=/left",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clip", type=Path, default=DEMO_CLIP, help="MCAP file or ROS 2 bag (the shipped clip)")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument(
        "--wait-for", type=int, default=0, metavar="N", help="begin when N nodes subscribe to the images"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="seconds to wait for --wait-for",
    )
    return parser


def _wait_for_viewers(node: CameraNode, executor: SingleThreadedExecutor, stop: threading.Event, options: Any) -> bool:
    """Whether as many subscribe as were asked for, in time."""
    give_up = time.monotonic() + options.patience
    if options.wait_for:
        node.get_logger().info(f"waiting until {options.wait_for} nodes subscribe to the images")
    while node.viewers() < options.wait_for and not stop.is_set():
        if time.monotonic() > give_up:
            print(f"camera: only {node.viewers()} of {options.wait_for} nodes subscribed", file=sys.stderr)
            return False
        executor.spin_once(timeout_sec=TICK)
    return True


def _run(node: CameraNode, options: argparse.Namespace, stop: threading.Event) -> int:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not _wait_for_viewers(node, executor, stop, options):
            return 2
        while not stop.is_set():
            images = node.play(executor, stop)
            node.get_logger().info(f"played {images} images")
            if not options.loop:
                break
        node.arrive()
        return 0
    finally:
        executor.shutdown()


def main(args: list[str] | None = None) -> int:
    """Plays the clip; returns 0, or 1 if it can't be read, or 2 if those it waited for didn't come."""
    arguments = sys.argv if args is None else args
    options = _parser().parse_args(remove_ros_args(arguments)[1:])
    try:
        clip = Clip(options.clip)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"camera: {error}", file=sys.stderr)
        return 1
    with ros(arguments) as stop:
        node = CameraNode(clip)
        try:
            return _run(node, options, stop)
        except BagError as error:
            print(f"camera: {error}", file=sys.stderr)
            return 1
        finally:
            node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
