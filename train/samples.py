"""Draws samples of a store with their labels, ordered by the number of visible objects: figures 5.1 and 5.2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from train import figures
from train.arguments import at_least, positive
from train.command import run_command
from train.data.store import Store
from train.examples import visible_objects
from train.report import prepare_outputs, unique_names

EXAMPLES = """examples:
  python -m train.samples data/rooms_test data/rooms_same --output figures
  python -m train.samples data/clevr_test --rows 2 --columns 9 --format pdf"""


def samples_figure(store: Store, rows: int, columns: int, seed: int = 0) -> Figure:
    """Random images in reading order of their number of visible objects, each with its labels below it.

    Args:
        rows, columns: of images.
        seed: of the draw.
    """
    count = min(rows * columns, len(store))
    index = np.sort(np.random.default_rng(seed).choice(len(store), count, replace=False))
    if store.labels is not None:
        objects = [visible_objects(store, i) for i in index]
        index = index[np.argsort(objects, kind="stable")]
    strips = []
    for start in range(0, count, columns):
        chosen = index[start : start + columns]
        pictures = [[store.images[i].astype(np.float32) / 255 for i in chosen]]
        if store.labels is not None:
            pictures.append([figures.colour_labels(store.labels[i]) for i in chosen])
        strips += [figures.strip(row, columns) for row in pictures]
    canvas = figures.stack(strips)
    figure = Figure(figsize=(columns * figures.INCHES_PER_PICTURE, len(strips) * figures.INCHES_PER_PICTURE + 0.3))
    axis = figure.subplots()
    axis.imshow(canvas, interpolation="nearest")
    axis.set_title(f"{store.manifest.dataset}, {store.manifest.split}", fontsize=8)
    axis.axis("off")
    figure.tight_layout()
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m train.samples",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--rows", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--columns", type=positive, default=8, help="(default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("figures"), metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    stores = [Store.open(path) for path in options.stores]
    prepare_outputs(folders=[options.output])
    for store, name in zip(stores, unique_names(options.stores), strict=True):
        figure = samples_figure(store, options.rows, options.columns, options.seed)
        print(f"wrote {figures.save_figure(figure, options.output / f'samples_{name}.{options.format}')}")


if __name__ == "__main__":
    sys.exit(main())
