"""Render scenes with exact ground truth: into a store for training, TFRecords, or a recording that ROS plays.

    python -m train.render rooms --count 100000 --seed 0 --store data/rooms_train
    python -m train.render rooms --variant identical_color --count 1000 --seed 3 --store data/rooms_same
    python -m train.render tabletop --count 30000 --size 64 --shadow-size 0 --store data/tabletop64
    python -m train.render clutter --count 60000 --seed 20 --store data/clutter64
    python -m train.render household --photographs /usr/share/backgrounds --count 60000 --store data/household
    python -m train.render rooms --variant six_objects --count 1000 --tfrecords data/published
    python -m train.render rooms --sequence room.mcap --seconds 15 --rate 10
    python -m train.render overview --output overview.png

A scene depends on the kind, the seed and its number only, not on how many processes draw. A store or file appears at
its path when everything is in it; for a store, the same command run again after an interruption goes on from where it
was, also with a larger --count. The clip that is shipped with the package is made by

    python -m train.render rooms --sequence monet_perception/data/demo.mcap --seed 44 --overwrite
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cv2
from tqdm import tqdm

from monet_perception.files import write_bytes
from train.arguments import above_zero, at_least, positive
from train.data.manifest import StoreError
from train.data.multi_object import import_tensorflow

try:
    from train.scenes.assets import Sources
    from train.scenes.clip import write_clip
    from train.scenes.drawing import RenderJob, draw_store, usable_cores
    from train.scenes.kinds import KINDS, drawable
    from train.scenes.overview import overview
    from train.scenes.renderer import RenderError
    from train.scenes.rooms import RoomVariant
    from train.scenes.sequence import RoomSequence
    from train.scenes.tfrecords import file_name, published_job, write_tfrecords
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error}")


FURNITURE = Path("/usr/share/sweethome3d/furniture")


NOT_OF_SEQUENCES = {"depth": False, "shadow_size": None, "size": None, "split": "train", "variant": "train"}
"""Options of scenes, with their defaults: without effect on a sequence, whose room is drawn alike and with depth."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (RenderError, StoreError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on with a store, and begins a file again.", file=sys.stderr)
        return 130
    return 0


def _render(options: argparse.Namespace) -> None:
    if not (options.store or options.tfrecords or options.sequence):
        raise ValueError(f"nothing to make; see python -m train.render {options.command} --help")
    if options.count is None and (options.store or options.tfrecords):
        raise ValueError("how many scenes? Give --count")
    _check_sequence(options)
    _check_targets(options)
    if options.store:  # first: it goes on with what was drawn before, and may find that of other settings
        _render_store(options)
    if options.sequence:
        _render_sequence(options)
    if options.tfrecords:
        _render_tfrecords(options)


def _check_sequence(options: argparse.Namespace) -> None:
    """Raises ValueError where a sequence is all that is made and options are given that it doesn't go by."""
    if options.sequence and not (options.store or options.tfrecords):
        given = [name for name, default in NOT_OF_SEQUENCES.items() if getattr(options, name) != default]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(
                f"{names}: of stores and files, not of a sequence, which goes by --objects, --frame, --rate"
            )


def _check_targets(options: argparse.Namespace) -> None:
    """Raises what would end the last of several targets when the ones before it are drawn."""
    targets = [options.sequence, options.store]
    if options.tfrecords:
        targets.append(options.tfrecords / file_name(_published_job(options).kind))
        import_tensorflow()
    for path in filter(None, targets):
        if path.exists() and not options.overwrite:
            raise FileExistsError(f"{path} exists; remove it, choose another path, or replace it (--overwrite)")


def _render_store(options: argparse.Namespace) -> None:
    kind = options.kind_of(options)
    size = options.size or KINDS[kind].size
    job = RenderJob(
        kind, options.count, options.seed, size, size, options.depth, _shadow_size(options), options.split,
        sources=_sources(options),
    )  # fmt: skip
    if job.sources:
        print("Each drawing process reads the models first: 500 of them take a minute.", file=sys.stderr)
    with _bar(options.count, "scene") as bar:
        store = draw_store(
            job, options.store, processes=options.processes, overwrite=options.overwrite, progress=bar.update
        )
    print(f"{store.path}: {len(store):,} scenes of {size}x{size} with {', '.join(store.manifest.arrays)}.")


