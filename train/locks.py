"""Locks on files, which keep other processes out of a folder that is being written.

Not `filelock`, whose locks are held by forks too: the workers of a killed training's data loader would keep its lock.
"""

from __future__ import annotations

import fcntl
import warnings
from pathlib import Path
from typing import IO


def locked(path: Path, *, by_forks_too: bool = True) -> IO[bytes]:
    """The file at `path`, made where it is missing, and locked until it is closed or the process ends, by a kill too.

    Where the file system has no locks, as some network file systems, it warns and goes on without.

    Args:
        path: of the file.
        by_forks_too: whether processes that this one forks hold the lock as well, for as long as they live; such a lock
            also keeps this process from taking it twice.
    Raises:
        BlockingIOError: somebody else holds the lock.
        OSError: the file can't be opened.
    """
    take = fcntl.flock if by_forks_too else fcntl.lockf
    file = path.open("ab")
    try:
        take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError as error:
        warnings.warn(
            f"{path} can't be locked ({error.strerror}): see that no other process writes to its folder", stacklevel=2
        )
    return file
