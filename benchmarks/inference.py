"""The Decomposer against the network's plain forward pass, on one checkpoint, frame by frame.

    python -m benchmarks.inference                                     the checkpoint that comes with the package
    python -m benchmarks.inference --checkpoint runs/rooms/best.safetensors --threads 1
    python -m benchmarks.inference --frames data/rooms/images.npy      calibrates int8 on these, and compares on them
    python -m benchmarks.inference --preset monet_rn50_star            a network of the thesis, with fresh weights

Plain is what one writes first: PyTorch in float32, eager, default layout, the whole forward pass. The variants take
turns, so that a neighbour on the machine slows all of them; what counts is their ratio. The peak is that of a large
matrix product in the same run. Without an 8-bit encoder beside the checkpoint one is made and thrown away afterwards.
The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.targets import MissedError
from monet_perception.backends.graphs import GraphError
from monet_perception.backends.openvino_backend import OpenVinoError
from monet_perception.backends.quantisation import quantise, quantised_paths, read_frames
from monet_perception.checkpoint import load_checkpoint, read_info, read_tensors, save_checkpoint
from monet_perception.decomposer import Decomposer
from monet_perception.files import write_text
from monet_perception.networks import PRESETS, Monet
from monet_perception.shipped import DEFAULT_CHECKPOINT, checkpoint_path
from train import report
from train.arguments import positive
from train.command import run_command

# How many times as fast as plain the fastest variant has to be, without reconstructions.
TARGET, TARGET_INT8 = 4.0, 10.0
# From the plain forward pass: in fp32 the largest difference of a mask's pixel, else the pixels that keep their slot.
TOLERANCE = 1e-4
AGREEMENT = 0.99
FRAMES = 32


@dataclass
class Variant:
    """One way to run the network; times of one frame, of all rounds."""

    name: str
    run: Callable[[], object]
    seconds: list[float]
    gflop: float
    mask_error: float = 0.0  # largest difference of a mask's pixel
    agreement: float = 1.0  # share of pixels whose slot is the same

    @property
    def milliseconds(self) -> float:
        """Median of one frame."""
        return 1e3 * statistics.median(self.seconds)


def gflop(function: Callable[[], object]) -> float:
    """Multiplications and additions of one call, in billions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


@contextlib.contextmanager
def checkpoint_of(options: argparse.Namespace) -> Iterator[Path]:
    """The checkpoint asked for, or one of a preset's fresh weights while the context lasts."""
    if options.preset is None:
        yield options.checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{options.preset}.safetensors"
        torch.manual_seed(0)
        save_checkpoint(path, Monet(PRESETS[options.preset]), dataset="none", steps=0)
        yield path


@contextlib.contextmanager
def with_quantised(checkpoint: Path, frames: NDArray[np.uint8]) -> Iterator[Path]:
    """The checkpoint, or a link to it beside an 8-bit encoder made from these frames."""
    info, weights = read_tensors(checkpoint)
    if any(path.is_file() for path in quantised_paths(checkpoint, info)):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / checkpoint.name
        link.symlink_to(checkpoint.resolve())
        try:
            quantised_paths(link, info)[0].write_bytes(quantise(info, weights, frames))
        except GraphError as error:
            print(f"no 8-bit encoder: {error}")
        yield link


def open_variants(options: argparse.Namespace, frames: NDArray[np.uint8]) -> tuple[Variant, list[Variant]]:
    """The plain forward pass, and the Decomposers."""
    monet, _ = load_checkpoint(options.checkpoint, options.device)
    image = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2).contiguous().to(options.device) / 255.0
    plain = Variant("plain PyTorch", lambda: run_plain(monet, image), [], gflop(lambda: run_plain(monet, image)))
    encoding = gflop(lambda: monet.encode(image))
    expected = reference_masks(monet, frames, options.device)
    variants = []
    for choice in choices(options.device):
        try:
            decomposer = Decomposer(options.checkpoint, device=options.device, threads=options.threads, **choice)
        except (GraphError, OpenVinoError) as error:
            print(f"{choice} left out: {error}")
            continue
        for reconstruct in (False, True):
            label = f"{decomposer.backend} {decomposer.precision}{' with reconstructions' if reconstruct else ''}"
            cost = plain.gflop if reconstruct else encoding
            variant = Variant(label, partial(decomposer, frames[0], reconstruct=reconstruct), [], cost)
            masks = decomposer(frames).masks
            variant.mask_error = float(np.abs(masks - expected).max())
            variant.agreement = float((masks.argmax(axis=1) == expected.argmax(axis=1)).mean())
            variants.append(variant)
    return plain, variants


def choices(device: str) -> list[dict[str, Any]]:
    """What the Decomposer is asked for."""
    if device.startswith("cuda"):
        return [{"precision": "fp32"}, {"precision": "bf16"}]
    return [
        {"backend": "torch"},
        {"backend": "torch", "precision": "bf16"},
        *({"backend": name, "quantised": quantised} for name in ("onnx", "openvino") for quantised in (False, True)),
    ]


@torch.no_grad()
def run_plain(monet: Monet, image: torch.Tensor) -> object:
    output = monet(image)
    return output.log_masks.cpu()  # waits for a GPU, as the Decomposer does


