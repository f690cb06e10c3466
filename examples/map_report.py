"""What a map is worth: landmarks matched to the true objects, as a table and as a picture seen from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from landmarks import Landmark
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from monet_perception.files import replacing
from monet_perception.palette import track_colours
from monet_perception.recording import TrueObject

FOUND_WITHIN = 0.5
"""Metres within which a landmark can stand for a true object at all."""


@dataclass(frozen=True)
class Match:
    """A true object, by its label, and the landmark that stands for it: its index and its distance in metres.

    Without landmark (`landmark` None) the error is infinite, so that medians count the miss.
    """

    label: int
    landmark: int | None
    error: float


def match_landmarks(landmarks: Sequence[Landmark], objects: Mapping[int, TrueObject]) -> list[Match]:
    """Pairs true objects and landmarks one to one at the least total distance, none beyond `FOUND_WITHIN`."""
    labels = sorted(objects)
    if not labels:
        return []
    true = np.stack([objects[label].position for label in labels])
    found = np.stack([m.position for m in landmarks]) if landmarks else np.empty((0, 3))
    distance = np.linalg.norm(true[:, None] - found[None], axis=-1)
    rows, columns = linear_sum_assignment(np.minimum(distance, FOUND_WITHIN))
    pairs = {r: c for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if distance[r, c] < FOUND_WITHIN}
    return [
        Match(label, pairs.get(row), float(distance[row, pairs[row]]) if row in pairs else float("inf"))
        for row, label in enumerate(labels)
    ]


def table(landmarks: Sequence[Landmark], matches: Sequence[Match]) -> str:
    """One line a landmark, then the median error over the true objects."""
    by_landmark = {match.landmark: match for match in matches if match.landmark is not None}
    lines = ["landmark      x       y       z   sigma  frames  tracks            true object   error"]
    for index, landmark in enumerate(landmarks):
        x, y, z = landmark.position
        match = by_landmark.get(index)
        truth = f"{match.label:>11}  {match.error:5.2f} m" if match else f"{'-':>11}"
        tracks = ",".join(map(str, sorted(landmark.tracks)[:5]))
        place = f"{index:>8} {x:7.2f} {y:7.2f} {z:7.2f}  {landmark.sigma:4.2f} m"
        lines.append(f"{place} {landmark.observations:>6}  {tracks:<16} {truth}")
    return "\n".join([*lines, *_summary(landmarks, matches)])


def _summary(landmarks: Sequence[Landmark], matches: Sequence[Match]) -> list[str]:
    if not matches:
        return ["no true objects known: nothing to compare with"]
    found = [match.error for match in matches if match.landmark is not None]
    median = f"{100 * np.median(found):.1f} cm" if found else "none"
    return [
        f"found {len(found)} of {len(matches)} true objects (within {FOUND_WITHIN} m), "
        f"{len(landmarks) - len(found)} landmarks without object",
        f"median error of those found: {median}; over all true objects: "
        f"{100 * np.median([match.error for match in matches]):.1f} cm",
    ]


def draw_map(
    path: Path,
    landmarks: Sequence[Landmark],
    objects: Mapping[int, TrueObject],
    camera_path: Sequence[NDArray[np.float64]],
) -> None:
    """Writes the map seen from above (x right, y up, metres): true boxes, landmarks with 90 % ellipses, camera path."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlabel="x / m", ylabel="y / m", title="Landmarks from slots")
    for label, truth in objects.items():
        corner = truth.position[:2] - truth.size[:2] / 2
        axes.add_patch(Rectangle(corner, *truth.size[:2], facecolor="0.9", edgecolor="0.4", label="_"))
        axes.annotate(str(label), truth.position[:2], color="0.4", ha="center", va="center")
    colours = track_colours(np.arange(len(landmarks))) / 255
    for index, (landmark, colour) in enumerate(zip(landmarks, colours, strict=True)):
        _draw_landmark(axes, index, landmark, colour)
    if len(camera_path):
        x, y = np.stack(camera_path)[:, :2].T
        axes.plot(x, y, color="0.2", linewidth=1, label="camera")
        axes.plot(x[-1:], y[-1:], "k^")
    axes.plot([], [], "s", color="0.8", markeredgecolor="0.4", label="true object")
    axes.plot([], [], "+", color="tab:red", label="landmark, 90 % ellipse")
    figure.legend(loc="outside lower center", ncols=3)
    axes.autoscale_view()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_landmark(axes: Axes, index: int, landmark: Landmark, colour: NDArray[np.float64]) -> None:
    variances, vectors = np.linalg.eigh(landmark.covariance[:2, :2])
    diameters = 2 * np.sqrt(chi2.ppf(0.9, df=2) * variances)
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    centre = (float(landmark.position[0]), float(landmark.position[1]))
    axes.add_patch(Ellipse(centre, diameters[1], diameters[0], angle=angle, facecolor=(*colour, 0.3), edgecolor=colour))
    axes.plot(*centre, "+", color=colour)
    axes.annotate(str(index), centre, xytext=(4, 4), textcoords="offset points", color=colour)
