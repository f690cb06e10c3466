"""What the node subscribes to: image, depth and camera_info, only while it has use for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

# As sensor data: best effort takes images from reliable cameras too. Of images only the newest is of use; a depth image
# may have to wait for its image.
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LAST_FEW = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
_OVERRIDES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class Inputs:
    """Subscriptions to the camera's topics.

    Args:
        node: subscribes.
        transport: `raw` or `compressed`.
        on_image, on_depth, on_info: called with each message.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        on_image: Callable[[Image | CompressedImage], None],
        on_depth: Callable[[Image], None],
        on_info: Callable[[CameraInfo], None],
    ) -> None:
        self._node = node
        # The full name, because a remapping of `image` doesn't reach `image/compressed`.
        image = node.resolve_topic_name("image")
        self._suffix = "/compressed" if transport == "compressed" else ""
        self.topic = image + self._suffix
        self.qos_fault = ""
        kind = CompressedImage if transport == "compressed" else Image
        self._kind_name = f"sensor_msgs/msg/{kind.__name__}"
        self._wanted = (
            (kind, self.topic, on_image, _NEWEST),
            (Image, "depth", on_depth, _LAST_FEW),
            (CameraInfo, "camera_info", on_info, _LAST_FEW),
        )
        self._subscriptions: list[Subscription] = []

    @property
    def subscribed(self) -> bool:
        """Whether messages are coming in."""
        return bool(self._subscriptions)

    def subscribe(self) -> None:
        """Begins to take messages."""
        self._subscriptions = [
            self._node.create_subscription(
                kind,
                topic,
                callback,
                qos,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._tell_of_qos(topic)),
                qos_overriding_options=QoSOverridingOptions(_OVERRIDES),
            )
            for kind, topic, callback, qos in self._wanted
        ]

    def unsubscribe(self) -> None:
        """Ceases to take messages."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.qos_fault = ""

    def publishers(self) -> str:
        """Who publishes images on the topic, for a person; empty if nobody does."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        return ", ".join(_describe(offer, self._kind_name) for offer in offers)

    def elsewhere(self) -> list[str]:
        """Other topics on which images of the right type are offered now, as `image` can be remapped to them."""
        own = self._node.get_fully_qualified_name()
        found = []
        for topic, kinds in self._node.get_topic_names_and_types():
            if topic == self.topic or self._kind_name not in kinds or not topic.endswith(self._suffix):
                continue
            makers = self._node.get_publishers_info_by_topic(topic)
            if any(_node_name(maker) != own for maker in makers):
                found.append(topic.removesuffix(self._suffix))
        return found

    def _tell_of_qos(self, topic: str) -> Callable[[Any], None]:
        full_name = self._node.resolve_topic_name(topic)

        def tell(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self.qos_fault = (
                f"a publisher on {full_name} offers an incompatible QoS ({policy}): nothing of it is received. "
                f"Change the publisher, or the parameters qos_overrides.{full_name}.subscription.*"
            )
            self._node.get_logger().warning(self.qos_fault)

        return tell


def _node_name(offer: Any) -> str:
    """The full name of the node that publishes."""
    return f"{offer.node_namespace.rstrip('/')}/{offer.node_name}"


def _describe(offer: Any, expected: str) -> str:
    name = _node_name(offer)
    if offer.topic_type != expected:
        return f"{name} (of type {offer.topic_type}, not {expected})"
    return f"{name} ({offer.qos_profile.reliability.name.lower()})"
