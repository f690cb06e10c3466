"""Whether every network learns, as it is: loss and MSE on 64 rendered rooms before and after a hundred steps.

    python -m benchmarks.learning                                       all presets, in fp32 and bf16
    python -m benchmarks.learning --presets monet_rn50_star --precisions bf16 --steps 300

Networks of full size on 64 x 64 rooms that are rendered first; the suite asks the same of smaller ones. It is a sign of
life and no measure of quality: 64 rooms can be learnt by heart. The exit status is 1 where a network misses the target.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from benchmarks.targets import MissedError
from monet_perception.files import write_text
from monet_perception.networks import PRESETS, Monet, monet_loss
from train import report
from train.arguments import above_zero, at_least, positive
from train.command import run_command
from train.data.store import Store
from train.render import main as render

ROOMS = 64
FACTOR = 3.0  # the MSE falls to this part, and the loss below this part, of what it was


@dataclass(frozen=True)
class Result:
    """Means over the rooms, before and after."""

    preset: str
    precision: str
    loss_before: float
    loss_after: float
    mse_before: float
    mse_after: float

    @property
    def learnt(self) -> bool:
        return self.mse_after < self.mse_before / FACTOR and self.loss_after < self.loss_before / FACTOR


def rooms() -> Tensor:
    """[64, 3, 64, 64] in [0, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "rooms"
        if render(["rooms", "--count", str(ROOMS), "--seed", "0", "--shadow-size", "0", "--store", str(store)]):
            raise SystemExit("the rooms could not be rendered")
        images = torch.from_numpy(Store.open(store).images[:].copy())
    return (images.permute(0, 3, 1, 2) / 255.0).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def loss_and_error(monet: Monet, images: Tensor) -> tuple[float, float]:
    """Loss of equation 4.7 per image and MSE of the mixture, latents sampled and norms by batch, as in training."""
    losses, errors = [], []
    for batch in images.split(16):
        output = monet(batch)
        losses.append(monet_loss(output, batch, monet.config).total)
        errors.append(F.mse_loss(output.mixture(), batch))
    return float(torch.cat(losses).mean()), float(torch.stack(errors).mean())


def learn(preset: str, precision: str, images: Tensor, options: argparse.Namespace) -> Result:
    """Trains a fresh network."""
    torch.manual_seed(options.seed)
    monet = Monet(PRESETS[preset]).to(options.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(monet.parameters(), lr=options.learning_rate)
    loss_before, mse_before = loss_and_error(monet, images)
    order = torch.Generator().manual_seed(options.seed)
    for _ in trange(options.steps, desc=f"{preset}, {precision}", file=sys.stderr):
        batch = images[torch.randint(len(images), (options.batch_size,), generator=order)]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = monet(batch)
        loss = monet_loss(output, batch, monet.config).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    loss_after, mse_after = loss_and_error(monet, images)
    return Result(preset, precision, loss_before, loss_after, mse_before, mse_after)


def header(options: argparse.Namespace) -> str:
    """What the table has above its rows."""
    lines = [
        f"{ROOMS} rendered rooms, {options.steps} steps of {options.batch_size} images, Adam {options.learning_rate}, "
        f"seed {options.seed}; {report.machine(options.device)}.",
        "",
        "| network | precision | loss before | after | MSE before | after | MSE falls by |",
        "| --- " * 7 + "|",
    ]
    return "\n".join(lines)


def row(r: Result) -> str:
    """Of one network and precision."""
    return (
        f"| {r.preset} | {r.precision} | {r.loss_before:.0f} | {r.loss_after:.0f} | {r.mse_before:.4f} "
        f"| {r.mse_after:.4f} | {r.mse_before / r.mse_after:.1f} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument("--learning-rate", type=above_zero, default=1e-3)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError)


def _run(options: argparse.Namespace) -> None:
    report.prepare_outputs(folders=[options.output])
    images = rooms().to(options.device)
    results, lines = [], [header(options)]
    print(lines[0])
    for preset in options.presets:
        for precision in options.precisions:
            results.append(learn(preset, precision, images, options))
            lines.append(row(results[-1]))
            print(lines[-1])
            write_text(options.output / "learning.md", "\n".join(lines) + "\n")
    report.write_json(options.output / "learning.json", [asdict(result) for result in results])
    if failed := [f"{result.preset} in {result.precision}" for result in results if not result.learnt]:
        raise MissedError(f"missed: {', '.join(failed)}: loss and MSE have to fall by a factor of {FACTOR:.0f}")


if __name__ == "__main__":
    sys.exit(main())
