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
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from benchmarks import latency_network
from benchmarks.latency_camera import SLOTS, TOPICS, Camera
from benchmarks.latency_relay import RELAYED
from benchmarks.latency_report import report
from benchmarks.latency_results import Results, Run
from benchmarks.node_process import PROFILE, checkpoint_for_timing, process, use_dds
from benchmarks.targets import MissedError
from monet_perception.nodes.diagnostics import resident_memory
from train.arguments import above_zero, positive
from train.command import run_command
from train.report import prepare_outputs

FRAMES = 25
"""Frames of one turn: short, because a shared machine is now faster, now slower, for seconds."""
LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Rates at which the node is fed, as multiples of the network's own."""


def measure(options: argparse.Namespace, folder: Path) -> Results:
    """Runs everything."""
    checkpoint = options.checkpoint or checkpoint_for_timing(folder, options.slots, options.size)
    camera = Camera(options.width, options.height)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    bare = f"from benchmarks.latency_network import run; run({str(checkpoint)!r}, {options.width}, {options.height})"
    node_arguments = ["--ros-args", "--log-level", "error", "-p", f"checkpoint:={checkpoint}", *options.node_arguments]
    network: list[list[float]] = []
    turns: dict[str, list[Run]] = {topic: [] for topic in TOPICS}
    # All three are there all the time, idle until it is their turn.
    with (
        process("-c", bare, **pipes) as alone,
        process("-c", "from benchmarks.latency_relay import run; run()"),
        process("-m", "monet_perception.nodes.decompose", *node_arguments) as node,
    ):
        latency_network.call(alone, 20, options.rate)
        for topic in TOPICS:
            camera.run(topic, options.rate, 20)  # the first frames are slow
        for _ in track(range(options.rounds), "turns"):
            network.append(latency_network.call(alone, FRAMES, options.rate))
            for topic in reversed(TOPICS):  # the node next to the network
                turns[topic].append(camera.run(topic, options.rate, FRAMES))
        loads, growth = {}, 0.0
        alone_now = float(np.median(np.concatenate(network)))
        for load in track(LOADS, "loads"):
            rate, before = load / alone_now, resident_memory(node.pid)
            seconds = options.flood if load == LOADS[-1] else options.flood / 3
            loads[load] = camera.run(SLOTS, rate, int(rate * seconds))
            growth = (resident_memory(node.pid) - before) / 1e6
    return Results(network, turns[RELAYED], turns[SLOTS], loads, growth)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=positive, default=640)
    parser.add_argument("--height", type=positive, default=480)
    parser.add_argument("--rate", type=above_zero, default=10.0, help="images a second (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=16, help=f"turns of {FRAMES} frames for each (%(default)s)")
    parser.add_argument(
        "--flood",
        type=above_zero,
        default=20.0,
        help="seconds at four times the rate; a third of it at others (%(default)s)",
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--slots", type=positive, help="a network with random weights and so many slots instead")
    parser.add_argument("--size", type=positive, help="a network with random weights and masks of this side instead")
    parser.add_argument("--profile", default=str(PROFILE), help="Fast DDS profile, or 'none' (the shipped one)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (%(default)s)")
    parser.add_argument("node_arguments", nargs="*", help="more for the node, after --: -- -p quantised:=true")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError)


def _run(options: argparse.Namespace) -> None:
    prepare_outputs(folders=[options.output])
    use_dds(87, None if options.profile == "none" else options.profile)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    if not report(results, f"{options.width}x{options.height}", options.output):
        raise MissedError("a limit doesn't hold")


if __name__ == "__main__":
    sys.exit(main())
