"""Latency of the node: from an image's stamp to its slots in another process, over real DDS.

    python -m benchmarks.latency --output runs/benchmarks
    python -m benchmarks.latency --width 1920 --height 1080 --slots 11 --size 128 --profile none

Three things in one run, in turns of seconds, so that all of them see the same machine:
    network   the Decomposer alone, called at the same rate in a process of its own
    relay     a node that takes the image and sends it back: what rclpy and DDS cost for the image alone
    node      `decompose`: image in, SlotArray out
and then the node at growing load, up to four times the rate that the network manages.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "config" / "fastdds.xml"
FRAMES = 25
"""Frames of one turn: short, because a shared machine is now faster, now slower, for seconds."""
LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Rates at which the node is fed, as multiples of the network's own."""
TOPICS = {"relayed": "image_to_relay", "scene/slots": "image"}
"""Where answers come from, and where to send their images."""
START = 180.0
"""Seconds that a process may take to start."""
STAMP = slice(4, 12)
"""Where a serialised message that begins with a header has its stamp: after the four bytes that name the encoding."""


def milliseconds(seconds: Sequence[float] | np.ndarray, share: float) -> float:
    """A percentile in milliseconds; NaN of nothing, where every image got lost."""
    return 1000 * float(np.percentile(seconds, share)) if len(seconds) else float("nan")


@dataclass
class Run:
    """Latencies of one stretch of frames; `sent` and `latency` in seconds, one entry for each answer."""

    sent: np.ndarray
    latency: np.ndarray
    published: int

    @classmethod
    def joined(cls, runs: Sequence[Run]) -> Run:
        """The turns of one thing together."""
        return cls(
            np.concatenate([run.sent for run in runs]),
            np.concatenate([run.latency for run in runs]),
            sum(run.published for run in runs),
        )

    def summary(self) -> dict[str, float]:
        """Percentiles in milliseconds."""
        median, high = milliseconds(self.latency, 50), milliseconds(self.latency, 99)
        return {"frames": self.published, "answers": len(self.latency), "median (ms)": median, "99 % (ms)": high}


# Processes under test


def relay() -> None:
    """A node that sends each image back as it is."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    from monet_perception.nodes.process import ros, spin

    with ros([]) as stop:
        node = rclpy.create_node("relay")
        publisher = node.create_publisher(Image, "relayed", QoSProfile(depth=1))
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(Image, TOPICS["relayed"], publisher.publish, newest)
        spin(node, stop.is_set)


def network(checkpoint: Path, width: int, height: int) -> None:
    """Answers each line on standard input, a number of frames and a rate, with the seconds that each frame took."""
    from monet_perception.decomposer import Decomposer

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback
    decomposer = Decomposer(checkpoint)
    decomposer.warm_up()
    camera = picture(width, height)
    for line in sys.stdin:
        times, (frames, rate) = [], line.split()
        due = time.perf_counter()
        for _ in range(int(frames)):
            frame = camera.copy()  # a frame has just arrived, and is not what the caches hold from the last one
            begin = time.perf_counter()
            decomposer(frame, reconstruct=True)
            times.append(time.perf_counter() - begin)
            # At the camera's pace and not in a row, which keeps caches warm as no robot does.
            due = max(due + 1 / float(rate), time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
        print(json.dumps(times), flush=True)


def picture(width: int, height: int) -> np.ndarray:
    """Smooth colours, uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1).astype(np.uint8)


