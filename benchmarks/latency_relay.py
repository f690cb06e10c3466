"""A node that sends each image back as it is: what rclpy and DDS cost for the image alone."""

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from monet_perception.nodes.process import ros, spin

TAKEN, RELAYED = "image_to_relay", "relayed"
"""Topics of the images that it takes, and of those that it sends."""


def run() -> None:
    """Relays until SIGINT."""
    with ros([]) as stop:
        node = rclpy.create_node("relay")
        publisher = node.create_publisher(Image, RELAYED, QoSProfile(depth=1))
        node.create_subscription(Image, TAKEN, publisher.publish, QoSProfile(depth=1))
        spin(node, stop.is_set)
