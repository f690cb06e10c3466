"""Images a second: random access through the data module, TFRecords in order, and what training consumes, in one run.

    python -m benchmarks.data                                  # renders rooms first: a minute or two
    python -m benchmarks.data --store data/rooms               # with a store of 64x64 images that is there
    python -m benchmarks.data --workers 2 --json result.json

The opponents are as fast as they get in one process: TensorFlow's own pipeline with parallel parsing reads the
published encoding, and every preset trains in bfloat16 with channels last, on the GPU where there is one. The store has
been read once before: where it doesn't fit into memory the disk decides, not this code. The best of several rounds
counts, and rates by CPU time stand beside those by the clock, so that neighbours on the machine disturb less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.targets import MissedError
from monet_perception.networks import PRESETS, MonetConfig
from train.arguments import above_zero, at_least, positive
from train.command import run_command
from train.cost import Setting, Timer
from train.data.module import Batch, SceneData, SceneLoader
from train.data.multi_object import ENTITIES, ObjectsRoom
from train.data.source import Sample
from train.data.store import Store
from train.render import main as render
from train.report import machine, prepare_outputs, write_json

ROUNDS = 3
BATCH = 64
TRAINING_BATCH = 8
DATA_MODULE, TFRECORDS, TRAINING = "data module, at random", "TFRecords in order", "training"


class Rate(NamedTuple):
    """Images a second in the fastest round, by the clock and by this process's CPU time (all of its threads)."""

    wall: float
    cpu: float


def best_rate(images: int, work: Callable[[], Any], rounds: int = ROUNDS) -> Rate:
    """Of several rounds of `images` images."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Rate(images / min(walls), images / min(cpus))


def data_module_rate(store: Path, workers: int, seconds: float) -> Rate:
    """Random access: shuffled batches with images and labels, in rounds of 50 batches."""
    data = SceneData(store, batch_size=BATCH, val_fraction=0, workers=workers)
    data.setup()
    loader = data.train_dataloader()
    for _ in loader:  # brings the store into the page cache
        pass
    batches = epochs(loader)
    start, rates = time.perf_counter(), []
    while time.perf_counter() - start < seconds:
        rates.append(best_rate(50 * BATCH, lambda: consume(islice(batches, 50)), rounds=1))
    return Rate(max(rate.wall for rate in rates), max(rate.cpu for rate in rates))


def epochs(loader: SceneLoader) -> Iterator[Batch]:
    """Batches of one epoch after the other, without end."""
    for epoch in count(1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader


def consume(items: Iterable[Any]) -> None:
    """Exhaust them and keep none."""
    deque(items, maxlen=0)


def tensorflow_rate(path: Path, records: int) -> Rate:
    """The published encoding by TensorFlow's pipeline, as DeepMind's own reader does it: parse and decode, in order."""
    import tensorflow as tf

    spec = {
        "image": tf.io.FixedLenFeature([64, 64, 3], tf.string),
        "mask": tf.io.FixedLenFeature([ENTITIES["train"], 64, 64, 1], tf.string),
    }

    def decode(record: Any) -> dict[str, Any]:
        parsed = tf.io.parse_single_example(record, spec)
        return {name: tf.squeeze(tf.io.decode_raw(value, tf.uint8), axis=-1) for name, value in parsed.items()}

    dataset = tf.data.TFRecordDataset(str(path), "GZIP").map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return best_rate(records, lambda: consume(dataset))


def prepare_rate(path: Path, records: int) -> Rate:
    """The reader of train.prepare, which also makes label maps of the masks."""

    def read() -> None:
        if any(not isinstance(item, Sample) for item in ObjectsRoom(path, split="all").read()):
            raise RuntimeError(f"{path} has broken records")

    return best_rate(records, read)


def training_rate(config: MonetConfig, device: str, steps: int) -> Rate:
    """Training steps on a batch that is in memory already: loss, gradients, optimiser."""
    setting = Setting(device, "bf16", TRAINING_BATCH, config.image_size, steps, torch.get_num_threads())
    timer = Timer(config, setting)
    timer.training_step()  # memory is allocated and kernels are chosen in the first
    return best_rate(TRAINING_BATCH, lambda: timer.seconds(timer.training_step), rounds=steps)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Rate]:
    """Print and return every rate by name."""
    store = options.store
    if store is None:
        store = folder / "rooms"
        _render("--count", options.images, "--store", store)
    _render("--count", options.records, "--tfrecords", folder)
    tfrecords = folder / "objects_room_train.tfrecords"
    rates: dict[str, Rate] = {}
    print(f"{'images a second':40} {'of time':>12} {'of CPU time':>12}")

    def note(name: str, rate: Rate) -> None:
        rates[name] = rate
        print(f"{name:40} {rate.wall:12,.1f} {rate.cpu:12,.1f}", flush=True)

    note(DATA_MODULE, data_module_rate(store, options.workers, options.seconds))
    note(f"{TFRECORDS}, TensorFlow", tensorflow_rate(tfrecords, options.records))
    note(f"{TFRECORDS}, train.prepare", prepare_rate(tfrecords, options.records))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = Store.open(store).manifest.height
    for name, config in PRESETS.items():
        sized = MonetConfig.from_dict({**config.to_dict(), "image_size": size})
        note(f"{TRAINING} {name}, {device}", training_rate(sized, device, options.steps))
    return rates


def report(rates: dict[str, Rate]) -> bool:
    """Print the ratios; whether both targets are met."""
    met = True
    for what, prefix, target in (
        ("the fastest reader of TFRecords", TFRECORDS, 100),
        ("what the fastest preset consumes", TRAINING, 10),
    ):
        opponents = [rate for name, rate in rates.items() if name.startswith(prefix)]
        ratio = rates[DATA_MODULE].wall / max(rate.wall for rate in opponents)
        cpu_ratio = rates[DATA_MODULE].cpu / max(rate.cpu for rate in opponents)
        met &= ratio >= target
        print(f"{ratio:10,.0f} times {what} (target: {target}); {cpu_ratio:,.0f} times by CPU time")
    return met


def _render(*arguments: object) -> None:
    if render(["rooms", *map(str, arguments)]):
        raise SystemExit("the rooms to measure with can't be rendered; give a store with --store")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 1 where a target is missed."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, help="store of 64x64 images [50,000 rendered rooms]")
    parser.add_argument(
        "--images", type=positive, default=50_000, help="rooms to render where there is no --store [50000]"
    )
    parser.add_argument("--records", type=positive, default=1000, help="TFRecords to write and read [1000]")
    parser.add_argument("--workers", type=at_least(0), default=0, help="of the data module [0]")
    parser.add_argument("--seconds", type=above_zero, default=5, help="for the data module [5]")
    parser.add_argument("--steps", type=positive, default=3, help="training steps of each preset [3]")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError)


def _run(options: argparse.Namespace) -> None:
    prepare_outputs(files=[options.json])
    with tempfile.TemporaryDirectory(prefix="monet_data_") as folder:
        rates = measure(options, Path(folder))
    met = report(rates)
    if options.json:
        found = {name: rate._asdict() for name, rate in rates.items()}
        write_json(options.json, {"machine": machine(), "images_per_second": found})
    if not met:
        raise MissedError("a target is missed")


if __name__ == "__main__":
    sys.exit(main())
