"""Runs the node `decompose` as a process of its own and talks to it over DDS from the test's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from monet_perception_msgs.msg import SlotArray
from monet_perception_msgs.srv import DecodeSlots
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from monet_perception.nodes.conversions import image_message

PATIENCE = 90.0
"""Seconds for what takes a fraction of one on an idle machine: tests share theirs with trainings."""
# With these, no message is lost between the test and the node, and a test can count.
LOSSLESS = [
    argument
    for topic in ("image", "image/compressed", "depth", "camera_info")
    for argument in (
        *("-p", f"qos_overrides./{topic}.subscription.reliability:=reliable"),
        *("-p", f"qos_overrides./{topic}.subscription.depth:=500"),
    )
]


@contextmanager
def running(module: str | Path, arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a process, `python -m monet_perception.nodes.<module>`, or a file; it has to end by SIGINT."""
    program = [str(module)] if isinstance(module, Path) else ["-m", f"monet_perception.nodes.{module}"]
    command = [sys.executable, *program, *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
        assert process.poll() is None, f"{module} ended by itself:\n{log.read_text()}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{module} didn't end on SIGINT:\n{log.read_text()}") from None
        assert code == 0, f"{module} ended with {code}:\n{log.read_text()}"


class Robot:
    """The test's side: camera, consumer and operator of a node `decompose`.

    Args:
        namespace: of the node.
        node: its name.
    """

    def __init__(self, namespace: str = "", node: str = "decompose") -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", namespace=namespace, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._decompose = f"{namespace.rstrip('/')}/{node}"
        self._received: dict[str, list[Any]] = {}
        self._listening: dict[str, Any] = {}
        self._stamp = 1_000_000_000
        many = QoSProfile(depth=1000)
        self.cameras = {
            "image": self.node.create_publisher(Image, "image", many),
            "image/compressed": self.node.create_publisher(CompressedImage, "image/compressed", many),
        }
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.reports = 0
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    @property
    def slots(self) -> list[SlotArray]:
        """The slots received since `listen`."""
        return self._received["scene/slots"]

    def reset(self) -> None:
        """Stops listening, and waits until the node has noticed."""
        for topic in list(self._listening):
            self.ignore(topic)
        self.until(
            lambda: all(camera.get_subscription_count() == 0 for camera in self.cameras.values()), "still subscribed"
        )

    # Listening

    def listen(self, topic: str = "scene/slots", kind: type = SlotArray, **qos: Any) -> list[Any]:
        """Subscribes; what comes is collected in the list returned."""
        received = self._received.setdefault(topic, [])
        profile = QoSProfile(**{"depth": 100, **qos})
        self._listening[topic] = self.node.create_subscription(kind, topic, received.append, profile)
        return received

    def ignore(self, topic: str = "scene/slots") -> None:
        """Unsubscribes."""
        self.node.destroy_subscription(self._listening.pop(topic))
        self._received.pop(topic)

    def until(self, true: Callable[[], Any], why: str = "", patience: float = PATIENCE) -> Any:
        """Handles messages until something is true, and returns it."""
        end = time.monotonic() + patience
        while not (value := true()):
            assert time.monotonic() < end, f"not within {patience} s: {why or true}; the node says {self.messages()}"
            self._executor.spin_once(timeout_sec=0.02)
        return value

    def until_active(self) -> None:
        """Waits until the node reports that it is active."""
        self.until(lambda: "node is" not in self.messages().get("camera", "node is"), "never became active")

    def wait(self, seconds: float) -> None:
        """Handles messages for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    # The camera

    def header(self, frame_id: str = "camera_optical_frame", stamp: int | None = None) -> Header:
        """A header with a stamp of its own; `stamp` in nanoseconds."""
        self._stamp += 50_000_000
        seconds, nanoseconds = divmod(self._stamp if stamp is None else stamp, 1_000_000_000)
        return Header(frame_id=frame_id, stamp=Time(sec=seconds, nanosec=nanoseconds))

    def connected(self, topic: str = "image") -> None:
        """Waits until the node subscribes to the camera."""
        self.until(lambda: self.cameras[topic].get_subscription_count() > 0, f"nothing subscribes to {topic}")

    def answer(self, message: Image | CompressedImage) -> SlotArray:
        """Sends an image and returns the slots that answer it; again, if the middleware lost it while it connected."""
        topic = "image" if isinstance(message, Image) else "image/compressed"
        if "scene/slots" not in self._listening:
            self.listen()
        self.connected(topic)
        self.cameras[topic].publish(message)
        again = time.monotonic() + PATIENCE / 3

        def found() -> SlotArray | None:
            nonlocal again
            if time.monotonic() > again:
                self.cameras[topic].publish(message)
                again += PATIENCE / 3
            return next((m for m in reversed(self.slots) if m.header.stamp == message.header.stamp), None)

        return self.until(
            found, f"no slots for a frame of {getattr(message, 'width', '?')}x{getattr(message, 'height', '?')}"
        )

    # The operator

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Calls a service of the node."""
        client = self.node.create_client(kind, f"{self._decompose}/{service}")
        try:
            self.until(client.service_is_ready, f"no service {self._decompose}/{service}")
            future = client.call_async(request)
            self.until(future.done, f"{service} doesn't answer")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def change(self, transition: int) -> bool:
        """Asks for a transition of the lifecycle; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def set(self, **values: Any) -> str:
        """Sets parameters, all or none; why not, or an empty string."""
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        result = self.call(SetParametersAtomically, "set_parameters_atomically", request).result
        return "" if result.successful else str(result.reason)

    def describe(self, *names: str) -> list[Any]:
        request = DescribeParameters.Request(names=list(names))
        return list(self.call(DescribeParameters, "describe_parameters", request).descriptors)

    def decode(self, latents: np.ndarray, model_id: str = "", count: int | None = None) -> DecodeSlots.Response:
        request = DecodeSlots.Request(model_id=model_id, count=len(latents) if count is None else count)
        request.latents = latents.astype(np.float32).ravel().tolist()
        return self.call(DecodeSlots, "decode_slots", request)

    # Diagnostics

    def next_report(self, reports: int = 2) -> None:
        """Waits for reports; two, because the first may have been on its way before what is asked about happened."""
        due = self.reports + reports
        self.until(lambda: self.reports >= due, "no diagnostics")

    def value(self, part: str, key: str) -> str:
        """A value of the last report."""
        return next(pair.value for pair in self.statuses[part].values if pair.key == key)

    def counts(self) -> dict[str, int]:
        """Frame counts of the last report."""
        places = {
            **{name: ("camera", name) for name in ("received", "broken", "broken depth")},
            **{name: ("network", name) for name in ("answered", "dropped", "failed")},
        }
        return {name: int(self.value(*place)) for name, place in places.items()}

    def messages(self) -> dict[str, str]:
        return {part: status.message for part, status in self.statuses.items()}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = [status for status in message.status if status.name.startswith(f"{self._decompose}: ")]
        self.reports += bool(own)
        self.statuses.update({status.name.split(": ")[1]: status for status in own})


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth random image, uint8 [height, width, channels], or [height, width] for one channel."""
    rng = np.random.default_rng(seed)
    grid = rng.uniform(0, 255, (4, 4, channels))
    rows = np.linspace(0, 3, height).round().astype(int)
    columns = np.linspace(0, 3, width).round().astype(int)
    image = grid[np.ix_(rows, columns)].astype(np.uint8)
    return image if channels > 1 else image[..., 0]


def rgb_message(header: Header, height: int = 48, width: int = 64, seed: int = 0) -> Image:
    return image_message(header, picture(height, width, seed=seed), "rgb8")
