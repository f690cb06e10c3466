"""The demo: camera, `decompose` and viewer as three processes that talk over DDS, for one pass through the clip."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from monet_perception.clip import CAMERA_INFO, DEMO_CLIP, DEPTH, DEPTHS, IMAGE, LABELS
from monet_perception.nodes.camera import Clip
from monet_perception.nodes.process import NOT_CONFIGURED, NOT_WRITTEN
from monet_perception.shipped import SHIPPED, checkpoint_path

PATIENCE = 120.0
"""Seconds that the nodes may take to find each other; most of it is loading the network on a busy machine."""
LAST_FRAMES = 1.5
"""Seconds that the last frames may take after the camera has ended."""
ENDING = 20.0
"""Seconds that a node may take to end before it is killed."""
WRITING = 180.0
"""The same of the viewer, which writes its pictures then; an animation takes most of a minute on a busy machine."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the demo, and its nodes, which are in sessions of their own."""

LOG = "decompose.log"
"""In the folder of the pictures: what the node said."""


class Demo:
    """The three processes.

    Args:
        options: of the command line; its `output` is a folder that can be written to.
        clip: what the camera will play.
    """

    def __init__(self, options: argparse.Namespace, clip: Clip) -> None:
        self._options = options
        self._transport = "raw" if clip.image_topic == IMAGE else "compressed"
        self._depth_transport = "compressedDepth" if DEPTHS[1] in clip.topics and DEPTH not in clip.topics else "raw"
        self._log = options.output / LOG
        # The user's robot, if there is one, is on the network; the demo stays on this machine unless told otherwise.
        self._environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **os.environ}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._interruptions = 0

    def interrupt(self, *_: object) -> None:
        """Handler of signals: `run` ends in order, and at once where it is ending already.

        It counts and doesn't raise, as an exception may come between any two lines, those that end processes included.
        """
        self._interruptions += 1

    def run(self) -> int:
        """Runs until the clip has ended; returns 0, or 1 if no slots arrived or the pictures couldn't be written."""
        options = self._options
        try:
            decompose = self._start("decompose", self._ros_arguments(), log=True)
            viewer = self._start(
                "viewer",
                [
                    *("--output", str(options.output)),
                    *(["--gif"] if options.gif else []),
                    *(["--show"] if options.show else []),
                    *("--ros-args", "-r", f"image:={IMAGE}", "-r", f"labels:={LABELS}"),
                ],
            )
            loop = ["--loop"] if options.loop else []
            clip = ["--clip", str(options.clip), "--wait-for", "2", "--patience", str(PATIENCE)]
            camera = self._start("camera", clip + loop)
            self._wait(camera, others=(decompose, viewer))
            return self._finish()
        finally:
            for process in self._running.values():
                if process.poll() is None:
                    process.kill()

    def _ros_arguments(self) -> list[str]:
        options = self._options
        return [
            "--ros-args",
            *("-r", f"image:={IMAGE}", "-r", f"depth:={DEPTH}", "-r", f"camera_info:={CAMERA_INFO}"),
            *("-p", f"device:={options.device}", "-p", f"transport:={self._transport}"),
            *("-p", f"depth_transport:={self._depth_transport}"),
            *(["-p", f"checkpoint:={options.checkpoint}"] if options.checkpoint else []),
        ]

    def _start(self, name: str, arguments: list[str], log: bool = False) -> subprocess.Popen[bytes]:
        # In sessions of their own: Ctrl-C goes to the demo, which ends them one after the other.
        # As modules and not as scripts, which may lie anywhere (bin/ with pip, lib/monet_perception/ with colcon).
        command = [sys.executable, "-m", f"monet_perception.nodes.{name}", *arguments]
        if log:
            with self._log.open("wb") as file:
                process = subprocess.Popen(
                    command, env=self._environment, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
                )
        else:
            process = subprocess.Popen(command, env=self._environment, start_new_session=True)
        self._running[name] = process
        return process

    def _wait(self, camera: subprocess.Popen[bytes], others: tuple[subprocess.Popen[bytes], ...]) -> None:
        """Waits for the camera to end; or for one of the others to end or give up, which they shouldn't."""
        while camera.poll() is None and all(process.poll() is None for process in others):
            if self._interruptions or NOT_CONFIGURED in self._log.read_text(errors="replace"):
                return
            time.sleep(0.2)
        time.sleep(LAST_FRAMES)

    def _finish(self) -> int:
        """Ends the viewer, which then writes its pictures, and after it the others."""
        borne = min(self._interruptions, 1)  # the one that ended the clip
        for name in ("viewer", "camera", "decompose"):
            process = self._running[name]
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + (WRITING if name == "viewer" else ENDING)
            while process.poll() is None and time.monotonic() < deadline:
                if self._interruptions > borne:
                    return 1
                time.sleep(0.05)
        code = self._running["viewer"].poll()
        if code == 0:
            return 0
        if code == NOT_WRITTEN:  # it has said why
            return 1
        if code is None:
            print(f"\nThe pictures were not finished within {WRITING:.0f} s.", file=sys.stderr)
            return 1
        print(f"\nNo slots arrived. What decompose said ({self._log}):", file=sys.stderr)
        print(self._log.read_text(errors="replace")[-4000:], file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monet-demo",
        description="Decomposes a recorded clip in three real ROS nodes and writes a video and a picture of it.",
        epilog="examples:\n  make demo\n  monet-demo --loop --show\n  monet-demo --checkpoint runs/a/best.safetensors",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder of the pictures (%(default)s)")
    parser.add_argument("--clip", type=Path, default=DEMO_CLIP, help="MCAP file or ROS 2 bag (the shipped clip)")
    networks = " or ".join(SHIPPED)
    parser.add_argument("--checkpoint", type=checkpoint_path, help=f"the network: {networks}, or a file (rooms)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until Ctrl-C")
    parser.add_argument("--show", action="store_true", help="also show the pictures in a window")
    parser.add_argument("--gif", action="store_true", help="also write an animation for documents")
    return parser


def main(args: list[str] | None = None) -> int:
    """Runs the demo; returns 0, or 1 if no slots arrived or a file is missing or can't be read or written."""
    options = _parser().parse_args((sys.argv if args is None else args)[1:])
    for what, path in (("clip", options.clip), ("checkpoint", options.checkpoint)):
        if path is not None and not path.exists():
            print(f"demo: no {what} at {path}; name one with --{what}", file=sys.stderr)
            return 1
    try:
        clip = Clip(options.clip)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / LOG).touch()
    except OSError as error:
        print(f"demo: can't write to {options.output}: {error.strerror}; name another --output", file=sys.stderr)
        return 1
    demo = Demo(options, clip)
    for number in STOP_SIGNALS:
        signal.signal(number, demo.interrupt)
    code = demo.run()
    for number in STOP_SIGNALS:  # or Python, while it ends, would let them say how it ended
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
