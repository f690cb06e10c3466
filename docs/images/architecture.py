"""Draws the networks for docs/networks.md: python docs/images/architecture.py"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

matplotlib.rcParams["svg.hashsalt"] = "monet_perception"  # the same file every time

COLOURS = {"data": "#e8eef2", "attention": "#cfe8dc", "component": "#fbe3c4"}


def box(axes: Axes, x: float, y: float, width: float, text: str, kind: str, height: float = 0.8) -> None:
    """A rounded box with its lower left corner at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.08", fc=COLOURS[kind], ec="#444444"
        )
    )
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "", bend: float = 0.0) -> None:
    """An arrow with a caption above its middle."""
    style = {"arrowstyle": "-|>", "color": "#444444", "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
    if text:
        axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.08, text, ha="center", va="bottom", fontsize=7)


def whole_network(axes: Axes) -> None:
    """Attention finds the slots, the component VAE describes each of them."""
    axes.set_title("The whole network (K slots, latent size L)", loc="left", fontsize=10)
    box(axes, 0.0, 1.2, 1.5, "image x\n[B, 3, H, W]", "data")
    box(axes, 2.2, 1.2, 2.0, "attention\nU-Net or ResNet", "attention")
    box(axes, 4.9, 1.2, 1.7, "log masks\n[B, K, H, W]", "data")
    box(axes, 7.3, 1.2, 1.9, "component\nencoder", "component")
    box(axes, 9.9, 1.2, 1.9, "mean, log sigma\n[B, K, L]", "data")
    box(axes, 12.5, 1.2, 1.9, "component\ndecoder", "component")
    box(axes, 15.1, 1.8, 2.2, "reconstructions\n[B, K, 3, H, W]", "data", 0.7)
    box(axes, 15.1, 0.7, 2.2, "mask logits\n[B, K, H, W]", "data", 0.7)
    for left, right in ((1.5, 2.2), (4.2, 4.9), (6.6, 7.3), (9.2, 9.9)):
        arrow(axes, (left, 1.6), (right, 1.6))
    arrow(axes, (11.8, 1.6), (12.5, 1.6), "z")
    arrow(axes, (14.4, 1.7), (15.1, 2.1))
    arrow(axes, (14.4, 1.5), (15.1, 1.1))
    arrow(axes, (0.75, 2.0), (8.2, 2.0), "x again", -0.16)


def recurrent(axes: Axes) -> None:
    """MONet's attention: one U-Net, K - 1 passes."""
    axes.set_title("Attention of MONet: K - 1 passes of one U-Net", loc="left", fontsize=10)
    box(axes, 0.0, 1.2, 2.0, "x and log scope\n[B, 4, H, W]", "data")
    box(axes, 2.8, 1.2, 2.7, "U-Net 64-128-256-512-512\nwith an MLP at its bottom", "attention")
    box(axes, 6.3, 1.2, 1.3, "logit\n[B, 1, H, W]", "data")
    box(axes, 8.4, 1.2, 2.2, "scope step\n(4.4, 4.5, 4.6)", "attention")
    box(axes, 11.4, 1.2, 1.6, "log mask k", "data")
    for left, right in ((2.0, 2.8), (5.5, 6.3), (7.6, 8.4), (10.6, 11.4)):
        arrow(axes, (left, 1.6), (right, 1.6))
    arrow(axes, (9.5, 1.2), (1.0, 1.2), "", -0.18)
    axes.text(5.2, 0.2, "log scope that is left", ha="center", fontsize=7)


def one_pass(axes: Axes) -> None:
    """The attention of MONet-RN50 and RN50*: one pass, whatever K is."""
    axes.set_title(
        "Attention of MONet-RN50 and RN50*: one pass (dashed: skip connections of RN50* only)", loc="left", fontsize=10
    )
    stages = ((0.0, "stem and\nlayer1, /2"), (2.0, "layer2, /4"), (4.0, "layer3, /8"), (6.0, "layer4, /16"))
    for x, text in stages:
        box(axes, x, 1.7, 1.6, text, "attention")
    ups = ((8.4, "512"), (10.3, "256 | 128"), (12.2, "128 | 64"), (14.1, "64 | 16"))
    for x, channels in ups:
        box(axes, x, 1.7, 1.5, f"transposed\n5x5, {channels}", "attention")
    box(axes, 16.0, 1.7, 1.6, "1x1, K logits,\nstick-breaking", "attention")
    for left, right in (
        (1.6, 2.0),
        (3.6, 4.0),
        (5.6, 6.0),
        (7.6, 8.4),
        (9.9, 10.3),
        (11.8, 12.2),
        (13.7, 14.1),
        (15.6, 16.0),
    ):
        arrow(axes, (left, 2.1), (right, 2.1))
    for start, end in ((4.8, 11.0), (2.8, 12.9), (0.8, 14.8)):
        style = {"arrowstyle": "-|>", "color": "#444444", "linestyle": "--", "connectionstyle": "arc3,rad=0.14"}
        axes.annotate("", xy=(end, 1.7), xytext=(start, 1.7), arrowprops=style)


def main() -> None:
    """Writes architecture.svg beside this file."""
    figure = Figure(figsize=(11, 6.4))
    axes = figure.subplots(3, 1)
    for axis, draw in zip(axes, (whole_network, recurrent, one_pass), strict=True):
        axis.set_xlim(-0.1, 17.7)
        axis.set_ylim(-0.1, 2.9)
        axis.axis("off")
        draw(axis)
    figure.tight_layout()
    path = Path(__file__).with_name("architecture.svg")
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main()
