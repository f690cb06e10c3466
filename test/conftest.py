"""Surroundings of the tests: one thread each, a ROS domain of their own, nothing left behind."""

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

import pytest
from hypothesis import settings


def claim_domain() -> tuple[int, IO[bytes]]:
    """Takes a ROS domain that no other test run on this machine holds; the lock is given up when the process ends.

    Domains 1 to 100 stay clear of Linux's ephemeral ports, and of 0, where the user's own robot may be.
    """
    for domain in range(1, 101):
        try:
            lock = (Path(tempfile.gettempdir()) / f"monet_perception_domain_{domain}.lock").open("ab")
        except PermissionError:  # another user's, who may hold the domain
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("all of the ROS domains 1 to 100 are held by test runs on this machine")


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is installed
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than cores: a quarter of the time tests wait, for the processes that they start."""
    return (os.cpu_count() or 1) + 1


DOMAIN, DOMAIN_LOCK = claim_domain()
LOGS = tempfile.mkdtemp(prefix="monet_perception_ros_log_")
atexit.register(shutil.rmtree, LOGS, ignore_errors=True)

# Set here and not in a fixture, because torch, rclpy and MuJoCo read them when they are imported; processes that tests
# start inherit them.
os.environ.update(
    OMP_NUM_THREADS="1",
    ROS_DOMAIN_ID=str(DOMAIN),
    ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
    ROS_LOG_DIR=LOGS,
    MPLBACKEND="Agg",
)
os.environ.setdefault("MUJOCO_GL", "egl")

# No deadline: the machine may be shared. In CI the examples are always the same, elsewhere new ones are tried.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("tests")