@contextmanager
def process(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process, ended with SIGINT."""
    running = subprocess.Popen([sys.executable, *arguments], text=True, cwd=ROOT, start_new_session=True, **options)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()


# The camera's side


class Camera:
    """Sends images and waits for their answers."""

    def __init__(self, width: int, height: int) -> None:
        import rclpy
        from monet_perception_msgs.msg import SlotArray
        from rclpy.qos import QoSProfile
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        from monet_perception.nodes.conversions import image_message
        from monet_perception.nodes.process import NodeExecutor

        rclpy.init()
        self._node = rclpy.create_node("benchmark")
        self._executor = NodeExecutor()
        self._executor.add_node(self._node)
        self._kinds = {"relayed": Image, "scene/slots": SlotArray}
        newest = QoSProfile(depth=1)
        self._publishers = {topic: self._node.create_publisher(Image, image, newest) for topic, image in TOPICS.items()}
        # Serialised once: the camera's own cost is not what is measured, and drivers are written in C++.
        message = image_message(Header(frame_id="camera"), picture(width, height), "rgb8")
        self._serialised = bytearray(serialize_message(message))

    def run(self, topic: str, rate: float, frames: int) -> Run:
        """Sends `frames` images at `rate` to the one node that answers on `topic`."""
        from rclpy.qos import QoSProfile

        answers: dict[int, float] = {}

        def received(message: bytes) -> None:
            seconds, nanoseconds = np.frombuffer(message[STAMP], "<u4").tolist()
            answers[seconds * 10**9 + nanoseconds] = time.time()

        publisher = self._publishers[topic]
        # Raw: turning bytes into Python's objects is the listener's cost, and drivers and SLAM are written in C++.
        subscription = self._node.create_subscription(
            self._kinds[topic], topic, received, QoSProfile(depth=10), raw=True
        )
        self._until(lambda: publisher.get_subscription_count() == 1, f"nothing subscribes to {TOPICS[topic]}")
        self._wait(0.5)
        begin = time.perf_counter()
        sent = []
        for index in range(frames):
            self._wait(begin + index / rate - time.perf_counter())
            now = time.time_ns()
            self._serialised[STAMP] = np.array([now // 10**9, now % 10**9], "<u4").tobytes()
            publisher.publish(bytes(self._serialised))
            sent.append(now)
        self._wait(0.5)
        self._node.destroy_subscription(subscription)
        self._until(lambda: topic == "relayed" or publisher.get_subscription_count() == 0, "still subscribed")
        answered = [stamp for stamp in sent if stamp in answers]
        return Run(
            sent=np.array([(stamp - sent[0]) / 1e9 for stamp in answered]),
            latency=np.array([answers[stamp] - stamp / 1e9 for stamp in answered]),
            published=frames,
        )

    def _wait(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _until(self, true: Any, why: str) -> None:
        end = time.monotonic() + START
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"{why} within {START:.0f} s")
            self._executor.spin_once(timeout_sec=0.05)


def resident(process_id: int) -> float:
    """Megabytes of physical memory of a process."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# The benchmark


@dataclass
class Results:
    """What was measured.

    Attributes:
        network: of each turn, the seconds that each frame took in the bare network.
        relay, node: of each turn, at the same rate as the network.
        loads: the node, by the multiple of the network's rate that it was fed at.
        growth: megabytes of memory that the node gained at the last of them.
    """

    network: list[list[float]]
    relay: list[Run]
    node: list[Run]
    loads: dict[float, Run]
    growth: float

    def alone(self) -> np.ndarray:
        """Seconds of all frames in the bare network."""
        return np.concatenate(self.network)

    def added(self) -> float:
        """Milliseconds that the node adds to the network: the median over the turns of the difference of their medians.

        The machine is now faster, now slower, for longer than a turn: the medians of all turns together differ by that.
        """
        pairs = zip(self.node, self.network, strict=True)
        return float(
            np.nanmedian([milliseconds(node.latency, 50) - milliseconds(network, 50) for node, network in pairs])
        )


def checkpoint_for_timing(folder: Path, slots: int | None = None, size: int | None = None) -> Path:
    """The shipped checkpoint, or one with random weights, which take as long, of another number or size of slots."""
    from monet_perception.checkpoint import DEFAULT_CHECKPOINT, save_checkpoint
    from monet_perception.networks import PRESETS, Monet

    if DEFAULT_CHECKPOINT.exists() and slots is None and size is None:
        return DEFAULT_CHECKPOINT
    config = PRESETS["monet_rn18_star"]
    config = replace(config, slots=slots or config.slots, image_size=size or config.image_size)
    save_checkpoint(folder / "random.safetensors", Monet(config), dataset="none", steps=0)
    return folder / "random.safetensors"


def measure(options: argparse.Namespace, folder: Path) -> Results:
    """Runs everything."""
    size = ["--width", str(options.width), "--height", str(options.height)]
    checkpoint = options.checkpoint or checkpoint_for_timing(folder, options.slots, options.size)
    camera = Camera(options.width, options.height)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    itself = "-m", "benchmarks.latency", "--as"
    node_arguments = ["--ros-args", "--log-level", "error", "-p", f"checkpoint:={checkpoint}", *options.node_arguments]
    network: list[list[float]] = []
    turns: dict[str, list[Run]] = {topic: [] for topic in TOPICS}
    # All three are there all the time, idle until it is their turn.
    with (
        process(*itself, "network", "--checkpoint", str(checkpoint), *size, **pipes) as alone,
        process(*itself, "relay"),
        process("-m", "monet_perception.nodes.decompose", *node_arguments) as node,
    ):
        call_network(alone, 20, options.rate)
        for topic in TOPICS:
            camera.run(topic, options.rate, 20)  # the first frames are slow
        for _ in progress(range(options.rounds), "turns"):
            network.append(call_network(alone, FRAMES, options.rate))
            for topic in reversed(TOPICS):  # the node next to the network
                turns[topic].append(camera.run(topic, options.rate, FRAMES))
        loads, growth = {}, 0.0
        alone_now = float(np.median(np.concatenate(network)))
        for load in progress(LOADS, "loads"):
            rate, before = load / alone_now, resident(node.pid)
            seconds = options.flood if load == LOADS[-1] else options.flood / 3
            loads[load] = camera.run("scene/slots", rate, int(rate * seconds))
            growth = resident(node.pid) - before
    return Results(network, turns["relayed"], turns["scene/slots"], loads, growth)


def progress(steps: Sequence[Any], name: str) -> Iterable[Any]:
    """The steps, with a bar."""
    from rich.progress import track

    return track(steps, name)


def call_network(alone: subprocess.Popen[str], frames: int, rate: float) -> list[float]:
    """Has the network's process decompose frames; seconds that each took."""
    assert alone.stdin
    assert alone.stdout
    alone.stdin.write(f"{frames} {rate}\n")
    alone.stdin.flush()
    return list(json.loads(alone.stdout.readline()))


def verdicts(results: Results) -> list[tuple[str, float, str, bool]]:
    """What issue 7 asks for: name, value, limit, whether it holds."""
    network, node, flood = results.alone(), Run.joined(results.node).latency, results.loads[LOADS[-1]].latency
    third = len(flood) // 3
    early, late = (milliseconds(part, 50) for part in (flood[:third], flood[-third:]))
    added = results.added(), milliseconds(node, 99) - milliseconds(network, 99)
    ratio = milliseconds(flood, 50) / milliseconds(network, 50)
    return [
        ("node adds to the network, median (ms)", added[0], "<= 5", added[0] <= 5),
        ("node adds to the network, 99 % (ms)", added[1], "<= 15", added[1] <= 15),
        ("median latency at four times the rate / network", ratio, "< 2", ratio < 2),
        ("last third / first third of it", late / early, "< 1.2", late / early < 1.2),
        ("memory growth during it (MB)", results.growth, "< 20", results.growth < 20),
    ]


def plot(results: Results, title: str, path: Path) -> None:
    """Latency over load."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    loads = list(results.loads)
    summaries = [run.summary() for run in results.loads.values()]
    median, high = ([summary[name] for summary in summaries] for name in ("median (ms)", "99 % (ms)"))
    network = milliseconds(results.alone(), 50)
    axis.plot(loads, high, "o-", color="tab:orange", label="node, 99th percentile")
    axis.plot(loads, median, "o-", color="tab:blue", label="node, median")
    axis.axhline(2 * network, color="grey", linestyle=":", label="twice the network's time")
    axis.axhline(network, color="grey", linestyle="--", label=f"the network alone, median ({network:.0f} ms)")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.set_xticks(loads, [f"{load:g}" for load in loads])
    ticks = [network / 2, network, 2 * network, 4 * network, 8 * network]
    axis.set_yticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axis.set_ylim(network / 2, np.nanmax([8 * network, *(1.1 * value for value in high)]))
    axis.set(
        xlabel="images a second, in multiples of the network's rate", ylabel="image stamp to slots (ms)", title=title
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=100)


def report(results: Results, options: argparse.Namespace) -> bool:
    """Prints tables and writes files; whether all limits hold."""
    from rich.console import Console
    from rich.table import Table

    bare = results.alone()
    runs = {"network": Run(bare, bare, len(bare)), "relay": Run.joined(results.relay), "node": Run.joined(results.node)}
    runs |= {f"node, load {load:g}": run for load, run in results.loads.items()}
    summaries = {name: run.summary() for name, run in runs.items()}
    title = f"{options.width}x{options.height}, {os.cpu_count()} cores"
    table = Table(title=f"{title}, load {os.getloadavg()[0]:.1f}")
    for column in ("", *summaries["node"]):
        table.add_column(column, justify="right")
    for name, summary in summaries.items():
        table.add_row(name, *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in summary.values()))
    limits = Table()
    for column in ("", "value", "limit", ""):
        limits.add_column(column, justify="right")
    found = verdicts(results)
    for name, value, limit, holds in found:
        limits.add_row(name, f"{value:.2f}", limit, "yes" if holds else "NO")
    console = Console()
    console.print(table, limits)
    options.output.mkdir(parents=True, exist_ok=True)
    plot(results, f"decompose, {title}", options.output / "latency_over_load.png")
    content = {
        "summaries": summaries,
        "turns, median (ms)": {
            "network": [milliseconds(turn, 50) for turn in results.network],
            "relay": [milliseconds(turn.latency, 50) for turn in results.relay],
            "node": [milliseconds(turn.latency, 50) for turn in results.node],
        },
        "limits": [{"name": name, "value": float(value), "limit": limit} for name, value, limit, _ in found],
    }
    (options.output / "latency.json").write_text(json.dumps(content, indent=2))
    console.print(f"wrote {options.output / 'latency_over_load.png'} and latency.json")
    return all(holds for *_, holds in found)


def main() -> int:
    """Returns 0 if all limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=10.0, help="images a second (%(default)s)")
    parser.add_argument("--rounds", type=int, default=16, help=f"turns of {FRAMES} frames for each (%(default)s)")
    parser.add_argument(
        "--flood",
        type=float,
        default=20.0,
        help="seconds at four times the rate; a third of it at others (%(default)s)",
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--slots", type=int, help="a network with random weights and so many slots instead")
    parser.add_argument("--size", type=int, help="a network with random weights and masks of this side instead")
    parser.add_argument("--profile", default=str(PROFILE), help="Fast DDS profile, or 'none' (the shipped one)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (%(default)s)")
    parser.add_argument("--as", dest="role", choices=["relay", "network"], help=argparse.SUPPRESS)
    parser.add_argument("node_arguments", nargs="*", help="more for the node, after --: -- -p quantised:=true")
    options = parser.parse_args()
    if options.role == "relay":
        relay()
        return 0
    if options.role == "network":
        network(options.checkpoint, options.width, options.height)
        return 0
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", "87")
    if options.profile != "none":
        os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = options.profile
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    return 0 if report(results, options) else 1


if __name__ == "__main__":
    sys.exit(main())
