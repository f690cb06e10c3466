"""Results as people read them: tables on the screen, Markdown rows like the thesis's tables, JSON files."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monet_perception.files import write_text
from train.metrics.headings import SCORES
from train.runs import RUN_CHECKPOINTS, Training

CHECKPOINT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Score:
    """A figure and how far to trust it.

    Attributes:
        value: the score, or its mean over seeds; NaN where there is none.
        low, high: 95 % bootstrap interval over the images of one network; None for several.
        deviation: sample standard deviation over seeds; None for one network.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """`86.88 ± 1.23` over seeds, `86.88 [85.10, 88.20]` for one network, `-` for none."""
        if math.isnan(self.value):
            return "-"
        text = f"{self.value * scale:.{digits}f}"
        if self.deviation is not None:
            return f"{text} ± {self.deviation * scale:.{digits}f}"
        if self.low is not None and self.high is not None and math.isfinite(self.low):  # of one image there is none
            return f"{text} [{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"
        return text


@dataclass(frozen=True)
class Row:
    """One line of a table: a model, how many networks of it, on how many images, and its scores by name."""

    model: str
    networks: int
    images: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class ThesisTable:
    """A table of the thesis: its title, the unit of its MSE, 10 to the power of `-mse_exponent`, and its rows.

    Attributes:
        published: ARI and MSC in percent and MSE, as printed, by model.
    """

    title: str
    mse_exponent: int
    published: Mapping[str, tuple[str, str, str]]


# Berriel Martins 2022, tables 5.1 to 5.4, for comparison beside what is measured here.
THESIS_TABLES: dict[str, ThesisTable] = {
    "5.1": ThesisTable(
        "weights initialisation, Objects Room validation set",
        4,
        {
            "MONet/Default": ("78.20 ± 9.55", "75.38 ± 4.92", "11.221 ± 4.158"),
            "MONet/Kaiming": ("79.16 ± 4.03", "73.71 ± 3.92", "18.401 ± 11.863"),
            "MONet-RN50/Default": ("84.06 ± 2.40", "68.99 ± 16.46", "7.212 ± 0.813"),
            "MONet-RN50/Kaiming": ("83.78 ± 2.00", "76.34 ± 10.77", "8.234 ± 2.502"),
        },
    ),
    "5.2": ThesisTable(
        "Objects Room test set",
        3,
        {
            "MONet": ("83.44 ± 1.58", "80.77 ± 0.64", "0.712 ± 0.153"),
            "MONet-RN50": ("85.78 ± 0.77", "76.40 ± 13.48", "0.819 ± 0.325"),
            "MONet-RN50*": ("86.88 ± 1.23", "84.10 ± 0.73", "0.517 ± 0.042"),
            "Genesis v2": ("85 ± 1", "59 ± 1", "-"),
            "Slot Attention": ("79 ± 2", "64 ± 13", "-"),
        },
    ),
    "5.3": ThesisTable(
        "Objects Room, Same Colour test set",
        3,
        {
            "MONet": ("78.83 ± 2.53", "56.99 ± 5.60", "6.162 ± 0.417"),
            "MONet-RN50": ("80.95 ± 1.70", "51.74 ± 8.84", "7.639 ± 0.127"),
            "MONet-RN50*": ("81.58 ± 1.30", "55.61 ± 1.34", "6.155 ± 0.896"),
        },
    ),
    "5.4": ThesisTable(
        "CLEVR test set",
        3,
        {
            "MONet": ("52.56 ± 26.56", "40.11 ± 33.79", "1.505 ± 0.461"),
            "MONet-RN50*": ("69.32 ± 7.70", "56.46 ± 8.70", "0.630 ± 0.081"),
        },
    ),
}


def screen_table(store: str, rows: Sequence[Row]) -> Table:
    """Every score of every model on one store: a column for each model, so that it fits a terminal."""
    table = Table(title=store, caption="± over networks, [ ] 95 % bootstrap interval over images")
    table.add_column("")
    for row in rows:
        networks = "" if row.networks == 1 else f"{row.networks} networks, "
        table.add_column(Text(f"{row.model}\n{networks}{row.images:,} images"), justify="right")
    for name, heading in SCORES.items():
        table.add_row(heading.title, *(Text(row.scores[name].text(heading.scale, heading.digits)) for row in rows))
    return table


