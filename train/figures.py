"""The figures of chapter 5: decompositions, traversals, scores by number of objects, importance of latents.

Everything is drawn on `Figure` itself, without pyplot: no global state, no display, any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from monet_perception.decomposition import Decomposition
from monet_perception.files import replacing
from monet_perception.palette import label_colours, track_colours
from train.composition import Sweep
from train.inference import reconstructed
from train.metrics.headings import SCORES

Image = NDArray[np.float32]
GAP = 3  # pixels between pictures
INCHES_PER_PICTURE = 0.75


@dataclass(frozen=True)
class Example:
    """One decomposed image, a pair of columns in figures 5.3 and 5.9.

    Attributes:
        title: printed above; may have several lines.
        decomposition: of one frame, with reconstructions.
        labels: [H, W] true labels, shown beside the segmentation; None where unknown.
    """

    title: str
    decomposition: Decomposition
    labels: NDArray[np.uint8] | None = None


def slot_colours(count: int) -> Image:
    """[count, 3] RGB in [0, 1], the same colour for the same slot in every figure."""
    return (track_colours(np.arange(count)) / np.float32(255)).astype(np.float32)


def colour_masks(masks: Image) -> Image:
    """Soft masks [K, H, W] as one picture [H, W, 3]: slot colours weighed by the masks."""
    return np.einsum("khw,kc->hwc", masks, slot_colours(len(masks)))


def colour_labels(labels: NDArray[np.uint8]) -> Image:
    """Labels [H, W] as a picture [H, W, 3]; label 0 is black."""
    return (label_colours() / np.float32(255)).astype(np.float32)[labels]


def decomposition_figure(examples: Sequence[Example]) -> Figure:
    """Figures 5.3, 5.9, 5.13 and B.1 to B.4: input, mixture, segmentation, each slot unmasked and masked.

    Raises:
        ValueError: there is no example, or one without reconstructions.
    """
    if not examples:
        raise ValueError("a figure needs one example at least")
    columns = [_example_column(example) for example in examples]
    slots = [len(example.decomposition.masks) for example in examples]
    height = max(column.shape[0] for column in columns)
    size = examples[0].decomposition.masks.shape[-1]
    inches = 2 * INCHES_PER_PICTURE * len(columns) + 1, INCHES_PER_PICTURE * (3 + max(slots)) + 0.6
    figure = Figure(figsize=inches, layout="compressed")
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    names = ["Input", "Reconstruction\nmixture", "Segmentation", *(f"S{k + 1}" for k in range(max(slots)))]
    for axis, column, example in zip(axes, columns, examples, strict=True):
        canvas = np.ones((height, *column.shape[1:]), np.float32)
        canvas[: len(column)] = column
        axis.imshow(canvas, interpolation="nearest")
        axis.set_title(example.title.replace(", ", ",\n"), fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    axes[0].set_yticks([row * (size + GAP) + size / 2 for row in range(len(names))], names, fontsize=7)
    axes[0].tick_params(length=0)
    return figure


def traversal_figure(
    sweeps: Sequence[Sweep], kl: NDArray[np.float64], *, show: str, original: Image, title: str
) -> Figure:
    """Figures 5.4 to 5.6, 5.10, 5.11 and A.10 to A.12: a row for each latent, a column for each value.

    Args:
        sweeps: one for each row, in the order of the rows.
        kl: [L], printed beside each row.
        show: `masked` or `unmasked` pictures of the slot, or the recomposed `scene`.
        original: [H, W, 3], the input image.
        title: printed above.
    """
    rows = [strip(_swept_pictures(one, show)) for one in sweeps]
    canvas = stack(rows)
    size, steps = sweeps[0].scenes.shape[1], len(sweeps[0].values)
    width, height = INCHES_PER_PICTURE * (steps + 2), INCHES_PER_PICTURE * len(rows) + 0.9
    figure = Figure(figsize=(width, height))
    left, right = figure.subplots(1, 2, width_ratios=(1, steps))
    left.imshow(np.clip(original, 0, 1), interpolation="nearest")
    left.set_title("input", fontsize=7)
    left.axis("off")
    right.imshow(canvas, interpolation="nearest")
    centres = np.arange(max(steps, len(rows))) * (size + GAP) + size / 2
    right.set_yticks(centres[: len(rows)], [f"z{one.latent + 1}\n{kl[one.latent]:.2f} nats" for one in sweeps])
    right.set_xticks(centres[:steps], [f"{value:+.1f}" for value in sweeps[0].values])
    right.tick_params(length=0, labelsize=6, labeltop=True, labelbottom=False)
    right.set_frame_on(False)
    figure.suptitle(title, fontsize=8)
    figure.tight_layout()
    return figure


def scores_by_objects_figure(table: Mapping[str, Mapping[int, Mapping[str, float]]], title: str) -> Figure:
    """ARI, MSC and MSE over the number of visible objects, a line for each model.

    Args:
        table: model, then number of objects, then score.
    """
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    for axis, score in zip(figure.subplots(1, 3), ("ari", "msc", "mse"), strict=True):
        heading = SCORES[score]
        for model, rows in table.items():
            axis.plot(list(rows), [row[score] * heading.scale for row in rows.values()], marker="o", label=model)
        axis.set_xlabel("visible objects")
        axis.set_ylabel(heading.title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(0, 105 if heading.scale == 100 else None)  # per cent: with room for the marks at either end
        axis.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def importance_figure(
    importance: NDArray[np.float64], factors: Sequence[str], kl: NDArray[np.float64], title: str
) -> Figure:
    """How much each latent says of each factor, latents ordered by activity.

    Args:
        importance: [L, F].
        factors: F names.
        kl: [L] mean KL of each latent in nats.
    """
    order = np.argsort(-kl)
    figure = Figure(figsize=(1.5 + 0.55 * len(factors), 1 + 0.25 * len(kl)))
    axis = figure.subplots()
    picture = axis.imshow(importance[order], cmap="Blues", vmin=0, aspect="auto")
    axis.set_xticks(range(len(factors)), list(factors), rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(kl)), [f"z{i + 1}  ({kl[i]:.2f} nats)" for i in order], fontsize=7)
    figure.colorbar(picture)
    axis.set_title(title, fontsize=8)
    figure.tight_layout()
    return figure


def set_log_scale(axis: Axes) -> None:
    """Makes the y axis logarithmic, with plain numbers at 1, 2 and 5 times each power of ten."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the suffix decides the format (.png, .pdf, .svg)."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path


