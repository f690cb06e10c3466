"""Images per second of train.fit against a bare loop, and of MONet against MONet-RN50*; what recipes would cost.

  python -m benchmarks.training                         both, on a GPU where there is one
  python -m benchmarks.training --preset monet_rn50_star --steps 20 --rounds 5
  python -m benchmarks.training --recipes config/train/rooms_*_cpu.yaml --steps 12      hours that they would take

The first compares `python -m train.fit` (Lightning, logging, monitors; validation aside) with a hand-written loop
around the same network, store, batch and precision; the two take turns in one process. At least 95 % is wanted. On a
CPU the ratio of processor time is given too: on a machine that others use it is the steadier of the two.
The second times training steps at the thesis's setting (64 x 64, K = 7 and 18), also by turns. Ratios only: absolute
times on a shared machine say little.
For recipes the processor time of a few steps of `train.fit` is multiplied by the recipe's steps; validation comes on
top, and pre-trained weights are left out.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback

from monet_perception.networks import PRESETS, ConfigError, Monet, monet_loss
from train.arguments import positive
from train.cli import RunError
from train.command import run_command
from train.cost import Profile, Setting, count, time_all
from train.data.layout import StoreLayout
from train.data.module import SceneData
from train.data.store_writer import StoreWriter
from train.fit import make_cli
from train.profile import relative_time
from train.task import unit_images

WARM_UP_STEPS = 3


@dataclass
class Clock:
    """Seconds from `start` to `stop`, on the wall and of the processor."""

    wall: float = 0.0
    processor: float = 0.0

    def start(self) -> None:
        self._synchronise()
        self.wall, self.processor = -time.perf_counter(), -time.process_time()

    def stop(self) -> None:
        self._synchronise()
        self.wall += time.perf_counter()
        self.processor += time.process_time()

    def _synchronise(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


class ClockSteps(Callback):
    """Runs a clock from the end of the warm-up to the end of the last step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == WARM_UP_STEPS:
            self.clock.start()
        elif trainer.global_step == trainer.max_steps:
            self.clock.stop()


def random_store(path: Path, count: int, size: int = 64) -> Path:
    """A store of noise: what is in an image does not change the time that it takes."""
    rng = np.random.default_rng(0)
    layout = StoreLayout("noise", "train", "benchmark", "CC0-1.0", height=size, width=size, labels=True)
    with StoreWriter(path, layout, count) as writer:
        images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
        writer.write(0, images=images, labels=np.ones((count, size, size), np.uint8))
    return path


