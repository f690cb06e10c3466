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

Writes profile.json, profile.md (rows as in table 5.5) and profile.png (as figure 5.12) into --output.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from monet_perception.files import write_text
from monet_perception.networks import PRESETS
from train import report
from train.arguments import positive
from train.cost import Profile, Setting, count, peak_memory, time_all
from train.figures import save_figure

THESIS_PRESETS = ("monet", "monet_rn50", "monet_rn50_star")
THESIS_SLOTS = (7, 11, 14, 18)


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


def draw(profiles: Sequence[Profile]) -> Figure:
    """Figure 5.12: FLOP of attention and component VAE over the number of slots, and the time of a training step where
    it was measured."""
    timed = any(profile.training_seconds is not None for profile in profiles)
    figure = Figure(figsize=(9 if timed else 5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
    for preset in dict.fromkeys(profile.preset for profile in profiles):
        rows = [profile for profile in profiles if profile.preset == preset]
        slots = [row.slots for row in rows]
        axes[0].plot(slots, [row.attention_forward_flop / 1e9 for row in rows], "o-", label=f"{preset}, attention")
        if timed:
            axes[1].plot(slots, [(row.training_seconds or 0) * 1e3 for row in rows], "o-", label=preset)
    component = {profile.slots: profile.component_forward_flop / 1e9 for profile in profiles}  # all have the same
    axes[0].plot(component.keys(), component.values(), "k--", label="component VAE")
    axes[0].set(xlabel="slots K", ylabel="forward (GFLOP per image)", ylim=(0, None))
    axes[0].legend()
    if timed:
        axes[1].set(xlabel="slots K", ylabel="training step (ms)", ylim=(0, None))
    return figure


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=THESIS_PRESETS, metavar="PRESET",
                        help=f"of {', '.join(PRESETS)} (default: those of the thesis)")  # fmt: skip
    parser.add_argument("--slots", nargs="+", type=positive, default=THESIS_SLOTS, metavar="K")
    parser.add_argument("--image-size", type=positive, default=64)
    parser.add_argument("--batch-size", type=positive, default=4, help="of the timed steps (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--count-only", action="store_true", help="parameters and FLOP only")
    parser.add_argument("--output", type=Path, default=Path("runs/profile"), help="folder (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts, times and writes the report; returns the exit status."""
    options = parse(argv)
    setting = Setting(
        options.device, options.precision, options.batch_size, options.image_size, options.repeats, options.threads
    )
    torch.set_num_threads(setting.threads)
    profiles = [count(preset, slots, setting.image_size) for preset in options.presets for slots in options.slots]
    if not options.count_only:
        time_all(profiles, setting)
        for profile in tqdm(profiles, desc="memory", file=sys.stderr):
            profile.training_memory = peak_memory(profile.preset, profile.slots, setting, training=True)
            profile.inference_memory = peak_memory(profile.preset, profile.slots, setting, training=False)
    write(profiles, setting, options.output)
    return 0


def write(profiles: Sequence[Profile], setting: Setting, folder: Path) -> None:
    """profile.json, profile.md and profile.png, and the table on the screen."""
    machine = report.machine(setting.device, setting.threads)
    table = as_markdown(profiles, setting, machine)
    content = {"machine": machine, "setting": asdict(setting), "profiles": [asdict(profile) for profile in profiles]}
    report.write_json(folder / "profile.json", content)
    write_text(folder / "profile.md", table)
    save_figure(draw(profiles), folder / "profile.png")
    print(table)


if __name__ == "__main__":
    sys.exit(main())
