"""Count and time the networks on this machine: table 5.5 and figure 5.12 of the thesis.

For every preset and number of slots: parameters and FLOP (multiply and add counted apart) of the attention network and
the component VAE, forward and backward; time of a training step and images per second; peak memory in training and
inference. Each time is the median of several runs; between two the presets take turns, so that a machine that slows
down slows all of them.

Examples:
  python -m train.profile                                    the three networks of the thesis, K = 7 11 14 18
  python -m train.profile --presets monet monet_rn50_star --slots 7 --image-size 128 --batch-size 8
  python -m train.profile --device cuda --precision bf16 --batch-size 64
  python -m train.profile --count-only                       no timing: seconds instead of minutes

Writes profile.json, profile.md (rows as in table 5.5) and profile.png (as figure 5.12) into --output. What there is too
little memory to measure is a dash there, and the exit status is 1.
"""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from monet_perception.backends.torch_backend import resolve_device
from monet_perception.files import write_text
from monet_perception.networks import PRESETS, ConfigError
from train import report
from train.arguments import positive
from train.command import run_command
from train.cost import Profile, Setting, count, peak_memory, time_all
from train.figures import save_figure

THESIS_PRESETS = ("monet", "monet_rn50", "monet_rn50_star")
THESIS_SLOTS = (7, 11, 14, 18)


class NotMeasuredError(RuntimeError):
    """Something could not be measured; everything else is in the report."""


def as_markdown(profiles: Sequence[Profile], setting: Setting, machine: str) -> str:
    """Rows as in table 5.5."""
    lines = [
        f"Measured on {machine}: {setting.image_size} x {setting.image_size}, batch {setting.batch_size} "
        f"(memory: batch 1), {setting.precision}, median of {setting.repeats}. FLOP are of one image. Inference is of "
        "masks and latents, without drawing them; memory of a GPU is what PyTorch allocated.",
        "",
        "| model | K | attention parameters (M) | component parameters (M) | attention GFLOP forward / training "
        "| component GFLOP forward / training | ms per step | images/s | against MONet "
        "| memory GB training / inference |",
        "| --- " * 10 + "|",
    ]
    for p in profiles:
        lines.append(
            f"| {p.preset} | {p.slots} | {p.attention_parameters / 1e6:.3f} | {p.component_parameters / 1e6:.3f} "
            f"| {p.attention_forward_flop / 1e9:.2f} / {p.attention_training_flop / 1e9:.2f} "
            f"| {p.component_forward_flop / 1e9:.2f} / {p.component_training_flop / 1e9:.2f} "
            f"| {_cell(p.training_seconds, 1e3, '.0f')} | {_cell(p.images_per_second, 1, '.1f')} "
            f"| {_cell(relative_time(p, profiles), 1, '.2f')} "
            f"| {_cell(p.training_memory, 1e-9, '.2f')} / {_cell(p.inference_memory, 1e-9, '.2f')} |"
        )
    return "\n".join(lines) + "\n"


def relative_time(profile: Profile, profiles: Sequence[Profile]) -> float | None:
    """A training step's time as a fraction of MONet's at the same K; None where either was not timed."""
    monet = [p for p in profiles if p.preset == "monet" and p.slots == profile.slots]
    if not monet or profile.training_seconds is None or monet[0].training_seconds is None:
        return None
    return profile.training_seconds / monet[0].training_seconds


def _cell(value: float | None, scale: float, style: str) -> str:
    return "-" if value is None else format(value * scale, style)


def draw(measured: Mapping[str, Sequence[Profile]]) -> Figure:
    """Figure 5.12: FLOP of attention and component VAE over the number of slots, and the time of a training step where
    it was measured.

    Args:
        measured: the same presets and slots in each precision.
    """
    profiles = next(iter(measured.values()))  # FLOP are the same in all
    timed = any(profile.training_seconds is not None for profile in profiles)
    figure = Figure(figsize=(9 if timed else 5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    _draw_flop(axes[0], profiles)
    if timed:
        for (precision, rows), style in zip(measured.items(), ("o-", "s--"), strict=False):
            _draw_times(axes[1], rows, precision, style)
    for axis in axes:
        axis.set_xticks(sorted({profile.slots for profile in profiles}))
        axis.set_ylim(bottom=0)  # here: it keeps the top from growing with lines that are drawn later
        axis.legend()
    return figure


def _draw_flop(axis: Axes, profiles: Sequence[Profile]) -> None:
    for preset, rows in _by_preset(profiles).items():
        flop = [row.attention_forward_flop / 1e9 for row in rows]
        axis.plot([row.slots for row in rows], flop, "o-", label=f"{preset}, attention")
    presets = list(_by_preset(profiles))
    for (slots, counts), those in _by_component(profiles).items():
        color, whose = f"C{presets.index(those[0])}", f" of {', '.join(those)}"
        if those == presets:
            color, whose = "k", ""
        axis.plot(slots, [count / 1e9 for count in counts], "--", color=color, label=f"component VAE{whose}")
    axis.set(xlabel="slots K", ylabel="forward (GFLOP per image)")


def _draw_times(axis: Axes, profiles: Sequence[Profile], precision: str, style: str) -> None:
    for number, (preset, rows) in enumerate(_by_preset(profiles).items()):
        milliseconds = [(row.training_seconds or math.nan) * 1e3 for row in rows]  # a gap where it was not timed
        axis.plot([row.slots for row in rows], milliseconds, style, color=f"C{number}", label=f"{preset}, {precision}")
    axis.set(xlabel="slots K", ylabel="training step (ms)")


def _by_component(profiles: Sequence[Profile]) -> dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]]:
    """Presets whose component VAEs take the same FLOP, by slots and FLOP: those of the thesis have one in common."""
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for preset, rows in _by_preset(profiles).items():
        curve = tuple(row.slots for row in rows), tuple(row.component_forward_flop for row in rows)
        found.setdefault(curve, []).append(preset)
    return found


