"""The node's latency as tables, a figure and JSON."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.latency_results import Results, milliseconds
from train.figures import save_figure, set_log_scale
from train.report import machine, write_json


def report(results: Results, resolution: str, folder: Path) -> bool:
    """Prints tables and writes latency_over_load.png and latency.json; whether all limits hold."""
    title = f"{resolution}, {os.cpu_count()} cores"
    found = results.verdicts()
    console = Console()
    console.print(_summary_table(results, title), _limit_table(found))
    save_figure(draw(results, f"decompose, {title}"), folder / "latency_over_load.png")
    content = {
        "machine": machine(),
        "summaries": results.summaries(),
        "turns, median (ms)": {
            "network": [milliseconds(turn, 50) for turn in results.network],
            "relay": [milliseconds(turn.latency, 50) for turn in results.relay],
            "node": [milliseconds(turn.latency, 50) for turn in results.node],
        },
        "limits": [{"name": name, "value": float(value), "limit": limit} for name, value, limit, _ in found],
    }
    write_json(folder / "latency.json", content)
    console.print(f"wrote {folder / 'latency_over_load.png'} and latency.json")
    return all(holds for *_, holds in found)


def _summary_table(results: Results, title: str) -> Table:
    summaries = results.summaries()
    table = Table(title=f"{title}, load {os.getloadavg()[0]:.1f}")
    for column in ("", *summaries["node"]):
        table.add_column(column, justify="right")
    for name, summary in summaries.items():
        table.add_row(name, *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in summary.values()))
    return table


def _limit_table(verdicts: list[tuple[str, float, str, bool]]) -> Table:
    limits = Table()
    for column in ("", "value", "limit", ""):
        limits.add_column(column, justify="right")
    for name, value, limit, holds in verdicts:
        limits.add_row(name, f"{value:.2f}", limit, "yes" if holds else "NO")
    return limits


def draw(results: Results, title: str) -> Figure:
    """Latency over load."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    loads = list(results.loads)
    summaries = [run.summary() for run in results.loads.values()]
    median, high = ([summary[name] for summary in summaries] for name in ("median (ms)", "99 % (ms)"))
    network = milliseconds(results.alone(), 50)
    axis.plot(loads, high, "o-", color="tab:orange", label="node, 99th percentile")
    axis.plot(loads, median, "o-", color="tab:blue", label="node, median")
    axis.axhline(2 * network, color="grey", linestyle=":", label="twice the network's time")
    axis.axhline(network, color="grey", linestyle="--", label=f"the network alone, median ({network:.0f} ms)")
    axis.set_xscale("log", base=2)
    axis.set_xticks(loads, [f"{load:g}" for load in loads])
    set_log_scale(axis)
    axis.set_ylim(network / 2, np.nanmax([8 * network, *(1.1 * value for value in high)]))
    axis.set(
        xlabel="images a second, in multiples of the network's rate", ylabel="image stamp to slots (ms)", title=title
    )
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
