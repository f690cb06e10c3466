"""What the node publishes: one topic for each output, filled only while somebody listens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monet_perception_msgs.msg import SlotArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from monet_perception.assessment import error_map
from monet_perception.nodes.cloud import build_cloud
from monet_perception.nodes.conversions import image_message
from monet_perception.nodes.markers import build_markers, shown_tracks
from monet_perception.nodes.pipeline import DecomposedFrame
from monet_perception.nodes.qos import override_publisher
from monet_perception.nodes.slot_messages import slot_array
from monet_perception.overlay import draw_overlay, label_image

TOPICS: dict[str, type] = {
    "slots": SlotArray,
    "overlay": Image,
    "labels": Image,
    "error": Image,
    "markers": MarkerArray,
    "cloud": PointCloud2,
}
"""Outputs, published on `scene/<name>`; relative, so that a namespace moves them."""
IN_3D = frozenset({"slots", "markers", "cloud"})
"""Outputs that depth has a part in."""
# Reliable: best-effort readers lose messages above the middleware's 512 KiB segment. Only the newest is kept.
QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class Style:
    """How outputs look; the node's parameters of the same names."""

    mask_encoding: str
    publish_reconstructions: bool
    overlay_size: int

    def reconstruct(self, wanted: frozenset[str]) -> bool:
        """Whether any of the outputs wanted needs reconstructions."""
        return "error" in wanted or ("slots" in wanted and self.publish_reconstructions)


class Outputs:
    """The publishers. They exist from `configure` to `cleanup`, so that others see the topics.

    Args:
        node: publishes them.
        changed: called when somebody begins or ceases to listen; must not raise, or the process ends.
    Raises:
        ValueError: a parameter `qos_overrides.*` is wrong.
    """

    def __init__(self, node: LifecycleNode, changed: Callable[[], None]) -> None:
        self._node = node
        self._shown: set[int] = set()
        self._markers_begun = False
        profiles = {name: override_publisher(node, f"scene/{name}", QOS) for name in TOPICS}
        self._publishers: dict[str, LifecyclePublisher] = {
            name: node.create_lifecycle_publisher(
                kind,
                f"scene/{name}",
                profiles[name],
                event_callbacks=PublisherEventCallbacks(matched=lambda _: changed()),
            )
            for name, kind in TOPICS.items()
        }

    def destroy(self) -> None:
        """Takes the topics down."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def listened(self) -> frozenset[str]:
        """Names of the outputs that somebody subscribes to."""
        return frozenset(name for name, publisher in self._publishers.items() if publisher.get_subscription_count() > 0)

    def delete_markers(self) -> None:
        """Clears the viewers, which otherwise show the last boxes for ever."""
        if self._markers_begun and self._publishers["markers"].is_activated:
            self._publishers["markers"].publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))
        self._shown = set()

    def publish_slots(self, frame: DecomposedFrame, wanted: frozenset[str], style: Style) -> None:
        """Publishes the slots, if they are wanted. Before the rest, because others wait for them."""
        if "slots" in wanted:
            self._publishers["slots"].publish(_slots(frame, style))

    def publish_rest(self, frame: DecomposedFrame, wanted: frozenset[str], style: Style) -> None:
        """Publishes the other outputs wanted."""
        builders: dict[str, Callable[[], object | None]] = {
            "markers": lambda: self._markers(frame),
            "cloud": lambda: _cloud(frame),
            "labels": lambda: _labels(frame),
            "overlay": lambda: _overlay(frame, style),
            "error": lambda: _error(frame),
        }
        for name, build in builders.items():
            if name in wanted and (message := build()) is not None:
                self._publishers[name].publish(message)

    def _markers(self, frame: DecomposedFrame) -> MarkerArray:
        background = [geometry is not None and geometry.background for geometry in frame.geometries]
        message = build_markers(
            frame.header, frame.track_ids, frame.geometries, background=background, shown=self._shown
        )
        self._shown = shown_tracks(message)
        if not self._markers_begun:  # a node before this one may have left boxes under any number
            message.markers.insert(0, Marker(header=frame.header, action=Marker.DELETEALL))
            self._markers_begun = True
        return message


def _slots(frame: DecomposedFrame, style: Style) -> SlotArray:
    return slot_array(
        frame.header,
        frame.model_id,
        frame.decomposition,
        frame.track_ids,
        frame.geometries,
        mask_encoding=style.mask_encoding,
        with_reconstructions=style.publish_reconstructions,
    )


def _cloud(frame: DecomposedFrame) -> PointCloud2 | None:
    if frame.depth is None:
        return None
    depth, intrinsics = frame.depth
    found = frame.decomposition
    return build_cloud(frame.header, found.image, found.masks, frame.track_ids, found.roi, depth, intrinsics)


def _labels(frame: DecomposedFrame) -> Image:
    found = frame.decomposition
    return image_message(
        frame.header, label_image(found.masks, found.roi, found.source_height, found.source_width), "16UC1"
    )


def _overlay(frame: DecomposedFrame, style: Style) -> Image:
    found = frame.decomposition
    picture = draw_overlay(frame.image, found.masks, frame.track_ids, found.roi, longest_side=style.overlay_size)
    return image_message(frame.header, picture, "rgb8")


def _error(frame: DecomposedFrame) -> Image | None:
    errors = error_map(frame.decomposition)
    return None if errors is None else image_message(frame.header, errors, "32FC1")