def _render_tfrecords(options: argparse.Namespace) -> None:
    job = _published_job(options)
    with _bar(options.count, "scene") as bar:
        path = write_tfrecords(
            job, options.tfrecords, processes=options.processes, overwrite=options.overwrite, progress=bar.update
        )
    print(f"{path}: {options.count:,} scenes, {path.stat().st_size / 1e6:.1f} MB.")


def _published_job(options: argparse.Namespace) -> RenderJob:
    return published_job(options.kind_of(options), options.count, options.seed, _shadow_size(options))


def _render_sequence(options: argparse.Namespace) -> None:
    sequence = RoomSequence(options.seed, options.objects, options.moving, options.seconds)
    width, height = options.frame
    with _bar(round(options.seconds * options.rate), "image") as bar:
        count = write_clip(
            options.sequence, sequence, seconds=options.seconds, rate=options.rate, height=height, width=width,
            overwrite=options.overwrite, progress=bar.update,
        )  # fmt: skip
    print(f"{options.sequence}: {count} images of {width}x{height}, {options.sequence.stat().st_size / 1e6:.1f} MB.")


def _render_overview(options: argparse.Namespace) -> None:
    if options.photographs and not options.models:
        raise ValueError("--photographs are for household scenes, which need --models as well")
    if not cv2.haveImageWriter(str(options.output)):
        raise ValueError(f"{options.output} doesn't end as a picture does that can be written, such as .png or .jpg")
    page = overview(options.columns, options.seed, _sources(options))
    _, picture = cv2.imencode(options.output.suffix, cv2.cvtColor(page, cv2.COLOR_RGB2BGR))
    write_bytes(options.output, picture.tobytes())
    print(f"{options.output}: {', '.join(drawable(_sources(options)))}.")


def _sources(options: argparse.Namespace) -> Sources | None:
    """Others' files that household scenes are made of; None for scenes that need none.

    Raises:
        FileNotFoundError: the models are those of a package that is not installed.
    """
    if FURNITURE in options.models and not FURNITURE.exists():
        raise FileNotFoundError(
            f"there are no models at {FURNITURE}: install Debian's sweethome3d-furniture, fetch it without installing "
            "(tools/household_sources.sh), or name others with --models"
        )
    return Sources(tuple(options.models), tuple(options.photographs)) if options.models else None


def _shadow_size(options: argparse.Namespace) -> int:
    own = KINDS[options.kind_of(options)].shadow_size
    return own if options.shadow_size is None else options.shadow_size


def _bar(total: int, unit: str) -> Any:
    return tqdm(total=total, unit=unit, dynamic_ncols=True, smoothing=0.05)


def _parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m train.render",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="SCENES")
    for add in (_add_rooms, _add_tabletop, _add_clutter, _add_household, _add_overview):
        add(commands)
    return parser


def _add_rooms(commands: Any) -> None:
    parser, target = _command(
        commands, "rooms", "rooms like those of Objects Room, 64x64", "--count 1000 --store data/rooms"
    )
    target.add_argument("--sequence", type=Path, metavar="OUT.mcap", help="recording of a moving room to make")
    parser.add_argument(
        "--variant",
        choices=get_args(RoomVariant),
        default="train",
        help="as published, other_ring: another camera ring, or up_to_six: one to six objects [train]",
    )
    moving = parser.add_argument_group("for --sequence")
    moving.add_argument("--seconds", type=above_zero, default=15.0, help="length of the recording [15]")
    moving.add_argument("--rate", type=above_zero, default=10.0, help="images a second [10]")
    moving.add_argument("--objects", type=at_least(0), default=3, help="in the room [3]")
    moving.add_argument("--moving", type=at_least(0), default=2, help="how many of the objects move [2]")
    moving.add_argument("--frame", type=_frame, default=(320, 240), metavar="WxH", help="image size [320x240]")
    parser.set_defaults(kind_of=lambda options: f"rooms/{options.variant}")