def strip(pictures: Sequence[Image] | Image, places: int = 0) -> Image:
    """Pictures [H, W, 3] side by side on white, with room for at least `places`."""
    height, width, _ = pictures[0].shape
    places = max(places, len(pictures))
    canvas = np.ones((height, places * (width + GAP) - GAP, 3), np.float32)
    for place, picture in enumerate(pictures):
        canvas[:, place * (width + GAP) :][:, :width] = np.clip(picture, 0, 1)
    return canvas


def stack(strips: Sequence[Image]) -> Image:
    """Strips of one width below one another on white."""
    gap = np.ones((GAP, *strips[0].shape[1:]), np.float32)
    return np.concatenate([part for one in strips for part in (one, gap)][:-1])


def _example_column(example: Example) -> Image:
    """The pictures of one example as one array: two pictures wide, 3 + K high."""
    one = example.decomposition
    reconstructions, decoded_masks = reconstructed(one)
    segmentation = [colour_masks(one.masks)]
    if example.labels is not None:
        segmentation.append(colour_labels(example.labels))
    rows: list[list[Image]] = [
        [(one.image / np.float32(255)).astype(np.float32)],
        [np.clip(one.reconstruction(), 0, 1)],
        segmentation,
        *([seen, seen * mask[..., None]] for seen, mask in zip(reconstructions, decoded_masks, strict=True)),
    ]
    size = one.masks.shape[-1]
    canvas = np.ones(((size + GAP) * len(rows) - GAP, 2 * size + GAP, 3), np.float32)
    for row, pictures in enumerate(rows):
        side_by_side = strip(pictures)
        start = (canvas.shape[1] - side_by_side.shape[1]) // 2
        canvas[row * (size + GAP) :][:size, start : start + side_by_side.shape[1]] = side_by_side
    return canvas


def _swept_pictures(one: Sweep, show: str) -> Image:
    if show == "scene":
        return one.scenes
    return one.reconstructions if show == "unmasked" else one.reconstructions * one.masks[..., None]
