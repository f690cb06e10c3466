"""Measures checkpoints on stores: segmentation and reconstruction, as in tables 5.1 to 5.4 and figures 5.3 and 5.9."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monet_perception.checkpoint import CheckpointError
from monet_perception.decomposer import Decomposer
from monet_perception.files import write_text
from monet_perception.shipped import checkpoint_path
from train import figures, report
from train.arguments import at_least, named_path, positive
from train.command import run_command
from train.data.manifest import StoreError
from train.data.store import Store
from train.evaluation import Evaluation, average_by_objects, evaluate
from train.examples import decompose_examples, example_indices, example_pages
from train.inference import add_inference_options, open_decomposer
from train.seeds import Network, open_networks

EXAMPLES = """examples:
  python -m train.evaluate monet_perception/data/monet_rn18_star.safetensors --store data/rooms_test
  python -m train.evaluate runs/star/*/best.safetensors --store data/rooms_test --table 5.2 --markdown table.md
  python -m train.evaluate "MONet=runs/monet.safetensors" "MONet-RN50*=runs/star.safetensors" \\
      --store data/rooms_test data/rooms_same --figures figures --json scores.json
  python -m train.evaluate "MONet/Kaiming=a.safetensors" "MONet/Default=b.safetensors" --store data/val --table 5.1

Checkpoints of the same structure (or given the same NAME=) count as seeds of one model: mean and standard deviation.
Refused as such are two of one training, of one seed, or of different image sizes; those that were trained on different
numbers of images count as seeds under one NAME= only.
Structures of one name are told apart by the settings in which they differ: MONet, component_decoder=upsampling.
Where the folders of their runs tell, a pre-trained attention or another initialisation makes another model, and the
Markdown ends with how each network was trained. One network alone comes with a 95 % bootstrap interval over images."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.example_objects and not options.figures:
        parser.error("--example-objects chooses images for figures: say where to draw them (--figures FOLDER)")
    return run_command(lambda: _run(options, report.command_line("train.evaluate", argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoints", nargs="+", metavar="[NAME=]CHECKPOINT", help=".safetensors, with a name for tables"
    )
    parser.add_argument("--store", nargs="+", required=True, type=Path, help="stores to measure on, with labels or not")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT images of each store")
    parser.add_argument("--batch-size", type=positive, default=64, help="(default: %(default)s)")
    parser.add_argument(
        "--min-pixels",
        type=positive,
        default=1,
        help="visible pixels that an object needs in order to count (default: %(default)s, the thesis's definition)",
    )
    parser.add_argument("--bootstrap", type=positive, default=1000, help="resamples (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the bootstrap (default: %(default)s)")
    output = parser.add_argument_group("output, beside the table on the screen")
    output.add_argument("--json", type=Path, help="everything measured, with the command and the machine")
    output.add_argument("--markdown", type=Path, help="rows laid out like --table, the thesis's own beside them")
    output.add_argument("--table", choices=sorted(report.THESIS_TABLES), default="5.2", help="(default: %(default)s)")
    output.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="decompositions, and scores by number of objects"
    )
    output.add_argument("--examples", type=positive, default=4, help="images in each figure (default: %(default)s)")
    output.add_argument("--example-objects", type=positive, metavar="N", help="images that show N objects")
    output.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="of figures (default: png)")
    add_inference_options(parser)
    return parser


def _run(options: argparse.Namespace, command: str) -> None:
    named = [(name, checkpoint_path(path)) for name, path in map(named_path, options.checkpoints)]
    if same := _first_repeated([path for _, path in named]):
        raise CheckpointError(f"one checkpoint is given twice, {same[0]} and {same[1]}, and would count as two seeds")
    networks = open_networks(named, options.table)  # everything is opened before anything long starts
    stores = _open_stores(options.store)
    chosen = [example_indices(store, options.examples, options.example_objects) for store in stores]
    names = report.unique_names([network.path for network in networks])
    report.prepare_outputs(files=[options.json, options.markdown], folders=[options.figures])
    console = Console()
    results: list[Evaluation] = []
    examples: dict[Path, list[list[figures.Example]]] = {store.path: [] for store in stores}
    for network, name in zip(networks, names, strict=True):
        decomposer = open_decomposer(str(network.path), options)
        try:
            for store, indices in zip(stores, chosen, strict=True):
                results.append(_evaluate_one(decomposer, network, store, options, console))
                if options.figures:
                    title = f"{network.model}\n{name}"
                    examples[store.path].append(decompose_examples(decomposer, title, store, indices))
        finally:
            decomposer.close()
    _report(results, options, command, console)
    if options.figures:
        for store, name, indices in zip(stores, report.unique_names(options.store), chosen, strict=True):
            _save_examples(example_pages(examples[store.path], names, indices), name, options, console)


def _open_stores(paths: Sequence[Path]) -> list[Store]:
    """Raises StoreError also where one store is given twice: its images would count twice."""
    if same := _first_repeated(paths):
        raise StoreError(f"--store names one store twice, {same[0]} and {same[1]}: name it once")
    return [Store.open(path) for path in paths]


def _first_repeated(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """The first two paths that lead to the same place; None where all differ."""
    seen: dict[Path, Path] = {}
    for path in paths:
        if same := seen.get(path.resolve()):
            return same, path
        seen[path.resolve()] = path
    return None


def _evaluate_one(
    decomposer: Decomposer, network: Network, store: Store, options: argparse.Namespace, console: Console
) -> Evaluation:
    total = len(store) if options.limit is None else min(options.limit, len(store))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{network.model} on {store.path.name}", total=total)
        scores, objects = evaluate(
            decomposer,
            store,
            batch_size=options.batch_size,
            limit=options.limit,
            min_pixels=options.min_pixels,
            progress=lambda images: bar.advance(task, images),
        )
    runs_on = f"{decomposer.device}, {decomposer.precision}, {decomposer.backend}"
    seconds = time.perf_counter() - start
    return Evaluation(
        network.model, network.path, decomposer.info, store.path, runs_on, seconds, scores, objects, network.training
    )


def _save_examples(
    pages: Mapping[str, Sequence[figures.Example]], store: str, options: argparse.Namespace, console: Console
) -> None:
    suffix = f"_{options.example_objects}_objects" if options.example_objects else ""
    for page, examples in pages.items():
        target = options.figures / f"decomposition_{store}_{page}{suffix}.{options.format}"
        report.say(console, f"wrote {figures.save_figure(figures.decomposition_figure(examples), target)}")


@dataclasses.dataclass(frozen=True)
class _StoreReport:
    """What is reported of one store.

    Attributes:
        path: as given.
        name: that tells it from the other stores.
        rows: one for each model.
        tables: model, then number of objects, then score; -1 objects where the store has no labels.
    """

    path: Path
    name: str
    rows: Sequence[report.Row]
    tables: Mapping[str, Mapping[int, Mapping[str, float]]]

    @property
    def labelled(self) -> bool:
        return any(n >= 0 for table in self.tables.values() for n in table)


def _report(results: Sequence[Evaluation], options: argparse.Namespace, command: str, console: Console) -> None:
    """Tables on the screen before any file: what is measured is seen, also where a disk is full."""
    stores = _store_reports(results, options)
    for store in stores:
        console.print(report.screen_table(store.name, store.rows))
        if store.labelled:
            console.print(report.screen_table_by_objects(store.name, store.tables))
        else:
            report.say(console, f"{store.path} has no labels: only reconstruction is measured")
    if options.json:
        content = {"command": command, "machine": report.machine(), **_entries(stores, results)}
        report.write_json(options.json, content)
        report.say(console, f"wrote {options.json}")
    if options.markdown:
        write_text(options.markdown, _markdown(stores, results, options.table))
        report.say(console, f"wrote {options.markdown}")
    if options.figures:
        for store in stores:
            if store.labelled:
                target = options.figures / f"scores_by_objects_{store.name}.{options.format}"
                figure = figures.scores_by_objects_figure(store.tables, store.name)
                report.say(console, f"wrote {figures.save_figure(figure, target)}")


def _store_reports(results: Sequence[Evaluation], options: argparse.Namespace) -> list[_StoreReport]:
    stores = []
    for path, name in zip(options.store, report.unique_names(options.store), strict=True):
        here = [one for one in results if one.store == path]
        groups = {model: [one for one in here if one.model == model] for model in dict.fromkeys(o.model for o in here)}
        rows = [summarise(group, options.bootstrap, options.seed) for group in groups.values()]
        tables = {model: average_by_objects(group) for model, group in groups.items()}
        stores.append(_StoreReport(path, name, rows, tables))
    return stores


def _markdown(stores: Sequence[_StoreReport], results: Sequence[Evaluation], layout: str) -> str:
    parts = [report.markdown_table(store.name, store.rows, layout) for store in stores]
    trainings = {f"{one.model} ({one.checkpoint})": one.training for one in results if one.training is not None}
    if trainings:
        parts.append(report.training_table(trainings))
    return "\n".join(parts)


def _entries(stores: Sequence[_StoreReport], results: Sequence[Evaluation]) -> dict[str, Any]:
    models = [
        {"store": str(store.path), **_row_entry(row), "by_objects": store.tables[row.model]}
        for store in stores
        for row in store.rows
    ]
    return {"models": models, "networks": [_network_entry(one) for one in results]}


def summarise(evaluations: Sequence[Evaluation], resamples: int, seed: int) -> report.Row:
    """One row of a table from the networks of one model on one store."""
    means = [one.means() for one in evaluations]
    scores = {}
    if len(evaluations) == 1:
        intervals = evaluations[0].intervals(resamples, seed)
        scores = {name: report.Score(value, *intervals[name]) for name, value in means[0].items()}
    else:
        for name in means[0]:
            values = np.array([one[name] for one in means])
            scores[name] = report.Score(float(values.mean()), deviation=float(values.std(ddof=1)))
    return report.Row(evaluations[0].model, len(evaluations), len(evaluations[0].objects), scores)


def _row_entry(row: report.Row) -> dict[str, Any]:
    scores = {
        name: {key: value for key, value in dataclasses.asdict(score).items() if value is not None}
        for name, score in row.scores.items()
    }
    return {"model": row.model, "networks": row.networks, "images": row.images, "scores": scores}


def _network_entry(one: Evaluation) -> dict[str, Any]:
    info = one.info
    return {
        "model": one.model,
        "checkpoint": str(one.checkpoint),
        "model_id": info.model_id,
        "trained_on": info.dataset,
        "steps": info.steps,
        "training": None if one.training is None else dataclasses.asdict(one.training),
        "code_version": info.code_version,
        "store": str(one.store),
        "images": len(one.objects),
        "runs_on": one.runs_on,
        "seconds": round(one.seconds, 2),
        "scores": one.means(),
        "by_objects": one.by_objects(),
    }


if __name__ == "__main__":
    sys.exit(main())
