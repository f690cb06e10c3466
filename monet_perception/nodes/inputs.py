"""What the node subscribes to: image and depth, only while it has use for them, and camera_info."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from monet_perception.nodes.qos import BestAvailableSubscription

# Of images only the newest is of use; a depth image may have to wait for its image. Some drivers send camera_info once,
# for those who come later as well.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_AVAILABLE)
LAST_FEW = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_AVAILABLE)
LATCHED = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_AVAILABLE, durability=DurabilityPolicy.BEST_AVAILABLE)
_KINDS: dict[str, type] = {"raw": Image, "compressed": CompressedImage, "compressedDepth": CompressedImage}
_SUFFIXES = {"raw": "", "compressed": "/compressed", "compressedDepth": "/compressedDepth"}
TRANSPORTS = ("raw", "compressed")
"""How images may come."""
DEPTH_TRANSPORTS = ("raw", "compressedDepth")
"""How depth images may come."""
# What drivers call images that are no photographs.
_NO_COLOURS = re.compile(r"depth|disparity|infra|confidence|(?<![a-z])ir(?![a-z])")


@dataclass(frozen=True)
class Source:
    """Images that somebody publishes, and the options with which the node takes them.

    Attributes:
        topic: full name.
        transport: `raw` or `compressed`.
        options: for a command line.
    """

    topic: str
    transport: str
    options: str


class Inputs:
    """Subscriptions to the camera's topics; camera_info is taken from here to `destroy`, as some drivers send it once.

    Args:
        node: subscribes.
        transport: of the images, one of `TRANSPORTS`.
        depth_transport: of the depth images, one of `DEPTH_TRANSPORTS`.
        on_image, on_depth, on_info: called with each message.
        lost: called with `lost` or `lost_depth` and how many images or depth images the middleware has lost.
    Raises:
        ValueError: a parameter `qos_overrides.*` is wrong.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        depth_transport: str,
        on_image: Callable[[Image | CompressedImage], None],
        on_depth: Callable[[Image | CompressedImage], None],
        on_info: Callable[[CameraInfo], None],
        lost: Callable[[str, int], None],
    ) -> None:
        self._node = node
        self._transport, self._depth_transport = transport, depth_transport
        self._images = BestAvailableSubscription(
            node,
            _KINDS[transport],
            self._name("image", transport),
            on_image,
            NEWEST,
            lambda messages: lost("lost", messages),
        )
        self._depth = BestAvailableSubscription(
            node,
            _KINDS[depth_transport],
            self._name("depth", depth_transport),
            on_depth,
            LAST_FEW,
            lambda messages: lost("lost_depth", messages),
        )
        self.topic, self.depth_topic = self._images.topic, self._depth.topic
        depth = node.resolve_topic_name("depth")
        self._depth_topics = {form: depth + _SUFFIXES[form] for form in DEPTH_TRANSPORTS}
        self._camera_info = BestAvailableSubscription(node, CameraInfo, "camera_info", on_info, LATCHED)
        self._camera_info.open()
        self._subscribed = False

    def _name(self, topic: str, transport: str) -> str:
        """Of a topic in a form; the full name for a packed one, because a remapping of `image` doesn't reach
        `image/compressed`."""
        suffix = _SUFFIXES[transport]
        return self._node.resolve_topic_name(topic) + suffix if suffix else topic

    @property
    def subscribed(self) -> bool:
        """Whether images are coming in."""
        return self._subscribed

    @property
    def fault(self) -> str:
        """Why messages of a publisher aren't received, as a sentence; empty if nothing is known to hinder them."""
        faults = [subscription.fault for subscription in (self._images, self._depth, self._camera_info)]
        return "; ".join(filter(None, faults))

    def subscribe(self) -> None:
        """Begins to take images and depth or, if it raises, neither."""
        try:
            self._images.open()
            self._depth.open()
        except Exception:
            self.unsubscribe()
            raise
        self._subscribed = True

    def unsubscribe(self) -> None:
        """Ceases to take images and depth."""
        self._images.close()
        self._depth.close()
        self._subscribed = False

    def destroy(self) -> None:
        """Ceases to take messages, for good."""
        self.unsubscribe()
        self._camera_info.close()

    def publishers(self) -> str:
        """Who publishes images on the topic, as text; empty if nobody does."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        return ", ".join(_describe(offer) for offer in offers if offer.topic_type == _type_name(self._transport))

    def of_other_types(self) -> str:
        """Who publishes something else on the topic, as text; empty if nobody does."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        others = [offer for offer in offers if offer.topic_type != _type_name(self._transport)]
        return ", ".join(f"{_node_name(offer)} (of type {offer.topic_type})" for offer in others)

    def depth_elsewhere(self) -> Source | None:
        """The depth images that somebody publishes in the other form."""
        (transport,) = set(DEPTH_TRANSPORTS) - {self._depth_transport}
        topic = self._depth_topics[transport]
        offers = self._node.get_publishers_info_by_topic(topic)
        if not any(offer.topic_type == _type_name(transport) for offer in offers):
            return None
        return Source(topic, transport, f"-p depth_transport:={transport}")

    def elsewhere(self) -> list[Source]:
        """Images that the node would get with other options, the likeliest first."""
        found = [
            source
            for topic, kinds in self._node.get_topic_names_and_types()
            for transport in TRANSPORTS
            if _type_name(transport) in kinds and (source := self._source(topic, transport)) is not None
        ]
        return sorted(found, key=self._unlikeliness)

    def _source(self, topic: str, transport: str) -> Source | None:
        suffix = _SUFFIXES[transport]
        if topic in self._depth_topics.values() or (topic, transport) == (self.topic, self._transport):
            return None
        if not topic.endswith(suffix):
            return None
        own, kind = self._node.get_fully_qualified_name(), _type_name(transport)
        makers = self._node.get_publishers_info_by_topic(topic)
        if all(_node_name(maker) == own or maker.topic_type != kind for maker in makers):
            return None
        image = topic.removesuffix(suffix)
        options = [f"-p transport:={transport}"] * (transport != self._transport)
        return Source(topic, transport, " ".join([*options, f"-r image:={image}"]))

    def _unlikeliness(self, source: Source) -> tuple[bool, bool, int, bool]:
        """Key to sort by, the likeliest first: the same topic in any form, colours, the longest common end of the
        names, the wanted transport."""
        wanted, offered = (topic.removesuffix(_SUFFIXES["compressed"]) for topic in (self.topic, source.topic))
        no_colours = _NO_COLOURS.search(offered) is not None
        return wanted != offered, no_colours, -_alike_at_the_end(wanted, offered), source.transport != self._transport


def _alike_at_the_end(one: str, other: str) -> int:
    """How many parts of two topics' names are the same, from the end on."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _type_name(transport: str) -> str:
    return f"sensor_msgs/msg/{_KINDS[transport].__name__}"


def _node_name(offer: Any) -> str:
    """The full name of the node that publishes."""
    return f"{offer.node_namespace.rstrip('/')}/{offer.node_name}"


def _describe(offer: Any) -> str:
    return f"{_node_name(offer)} ({offer.qos_profile.reliability.name.lower().replace('_', ' ')})"
