"""What the one-pass attention saves: MONet-RN50* against MONet at K = 7, 11, 14, 18 (figure 5.12 of the thesis).

    python -m benchmarks.attention                        fp32 and bf16, on a GPU where there is one; 64x64, batch 8
    python -m benchmarks.attention --slots 7 --precisions bf16 --repeats 9
    python -m benchmarks.attention --output figures          where attention.json, .md and .png go

Parameters and FLOP are of the attention alone; times are of whole networks, a training step (forward, loss, backward,
optimiser) and an inference (masks and posteriors). The networks take turns, and what counts is their ratio in one run.
The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.targets import MissedError
from monet_perception.files import write_text
from train import report
from train.arguments import positive
from train.command import run_command
from train.cost import Profile, Setting, count, time_all
from train.figures import save_figure
from train.profile import THESIS_SLOTS, draw, relative_time

MONET, STAR = "monet", "monet_rn50_star"
# RN50*'s training step as a fraction of MONet's, at most: the thesis has 0.7 at K = 7 and 0.4 at K = 18.
TARGETS = {"fp32": {7: 0.5, 18: 0.2}, "bf16": {7: 0.6, 18: 0.25}}
FLOP_GROWTH = 0.001  # of RN50*'s attention, from the fewest slots to the most

Measured = dict[str, list[Profile]]


def measure(options: argparse.Namespace) -> Measured:
    """Both networks at every K, by precision."""
    measured = {}
    for precision in options.precisions:
        setting = Setting(options.device, precision, options.batch_size, 64, options.repeats, options.threads)
        profiles = [count(preset, slots, 64) for slots in options.slots for preset in (MONET, STAR)]
        time_all(profiles, setting)
        measured[precision] = profiles
    return measured


def milliseconds(seconds: float | None) -> float:
    """What `time_all` has filled in."""
    return 1e3 * (seconds or 0.0)


def pairs(profiles: Sequence[Profile]) -> list[tuple[Profile, Profile]]:
    """MONet and RN50* of one K."""
    star = {profile.slots: profile for profile in profiles if profile.preset == STAR}
    return [(profile, star[profile.slots]) for profile in profiles if profile.preset == MONET]


def as_markdown(measured: Measured, machine: str, batch_size: int) -> str:
    """One row for every precision and K."""
    lines = [
        f"{machine}; 64x64, batch {batch_size}. MONet / RN50*; ratio is RN50* over MONet.",
        "",
        "| precision | K | attention parameters (M) | attention GFLOP, forward | training step (ms) | ratio | at most "
        "| inference (ms) | ratio |",
        "| --- " * 9 + "|",
    ]
    for precision, profiles in measured.items():
        for monet, star in pairs(profiles):
            target, ratio = TARGETS[precision].get(monet.slots), relative_time(star, profiles)
            steps = [milliseconds(profile.training_seconds) for profile in (monet, star)]
            passes = [milliseconds(profile.inference_seconds) for profile in (monet, star)]
            lines.append(
                f"| {precision} | {monet.slots} "
                f"| {monet.attention_parameters / 1e6:.3f} / {star.attention_parameters / 1e6:.3f} "
                f"| {monet.attention_forward_flop / 1e9:.2f} / {star.attention_forward_flop / 1e9:.2f} "
                f"| {steps[0]:.0f} / {steps[1]:.0f} | {ratio:.2f} | {target or ''} "
                f"| {passes[0]:.0f} / {passes[1]:.0f} | {passes[1] / passes[0]:.2f} |"
            )
    return "\n".join(lines) + "\n"


def missed(measured: Measured) -> list[str]:
    """The targets that were not reached, in words."""
    found = []
    for precision, profiles in measured.items():
        for monet, star in pairs(profiles):
            ratio = relative_time(star, profiles) or 0.0  # None only where nothing was timed
            target = TARGETS[precision].get(monet.slots, 1.0)
            if ratio > target:
                found.append(f"{precision}, K = {monet.slots}: {ratio:.2f} of MONet's time, at most {target} is due")
    flop = [star.attention_forward_flop for _, star in pairs(next(iter(measured.values())))]
    if max(flop) / min(flop) - 1 > FLOP_GROWTH:
        found.append(f"RN50*'s attention FLOP grow by {max(flop) / min(flop) - 1:.2%}")
    return found


def write(measured: Measured, folder: Path, machine: str, batch_size: int) -> None:
    """The table on the screen, then attention.json, attention.md and attention.png."""
    table = as_markdown(measured, machine, batch_size)
    print(table)
    content = {precision: [asdict(profile) for profile in profiles] for precision, profiles in measured.items()}
    report.write_json(folder / "attention.json", {"machine": machine, "batch_size": batch_size} | content)
    write_text(folder / "attention.md", table)
    save_figure(draw(measured), folder / "attention.png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=positive, nargs="+", default=THESIS_SLOTS, metavar="K")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--repeats", type=positive, default=3, help="of which the median counts (default: 3)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError)


def _run(options: argparse.Namespace) -> None:
    report.prepare_outputs(folders=[options.output])
    torch.set_num_threads(options.threads)
    measured = measure(options)
    write(measured, options.output, report.machine(options.device, options.threads), options.batch_size)
    if misses := missed(measured):
        raise MissedError(f"missed: {'; '.join(misses)}")


if __name__ == "__main__":
    sys.exit(main())