@torch.no_grad()
def reference_masks(monet: Monet, frames: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).to(device) / 255.0
    masks: NDArray[np.float32] = monet.encode(images).log_masks.exp().cpu().numpy()
    return masks


def measure(variants: Sequence[Variant], rounds: int) -> None:
    """Times every variant once a round, after a warm-up."""
    for variant in variants:
        for _ in range(3):
            variant.run()
    for _ in tqdm(range(rounds), file=sys.stderr):
        for variant in variants:
            start = time.perf_counter()
            variant.run()
            variant.seconds.append(time.perf_counter() - start)


def peak_gflops(device: str, dtype: torch.dtype) -> float:
    """What the machine reaches in a large matrix product, in GFLOP a second: the best of several."""
    size = 8192 if device.startswith("cuda") else 1536
    left, right = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def as_markdown(plain: Variant, variants: Sequence[Variant], peaks: dict[str, float], title: str) -> str:
    """One row for every variant."""
    lines = [
        title,
        "Peak of a matrix product: " + ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in peaks.items()) + ".",
        "",
        "| variant | ms a frame | times as fast | GFLOP/s | of the fp32 peak | mask error | same slot |",
        "| --- " * 7 + "|",
    ]
    for variant in (plain, *variants):
        rate = variant.gflop / variant.milliseconds * 1e3
        lines.append(
            f"| {variant.name} | {variant.milliseconds:.2f} | {plain.milliseconds / variant.milliseconds:.1f} "
            f"| {rate:.0f} | {rate / peaks['fp32']:.0%} "
            f"| {variant.mask_error:.1e} | {variant.agreement:.2%} |"
        )
    return "\n".join(lines) + "\n"


def missed(plain: Variant, variants: Sequence[Variant]) -> list[str]:
    """The targets that were not reached, in words."""
    found = []
    encoders = [variant for variant in variants if not variant.name.endswith("reconstructions")]
    int8 = [variant for variant in encoders if "int8" in variant.name]
    for group, target in (([v for v in encoders if v not in int8], TARGET), (int8, TARGET_INT8)):
        if not group:
            continue
        fastest = min(group, key=lambda variant: variant.milliseconds)
        faster = plain.milliseconds / fastest.milliseconds
        if faster < target:
            found.append(f"{fastest.name} is {faster:.1f} times as fast as plain, {target} is due")
    for variant in variants:
        if "fp32" in variant.name and variant.mask_error > TOLERANCE:
            found.append(f"{variant.name}: masks differ by {variant.mask_error:.1e}, at most {TOLERANCE} is due")
        if variant.agreement < AGREEMENT:
            found.append(
                f"{variant.name}: {variant.agreement:.1%} of the pixels keep their slot, {AGREEMENT:.0%} are due"
            )
    return found


def load_frames(path: Path | None, size: int) -> NDArray[np.uint8]:
    """The first frames of a file in the network's size, or else smooth noise: uint8 [FRAMES, size, size, 3]."""
    if path is None:
        coarse = np.random.default_rng(0).integers(0, 256, (FRAMES, 4, 4, 3), dtype=np.uint8)
        return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    return read_frames(path, size)[:FRAMES]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    network = parser.add_mutually_exclusive_group()
    network.add_argument("--checkpoint", type=checkpoint_path, default=DEFAULT_CHECKPOINT)
    network.add_argument("--preset", choices=PRESETS, help="fresh weights instead of a checkpoint's")
    parser.add_argument("--frames", type=Path, help=".npy of uint8 [N, H, W, 3] to compare masks on (default: noise)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads of one call")
    parser.add_argument("--rounds", type=positive, default=50)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder (default: %(default)s)")
    options = parser.parse_args(argv)
    return run_command(lambda: _run(options), MissedError, ValueError)


def _run(options: argparse.Namespace) -> None:
    report.prepare_outputs(folders=[options.output])
    torch.set_num_threads(options.threads)
    with checkpoint_of(options) as checkpoint:
        info = read_info(checkpoint)
        frames = load_frames(options.frames, info.config.image_size)
        title = f"{checkpoint.name} ({info.model_id}), one frame of {info.config.image_size} pixels"
        with with_quantised(checkpoint, frames) as options.checkpoint:
            plain, variants = open_variants(options, frames)
    measure([plain, *variants], options.rounds)
    peaks = {name: peak_gflops(options.device, dtype) for name, dtype in DTYPES.items()}
    title = f"{report.machine(options.device, options.threads)}; {title}."
    table = as_markdown(plain, variants, peaks, title)
    print(table)
    write(options.output, table, [plain, *variants], peaks, title)
    if misses := missed(plain, variants):
        raise MissedError(f"missed: {'; '.join(misses)}")


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def write(folder: Path, table: str, variants: Sequence[Variant], peaks: dict[str, float], title: str) -> None:
    """inference.md and inference.json."""
    rows = [{key: value for key, value in vars(variant).items() if key != "run"} for variant in variants]
    write_text(folder / "inference.md", table)
    report.write_json(folder / "inference.json", {"title": title, "peak_gflops": peaks, "variants": rows})


if __name__ == "__main__":
    sys.exit(main())
