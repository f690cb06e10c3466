"""Turn published data sets, a robot's recordings or folders of images into a store for training, once.

    python -m train.prepare objects_room --source /data/objects_room --store data/rooms
    python -m train.prepare clevr --source /data/clevr_with_masks --store data/clevr
    python -m train.prepare scenenet --source /data/scenenet --store data/scenenet --views 300000
    python -m train.prepare bag --source drive.mcap --topic /camera/image --every 5 --size 128 --store data/drive
    python -m train.prepare images --source photos --size 128 --store data/photos
    python -m train.prepare verify --store data/rooms

A store is a folder that training reads at random, at the speed of memory. It appears at its path only when everything
is in it; the same command run again after an interruption goes on from where it was.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tqdm import tqdm

from monet_perception.region import Region
from train.arguments import at_least, positive
from train.data.bag import Bag
from train.data.crop import crop_text, parse_crop
from train.data.images import ImageFolder
from train.data.manifest import StoreError
from train.data.multi_object import CLEVR_CROP, Clevr, ObjectsRoom, PublishedVariant, Split
from train.data.scenenet import CROP as SCENENET_CROP
from train.data.scenenet import SceneNet, SceneNetSplit
from train.data.source import BrokenRecord, Sample, Source, SourceError
from train.data.store import Store, array_path
from train.data.store_writer import StoreWriter

_CHUNK_BYTES = 8 << 20


def prepare(source: Source, path: Path, *, overwrite: bool = False, skip_broken: bool = False) -> Store:
    """Fill a store from a source, with a progress bar, going on with an attempt that was interrupted.

    Args:
        source: what to read.
        path: where the store will be.
        overwrite: replace a store that is there.
        skip_broken: count records that can't be read and go on; their numbers go into the manifest's statistics.
            Those behind damage that ends the source are counted there as `unread` (None: nobody knows how many).
    Raises:
        SourceError: a record can't be read, and `skip_broken` is off; what was written before it is kept.
        StoreError: the store exists, another process writes it, the source holds nothing, or an attempt with other
            settings was interrupted, and `overwrite` is off.
    """
    with StoreWriter(path, source.layout, overwrite=overwrite) as writer:
        filling = _Filling(source, writer, skip_broken)
        begin = filling.record
        with tqdm(total=source.records, initial=begin, unit="img", unit_scale=True, dynamic_ncols=True) as bar:
            if begin:
                bar.write(f"Going on from record {begin:,}, where the last attempt was interrupted.", file=sys.stderr)
            for item in source.read(begin):
                filling.take(item)
                bar.update()
                if isinstance(item, BrokenRecord):
                    bar.set_postfix_str(f"{len(filling.broken):,} broken")
            filling.write()
            bar.set_postfix_str("checksums")
            store = writer.finish(filling.statistics())
        if shortfall := filling.shortfall():
            print(f"warning: {shortfall}", file=sys.stderr)
        return store


class _Filling:
    """Takes a source's records into a store, a chunk at a time, and keeps count of them.

    Attributes:
        record: how many have been taken, those of interrupted attempts included; the next one's place.
        broken: numbers of those that were skipped.
    """

    def __init__(self, source: Source, writer: StoreWriter, skip_broken: bool) -> None:
        self.record: int = writer.state.get("record", 0)
        self.broken: list[int] = writer.state.get("broken", [])
        self._records = source.records
        self._chunk = max(1, _CHUNK_BYTES // (source.layout.height * source.layout.width * 3))
        self._writer = writer
        self._skip_broken = skip_broken
        self._samples: list[Sample] = []
        self._end: BrokenRecord | None = None

    def take(self, item: Sample | BrokenRecord) -> None:
        """Take the next record.

        Raises:
            SourceError: it is broken, and those aren't skipped; what came before it is written.
        """
        if isinstance(item, BrokenRecord):
            if not self._skip_broken:
                self.write()
                remedy = "keeps what comes before it" if item.final else "counts such records and goes on"
                raise SourceError(f"record {item.record:,}: {item.reason}. --skip-broken {remedy}")
            if item.final:
                self.write()  # without it: an attempt that goes on from here meets it again
                self._end = item
            self.broken = [*self.broken, item.record]
        else:
            self._samples.append(item)
        self.record += 1
        if len(self._samples) == self._chunk:
            self.write()

    def write(self) -> None:
        """Bring the samples taken into the store."""
        samples = self._samples
        if not samples:
            return
        optional: dict[str, Any] = {
            name: np.stack([getattr(sample, field) for sample in samples])
            for name, field in (("labels", "labels"), ("depth", "depth"), ("cameras", "camera"), ("groups", "group"))
            if getattr(samples[0], field) is not None
        }
        factors = {name: np.stack([sample.factors[name] for sample in samples]) for name in samples[0].factors}
        images = np.stack([sample.image for sample in samples])
        state = {"record": self.record, "broken": self.broken}
        self._writer.write(self._writer.written, images=images, factors=factors, state=state, **optional)
        samples.clear()

    def statistics(self) -> dict[str, Any]:
        """For the manifest."""
        return {"records": self.record, "skipped": len(self.broken), "broken": self.broken, "unread": self._unread()}

    def shortfall(self) -> str | None:
        """What to tell of records that should have come and didn't; None: all came."""
        unread = self._unread()
        if unread == 0:
            return None
        if self._end is None:
            return f"the source holds {self.record:,} records instead of the {self._records:,} asked for"
        lost = "the rest was" if unread is None else f"{unread:,} of {self._records:,} records were"
        return f"the source ends in damage at record {self._end.record:,}; {lost} not read ({self._end.reason})"

    def _unread(self) -> int | None:
        """How many records there are behind the last one that came; None: unknown."""
        if self._records is None:
            return None if self._end else 0
        return max(0, self._records - self.record)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "verify":
            print(_describe(Store.open(options.store, verify=True)), "Every checksum is right.")
            return 0
        source = options.source_of(options)
        store = prepare(source, options.store, overwrite=options.overwrite, skip_broken=options.skip_broken)
    except (SourceError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    print(_describe(store))
    return 0


def _describe(store: Store) -> str:
    manifest = store.manifest
    parts = [name for name in manifest.arrays if name != "images"]
    size = sum(array_path(store.path, name).stat().st_size for name in manifest.arrays)
    skipped, unread = manifest.statistics.get("skipped", 0), manifest.statistics.get("unread", 0)
    return (
        f"{store.path}: {manifest.count:,} images of {manifest.height}x{manifest.width}"
        + (f" with {', '.join(parts)}" if parts else "")
        + f", {size / 1e9:.2f} GB"
        + (f"; {skipped:,} broken records skipped" if skipped else "")
        + ("" if unread == 0 else f"; {'the rest' if unread is None else f'{unread:,} records'} not read")
        + "."
    )


def _parser() -> argparse.ArgumentParser:
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="SOURCE")
    for add in (_add_objects_room, _add_clevr, _add_scenenet, _add_bag, _add_images):
        add(commands)
    verify = commands.add_parser("verify", help="compare a store with its checksums")
    verify.add_argument("--store", type=Path, required=True, help="folder of the store")
    return parser


