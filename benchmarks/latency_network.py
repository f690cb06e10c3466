"""The Decomposer alone, at a camera's pace, in a process without ROS."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.node_process import picture
from monet_perception.decomposer import Decomposer


def run(checkpoint: str, width: int, height: int) -> None:
    """Answers each line on standard input, a number of frames and a rate, with the seconds that each frame took."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback
    decomposer = Decomposer(Path(checkpoint))
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


def call(network: subprocess.Popen[str], frames: int, rate: float) -> list[float]:
    """Has the process that executes `run` decompose frames; seconds that each took."""
    assert network.stdin
    assert network.stdout
    network.stdin.write(f"{frames} {rate}\n")
    network.stdin.flush()
    return list(json.loads(network.stdout.readline()))
