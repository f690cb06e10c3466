"""Measures how disentangled the latents of slots are: slots are matched to the objects of a store that has factors.

The thesis could only look at its latents (section 5.3); this puts figures to them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from monet_perception.assessment import kl_per_latent
from monet_perception.checkpoint import read_info
from monet_perception.decomposer import Decomposer
from monet_perception.labels import match_objects
from monet_perception.shipped import checkpoint_path
from train import figures, report
from train.arguments import at_least, fraction, positive
from train.command import run_command
from train.data.layout import ANGLES
from train.data.manifest import StoreError
from train.data.store import Store
from train.inference import add_inference_options, decompose_store, open_decomposer
from train.metrics.disentanglement import Disentanglement, DisentanglementError, Factor, disentanglement_scores

IMAGE_FACTORS = ("image_x", "image_y", "image_area")
"""Factors read off the labels: centre of an object's visible pixels and their number, as shares of the image."""
WORLD_POSITION = ("x", "y", "z")
DISTANCE = "distance"
"""From the camera to an object's centre, in the unit of its position; where the store has cameras."""

EXAMPLES = """examples:
  python -m train.disentanglement monet_perception/data/monet_rn18_star.safetensors --store data/rooms_test
  python -m train.disentanglement a.safetensors b.safetensors --store data/rooms_test --json s.json --figures figures
  python -m train.disentanglement a.safetensors --store data/rooms_test --factors image_x image_y size shape

A slot speaks for an object when their IoU is at least --min-iou, each slot for one object. InfoM, InfoE and InfoC are
the modularity, explicitness and compactness of InfoMEC. Where a store has cameras, no image shows where in the world an
object is: x, y and z then give way to image_x, image_y and distance, unless they are asked for."""


@dataclass(frozen=True)
class MatchedSlots:
    """Slots that hold an object, and what is known of that object; M of them.

    Attributes:
        latent_mean, latent_log_sigma: [M, L].
        factors: of the objects, in the same order.
        objects: objects with visible pixels that were looked at, matched or not.
    """

    latent_mean: NDArray[np.float32]
    latent_log_sigma: NDArray[np.float32]
    factors: tuple[Factor, ...]
    objects: int

    @property
    def kl(self) -> NDArray[np.float64]:
        """[L] mean KL of each latent from its prior, in nats: how active it is."""
        return kl_per_latent(self.latent_mean, self.latent_log_sigma).mean(axis=0)


