"""Identity and 3D geometry on recordings with ground truth: switches, centroid errors, coverage of the covariance.

    python -m benchmarks.tracking                                # the shipped clip, true masks and the shipped network
    python -m benchmarks.tracking A.mcap B.mcap --slots truth    # geometry and tracker alone
    python -m benchmarks.tracking A.mcap --checkpoint mine.safetensors --json result.json
Rendered sequences: `python -m train.render rooms --sequence OUT.mcap --seed N`.

Slots come from the recorded labels ("truth": what geometry and tracker do by themselves; latents then say nothing) or
from a network. In each frame a true object is *found* by the slot that covers it with an IoU of at least 0.5, if there
is one. An identity switch is an object found under another track id than the last time (MOTA's definition, Bernardin
and Stiefelhagen 2008). IDF1 compares whole trajectories (Ristani et al. 2016), those of slots that are no object among
them. Objects count where at least 0.2 % of
the masks' pixels show them.

Coverage is the share of frames in which the true centre lies within the covariance's ellipsoid of the stated
probability.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from monet_perception.clip import DEMO_CLIP
from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import Decomposition
from monet_perception.geometry import SlotGeometry, slot_geometry
from monet_perception.labels import FIRST_OBJECT_LABEL, label_masks, label_scene
from monet_perception.recording import Frame, read_frames
from monet_perception.scene_tracker import SceneTracker
from monet_perception.shipped import DEFAULT_CHECKPOINT, checkpoint_path
from monet_perception.similarity import mask_overlap
from monet_perception.slots import MIN_AREA
from train.arguments import fraction
from train.command import run_command
from train.report import prepare_outputs, write_json

LEVELS = (0.5, 0.9, 0.95)
FOUND_IOU = 0.5
SHADOW = 6
"""Pixels beside what is near, on its left, that a stereo camera's other eye doesn't see."""


@dataclass(frozen=True)
class Slots:
    """Slots of one frame, and the true masks at the same pixels: [K, H, W], [labels, H, W]."""

    masks: NDArray[np.float32]
    true_masks: NDArray[np.float32]
    tracks: NDArray[np.int32]
    geometries: list[SlotGeometry | None]


Segment = Callable[[Frame], Slots]


@dataclass
class Scores:
    """Sums over frames; `summary` makes figures of them."""

    visible: int = 0
    found: int = 0
    false: int = 0
    switches: int = 0
    objects: set[tuple[int, int]] = field(default_factory=set)
    together: dict[tuple[tuple[int, int], tuple[int, int]], int] = field(default_factory=lambda: defaultdict(int))
    errors: list[float] = field(default_factory=list)
    mahalanobis: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Figures by name; lengths in metres, shares in [0, 1]."""
        quantiles = np.quantile(self.errors, [0.5, 0.9]) if self.errors else (np.nan, np.nan)
        distances = np.array(self.mahalanobis)
        return {
            "objects": len(self.objects),
            "visible": self.visible,
            "found": self.found / max(self.visible, 1),
            "switches_per_object": self.switches / max(len(self.objects), 1),
            "idf1": self._idf1(),
            "error_median": float(quantiles[0]),
            "error_90": float(quantiles[1]),
            **{
                f"coverage_{level:.0%}": float(np.mean(distances <= chi2.ppf(level, df=3)))
                if len(distances)
                else np.nan
                for level in LEVELS
            },
        }

    def _idf1(self) -> float:
        """IDF1 (Ristani et al. 2016): twice the object frames under the one track that serves each object best, in the
        best pairing of both, over the frames of objects and of tracks that are no background."""
        if not self.together:
            return 0.0
        objects, tracks = sorted({o for o, _ in self.together}), sorted({t for _, t in self.together})
        table = np.array([[self.together.get((o, t), 0) for t in tracks] for o in objects])
        rows, columns = linear_sum_assignment(table, maximize=True)
        return 2 * float(table[rows, columns].sum()) / (self.visible + self.found + self.false)


def label_segment() -> Segment:
    """Slots by recorded labels, which say themselves what is background."""
    tracker = SceneTracker()

    def segment(frame: Frame) -> Slots:
        assert frame.labels is not None
        slots = _slots(label_scene(frame.image, frame.labels), frame, tracker)
        background, objects = slots.geometries[:FIRST_OBJECT_LABEL], slots.geometries[FIRST_OBJECT_LABEL:]
        known = [None if one is None else replace(one, background=True) for one in background]
        return replace(slots, geometries=[*known, *objects])

    return segment


def network_segment(decomposer: Decomposer) -> Segment:
    """Slots by a network."""
    tracker = SceneTracker()
    return lambda frame: _slots(decomposer(frame.image), frame, tracker)


def _slots(scene: Decomposition, frame: Frame, tracker: SceneTracker) -> Slots:
    assert frame.depth is not None
    assert frame.labels is not None
    true_masks, _ = label_masks(frame.labels, scene.masks.shape[-1])
    geometries = slot_geometry(scene.masks, scene.roi, frame.depth, frame.intrinsics)
    return Slots(scene.masks, true_masks, tracker.follow(scene, frame.stamp), geometries)


