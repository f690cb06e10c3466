"""Writes a checkpoint anew as it is to be published, with what it says about itself: whole, or in half precision.

In half precision matrices and kernels are stored in float16; networks compute in float32 all the same. The model id is
the hash of the weights. Rounding changes them and with them the id, except where they were rounded before. The metrics
stay those of the checkpoint that was read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monet_perception.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, save_checkpoint

EXAMPLES = """examples:
  python -m train.export runs/rooms/best.safetensors network.safetensors --half
  python -m train.export network.safetensors network.safetensors --half --overwrite"""


def export(
    source: Path, target: Path, *, half: bool = False, overwrite: bool = False
) -> tuple[CheckpointInfo, CheckpointInfo]:
    """Reads a checkpoint and writes it, whole or not at all.

    Args:
        source: a checkpoint, in either precision.
        target: where to; its folder is made where it is missing.
        half: matrices and kernels in float16, else everything in float32.
        overwrite: whether `target` may exist.
    Returns:
        What both files say about themselves: the source's, the target's.
    Raises:
        CheckpointError: the source is no sound checkpoint, or holds a weight that float16 has no room for.
        FileExistsError: `target` exists and was not to be overwritten.
        OSError: the file can't be written.
    """
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; choose another name, or --overwrite it")
    monet, info = load_checkpoint(source)
    written = save_checkpoint(target, monet, dataset=info.dataset, steps=info.steps, metrics=info.metrics, half=half)
    return info, written


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        size = _megabytes(options.source) if options.source.is_file() else ""  # it may be the target as well
        before, after = export(options.source, options.target, half=options.half, overwrite=options.overwrite)
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.target}: {_megabytes(options.target)} (read: {size}), model {after.model_id}, ", end="")
    if after.model_id == before.model_id:
        print("as before: the weights are the same")
    else:
        print(f"before {before.model_id}: rounding changed the weights")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.export",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="CHECKPOINT", help=".safetensors of a run")
    parser.add_argument("target", type=Path, metavar="FILE", help="where to, by convention .safetensors")
    parser.add_argument("--half", action="store_true", help="in half precision: a file of half the size")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    return parser


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
