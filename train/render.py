"""Render scenes with exact ground truth into a store for training: rooms, tabletops, clutter.

    python -m train.render rooms --count 100000 --seed 0 --store data/rooms_train
    python -m train.render rooms --variant identical_color --count 1000 --seed 3 --store data/rooms_same
    python -m train.render tabletop --count 30000 --size 64 --shadow-size 0 --store data/tabletop64

A scene depends on the kind, the seed and its number only, not on how many processes draw. The store appears at its path
when everything is in it; the same command run again after an interruption goes on from where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm  # type: ignore[import-untyped]

from train.data.store import StoreError
from train.scenes.drawing import Order, draw_store, usable_cores
from train.scenes.recipe import KINDS
from train.scenes.renderer import RenderError
from train.scenes.rooms import Variant


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (RenderError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _render(options: argparse.Namespace) -> None:
    kind = options.kind_of(options)
    size = options.size or KINDS[kind].size
    shadow_size = KINDS[kind].shadow_size if options.shadow_size is None else options.shadow_size
    order = Order(kind, options.count, options.seed, size, options.depth, shadow_size, options.split)
    with tqdm(total=options.count, unit="scene", dynamic_ncols=True, smoothing=0.05) as bar:
        store = draw_store(
            order, options.store, processes=options.processes, overwrite=options.overwrite, progress=bar.update
        )
    print(f"{store.path}: {len(store):,} scenes of {size}x{size}, {', '.join(store.manifest.arrays)}.")


def _parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m train.render",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="SCENES")
    _add_rooms(commands)
    _add_tabletop(commands)
    _add_clutter(commands)
    return parser


def _add_rooms(commands: Any) -> None:
    parser = _command(commands, "rooms", "rooms like those of Objects Room, 64x64", "--count 1000 --store data/rooms")
    parser.add_argument("--variant", choices=get_args(Variant), default="train", help="as published [train]")
    parser.set_defaults(kind_of=lambda options: f"rooms/{options.variant}")


def _add_tabletop(commands: Any) -> None:
    parser = _command(
        commands, "tabletop", "tabletops with CLEVR's factors and shadows, 128x128", "--count 1000 --store data/tabletop"
    )
    parser.set_defaults(kind_of=lambda options: "tabletop")


def _add_clutter(commands: Any) -> None:
    parser = _command(
        commands,
        "clutter",
        "random objects before random backgrounds, for supervised pre-training, 64x64",
        "--count 60000 --store data/clutter",
    )
    parser.set_defaults(kind_of=lambda options: "clutter")


def _command(commands: Any, name: str, help: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=f"python -m train.render {name} {example}"
    )
    parser.add_argument("--store", type=Path, required=True, help="folder to make")
    parser.add_argument("--count", type=_positive, required=True, help="number of scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes; other seeds give other scenes [0]")
    parser.add_argument("--size", type=_positive, help="height and width in pixels [the kind's own]")
    parser.add_argument("--depth", action="store_true", help="keep depth, in millimetres")
    parser.add_argument(
        "--shadow-size", type=int, metavar="S", help="shadow map in pixels; 0: no shadows, much faster [the kind's own]"
    )
    parser.add_argument("--split", default="train", help="what the manifest calls these scenes [train]")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    parser.add_argument(
        "--processes", type=_positive, default=usable_cores(), metavar="P", help="that draw [one for each core]"
    )
    parser.set_defaults(run=_render)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
