"""Endurance of the node: memory, recovery and the account of every frame while everything around it comes and goes.

    python -m benchmarks.soak --minutes 30

A camera sends images, one in twelve of them malformed, to `decompose` in a process of its own. Meanwhile subscribers
come and go, parameters change (some to what must be refused), latents are decoded, and the device fails: the node under
test is the real one with a Decomposer that raises, on SIGUSR1, what a lost GPU raises. Figures and plot go to --output.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from monet_perception_msgs.msg import SlotArray
from monet_perception_msgs.srv import DecodeSlots
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from benchmarks.node_process import PROFILE, checkpoint_for_timing, picture, process, use_dds, wait, wait_until
from benchmarks.soak_node import FAULT
from benchmarks.soak_report import PATIENCE, Record, report
from benchmarks.targets import MissedError
from monet_perception.nodes.conversions import image_message
from monet_perception.nodes.diagnostics import resident_memory
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds
from train.arguments import above_zero, at_least
from train.command import run_command
from train.report import prepare_outputs

RATE = 15.0
SAMPLE = 2.0
"""Seconds between two samples of memory and counts."""
LOSSLESS = [
    *("-p", "qos_overrides./image.subscription.reliability:=reliable"),
    *("-p", "qos_overrides./image.subscription.depth:=1000"),
]


class Soak:
    """Camera, listeners and operator in one node, beside the process under test.

    Args:
        process_id: of the node under test.
        seed: of the order of events.
    """

    def __init__(self, process_id: int, seed: int) -> None:
        rclpy.init(args=[])  # the command line is not ROS's
        self.record = Record()
        self._process_id = process_id
        self._rng = np.random.default_rng(seed)
        self._node = rclpy.create_node("soak")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._camera = self._node.create_publisher(Image, "image", QoSProfile(depth=1000))
        self._parameters = self._node.create_client(SetParametersAtomically, "/decompose/set_parameters_atomically")
        self._decoding = self._node.create_client(DecodeSlots, "/decompose/decode_slots")
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._listening: dict[str, Any] = {}
        self._frames = [picture(320, 240), picture(160, 120), picture(640, 480)]
        self._last_answer = 0.0
        self._error_at: float | None = None
        self._begin = self._next_frame = time.monotonic()
        self.reports = 0

    # What comes and goes, each with the seconds between two

    def events(self) -> dict[str, tuple[float, Callable[[], None]]]:
        """The schedule."""
        return {
            "sample": (SAMPLE, self._sample),
            "parameter": (3.0, self._change_parameter),
            "decode": (7.0, self._decode),
            "listeners": (11.0, self._change_listeners),
            "nobody": (41.0, self._leave_and_return),
            "device error": (23.0, self._break_device),
        }

    def run(self, seconds: float) -> None:
        """Sends images for so long, with everything else in between."""
        self._listen("slots")
        self._connected()
        self._begin = time.monotonic()
        events = self.events()
        due = {name: self._begin + interval for name, (interval, _) in events.items()}
        self._next_frame = self._begin
        while (now := time.monotonic()) < self._begin + seconds:
            for name, (interval, happen) in events.items():
                if now >= due[name]:
                    happen()
                    due[name] = time.monotonic() + interval
            self._send()
        self._recover()
        self._settle()
        self._sample()

    def _recover(self) -> None:
        """Sends images until the node has answered after the last error, or that counts as missed."""
        while self._error_at is not None:
            self._send()

    def _send(self) -> None:
        """Sends the next image when it is due."""
        wait(self._executor, self._next_frame - time.monotonic())
        self._next_frame = max(self._next_frame + 1 / RATE, time.monotonic() - 1 / RATE)
        frame = self._frames[self.record.sent % len(self._frames)]
        message = image_message(Header(frame_id="camera", stamp=self._node.get_clock().now().to_msg()), frame, "rgb8")
        if self.record.sent % 12 == 5:
            fault = str(self._rng.choice(["step", "encoding", "height", "width"]))
            setattr(message, fault, "rgb9" if fault == "encoding" else 7 if fault == "step" else 2**31)
            self.record.malformed += 1
        self._camera.publish(message)
        self.record.sent += 1
        self._watch_recovery()

    def _break_device(self) -> None:
        if self._error_at is None and "slots" in self._listening:
            os.kill(self._process_id, signal.SIGUSR1)
            self._error_at = time.monotonic()
            self.record.errors += 1

    def _watch_recovery(self) -> None:
        """Takes note of the first answer after the error; the error itself silences the node for at least 0.2 s."""
        if self._error_at is None:
            return
        if self._last_answer > self._error_at + 0.2:
            self.record.recoveries.append(self._last_answer - self._error_at)
            self._error_at = None
        elif time.monotonic() - self._error_at > PATIENCE:
            self.record.missed += 1
            self._error_at = None

    def _change_parameter(self) -> None:
        good = [
            ("mask_encoding", "32FC1"), ("mask_encoding", "mono8"), ("publish_reconstructions", False),
            ("publish_reconstructions", True), ("min_area", 0.01), ("min_area", 0.002), ("overlay_size", 320),
        ]  # fmt: skip
        bad = [("mask_encoding", "64FC9"), ("min_area", 7.0), ("device", "cuda:3"), ("overlay_size", 1)]
        wrong = bool(self._rng.random() < 0.3)
        name, value = (bad if wrong else good)[self._rng.integers(len(bad if wrong else good))]
        request = SetParametersAtomically.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        future = self._parameters.call_async(request)
        self._until(future.done)
        successful = future.result().result.successful
        self.record.refused += wrong and not successful
        self.record.wrongly_set += wrong == successful

    def _decode(self) -> None:
        """Decodes two latents. While the device fails, a refusal that says so is an answer too."""
        self.record.decode_requests += 1
        future = self._decoding.call_async(DecodeSlots.Request(count=2, latents=[0.0] * 32))
        with contextlib.suppress(TimeoutError):
            wait_until(self._executor, future.done, PATIENCE, "decode_slots doesn't answer")
            self.record.decode_answers += future.result().success or FAULT in future.result().message

    def _change_listeners(self) -> None:
        for name in ("overlay", "labels", "error"):
            if self._rng.random() < 0.5:
                self._ignore(name) if name in self._listening else self._listen(name)

    def _leave_and_return(self) -> None:
        """Everybody stops listening for a while; no image is sent meanwhile, so that all can be counted."""
        self._recover()
        self._settle()
        for name in list(self._listening):
            self._ignore(name)
        self._until(lambda: self._camera.get_subscription_count() == 0)
        wait(self._executor, 2.0)
        self._listen("slots")
        self._connected()

    def _listen(self, name: str) -> None:
        kind, callback = (SlotArray, self._on_slots) if name == "slots" else (Image, lambda message: None)
        self._listening[name] = self._node.create_subscription(kind, f"scene/{name}", callback, 10)

    def _ignore(self, name: str) -> None:
        self._node.destroy_subscription(self._listening.pop(name))

    def _connected(self) -> None:
        self._until(lambda: self._camera.get_subscription_count() == 1)
        wait(self._executor, 0.5)

    def _settle(self) -> None:
        """Waits until the node has accounted for all that was sent."""
        wait(self._executor, 1.0)
        reports = self.reports
        self._until(lambda: self.reports >= reports + 2)

    def _sample(self) -> None:
        seconds = time.monotonic() - self._begin
        self.record.samples.append(
            {"seconds": seconds, "memory (MB)": resident_memory(self._process_id) / 1e6, **self.record.counts}
        )

    def _on_slots(self, message: Any) -> None:
        self._last_answer = time.monotonic()
        latency = (self._node.get_clock().now().nanoseconds - stamp_nanoseconds(message.header)) / NANOSECONDS
        self.record.latencies.append((self._last_answer - self._begin, latency))

    def _on_diagnostics(self, message: Any) -> None:
        self.reports += 1
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        names = ("received", "answered", "dropped", "broken", "failed", "recoveries")
        self.record.counts = {name: int(values[name]) for name in names}

    def _until(self, true: Callable[[], Any]) -> None:
        wait_until(self._executor, true, 3 * PATIENCE, "the node doesn't answer")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=above_zero, default=30.0)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (%(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError)


def _run(options: argparse.Namespace) -> None:
    prepare_outputs(folders=[options.output])
    use_dds(88, str(PROFILE))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or checkpoint_for_timing(Path(folder))
        arguments = ["--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "diagnostics_period:=0.5", *LOSSLESS]
        fault = ""
        with process("-c", "from benchmarks.soak_node import run; run()", *arguments) as node:
            soak = Soak(node.pid, options.seed)
            try:
                soak.run(60 * options.minutes)
            except TimeoutError as error:
                fault = str(error)
            if (ended := node.poll()) is not None:
                fault = f"the node ended by itself, with {ended}"
    # What was counted until then is told all the same.
    held = report(soak.record, options.output) if soak.record.counts and soak.record.samples else False
    if fault or not held:
        raise MissedError(fault or "a limit doesn't hold")


if __name__ == "__main__":
    sys.exit(main())
