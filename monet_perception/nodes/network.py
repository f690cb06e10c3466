"""The Decomposer of a running node: one user at a time, given back on demand, brought up again after a device error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monet_perception.checkpoint import CheckpointInfo
from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import Decomposition

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
"""Seconds between two attempts to bring a failing network up again; doubled after each."""
HANGING = "the network hangs in a call: start the node again"
LOADING = "the network is being loaded again after an error: ask again in a moment"


class NetworkError(RuntimeError):
    """The network can't answer now; the text says why."""


@dataclass
class Network:
    """A Decomposer that can be given back and made again. Its methods may be called from any thread.

    Attributes:
        make: builds and warms up the Decomposer.
        patience: seconds that a call under way may take when another comes; after that it hangs, unless it loads the
            network.
        recoveries: how often it was built again after an error.
        fault: why there is no network now; empty if there is one, or none is wanted.
    """

    make: Callable[[], Decomposer]
    patience: float = 5.0
    recoveries: int = field(default=0, init=False)
    fault: str = field(default="", init=False)
    _decomposer: Decomposer | None = field(default=None, init=False, repr=False)
    _loading: bool = field(default=False, init=False, repr=False)
    _wanted: bool = field(default=False, init=False, repr=False)
    _pause: float = field(default=FIRST_PAUSE, init=False, repr=False)
    _not_before: float = field(default=0.0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def acquire(self) -> Decomposer:
        """Builds the Decomposer unless it is there, and keeps it until `release`.

        Raises:
            NetworkError: a call hangs.
            CheckpointError, DeviceError, ValueError: as the Decomposer does.
        """
        with self._held():
            decomposer = self._decomposer or self._load()
            self._wanted = True
            self.fault = ""
            self._pause, self._not_before = FIRST_PAUSE, 0.0
            return decomposer

    def release(self) -> None:
        """Gives the Decomposer and its device memory back; a call that hangs keeps them until it returns."""
        self._wanted = False
        try:
            with self._held():
                self.fault = ""
        except NetworkError as error:
            self.fault = str(error)

    def decompose(self, frame: NDArray[np.uint8], *, reconstruct: bool) -> tuple[Decomposition, str]:
        """`Decomposer.__call__`, and the id of the model that answered.

        Raises:
            ValueError: as the Decomposer does.
            NetworkError: the device failed, and the network is brought up again by a later call; or a call hangs.
        """

        def call(decomposer: Decomposer) -> tuple[Decomposition, str]:
            return decomposer(frame, reconstruct=reconstruct), decomposer.info.model_id

        answer: tuple[Decomposition, str] = self._use(call)
        return answer

    def decode(self, latents: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`Decomposer.decode`.

        Raises:
            NetworkError: the node isn't active, the device failed, or a call hangs.
            ValueError: latents of another size.
        """
        decoded: tuple[NDArray[np.float32], NDArray[np.float32]] = self._use(methodcaller("decode", latents))
        return decoded

    def info(self) -> CheckpointInfo:
        """The checkpoint that is loaded, or loaded again after an error.

        Raises:
            NetworkError: the node isn't active, the network can't be loaded now, or a call hangs.
        """
        with self._held():
            return self._ready().info

    def description(self) -> dict[str, str]:
        """What is loaded, as text: model, device, precision, backend and device memory. Empty if nothing is."""
        decomposer = self._decomposer
        if decomposer is None:
            return {}
        found = {
            "model": decomposer.info.model_id,
            "dataset": decomposer.info.dataset,
            "slots": str(decomposer.config.slots),
            "device": decomposer.device,
            "precision": decomposer.precision,
            "backend": decomposer.backend,
        }
        if decomposer.device.startswith("cuda"):
            found["memory of the device (MB)"] = f"{torch.cuda.memory_allocated(decomposer.device) / 1e6:.0f}"
        return found

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The lock, which a call that hangs keeps for ever; discards what was given back while it was held."""
        if not self._lock.acquire(timeout=self.patience):
            raise NetworkError(LOADING if self._loading else HANGING)
        try:
            yield
        finally:
            if not self._wanted:
                self._discard()
            self._lock.release()

    def _use(self, call: Callable[[Decomposer], Any]) -> Any:
        with self._held():
            decomposer = self._ready()
            try:
                result = call(decomposer)
            except ValueError:  # what was asked for is wrong, the network is not
                raise
            except Exception as error:
                # Out of memory, a lost device, a driver that was reset: nothing of it can be told from what is raised,
                # and a network built anew cures what can be cured.
                self._fail(error)
                raise NetworkError(self.fault) from error
            self.fault, self._pause = "", FIRST_PAUSE
            return result

    def _ready(self) -> Decomposer:
        """The Decomposer, built again where an error has taken it."""
        if not self._wanted:
            raise NetworkError("no network is loaded: the node is not active")
        return self._decomposer or self._recover()

    def _recover(self) -> Decomposer:
        if time.monotonic() < self._not_before:
            raise NetworkError(self.fault)
        try:
            decomposer = self._load()
        except Exception as error:
            self._fail(error)
            raise NetworkError(self.fault) from error
        self.recoveries += 1
        self.fault = ""
        return decomposer

    def _load(self) -> Decomposer:
        self._loading = True
        try:
            self._decomposer = self.make()
        finally:
            self._loading = False
        return self._decomposer

    def _fail(self, error: Exception) -> None:
        self.fault = f"{type(error).__name__}: {error}; the network will be loaded again"
        self._discard()
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _discard(self) -> None:
        decomposer, self._decomposer = self._decomposer, None
        if decomposer is None:
            return
        try:
            decomposer.close()
        except Exception as error:  # a broken device may not even let go
            self.fault = self.fault or f"{type(error).__name__}: {error}"
