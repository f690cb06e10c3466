"""A local page to explore latents: drag a slot's latents, swap slots between scenes, read disentanglement scores.

The page is served to this machine alone (127.0.0.1), asks for nothing from the internet and reports to nobody.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from monet_perception.shipped import checkpoint_path
from train.arguments import fraction, port, positive
from train.command import run_command
from train.data.store import Store
from train.exploration import Explorer
from train.inference import add_inference_options, open_decomposer

EXAMPLES = """examples:
  python -m train.explore monet_perception/data/monet_rn18_star.safetensors --store data/rooms_test
  python -m train.explore a.safetensors --store data/rooms_test --port 8080 --open"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(argv)
    return run_command(lambda: _run(options), ImportError)


def _run(options: argparse.Namespace) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
    try:
        from train.explorer_page import ExplorerPage
    except ImportError as error:
        raise ImportError(f"the explorer needs gradio ({error}): pip install 'monet_perception[explore]'") from error
    store = Store.open(options.store)
    decomposer = open_decomposer(str(options.checkpoint), options)
    try:
        title = f"{options.checkpoint.name} on {options.store.name}"
        scored = min(options.score_images, len(store))
        page = ExplorerPage(Explorer(decomposer, store), title, scored, options.min_iou)
        page.serve(options.port, open_browser=options.open)
    finally:
        decomposer.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.explore",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=checkpoint_path)
    parser.add_argument("--store", required=True, type=Path, help="where the scenes come from")
    parser.add_argument("--port", type=port, help="(default: the first free one from 7860)")
    parser.add_argument("--open", action="store_true", help="open a browser window")
    parser.add_argument(
        "--score-images",
        type=positive,
        default=1000,
        help="images that disentanglement is scored on (default: %(default)s)",
    )
    parser.add_argument(
        "--min-iou", type=fraction, default=0.5, help="of a slot and its object in those scores (default: %(default)s)"
    )
    add_inference_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
