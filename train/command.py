"""How a command ends: its errors told in a line, its exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from monet_perception.checkpoint import CheckpointError
from monet_perception.decomposer import DeviceError
from train.data.manifest import StoreError
from train.inference import InferenceOptionError, NonFiniteError

COMMAND_ERRORS: tuple[type[Exception], ...] = (
    CheckpointError,
    StoreError,
    DeviceError,
    InferenceOptionError,
    NonFiniteError,
    OSError,
)
"""What a command that decomposes tells its user in one line instead of a traceback."""
INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells have it."""


def run_command(work: Callable[[], None], *others: type[Exception]) -> int:
    """Does a command's work; returns its exit status.

    Args:
        work: what may end in `COMMAND_ERRORS` and in Ctrl-C, told in one line on stderr.
        others: exceptions that are told likewise.
    """
    try:
        work()
    except (*COMMAND_ERRORS, *others) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command begins again from the start.", file=sys.stderr)
        return INTERRUPTED
    return 0
