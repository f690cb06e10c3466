"""Identities while the camera turns: with the tracker told how far the picture moved, as the node does, and without.

    python -m benchmarks.turning A.mcap B.mcap                 # recordings with labels, of wide images
    python -m benchmarks.turning A.mcap --step 8 --rate 30     # another speed
Rendered sequences: `python -m train.render rooms --sequence OUT.mcap --seed N`.

A turn is imitated: over single images of the recordings a square window slides to the right and back, so that nothing
moves by itself and objects keep their looks. An identity switch is an object found (IoU of at least 0.5) under another
track id than the last time, as in `benchmarks.tracking`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.tracking import covering_slots, visible_labels
from monet_perception.clip import DEMO_CLIP
from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import Decomposition
from monet_perception.labels import label_masks
from monet_perception.recording import Frame, read_frames
from monet_perception.scene_tracker import SceneTracker
from monet_perception.shipped import DEFAULT_CHECKPOINT, checkpoint_path
from monet_perception.similarity import mask_overlap
from monet_perception.tracking import NO_TRACK
from train.arguments import above_zero, positive
from train.command import run_command

STILL_FRAMES = 10
"""Frames before the turn, in which what is there gets its track."""


@dataclass(frozen=True)
class Window:
    """What the window shows at one place of a still."""

    scene: Decomposition
    true_masks: NDArray[np.float32]


@dataclass
class Score:
    """Switches and objects of one way of tracking."""

    switches: int = 0
    objects: int = 0

    @property
    def per_object(self) -> float:
        """Switches an object."""
        return self.switches / max(self.objects, 1)


def slide(frame: Frame, decomposer: Decomposer, step: int) -> list[Window]:
    """The frames of one turn, to the right and back."""
    height, width = frame.image.shape[:2]
    assert frame.labels is not None
    windows = []
    for left in range(0, width - height + 1, step):
        cut = np.s_[:, left : left + height]
        scene = decomposer(np.ascontiguousarray(frame.image[cut]))
        windows.append(Window(scene, label_masks(frame.labels[cut], scene.masks.shape[-1])[0]))
    return [*[windows[0]] * STILL_FRAMES, *windows[1:], *windows[-2::-1]]


def track(windows: list[Window], rate: float, *, with_shift: bool, score: Score) -> None:
    """Adds the switches of one turn."""
    tracker = SceneTracker()
    last: dict[int, int] = {}
    for number, window in enumerate(windows):
        scene, stamp = window.scene, number / rate
        if with_shift:
            tracks = tracker.follow(scene, stamp)
        else:
            tracks = tracker.update(scene.masks, scene.latent_mean, scene.latent_log_sigma, stamp)
        for label, slot in found_objects(window):
            if tracks[slot] != NO_TRACK:
                score.switches += last.get(label, tracks[slot]) != tracks[slot]
                last[label] = tracks[slot]
    score.objects += len(last)


def found_objects(window: Window) -> list[tuple[int, int]]:
    """Label and slot of each true object that a slot covers."""
    visible = visible_labels(window.true_masks)
    return covering_slots(visible, mask_overlap(window.true_masks[visible], window.scene.masks))


def stills(path: Path, count: int) -> list[Frame]:
    """Frames spread over a recording.

    Raises:
        ValueError: it has no labels, or its images are no wider than high.
    """
    frames = list(read_frames(path))
    if frames[0].labels is None or frames[0].image.shape[1] <= frames[0].image.shape[0]:
        raise ValueError(f"{path} needs labels, and images that are wider than high")
    return [frames[index] for index in np.linspace(0, len(frames) - 1, count).astype(int)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.turning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings", nargs="*", type=Path, default=[DEMO_CLIP], help="MCAP files (default: the shipped clip)"
    )
    parser.add_argument("--checkpoint", type=checkpoint_path, default=DEFAULT_CHECKPOINT, help="network (rooms)")
    parser.add_argument("--stills", type=positive, default=3, help="images of each recording (default: %(default)s)")
    parser.add_argument("--step", type=positive, default=16, help="pixels from frame to frame (default: %(default)s)")
    parser.add_argument("--rate", type=above_zero, default=10.0, help="frames a second (default: %(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), ValueError)


def _run(options: argparse.Namespace) -> None:
    decomposer = Decomposer(options.checkpoint)
    scores, speeds = {True: Score(), False: Score()}, []
    for path in tqdm(options.recordings, file=sys.stderr):
        for frame in stills(path, options.stills):
            speeds.append(math.degrees(options.step * options.rate / frame.intrinsics.fx))
            windows = slide(frame, decomposer, options.step)
            for with_shift, score in scores.items():
                track(windows, options.rate, with_shift=with_shift, score=score)
    told, untold = scores[True], scores[False]
    print(
        f"{np.mean(speeds):.0f} degrees a second, {told.objects} objects: {told.per_object:.2f} switches an object; "
        f"without the picture's shift {untold.per_object:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