def match_slots(
    decomposer: Decomposer,
    store: Store,
    *,
    min_iou: float = 0.5,
    batch_size: int = 64,
    limit: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> MatchedSlots:
    """Decompose a store and pair slots with objects, so that the sum of their IoU is largest.

    Raises:
        StoreError: the store has no labels, or no slot reaches `min_iou` with any object.
    """
    if store.labels is None:
        raise StoreError(f"{store.path} has no labels: slots can't be matched to objects")
    background_labels = store.manifest.background_labels
    columns: dict[str, list[Any]] = {name: [] for name in ("mean", "log_sigma", *IMAGE_FACTORS)}
    places: list[tuple[int, int]] = []
    objects = 0
    for batch in decompose_store(
        decomposer, store, batch_size=batch_size, limit=limit, reconstruct=False, progress=progress
    ):
        assert batch.labels is not None
        for image, (labels, owner) in enumerate(zip(batch.labels, batch.predicted, strict=True)):
            pairs, visible = match_objects(labels, owner, background_labels, min_iou=min_iou)
            objects += visible
            for label, slot in pairs:
                columns["mean"].append(batch.decomposition.latent_mean[image, slot])
                columns["log_sigma"].append(batch.decomposition.latent_log_sigma[image, slot])
                for name, value in zip(IMAGE_FACTORS, _image_factors(labels == label), strict=True):
                    columns[name].append(value)
                places.append((int(batch.index[image]), label - background_labels))
    if not places:
        raise StoreError(f"no slot reaches an IoU of {min_iou} with any of the {objects} objects of {store.path}")
    factors = [Factor(name, np.array(columns[name])) for name in IMAGE_FACTORS]
    factors += _store_factors(store, np.array(places))
    return MatchedSlots(np.array(columns["mean"]), np.array(columns["log_sigma"]), tuple(factors), objects)


def _image_factors(own: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The `IMAGE_FACTORS` of an object, from its pixels [H, W]."""
    rows, columns = np.nonzero(own)
    height, width = own.shape
    return (columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height, len(rows) / own.size


def _store_factors(store: Store, places: NDArray[np.int64]) -> list[Factor]:
    images, entities = places.T
    factors = []
    for name, description in store.manifest.factors.items():
        array = store.factors[name]
        inside = entities < array.shape[1]
        values = np.full(len(places), -1 if description["kind"] == "categorical" else np.nan, dtype=np.float64)
        values[inside] = array[images[inside], entities[inside]]
        period = ANGLES.get(description["unit"] or "")
        factors.append(Factor(name, values, categorical=description["kind"] == "categorical", period=period))
    if _has_distance(store):
        positions = np.stack([factor.values for name in WORLD_POSITION for factor in factors if factor.name == name], 1)
        assert store.cameras is not None
        cameras = store.cameras[images][:, [store.manifest.camera_fields.index(name) for name in WORLD_POSITION]]
        factors.append(Factor(DISTANCE, np.linalg.norm(positions - cameras, axis=1)))
    return factors


def _has_distance(store: Store) -> bool:
    return set(WORLD_POSITION) <= set(store.manifest.camera_fields) & set(store.manifest.factors)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options, report.command_line("train.disentanglement", argv)), DisentanglementError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.disentanglement",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoints", nargs="+", type=checkpoint_path, metavar="CHECKPOINT")
    parser.add_argument("--store", required=True, type=Path, help="a store with labels and factors")
    parser.add_argument(
        "--factors",
        nargs="+",
        metavar="FACTOR",
        help=f"which ones (default: the store's, {', '.join(IMAGE_FACTORS)} of its labels, {DISTANCE} of its cameras)",
    )
    parser.add_argument("--min-iou", type=fraction, default=0.5, help="of a slot and its object (default: %(default)s)")
    parser.add_argument("--limit", type=positive, default=5000, help="images looked at (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="(default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of splits, trees and votes (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="every score, with the command and the machine")
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="a picture of what each latent says of each factor"
    )
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="of figures (default: png)")
    add_inference_options(parser)
    return parser


def _run(options: argparse.Namespace, command: str) -> None:
    console = Console()
    store = Store.open(options.store)
    for path in options.checkpoints:
        read_info(path)  # everything is opened before anything long starts
    report.prepare_outputs(files=[options.json], folders=[options.figures])
    results: dict[str, tuple[MatchedSlots, Disentanglement]] = {}
    paths = dict(zip(report.unique_names(options.checkpoints), options.checkpoints, strict=True))
    for name, path in paths.items():
        decomposer = open_decomposer(str(path), options)
        try:
            results[name] = _measure(decomposer, store, name, options, console)
        finally:
            decomposer.close()
    console.print(_screen_table(options.store.name, results))
    for name, result in results.items():
        console.print(_importance_table(name, *result))
    if options.json:
        entries = [{"checkpoint": str(paths[name]), **_entry(*result)} for name, result in results.items()]
        content = {"command": command, "machine": report.machine(), "store": str(options.store), "networks": entries}
        report.write_json(options.json, content)
        report.say(console, f"wrote {options.json}")
    if options.figures:
        for name, result in results.items():
            report.say(console, f"wrote {_save_importance(name, *result, options)}")


def _save_importance(name: str, slots: MatchedSlots, scores: Disentanglement, options: argparse.Namespace) -> Path:
    title = f"{name}: importance of each latent (DCI)"
    figure = figures.importance_figure(scores.dci.importance, scores.factors, slots.kl, title)
    return figures.save_figure(figure, options.figures / f"importance_{options.store.name}_{name}.{options.format}")


def _measure(
    decomposer: Decomposer, store: Store, name: str, options: argparse.Namespace, console: Console
) -> tuple[MatchedSlots, Disentanglement]:
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"{name}: slots and objects", total=min(options.limit, len(store)))
        slots = match_slots(
            decomposer,
            store,
            min_iou=options.min_iou,
            batch_size=options.batch_size,
            limit=options.limit,
            progress=lambda images: bar.advance(task, images),
        )
        scoring = bar.add_task(f"{name}: scores", total=5)

        def announce(score: str) -> None:
            bar.update(scoring, description=f"{name}: {score}", advance=1)

        chosen = choose_factors(slots.factors, options.factors)
        return slots, disentanglement_scores(slots.latent_mean, chosen, seed=options.seed, progress=announce)


def choose_factors(factors: Sequence[Factor], names: Sequence[str] | None = None) -> list[Factor]:
    """The factors with the given names, or all that an image can show.

    Raises:
        StoreError: a name is unknown; the message lists those there are.
    """
    by_name = {factor.name: factor for factor in factors}
    if names is None:
        unseen = WORLD_POSITION if DISTANCE in by_name else ()
        return [factor for factor in factors if factor.name not in unseen]
    if unknown := [name for name in names if name not in by_name]:
        raise StoreError(f"no factor {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def summary(scores: Disentanglement) -> dict[str, float]:
    """Every score by its name, as tables and pages show them."""
    return {
        "DCI disentanglement": scores.dci.disentanglement,
        "DCI completeness": scores.dci.completeness,
        "DCI informativeness": scores.dci.informativeness,
        "MIG": scores.mig,
        "SAP": scores.sap,
        "FactorVAE": scores.factor_vae,
        "InfoM": scores.infomec.modularity,
        "InfoE": scores.infomec.explicitness,
        "InfoC": scores.infomec.compactness,
    }


def _screen_table(store: str, results: Mapping[str, tuple[MatchedSlots, Disentanglement]]) -> Table:
    first = next(iter(results.values()))[1]
    caption = f"factors: {', '.join(first.factors)}"
    if first.constant:
        caption += f"; left out, since they hardly vary: {', '.join(first.constant)}"
    table = Table(title=f"Disentanglement on {store}", caption=caption)
    table.add_column("")
    for network, (slots, _) in results.items():
        matched = f"{len(slots.latent_mean):,} of {slots.objects:,} objects"
        table.add_column(Text(f"{network}\n{matched}"), justify="right")
    for name in summary(first):
        table.add_row(name, *(f"{summary(scores)[name]:.3f}" for _, scores in results.values()))
    return table


def _importance_table(name: str, slots: MatchedSlots, scores: Disentanglement) -> Table:
    table = Table(title=f"{name}: importance of each latent to each factor, most active first")
    table.add_column("")
    table.add_column("KL\nnats", justify="right")
    for factor in scores.factors:
        table.add_column(f"{factor}\n{scores.dci.by_factor[factor]:.2f}", justify="right", overflow="fold")
    for latent in np.argsort(-slots.kl):
        values = (f"{value:.0%}" for value in scores.dci.importance[latent])
        table.add_row(f"z{latent + 1}", f"{slots.kl[latent]:.2f}", *values)
    table.caption = "under each factor: how well all latents together predict it (held-out R2 or accuracy)"
    return table


def _entry(slots: MatchedSlots, scores: Disentanglement) -> dict[str, Any]:
    entry = dataclasses.asdict(scores)
    entry["dci"]["importance"] = scores.dci.importance.tolist()
    entry["infomec"]["mutual_information"] = scores.infomec.mutual_information.tolist()
    entry["infomec"]["active"] = scores.infomec.active.tolist()
    return {"objects": slots.objects, "latent_kl": slots.kl.tolist(), **entry}


if __name__ == "__main__":
    sys.exit(main())
