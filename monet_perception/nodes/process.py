"""Runs a node as a process: until Ctrl-C, SIGTERM or its own wish, surviving what its callbacks raise."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer

NOT_CONFIGURED = "can't be configured"
"""How the log line begins that says why configuring failed; the demo looks for it."""
NOT_WRITTEN = 2
"""Exit status of a viewer that couldn't write its pictures; the demo looks for it."""
LOG_EVERY = 5.0
"""Seconds between two log lines about one kind of fault; /diagnostics counts them all."""
TICK = 0.1
"""Seconds after which a signal is noticed at the latest."""


def steady_timer(node: Node, period: float, callback: Callable[[], object]) -> Timer:
    """Calls back every `period` seconds, by the computer's own time: simulated time may stand still, and begin late."""
    return node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


@contextlib.contextmanager
def ros(arguments: Sequence[str]) -> Iterator[threading.Event]:
    """ROS for one process; the event is set by SIGINT and SIGTERM.

    rclpy's own handlers take ROS away at once, under the feet of a thread that publishes: a process was seen to end
    with a segmentation fault in librcl. With these, nodes and threads end first.

    Args:
        arguments: of the command line, with ROS's.
    """
    stop = threading.Event()
    rclpy.init(args=list(arguments), signal_handler_options=SignalHandlerOptions.NO)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


def spin(node: Node, done: Callable[[], bool]) -> None:
    """Works off the node's callbacks until `done`, which is asked at least every `TICK` seconds.

    rclpy ends the process when a callback raises. A robot's node has to go on with the next message instead.
    """
    # Not rclpy.experimental.EventsExecutor, which answers 1 ms sooner: with rclpy 7.1.6 it ends the process by a
    # segmentation fault where a publisher or a subscription goes whose event is under way (ros2/rclpy#1644).
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not done():
            try:
                executor.spin_once(timeout_sec=TICK)
            except Exception:
                node.get_logger().error(f"a callback failed, its message is lost:\n{traceback.format_exc()}")
    finally:
        executor.remove_node(node)
        executor.shutdown()