def _add_tabletop(commands: Any) -> None:
    parser, _ = _command(
        commands,
        "tabletop",
        "tabletops with CLEVR's factors and shadows, 128x128",
        "--count 1000 --store data/tabletop",
    )
    parser.set_defaults(kind_of=lambda options: "tabletop")


def _add_clutter(commands: Any) -> None:
    parser, _ = _command(
        commands,
        "clutter",
        "random objects before random backgrounds, for supervised pre-training, 64x64",
        "--count 60000 --store data/clutter",
    )
    parser.set_defaults(kind_of=lambda options: "clutter")


def _add_household(commands: Any) -> None:
    parser, _ = _command(
        commands,
        "household",
        "3D models on photographed surfaces, for supervised pre-training that holds on real cameras, 64x64",
        f"--models {FURNITURE} my_models --photographs photos --count 60000 --store data/household",
    )
    _add_sources(parser, FURNITURE)
    parser.set_defaults(kind_of=lambda options: "household")


def _add_sources(parser: argparse.ArgumentParser, *models: Path) -> None:
    default = f"{models[0]}, of Debian's sweethome3d-furniture" if models else "no household scenes"
    help = f"3D models: files, folders of them, or catalogues of Sweet Home 3D [{default}]"
    parser.add_argument("--models", nargs="+", type=Path, default=models, help=help)
    parser.add_argument(
        "--photographs",
        nargs="+",
        type=Path,
        default=(),
        metavar="FOLDER",
        help="of pictures that surfaces show pieces of; any will do that show few objects [patterns]",
    )


def _add_overview(commands: Any) -> None:
    help = "a page that shows every kind"
    parser = commands.add_parser("overview", help=help, epilog="python -m train.render overview --output overview.png")
    parser.add_argument("--output", type=Path, required=True, help="picture to make")
    parser.add_argument("--columns", type=positive, default=10, help="scenes of each kind [10]")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the scenes [0]")
    _add_sources(parser)
    parser.set_defaults(run=_render_overview)


def _command(commands: Any, name: str, help: str, example: str) -> tuple[argparse.ArgumentParser, Any]:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=f"python -m train.render {name} {example}"
    )
    target = parser.add_argument_group("what to make, at least one of")
    target.add_argument("--store", type=Path, help="folder for a store")
    target.add_argument("--tfrecords", type=Path, metavar="FOLDER", help="folder for a file in the published encoding")
    parser.add_argument("--count", type=positive, help="number of scenes")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the scenes; other seeds give other scenes [0]")
    parser.add_argument("--size", type=at_least(8), help="height and width in a store, pixels [the kind's own]")
    parser.add_argument("--depth", action="store_true", help="keep depth in the store, in millimetres")
    parser.add_argument(
        "--shadow-size",
        type=at_least(0),
        metavar="S",
        help="shadow map of tabletop and household scenes, pixels; 0: no shadows, faster [the kind's own]",
    )
    parser.add_argument("--split", default="train", help="what the store's manifest calls these scenes [train]")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is there, also an unfinished store of other settings"
    )
    parser.add_argument(
        "--processes", type=positive, default=usable_cores(), metavar="P", help="that draw [one for each core]"
    )
    parser.set_defaults(run=_render, sequence=None, models=(), photographs=())
    return parser, target


def _frame(text: str) -> tuple[int, int]:
    if found := re.fullmatch(r"(\d+)[xX](\d+)", text):
        width, height = int(found[1]), int(found[2])
        if min(width, height) >= 8:
            return width, height
    raise argparse.ArgumentTypeError(f"a size is written WIDTHxHEIGHT, such as 320x240, of 8x8 or more, not {text!r}")


def _end(number: int, frame: object) -> None:
    """Handler of SIGTERM: removes files that are half written, as Ctrl-C does."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
