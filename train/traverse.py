"""Sweeps a slot's latents one by one and draws what changes: figures 5.4 to 5.6, 5.10, 5.11, A.10 to A.12, B.5, B.6."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from monet_perception.assessment import kl_per_latent
from monet_perception.decomposer import Decomposer
from monet_perception.decomposition import Decomposition
from monet_perception.shipped import checkpoint_path
from monet_perception.slots import background_slots, mask_area, occupied_slots
from train import figures, report
from train.arguments import above_zero, at_least, positive
from train.command import run_command
from train.composition import sweep
from train.data.store import Store
from train.inference import add_inference_options, decompose_images, one_of, open_decomposer

EXAMPLES = """examples:
  python -m train.traverse monet_perception/data/monet_rn18_star.safetensors --store data/rooms_test
  python -m train.traverse a.safetensors --store data/rooms_test --image 12 --slot 5 --latents 4    # as figure 5.5
  python -m train.traverse a.safetensors --store data/rooms_test --image 12 --slot 5 --show unmasked scene
  python -m train.traverse a.safetensors --store data/clevr_test --slots-all --format pdf --output figures

Rows are ordered by activity: the KL of the latent from its prior in this slot. Slots and latents count from 1, as in
the thesis."""


class SlotError(ValueError):
    """A slot or image that is not there."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), SlotError)


def default_slot(decomposition: Decomposition) -> int:
    """The largest slot that holds an object and not background, else the largest that holds anything; counts from 0."""
    masks = decomposition.masks
    objects = occupied_slots(masks) & ~background_slots(masks)
    return int(np.argmax(mask_area(masks) + objects))  # areas are below one, so an object always wins


def traverse(
    decomposer: Decomposer,
    decomposition: Decomposition,
    slot: int,
    *,
    latents: int | None = None,
    extent: float = 3.0,
    steps: int = 9,
    show: str = "masked",
    title: str = "",
) -> Figure:
    """The figure of one slot.

    Args:
        decomposition: of one frame.
        slot: whose latents move; counts from 0.
        latents: how many rows, the most active first; None: all.
        extent: latents go from -extent to +extent, in standard deviations of the prior.
        steps: values on the way.
        show: `masked` or `unmasked` pictures of the slot, or the recomposed `scene`.
        title: printed above.
    """
    kl = kl_per_latent(decomposition.latent_mean[slot], decomposition.latent_log_sigma[slot])
    order = np.argsort(-kl)[:latents].tolist()
    values = np.linspace(-extent, extent, steps, dtype=np.float32)
    sweeps = sweep(decomposer, decomposition.latent_mean, slot, order, values)
    original = (decomposition.image / np.float32(255)).astype(np.float32)
    return figures.traversal_figure(sweeps, kl, show=show, original=original, title=title)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.traverse",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=checkpoint_path)
    parser.add_argument("--store", required=True, type=Path, help="where the image comes from")
    parser.add_argument("--image", type=at_least(0), default=0, help="place in the store (default: %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--slot", type=positive, nargs="+", help="slots, from 1 (default: the largest that holds an object)"
    )
    which.add_argument("--slots-all", action="store_true", help="a figure for every slot that holds something")
    parser.add_argument("--latents", type=positive, help="only the most active ones (default: all)")
    parser.add_argument("--range", type=above_zero, default=3.0, help="from -RANGE to +RANGE (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=9, help="values on the way (default: %(default)s)")
    parser.add_argument(
        "--show", nargs="+", choices=("masked", "unmasked", "scene"), default=["masked"],
        help="the slot with or without its mask, or the whole scene; a figure each (default: masked)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("figures"), metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="(default: %(default)s)")
    add_inference_options(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    console = Console()
    store = Store.open(options.store)
    if not 0 <= options.image < len(store):
        raise SlotError(f"there is no image {options.image}: {options.store} holds 0 to {len(store) - 1}")
    report.prepare_outputs(folders=[options.output])
    decomposer = open_decomposer(str(options.checkpoint), options)
    (network,) = report.unique_names([options.checkpoint])
    try:
        decomposition = one_of(decompose_images(decomposer, store, np.array([options.image])).decomposition, 0)
        for slot in _chosen_slots(decomposition, options):
            for show in options.show:
                name = f"traversal_{options.store.name}_{network}_image{options.image}_slot{slot + 1}"
                figure = traverse(
                    decomposer,
                    decomposition,
                    slot,
                    latents=options.latents,
                    extent=options.range,
                    steps=options.steps,
                    show=show,
                    title=f"{network}, image {options.image}, slot {slot + 1}, {show}",
                )
                target = options.output / f"{name}_{show}.{options.format}"
                report.say(console, f"wrote {figures.save_figure(figure, target)}")
    finally:
        decomposer.close()


def _chosen_slots(decomposition: Decomposition, options: argparse.Namespace) -> list[int]:
    if options.slots_all:
        return [int(slot) for slot in np.flatnonzero(occupied_slots(decomposition.masks))]
    if options.slot is None:
        return [default_slot(decomposition)]
    slots = len(decomposition.masks)
    if wrong := [slot for slot in options.slot if not 1 <= slot <= slots]:
        raise SlotError(f"there is no slot {wrong[0]}: this network has 1 to {slots}")
    return [slot - 1 for slot in options.slot]


if __name__ == "__main__":
    sys.exit(main())
