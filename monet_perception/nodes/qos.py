"""QoS of the node's topics: parameters that override it, and subscriptions that take the best that publishers offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, _declare_qos_parameters
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from monet_perception.nodes.process import steady_timer

CHECK_EVERY = 0.5
"""Seconds between two looks at what publishers offer."""
_OF_SUBSCRIPTIONS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
_OF_PUBLISHERS = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
# What a subscription asks for where every publisher offers it, and what it asks for elsewhere.
_BEST_AND_LEAST: dict[str, tuple[Any, Any]] = {
    "reliability": (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT),
    "durability": (DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE),
}


def override_publisher(node: Node, topic: str, profile: QoSProfile) -> QoSProfile:
    """The profile with what the parameters `qos_overrides.<topic>.publisher.*` say.

    Raises:
        ValueError: a parameter is wrong.
    """
    return _override(Publisher, node, topic, profile, _OF_PUBLISHERS)


def _override(
    entity: type, node: Node, topic: str, profile: QoSProfile, policies: Iterable[QoSPolicyKind]
) -> QoSProfile:
    """As rclpy does it where an entity is made, but before one is: then nothing has to be taken down again."""
    full_name = node.resolve_topic_name(topic)
    changed = QoSProfile(
        history=profile.history, depth=profile.depth, reliability=profile.reliability, durability=profile.durability
    )
    try:
        _declare_qos_parameters(entity, node, full_name, changed, QoSOverridingOptions(policies))
        if changed.depth < 0:
            raise ValueError(f"depth is {changed.depth}; it must not be negative")
        for policy in ("history", "reliability", "durability"):
            if getattr(changed, policy).name == "UNKNOWN":
                raise ValueError(f"{policy} is 'unknown'")
    except Exception as error:
        parameters = f"qos_overrides.{full_name}.{entity.__name__.lower()}.*"
        raise ValueError(f"{parameters}: {error}; it is read once, start the node again with another") from error
    return changed


class BestAvailableSubscription:
    """A subscription that can be opened and closed, with the best QoS that every publisher on the topic offers.

    The middleware's own `BEST_AVAILABLE` is chosen once, when a subscription is made. This one is made anew when
    publishers with other QoS come. Parameters `qos_overrides.<topic>.subscription.*` overrule the profile.

    Args:
        node: subscribes.
        kind: type of the messages.
        topic: where they come from.
        callback: called with each message.
        profile: its reliability and durability may be `BEST_AVAILABLE`.
        lost: called with how many messages the middleware has lost since it was called last.
    Raises:
        ValueError: a parameter is wrong.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        profile: QoSProfile,
        lost: Callable[[int], None] = lambda messages: None,
    ) -> None:
        self._node = node
        self._kind = kind
        self._topic = topic  # as given: other remappings may fit the full name
        self._callback = callback
        self._lost = lost
        self._profile = _override(Subscription, node, topic, profile, _OF_SUBSCRIPTIONS)
        self._chosen = [name for name in _BEST_AND_LEAST if getattr(self._profile, name).name == "BEST_AVAILABLE"]
        self._subscription: Subscription | None = None
        self._checking: Timer | None = None
        self._fault = ""

    @property
    def topic(self) -> str:
        """The full name of the topic."""
        return str(self._node.resolve_topic_name(self._topic))

    @property
    def fault(self) -> str:
        """Why messages of a publisher aren't received, as a sentence; empty if nothing is known to hinder them."""
        return self._fault

    def open(self) -> None:
        """Begins to take messages."""
        self._make(self._best(self._offers()))
        self._checking = steady_timer(self._node, CHECK_EVERY, self._check)

    def close(self) -> None:
        """Ceases to take messages."""
        if self._checking is not None:
            self._node.destroy_timer(self._checking)
        self._destroy()
        self._checking = None
        self._fault = ""

    def _check(self) -> None:
        """Subscribes anew where publishers offer something else than before."""
        offers = self._offers()
        if not offers:
            self._fault = ""
            return  # those that come next are most likely those that went
        best = self._best(offers)
        if self._subscription is None or any(getattr(self._profile, name) != value for name, value in best.items()):
            self._destroy()
            self._make(best)
            words = ", ".join(value.name.lower().replace("_", " ") for value in best.values())
            self._node.get_logger().info(f"subscribed to {self.topic} anew, {words}, as its publishers offer")
        checks = [qos_check_compatible(offer, self._profile) for offer in offers]
        errors = [reason for compatibility, reason in checks if compatibility == QoSCompatibility.ERROR]
        if not errors:
            self._fault = ""
        elif not self._fault:
            self._fault = self._incompatible(errors[0].strip())

    def _offers(self) -> list[QoSProfile]:
        return [offer.qos_profile for offer in self._node.get_publishers_info_by_topic(self._topic)]

    def _best(self, offers: list[QoSProfile]) -> dict[str, Any]:
        return {
            name: best if all(getattr(offer, name) == best for offer in offers) else least
            for name, (best, least) in _BEST_AND_LEAST.items()
            if name in self._chosen
        }

    def _make(self, best: dict[str, Any]) -> None:
        for name, value in best.items():
            setattr(self._profile, name, value)
        events = SubscriptionEventCallbacks(incompatible_qos=self._tell_of_qos, message_lost=self._tell_of_loss)
        self._subscription = self._node.create_subscription(
            self._kind, self._topic, self._callback, self._profile, event_callbacks=events
        )

    def _destroy(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None

    def _tell_of_loss(self, event: Any) -> None:
        self._lost(event.total_count_change)

    def _tell_of_qos(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        if policy.lower() in self._chosen:
            return  # `_check` cures it
        self._fault = self._incompatible(policy)
        self._node.get_logger().warning(self._fault)

    def _incompatible(self, policy: str) -> str:
        return (
            f"a publisher on {self.topic} offers an incompatible QoS ({policy}): nothing of it is received. "
            f"Change the publisher, or the parameters qos_overrides.{self.topic}.subscription.*"
        )
