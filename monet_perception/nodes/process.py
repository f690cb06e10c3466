"""Runs a node as a process: until Ctrl-C, SIGTERM or its own wish, surviving what its callbacks raise."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

NOT_CONFIGURED = "can't be configured"
"""How a node begins to say why it has no network; the demo looks for it."""


def spin(node: Node, done: Callable[[], bool] = lambda: False) -> None:
    """Works off the node's callbacks.

    rclpy ends the process when a callback raises. A robot's node has to go on with the next message instead.

    Args:
        node: is not destroyed.
        done: asked at least every 0.1 s whether to stop.
    """
    executor: Executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not done():
            try:
                executor.spin_once(timeout_sec=0.1)
            except (KeyboardInterrupt, ExternalShutdownException):
                return
            except Exception:
                if rclpy.ok():
                    node.get_logger().error(f"a callback failed, its message is lost:\n{traceback.format_exc()}")
    finally:
        executor.remove_node(node)
        executor.shutdown()