def screen_table_by_objects(store: str, table_by_model: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Table:
    """ARI, MSC and MSE by number of visible objects."""
    table = Table(title=f"{store}, by number of visible objects")
    headings = {name: SCORES[name] for name in ("ari", "msc", "mbo", "mse")}
    table.add_column("Model", overflow="fold")
    for title in ("Objects", "Images", *(heading.title for heading in headings.values())):
        table.add_column(title, justify="right")
    for model, rows in table_by_model.items():
        for count, row in rows.items():
            scores = (Score(row[name]).text(heading.scale, heading.digits) for name, heading in headings.items())
            table.add_row(Text(model), str(count), f"{row['images']:,.0f}", *scores)
    return table


def markdown_table(store: str, rows: Sequence[Row], table: str) -> str:
    """Rows laid out like a table of the thesis, the thesis's own below them in italics."""
    chosen = THESIS_TABLES[table]
    split = table == "5.1"  # its first column is two: architecture and initialisation, given as "MONet/Kaiming"
    names = ["Architecture", "Initialisation"] if split else ["Model"]
    lines = [
        f"**{store}** ({_counts(rows)} images; as table {table}: {chosen.title})",
        "",
        "| " + " | ".join([*names, "Networks", "ARI ↑", "MSC ↑", f"MSE × 10⁻{'⁰¹²³⁴'[chosen.mse_exponent]} ↓"]) + " |",
        "|" + " --- |" * (len(names) + 4),
    ]
    for row in rows:
        scores = [row.scores["ari"].text(100), row.scores["msc"].text(100)]
        scores.append(row.scores["mse"].text(10**chosen.mse_exponent, 3))
        lines.append("| " + " | ".join([*_name_cells(row.model, split), str(row.networks), *scores]) + " |")
    for model, published in chosen.published.items():
        cells = [*_name_cells(f"{model} (thesis)", split), "", *published]
        lines.append("| " + " | ".join(f"*{cell}*" if cell else "" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _counts(rows: Sequence[Row]) -> str:
    """How many images were scored, of each model where that differs."""
    return ", ".join(f"{images:,}" for images in dict.fromkeys(row.images for row in rows))


def training_table(trainings: Mapping[str, Training]) -> str:
    """How each network was trained, by its name."""
    lines = [
        "**Training**",
        "",
        "| Network | Initialisation | Attention starts from | Seed | Images seen | Minutes | Trained anew by |",
        "|" + " --- |" * 7,
    ]
    for name, one in trainings.items():
        cells = [
            name.replace("*", "\\*"),
            one.initialisation,
            one.fine_tuned or one.pretrained or "scratch",
            str(one.seed),
        ]
        cells += [f"{one.images:,}", "-" if one.minutes is None else f"{one.minutes:.1f}", f"`{one.command}`"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Names of checkpoints or stores, for tables and files: no two paths share one.

    A path's own name is enough where these differ and are not those of every run. Else all begin with as many folders
    as tell them apart: `runs/a/best.safetensors` and `runs/b/best.safetensors` are `a_best` and `b_best`, also when
    each is alone in its call.
    """
    different = len(set(paths))
    parts = [path.absolute().parts[1:] for path in paths]
    least = 2 if any(path.name in RUN_CHECKPOINTS for path in paths) else 1
    names: list[str] = []
    for depth in range(least, max(map(len, parts), default=0) + 1):
        names = ["_".join(one[-depth:]).removesuffix(CHECKPOINT_SUFFIX) for one in parts]
        if len(set(names)) == different:
            break
    return names


def prepare_outputs(*, files: Iterable[Path | None] = (), folders: Iterable[Path | None] = ()) -> None:
    """Makes the folders of results and tries them, so that nothing is measured whose results can't be written.

    Args:
        files: that will be written; None: one that was not asked for.
        folders: that files will be written to; None likewise.
    Raises:
        OSError: a file or folder can't be written; the message names it.
    """
    wanted = [file for file in files if file is not None]
    for file in wanted:
        if file.exists() and not file.is_file():
            raise OSError(f"{file} is {'a folder' if file.is_dir() else 'no ordinary file'}: name a file to write")
    for folder in dict.fromkeys([*(file.parent for file in wanted), *(one for one in folders if one is not None)]):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file: name a folder to write to")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(f"nothing can be written to {folder} ({error.strerror}): name another folder") from error


def say(console: Console, text: str) -> None:
    """A line as it is: paths are neither wrapped nor read as markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def machine(device: str | None = None, threads: int | None = None) -> str:
    """What figures were made on: the GPU, or the CPU and its threads, and the versions of PyTorch and Python.

    Args:
        device: as PyTorch names it; None: a GPU where there is one.
        threads: of a CPU; None: as many as PyTorch uses in this process.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_cpu_name()}, {torch.get_num_threads() if threads is None else threads} threads"
    return f"{name}, PyTorch {torch.__version__}, Python {platform.python_version()}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command_line(module: str, argv: Sequence[str] | None) -> str:
    """The command that is running, to be kept beside what it made."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)])


def write_json(path: Path, content: Any) -> None:
    """`files.write_text` of JSON; NaN becomes null, which JSON has a word for."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content


def _name_cells(model: str, split: bool) -> list[str]:
    name = model.replace("*", "\\*")
    if not split:
        return [name]
    architecture, _, initialisation = name.partition("/")
    return [architecture, initialisation]
