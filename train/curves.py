"""Draws what the validations of runs said over the images that they had seen, one line for each run."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from monet_perception.networks import network_config
from train.arguments import figure_path, named_path
from train.command import run_command
from train.figures import save_figure, set_log_scale
from train.metrics.headings import VALIDATED, Heading
from train.model_names import model_name, name_by_run
from train.runs import CONFIG_NAME, LAST_NAME, images_seen, read_config, read_training, read_validations

EXAMPLES = """examples:
  python -m train.curves runs/compare/* --output figures/curves.png
  python -m train.curves "MONet, other rates=runs/monet_2" runs/star_0 --values ari_multi mse mask_entropy

Runs are those of train.fit, also while they still train. Every value of validation.jsonl can be drawn."""


class CurveError(ValueError):
    """A run whose validations can't be drawn; the message says which and why."""


@dataclass(frozen=True)
class Curve:
    """What the validations of one run said.

    Attributes:
        name: in the legend.
        images: [V], seen before each validation, those seen twice counted twice.
        values: [V] each, by their names in `validation.jsonl`.
    """

    name: str
    images: Sequence[int]
    values: Mapping[str, Sequence[float]]


def read_curve(run: Path, name: str | None = None) -> Curve:
    """The validations of a run.

    Args:
        run: its folder.
        name: for the legend; None: the model's, and the seed.
    Raises:
        CurveError: the folder has no validations of train.fit, or nothing that names its network.
    """
    lines = read_validations(run)
    training = read_training(run / LAST_NAME, lines[-1]["step"] if lines else 0)
    if training is None or not lines:
        raise CurveError(f"{run}: no validation of a run of train.fit is here (yet)")
    if name is None:
        name = f"{name_by_run(_structure(run), training, '5.2')}, seed {training.seed}"
    values = {key: [line[key] for line in lines] for key in lines[0] if all(key in line for line in lines)}
    images = [images_seen(lines, line["step"], training.images_per_step) for line in lines]
    return Curve(name, images, values)


def _structure(run: Path) -> str:
    """The name of the network that a run trains, by its configuration."""
    model = read_config(run)["model"]
    try:
        return model_name(network_config(model["preset"], model["network"]))
    except (KeyError, TypeError, ValueError) as error:  # of another version: ConfigError is a ValueError
        raise CurveError(
            f"{run / CONFIG_NAME} describes no network that is known here ({error}): name the run, NAME={run}"
        ) from error


def curves_figure(curves: Sequence[Curve], values: Sequence[str]) -> Figure:
    """A diagram for each of `values`, three in a row at most, with a line for each run.

    Raises:
        CurveError: a run has none of a value.
    """
    rows = math.ceil(len(values) / 3)
    columns = math.ceil(len(values) / rows)
    figure = Figure(figsize=(4 * columns, 3.2 * rows + 0.2), layout="constrained")
    for place, value in enumerate(values, start=1):
        axis = figure.add_subplot(rows, columns, place)
        heading = VALIDATED.get(value, Heading(value))
        for curve in curves:
            if value not in curve.values:
                raise CurveError(f"{curve.name}: its validations have no {value}; they have {', '.join(curve.values)}")
            scaled = [number * heading.scale for number in curve.values[value]]
            axis.plot(np.array(curve.images) / 1000, scaled, ".-", label=curve.name)
        axis.set(xlabel="images seen (thousands)", ylabel=heading.title)
        axis.grid(alpha=0.3)
        if value == "mse":  # falls by orders of magnitude
            set_log_scale(axis)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.curves",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="folder of a run, with a name for the legend")
    parser.add_argument(
        "--values", nargs="+", default=["ari_multi", "msc", "mse"], metavar="VALUE", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--output", type=figure_path, default=Path("figures/curves.png"), metavar="FILE",
        help=".png, .pdf or .svg (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), CurveError)


def _run(options: argparse.Namespace) -> None:
    named = [named_path(run) for run in options.runs]
    curves = [read_curve(run, name) for name, run in named]
    times = Counter(curve.name for curve in curves)
    curves = [  # what models share doesn't tell runs apart that differ in their settings
        curve if name or times[curve.name] == 1 else replace(curve, name=f"{curve.name}, {run.name}")
        for curve, (name, run) in zip(curves, named, strict=True)
    ]
    print(f"wrote {save_figure(curves_figure(curves, options.values), options.output)}")


if __name__ == "__main__":
    sys.exit(main())