def with_holes(depth: NDArray[np.float32], share: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Depth [h, w] with a share missing, as in a real camera's: in blobs, and in the shadow beside what is near."""
    blobs = cv2.GaussianBlur(random.normal(size=depth.shape), (0, 0), 3)
    missing = blobs > np.quantile(blobs, 1 - share)
    for pixels in range(1, SHADOW + 1):
        missing[:, :-pixels] |= depth[:, pixels:] < depth[:, :-pixels] - 0.15
    return np.where(missing, np.float32(0), depth)


def score(recordings: list[Path], make_segment: Callable[[], Segment], holes: float = 0.0) -> Scores:
    """Scores of recordings, each of which is segmented anew.

    Raises:
        ValueError: one lacks depth, labels or camera poses.
    """
    scores, random = Scores(), np.random.default_rng(0)
    for number, path in enumerate(recordings):
        segment = make_segment()
        last_track: dict[int, int] = {}
        for frame in _checked_frames(path):
            assert frame.depth is not None
            if holes:
                frame.depth = with_holes(frame.depth, holes, random)
            slots = segment(frame)
            for label, slot in _found_objects(frame, slots, scores, number):
                track = int(slots.tracks[slot])
                scores.switches += last_track.get(label, track) != track
                last_track[label] = track
                scores.together[(number, label), (number, track)] += 1
                _add_geometry(scores, slots.geometries[slot], frame, label)
    return scores


def _checked_frames(path: Path) -> Iterator[Frame]:
    for frame in read_frames(path):
        if frame.depth is None or frame.labels is None or frame.camera is None:
            raise ValueError(f"{path} lacks depth, labels or camera poses")
        yield frame


def _found_objects(frame: Frame, slots: Slots, scores: Scores, recording: int) -> list[tuple[int, int]]:
    """True objects of a frame with the slot that found each; counts the visible, the found and what is none."""
    visible = [label for label in visible_labels(slots.true_masks) if label in frame.objects]
    scores.visible += len(visible)
    scores.objects |= {(recording, label) for label in visible}
    overlap = mask_overlap(slots.true_masks[visible], slots.masks)
    overlap[:, slots.tracks < 0] = 0.0
    pairs = covering_slots(visible, overlap)
    scores.found += len(pairs)
    scores.false += len(_shown_as_objects(slots) - {slot for _, slot in pairs})
    return pairs


def visible_labels(true_masks: NDArray[np.float32]) -> list[int]:
    """Labels of the objects that masks [labels, H, W] show enough of."""
    return [label for label in range(FIRST_OBJECT_LABEL, len(true_masks)) if true_masks[label].mean() >= MIN_AREA]


def covering_slots(labels: list[int], overlap: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Label and slot of each object that a slot covers, from the IoU [labels, K]."""
    return [(label, int(row.argmax())) for label, row in zip(labels, overlap, strict=True) if row.max() >= FOUND_IOU]


def _shown_as_objects(slots: Slots) -> set[int]:
    """Slots that a robot would take for objects: tracked, with a place, and no background."""
    geometries = enumerate(slots.geometries)
    return {
        k for k, geometry in geometries if slots.tracks[k] >= 0 and geometry is not None and not geometry.background
    }


def _add_geometry(scores: Scores, geometry: SlotGeometry | None, frame: Frame, label: int) -> None:
    if geometry is None:
        return
    assert frame.camera is not None
    rotation, position = frame.camera[:3, :3], frame.camera[:3, 3]
    error = geometry.centroid - rotation.T @ (frame.objects[label].position - position)
    scores.errors.append(float(np.linalg.norm(error)))
    scores.mahalanobis.append(float(error @ np.linalg.solve(geometry.covariance, error)))


def table(results: dict[str, dict[str, float]]) -> str:
    """Results by kind of slots, one line each."""
    lines = [
        "slots    objects  found  switches/object  IDF1   error median   90 %      coverage of 50 / 90 / 95 %",
    ]
    for name, r in results.items():
        coverage = " / ".join(f"{100 * r[f'coverage_{level:.0%}']:.0f}" for level in LEVELS)
        lines.append(
            f"{name:<8} {r['objects']:>7}  {100 * r['found']:3.0f} %  {r['switches_per_object']:>15.2f}  "
            f"{r['idf1']:.2f}  "
            f"{100 * r['error_median']:9.1f} cm {100 * r['error_90']:6.1f} cm     {coverage} %"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recordings", nargs="*", type=Path, default=[DEMO_CLIP], help="MCAP files (default: the shipped clip)"
    )
    parser.add_argument("--slots", choices=("truth", "network", "both"), default="both")
    parser.add_argument("--checkpoint", type=checkpoint_path, default=DEFAULT_CHECKPOINT, help="network (rooms)")
    parser.add_argument(
        "--holes",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="of the depth to leave out, in blobs and beside edges",
    )
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), ValueError)


def _run(options: argparse.Namespace) -> None:
    prepare_outputs(files=[options.json])
    sources = {"truth": label_segment, "network": lambda: network_segment(Decomposer(options.checkpoint))}
    chosen = list(sources) if options.slots == "both" else [options.slots]
    results = {name: score(options.recordings, sources[name], options.holes).summary() for name in chosen}
    print(table(results))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    sys.exit(main())
