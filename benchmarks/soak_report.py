"""What happened in a soak, the limits that it is held against, and both as table, figure and JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from train.figures import save_figure
from train.report import write_json

PATIENCE = 60.0
"""Seconds after which what was waited for counts as missed."""


@dataclass
class Record:
    """What happened; times in seconds since the beginning."""

    sent: int = 0
    malformed: int = 0
    errors: int = 0
    recoveries: list[float] = field(default_factory=list)
    missed: int = 0
    refused: int = 0
    wrongly_set: int = 0
    decode_requests: int = 0
    decode_answers: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def verdicts(record: Record) -> list[tuple[str, str, bool]]:
    """The limits: name, value, whether it holds."""
    memory = np.array([sample["memory (MB)"] for sample in record.samples])
    quarter = max(1, len(memory) // 4)
    # The first quarter is left out: caches and the allocator's arenas fill up while things happen for the first time.
    early, late = float(np.median(memory[quarter : 2 * quarter])), float(np.median(memory[-quarter:]))
    growth = late / early - 1
    counts = record.counts
    accounted = counts["answered"] + counts["dropped"] + counts["broken"] + counts["failed"]
    slowest = max(record.recoveries, default=float("nan"))
    return [
        ("memory, last quarter to second", f"{early:.0f} -> {late:.0f} MB, {growth:+.2%}", abs(growth) <= 0.02),
        ("frames sent, received, accounted for", f"{record.sent}, {counts['received']}, {accounted}",
         record.sent == counts["received"] == accounted),
        ("malformed sent, counted", f"{record.malformed}, {counts['broken']}", record.malformed == counts["broken"]),
        ("device errors, recoveries seen, missed", f"{record.errors}, {len(record.recoveries)}, {record.missed}",
         record.missed == 0 and len(record.recoveries) == record.errors),
        ("slowest recovery", f"{slowest:.1f} s", not slowest > PATIENCE),
        ("wrong parameters refused, accepted", f"{record.refused}, {record.wrongly_set}", record.wrongly_set == 0),
        ("decode requests, answered", f"{record.decode_requests}, {record.decode_answers}",
         record.decode_answers == record.decode_requests),
    ]  # fmt: skip


def draw(record: Record) -> Figure:
    """Memory, latency and counts over time."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    minutes = np.array([sample["seconds"] for sample in record.samples]) / 60
    axes[0].plot(minutes, [sample["memory (MB)"] for sample in record.samples])
    axes[0].set(ylabel="memory (MB)", title="decompose under load, faults and change", ylim=(0, None))
    when, latency = np.array(record.latencies).T if record.latencies else (np.zeros(0), np.zeros(0))
    axes[1].semilogy(when / 60, 1000 * latency, ".", markersize=1)
    axes[1].set(ylabel="latency (ms)")
    for name in ("answered", "dropped", "broken", "failed"):
        axes[2].plot(minutes, [sample.get(name, 0) for sample in record.samples], label=name)
    axes[2].set(ylabel="frames", xlabel="time (min)")
    axes[2].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def report(record: Record, folder: Path) -> bool:
    """Prints a table and writes files; whether all holds."""
    table = Table(title=f"{record.samples[-1]['seconds'] / 60:.1f} minutes, load {os.getloadavg()[0]:.1f}")
    for column in ("", "value", ""):
        table.add_column(column)
    found = verdicts(record)
    for name, value, holds in found:
        table.add_row(name, value, "yes" if holds else "NO")
    console = Console()
    console.print(table)
    save_figure(draw(record), folder / "soak.png")
    content = {
        "verdicts": {name: value for name, value, _ in found},
        "counts": record.counts,
        "samples": record.samples,
    }
    write_json(folder / "soak.json", content)
    console.print(f"wrote {folder / 'soak.png'} and soak.json")
    return all(holds for *_, holds in found)
