"""The node under test in a process of its own: how it is started and ended, and waited for from this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import PRESETS, Monet
from monet_perception.shipped import DEFAULT_CHECKPOINT

if TYPE_CHECKING:  # the bare network's process shall know nothing of ROS
    from rclpy.executors import Executor

ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "config" / "fastdds.xml"


def use_dds(domain: int, profile: str | None) -> None:
    """Keeps this process and those that it starts on this machine, in a ROS domain of their own.

    Args:
        domain: where none is set in the environment.
        profile: path of a Fast DDS profile; None: whatever the environment says.
    """
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(domain))
    if profile is not None:
        os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile


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


def wait(executor: Executor, seconds: float) -> None:
    """Works off messages for so long; not at all where it is negative."""
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        executor.spin_once(timeout_sec=left)


def wait_until(executor: Executor, true: Callable[[], Any], patience: float, why: str) -> None:
    """Works off messages until something is true.

    Raises:
        TimeoutError: it isn't within `patience` seconds; says why.
    """
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{why} within {patience:.0f} s")
        executor.spin_once(timeout_sec=0.05)


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth colours, [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1).astype(np.uint8)


def checkpoint_for_timing(folder: Path, slots: int | None = None, size: int | None = None) -> Path:
    """The shipped checkpoint, or one with random weights, which take as long, of another number or size of slots."""
    if DEFAULT_CHECKPOINT.exists() and slots is None and size is None:
        return DEFAULT_CHECKPOINT
    config = PRESETS["monet_rn18_star"]
    config = replace(config, slots=slots or config.slots, image_size=size or config.image_size)
    save_checkpoint(folder / "random.safetensors", Monet(config), dataset="none", steps=0)
    return folder / "random.safetensors"
