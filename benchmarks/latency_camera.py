"""A camera that sends images at a rate and notes when their answers come."""

from __future__ import annotations

import time

import numpy as np
import rclpy
from monet_perception_msgs.msg import SlotArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from benchmarks.latency_relay import RELAYED, TAKEN
from benchmarks.latency_results import Run
from benchmarks.node_process import picture, wait, wait_until
from monet_perception.nodes.conversions import image_message
from monet_perception.stamps import NANOSECONDS

SLOTS = "scene/slots"
TOPICS = {RELAYED: TAKEN, SLOTS: "image"}
"""Where answers come from, and where to send their images."""
START = 180.0
"""Seconds that a process may take to start."""
STAMP = slice(4, 12)
"""Where a serialised message that begins with a header has its stamp: after the four bytes that name the encoding."""


class Camera:
    """Sends images and waits for their answers."""

    def __init__(self, width: int, height: int) -> None:
        rclpy.init(args=[])  # the command line is not ROS's
        self._node = rclpy.create_node("benchmark")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._kinds = {RELAYED: Image, SLOTS: SlotArray}
        newest = QoSProfile(depth=1)
        self._publishers = {topic: self._node.create_publisher(Image, image, newest) for topic, image in TOPICS.items()}
        # Serialised once: the camera's own cost is not what is measured, and drivers are written in C++.
        message = image_message(Header(frame_id="camera"), picture(width, height), "rgb8")
        self._serialised = bytearray(serialize_message(message))

    def run(self, topic: str, rate: float, frames: int) -> Run:
        """Sends `frames` images at `rate` to the one node that answers on `topic`."""
        answers: dict[int, float] = {}

        def received(message: bytes) -> None:
            seconds, nanoseconds = np.frombuffer(message[STAMP], "<u4").tolist()
            answers[seconds * NANOSECONDS + nanoseconds] = time.time()

        # Raw: turning bytes into Python's objects is the listener's cost, and drivers and SLAM are written in C++.
        subscription = self._node.create_subscription(
            self._kinds[topic], topic, received, QoSProfile(depth=10), raw=True
        )
        self._until_subscribers(topic, 1)
        wait(self._executor, 0.5)
        begin = time.perf_counter()
        sent = []
        for index in range(frames):
            wait(self._executor, begin + index / rate - time.perf_counter())
            sent.append(self._send(topic))
        wait(self._executor, 0.5)
        self._node.destroy_subscription(subscription)
        if topic == SLOTS:  # the node leaves the camera when nobody listens; the relay stays
            self._until_subscribers(topic, 0)
        latency = np.array([answers[stamp] - stamp / NANOSECONDS for stamp in sent if stamp in answers])
        return Run(latency, published=frames)

    def _send(self, topic: str) -> int:
        """Sends an image now; its stamp in nanoseconds."""
        now = time.time_ns()
        self._serialised[STAMP] = np.array(divmod(now, NANOSECONDS), "<u4").tobytes()
        self._publishers[topic].publish(bytes(self._serialised))
        return now

    def _until_subscribers(self, topic: str, count: int) -> None:
        publisher = self._publishers[topic]
        why = f"the subscriptions to {TOPICS[topic]} are not {count}"
        wait_until(self._executor, lambda: publisher.get_subscription_count() == count, START, why)
