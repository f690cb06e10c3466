"""Scenes drawn per second and core: image, labels, depth and factors of every kind.

    python -m benchmarks.rendering

Counted in seconds of CPU, so that other programs on the machine matter less; the columns beside it are shares of that.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from train.arguments import above_zero
from train.command import run_command
from train.scenes.drawing import RenderJob, SceneDrawer
from train.scenes.kinds import scene_at
from train.scenes.renderer import RenderError

CHUNK = 50
CASES = (
    ("rooms/train", 64, 0),
    ("rooms/six_objects", 64, 0),
    ("clutter", 64, 0),
    ("tabletop", 64, 0),
    ("tabletop", 128, 0),
    ("tabletop", 128, 1024),
)


def measure(kind: str, size: int, shadow_size: int, seconds: float) -> tuple[float, float, float]:
    """Scenes per CPU second, per second of wall time, and the share of the CPU time that inventing scenes takes."""
    drawer = SceneDrawer(RenderJob(kind, 1 << 30, height=size, width=size, shadow_size=shadow_size))
    drawer.draw(0, CHUNK)  # shaders are compiled
    drawn, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        drawer.draw(drawn, drawn + CHUNK)
        drawn += CHUNK
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    begin = time.process_time()
    for index in range(CHUNK):
        scene_at(kind, 0, index)
    inventing = (time.process_time() - begin) / CHUNK * drawn / cpu
    return drawn / cpu, drawn / wall, inventing


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=above_zero, default=4, help="for each case [4]")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), RenderError)


def _run(options: argparse.Namespace) -> None:
    print(f"{'scenes':20} {'size':>5} {'shadow map':>10} {'per core s':>10} {'per wall s':>10} {'inventing':>10}")
    for kind, size, shadow_size in CASES:
        per_core, per_wall, inventing = measure(kind, size, shadow_size, options.seconds)
        print(f"{kind:20} {size:5} {shadow_size:10} {per_core:10.0f} {per_wall:10.0f} {inventing:10.0%}")


if __name__ == "__main__":
    sys.exit(main())