def _add_objects_room(commands: Any) -> None:
    parser = _command(commands, "objects_room", "Objects Room (TFRecords)", _objects_room, "--variant six_objects")
    parser.add_argument(
        "--variant",
        choices=get_args(PublishedVariant),
        default="train",
        help="training set or one of three test sets [train]",
    )
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        help="of variant train: 980,000, 10,000 and 10,000 scenes [train]; a test set is taken whole",
    )
    _add_records(parser)


def _objects_room(options: argparse.Namespace) -> Source:
    return ObjectsRoom(options.source, options.variant, options.split, options.records)


def _add_clevr(commands: Any) -> None:
    parser = _command(commands, "clevr", "CLEVR with masks (TFRecords)", _clevr, "--split val")
    parser.add_argument(
        "--split", choices=get_args(Split), default="train", help="70,000, 10,000 and 10,000 scenes [train]"
    )
    _add_records(parser)
    _add_geometry(parser, crop=crop_text(CLEVR_CROP), size=128)


def _clevr(options: argparse.Namespace) -> Source:
    return Clevr(options.source, options.split, options.records, options.size, options.crop)


def _add_scenenet(commands: Any) -> None:
    parser = _command(commands, "scenenet", "SceneNet RGB-D", _scenenet, "--views 300000 --seed 1", skip_broken=True)
    parser.add_argument("--split", choices=get_args(SceneNetSplit), default="train", help="published part [train]")
    parser.add_argument(
        "--views", type=positive, default=300_000, help="views to draw at random from all trajectories [300000]"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the draw [0]")
    _add_geometry(parser, crop=crop_text(SCENENET_CROP), size=192)


def _scenenet(options: argparse.Namespace) -> Source:
    return SceneNet(options.source, options.split, options.views, options.seed, options.crop, options.size)


def _add_bag(commands: Any) -> None:
    parser = _command(
        commands,
        "bag",
        "a rosbag2 folder, .mcap or .db3 file with Image or CompressedImage topics",
        _bag,
        "--topic /camera/image --every 5 --size 128",
    )
    parser.add_argument("--topic", help="of the images [the only image topic]")
    parser.add_argument("--labels-topic", help="mono8 label maps with the images' stamps [none]")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take every N-th image [1]")
    _add_background(parser)
    _add_geometry(parser, crop=None, size=64)


def _bag(options: argparse.Namespace) -> Source:
    return Bag(
        options.source,
        options.size,
        topic=options.topic,
        every=options.every,
        crop=options.crop,
        labels_topic=options.labels_topic,
        background_labels=options.background_labels,
    )


def _add_images(commands: Any) -> None:
    parser = _command(commands, "images", "a folder of images", _images, "--labels LABELS --size 128")
    parser.add_argument(
        "--labels", type=Path, metavar="DIR", help="folder with 8-bit label maps, the images' names with .png [none]"
    )
    _add_background(parser)
    _add_geometry(parser, crop=None, size=64)


def _images(options: argparse.Namespace) -> Source:
    return ImageFolder(options.source, options.size, options.crop, options.labels, options.background_labels)


def _command(
    commands: Any,
    name: str,
    what: str,
    source_of: Callable[[argparse.Namespace], Source],
    example: str,
    *,
    skip_broken: bool = False,
) -> argparse.ArgumentParser:
    """A subcommand with what all of them have in common."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"Make a store from {what}.",
        epilog=f"example: python -m train.prepare {name} --source SOURCE --store STORE {example}",
    )
    parser.set_defaults(source_of=source_of)
    parser.add_argument("--source", type=Path, required=True, help="the published folder or file")
    parser.add_argument("--store", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a store that exists, once the new one is whole, and an unfinished one of other settings at once",
    )
    parser.add_argument(
        "--skip-broken",
        action=argparse.BooleanOptionalAction,
        default=skip_broken,
        help=f"count records that can't be read and go on, instead of ending [{'yes' if skip_broken else 'no'}]",
    )
    return parser


def _add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records", type=_record_range, metavar="START:STOP", help="these records of the file instead of a split"
    )


def _add_background(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--background-labels", type=positive, default=1, metavar="N", help="labels below N are background [1]"
    )


def _add_geometry(parser: argparse.ArgumentParser, crop: str | None, size: int) -> None:
    parser.add_argument(
        "--crop",
        type=_crop,
        default=crop,
        metavar="TOP:BOTTOM,LEFT:RIGHT",
        help=f"square to cut out before resizing [{crop or 'the largest in the centre'}]",
    )
    parser.add_argument("--size", type=positive, default=size, help=f"height and width of the store's images [{size}]")


def _crop(text: str) -> Region:
    try:
        crop = parse_crop(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if crop.height != crop.width:
        raise argparse.ArgumentTypeError(f"the crop {text} is {crop.height}x{crop.width}; it has to be square")
    return crop


def _record_range(text: str) -> tuple[int, int | None]:
    if found := re.fullmatch(r"(\d*):(\d*)", text):
        start, stop = int(found[1] or 0), int(found[2]) if found[2] else None
        if stop is None or start < stop:
            return start, stop
    raise argparse.ArgumentTypeError(f"records are written START:STOP, such as 0:1000, not {text!r}")


if __name__ == "__main__":
    sys.exit(main())