def _by_preset(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    presets = dict.fromkeys(profile.preset for profile in profiles)
    return {preset: [profile for profile in profiles if profile.preset == preset] for preset in presets}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=THESIS_PRESETS, metavar="PRESET",
                        help=f"of {', '.join(PRESETS)} (default: those of the thesis)")  # fmt: skip
    parser.add_argument("--slots", nargs="+", type=positive, default=THESIS_SLOTS, metavar="K",
                        help=f"masks of a network (default: {' '.join(map(str, THESIS_SLOTS))})")  # fmt: skip
    parser.add_argument("--image-size", type=positive, default=64, help="height and width in pixels, a multiple of "
                        "the networks' strides: 32, 64, 96, 128, ... (default: %(default)s)")  # fmt: skip
    parser.add_argument("--batch-size", type=positive, default=4, help="of the timed steps (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...; auto is a GPU where there is "
                        "one (default: %(default)s)")  # fmt: skip
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16",
                        help="of the timed steps, by autocast (default: %(default)s)")  # fmt: skip
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(),
                        help="CPU threads (default: %(default)s)")  # fmt: skip
    parser.add_argument("--count-only", action="store_true", help="parameters and FLOP only")
    parser.add_argument("--output", type=Path, default=Path("runs/profile"), metavar="FOLDER",
                        help="(default: %(default)s)")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Counts, times and writes the report; returns the exit status."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), ConfigError, NotMeasuredError)


def _run(options: argparse.Namespace) -> None:
    device = str(resolve_device(options.device))
    setting = Setting(
        device, options.precision, options.batch_size, options.image_size, options.repeats, options.threads
    )
    torch.set_num_threads(setting.threads)
    profiles = [count(preset, slots, setting.image_size) for preset in options.presets for slots in options.slots]
    report.prepare_outputs(folders=[options.output])
    failures = [] if options.count_only else measure(profiles, setting)
    write(profiles, setting, options.output)
    if failures:
        raise NotMeasuredError(
            f"not measured: {'; '.join(failures)}. Where memory is short, take a smaller --batch-size for times, fewer "
            f"--slots or a smaller --image-size. All the rest is in {options.output}"
        )


def measure(profiles: Sequence[Profile], setting: Setting) -> list[str]:
    """Fills in times and memory; what fails stays None and takes nothing with it that was measured before.

    Returns:
        What failed and why, in words: the times of all networks with one number of slots, or one network's memory.
    """
    failures: list[str] = []
    for slots in sorted({profile.slots for profile in profiles}):
        with _told_in(failures, f"times at K = {slots}"):
            time_all([profile for profile in profiles if profile.slots == slots], setting)
    torch.cuda.empty_cache()  # what the times needed may be missing in the processes that measure memory
    for profile in tqdm(profiles, desc="memory", file=sys.stderr):
        network = f"{profile.preset} at K = {profile.slots}"
        with _told_in(failures, f"training memory of {network}"):
            profile.training_memory = peak_memory(profile.preset, profile.slots, setting, training=True)
        with _told_in(failures, f"inference memory of {network}"):
            profile.inference_memory = peak_memory(profile.preset, profile.slots, setting, training=False)
    return failures


@contextlib.contextmanager
def _told_in(failures: list[str], what: str) -> Iterator[None]:
    try:
        yield
    # PyTorch's own for want of memory, on CPUs too, and BrokenProcessPool; a system that doesn't tell of memory; or
    # images too small to be normalised.
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        failures.append(f"{what} ({reason})")


def write(profiles: Sequence[Profile], setting: Setting, folder: Path) -> None:
    """The table on the screen, then profile.json, profile.md and profile.png."""
    machine = report.machine(setting.device, setting.threads)
    table = as_markdown(profiles, setting, machine)
    print(table)
    content = {"machine": machine, "setting": asdict(setting), "profiles": [asdict(profile) for profile in profiles]}
    report.write_json(folder / "profile.json", content)
    write_text(folder / "profile.md", table)
    save_figure(draw({setting.precision: profiles}), folder / "profile.png")


if __name__ == "__main__":
    sys.exit(main())