def time_fit(store: Path, preset: str, batch_size: int, steps: int) -> Clock:
    """train.fit as a user starts it."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as run:
        args = [f"--data.store={store}", f"--run={run}/run", f"--model.preset={preset}"]
        args += [f"--data.batch_size={batch_size}", f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0"]
        args += ["--checkpoint_steps=1000000", "--trainer.num_sanity_val_steps=0"]
        with contextlib.redirect_stderr(io.StringIO()):
            cli = make_cli(args)
            cli.trainer.callbacks.append(ClockSteps(clock))  # type: ignore[attr-defined]
            cli.trainer.fit(cli.model, cli.datamodule)
    return clock


def time_bare_loop(store: Path, preset: str, batch_size: int, steps: int) -> Clock:
    """A loop with nothing around it."""
    clock = Clock()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Monet(PRESETS[preset]).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.RMSprop(network.parameters(), lr=1e-4)
    data = SceneData(store, batch_size=batch_size)
    data.setup()
    batches = forever(data)
    for step in range(steps):
        if step == WARM_UP_STEPS:
            clock.start()
        images = unit_images(next(batches)["images"].to(device))
        with torch.autocast(device, torch.bfloat16):
            output = network(images)
        loss = monet_loss(output, images, network.config).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    clock.stop()
    return clock


def forever(data: SceneData) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def time_recipe(recipe: Path, steps: int) -> dict[str, Any]:
    """What a step of a recipe costs, and how long all of its steps would take this processor alone."""
    settings = yaml.safe_load(recipe.read_text())
    size, batch_size = settings["model"].get("network", {}).get("image_size", 64), settings["data"]["batch_size"]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "noise", 2 * batch_size, size)
        args = [f"--config={recipe}", f"--data.store={store}", "--data.val_store=null", "--data.val_fraction=0"]
        args += ["--model.pretrained=null", "--model.fine_tune=null"]  # a step costs the same, wherever it starts
        args += [f"--trainer.max_steps={WARM_UP_STEPS + steps}", f"--run={folder}/run"]
        with contextlib.redirect_stderr(io.StringIO()):
            cli = make_cli([*args, "--trainer.limit_val_batches=0", "--checkpoint_steps=1000000"])
            cli.trainer.callbacks.append(ClockSteps(clock))  # type: ignore[attr-defined]
            cli.trainer.fit(cli.model, cli.datamodule)
    whole = settings["trainer"]["max_steps"]
    return {
        "recipe": recipe.stem,
        "images": whole * batch_size,
        "seconds_per_step": clock.wall / steps,
        "processor_seconds_per_step": clock.processor / steps,
        "processor_hours": clock.processor / steps * whole / 3600,
    }


def compare_loops(preset: str, batch_size: int, steps: int, rounds: int) -> dict[str, Any]:
    """Both by turns; each ratio is the median of the rounds' ratios."""
    fit: list[Clock] = []
    bare: list[Clock] = []
    measures = [(fit, time_fit), (bare, time_bare_loop)]
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "noise", 64 + 2 * batch_size)
        for turn in range(rounds):
            for clocks, measure in measures[:: -1 if turn % 2 else 1]:
                clocks.append(measure(store, preset, batch_size, WARM_UP_STEPS + steps))
            rates = [steps * batch_size / clocks[-1].wall for clocks in (fit, bare)]
            print(f"round {turn + 1}: train.fit {rates[0]:.2f}, bare loop {rates[1]:.2f} images/s", file=sys.stderr)
    pairs = list(zip(fit, bare, strict=True))
    return {
        "preset": preset,
        "batch_size": batch_size,
        "wall_ratio": statistics.median(b.wall / f.wall for f, b in pairs),
        "processor_ratio": statistics.median(b.processor / f.processor for f, b in pairs),
        "fit_seconds": [clock.wall for clock in fit],
        "bare_seconds": [clock.wall for clock in bare],
    }


def compare_networks(batch_size: int, repeats: int) -> list[Profile]:
    """Training steps of MONet and MONet-RN50* at K = 7 and 18."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = Setting(device, "bf16", batch_size, 64, repeats, torch.get_num_threads())
    profiles = [count(preset, slots, 64) for slots in (7, 18) for preset in ("monet", "monet_rn50_star")]
    time_all(profiles, setting)
    return profiles


def main(argv: Sequence[str] | None = None) -> int:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="monet_rn50_star" if on_gpu else "monet_rn18_star", choices=sorted(PRESETS))
    parser.add_argument("--batch-size", type=positive, default=64 if on_gpu else 16)
    parser.add_argument("--steps", type=positive, default=200 if on_gpu else 10, help="timed steps of a round")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--only", choices=("loops", "networks"), help="one of the two comparisons")
    parser.add_argument("--recipes", nargs="+", type=Path, help="only what these would cost; of train.fit")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options, on_gpu), ConfigError, RunError)


def _run(options: argparse.Namespace, on_gpu: bool) -> None:
    if options.recipes:
        for recipe in options.recipes:
            print(json.dumps(time_recipe(recipe, options.steps)), flush=True)
        return
    if options.only != "networks":
        result = compare_loops(options.preset, options.batch_size, options.steps, options.rounds)
        print(json.dumps(result))
        print(f"train.fit reaches {result['wall_ratio']:.1%} of the bare loop's images per second")
        if not on_gpu:
            print(f"and {result['processor_ratio']:.1%} of its images per second of processor time")
    if options.only != "loops":
        profiles = compare_networks(64 if on_gpu else 4, options.rounds)
        for monet, star in zip(profiles[::2], profiles[1::2], strict=True):
            ratio = relative_time(star, [monet])
            print(f"K = {monet.slots}: a training step of MONet-RN50* takes {ratio:.2f} of MONet's time")


if __name__ == "__main__":
    sys.exit(main())
