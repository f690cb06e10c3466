"""Many scenes drawn by many processes into one store."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.layout import StoreLayout
from train.data.store import Store
from train.data.store_writer import StoreWriter
from train.scenes.assets import Sources
from train.scenes.kinds import KINDS, scene_at
from train.scenes.renderer import RenderError, SceneRenderer
from train.scenes.scene import CAMERA_FIELDS, SimulatedScene

_CHUNK_BYTES = 4 << 20
"""Of images in a piece of work: large enough that passing it on costs nothing, small enough to show progress."""
_MILLIMETRES = 1000.0


@dataclass(frozen=True)
class RenderJob:
    """What is to be drawn.

    Attributes:
        kind: name in `kinds.KINDS`.
        count: number of scenes.
        seed: of all of them.
        height, width: pixels.
        depth: whether depth is kept.
        shadow_size: side of the shadow map in pixels; 0: no shadows.
        split: name of the part of the data that this is.
        field_of_view: in place of the scenes' own, degrees.
        sources: files of others that the scenes are made of.
    """

    kind: str
    count: int
    seed: int = 0
    height: int = 64
    width: int = 64
    depth: bool = False
    shadow_size: int = 0
    split: str = "train"
    field_of_view: float | None = None
    sources: Sources | None = None

    @property
    def chunk(self) -> int:
        """Scenes in a piece of work."""
        return max(1, _CHUNK_BYTES // (self.height * self.width * 3))

    @property
    def layout(self) -> StoreLayout:
        """Of the store of these scenes."""
        kind = KINDS[self.kind]
        options = {"kind": self.kind, "shadow_size": self.shadow_size}
        options |= self.sources.options() if self.sources else {}
        return StoreLayout(
            kind.dataset, self.split, source="train.render", licence=kind.licence, height=self.height, width=self.width,
            seed=self.seed, background_labels=kind.background_labels, factors=kind.factors, entities=kind.objects,
            camera_fields=CAMERA_FIELDS, options=options,
            labels=True, depth=self.depth,
        )  # fmt: skip


class SceneDrawer:
    """Draws the scenes of one job."""

    def __init__(self, job: RenderJob) -> None:
        self.job = job
        self._assets = KINDS[job.kind].assets(job.sources)
        self._renderer = SceneRenderer(job.height, job.width, shadow_size=job.shadow_size, assets=self._assets)

    def draw(self, start: int, stop: int) -> dict[str, Any]:
        """Scenes `start` to `stop` - 1 as the arrays that `StoreWriter.write` takes."""
        job = self.job
        frames = (stop - start, job.height, job.width)
        images, labels = np.empty((*frames, 3), np.uint8), np.empty(frames, np.uint8)
        depth = np.empty(frames, np.uint16) if job.depth else None
        scenes = [self._scene(index) for index in range(start, stop)]
        for place, scene in enumerate(scenes):
            picture = self._renderer.draw(scene)
            images[place], labels[place] = picture.image, picture.labels
            if depth is not None:
                depth[place] = millimetres(picture.depth)
        arrays: dict[str, Any] = {"images": images, "labels": labels}
        arrays["cameras"] = np.stack([scene.camera.row(job.height, job.width) for scene in scenes])
        if KINDS[job.kind].factors:
            arrays["factors"] = KINDS[job.kind].factor_rows(scenes)
        if depth is not None:
            arrays["depth"] = depth
        return arrays

    def _scene(self, index: int) -> SimulatedScene:
        scene = scene_at(self.job.kind, self.job.seed, index, self._assets)
        if self.job.field_of_view is None:
            return scene
        camera = dataclasses.replace(scene.camera, field_of_view=self.job.field_of_view)
        return dataclasses.replace(scene, camera=camera)

    def close(self) -> None:
        """Give back what OpenGL holds."""
        self._renderer.close()


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth [H, W] in metres as whole millimetres, uint16; 0, which means unknown, for what is farther than 65 m."""
    rounded = np.rint(depth * _MILLIMETRES)
    return np.where(rounded <= np.iinfo(np.uint16).max, rounded, 0).astype(np.uint16)


def draw_store(
    job: RenderJob,
    path: Path,
    *,
    processes: int,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> Store:
    """Draw everything that the store at `path` still lacks; what an interrupted attempt drew is kept.

    Args:
        job: what to draw.
        path: where the store will be.
        processes: how many draw; the result doesn't depend on it.
        overwrite: replace a store that is there.
        progress: called with the number of scenes that have been written since the last call.
    Raises:
        StoreError: the store exists, another process is writing it, or an attempt of another job, apart from `count`,
            was interrupted, and `overwrite` is off.
        RenderError: scenes can't be drawn here.
    """
    begin = time.monotonic()
    with StoreWriter(path, job.layout, job.count, overwrite=overwrite) as writer:
        progress(writer.written)
        ranges = list(writer.missing(job.chunk))
        for start, arrays in draw_ranges(job, ranges, processes):
            writer.write(start, **arrays)
            progress(len(arrays["images"]))
        return writer.finish({"seconds": round(time.monotonic() - begin, 1), "processes": processes})


def draw_ranges(job: RenderJob, ranges: list[tuple[int, int]], processes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Start and arrays of each range, in order, drawn by as many processes other than this one.

    Also a single one: this process may load libraries later that don't live together with OpenGL's (see `renderer`).
    """
    # Spawned, because OpenGL doesn't survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_obey_parent) as pool:
        yield from _in_order(pool, job, ranges, ahead=2 * processes)


def _in_order(
    pool: ProcessPoolExecutor, job: RenderJob, ranges: Iterable[tuple[int, int]], ahead: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Results as they were asked for, never more than `ahead` of them waiting: a slow disk must not fill the memory."""
    waiting: deque[tuple[int, Future[dict[str, Any]]]] = deque()
    try:
        for start, stop in ranges:
            waiting.append((start, pool.submit(_draw, job, start, stop)))
            if len(waiting) == ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise RenderError(
            "a drawing process died; if the system ran out of memory, use fewer --processes. What it says is above; "
            "the same command goes on from where it was"
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def _obey_parent() -> None:
    """Let the parent decide when a drawing process ends: on its Ctrl-C in order, and at once when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@functools.cache
def _drawer(job: RenderJob) -> SceneDrawer:
    return SceneDrawer(job)  # here and not when the process starts, so that its errors reach whoever asked


def _draw(job: RenderJob, start: int, stop: int) -> dict[str, Any]:
    return _drawer(job).draw(start, stop)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
