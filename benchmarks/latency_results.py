"""What was measured of the node's latency, and the limits that it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def milliseconds(seconds: Sequence[float] | np.ndarray, share: float) -> float:
    """A percentile in milliseconds; NaN of nothing, where every image got lost."""
    return 1000 * float(np.percentile(seconds, share)) if len(seconds) else float("nan")


@dataclass
class Run:
    """One stretch of frames: the latency of each answer in seconds, and how many frames were sent."""

    latency: np.ndarray
    published: int

    @classmethod
    def joined(cls, runs: Sequence[Run]) -> Run:
        """The turns of one thing together."""
        return cls(np.concatenate([run.latency for run in runs]), sum(run.published for run in runs))

    def summary(self) -> dict[str, float]:
        """Percentiles in milliseconds."""
        median, high = milliseconds(self.latency, 50), milliseconds(self.latency, 99)
        return {"frames": self.published, "answers": len(self.latency), "median (ms)": median, "99 % (ms)": high}


@dataclass
class Results:
    """What was measured.

    Attributes:
        network: of each turn, the seconds that each frame took in the bare network.
        relay, node: of each turn, at the same rate as the network.
        loads: the node, by the multiple of the network's rate that it was fed at, the highest last.
        growth: megabytes of memory that the node gained at the last of them.
    """

    network: list[list[float]]
    relay: list[Run]
    node: list[Run]
    loads: dict[float, Run]
    growth: float

    def alone(self) -> np.ndarray:
        """Seconds of all frames in the bare network."""
        return np.concatenate(self.network)

    def added(self) -> float:
        """Milliseconds that the node adds to the network: the median over the turns of the difference of their medians.

        The machine is now faster, now slower, for longer than a turn: the medians of all turns together differ by that.
        """
        pairs = zip(self.node, self.network, strict=True)
        return float(
            np.nanmedian([milliseconds(node.latency, 50) - milliseconds(network, 50) for node, network in pairs])
        )

    def summaries(self) -> dict[str, dict[str, float]]:
        """`Run.summary` of everything, by name."""
        alone = self.alone()
        runs = {
            "network": Run(alone, len(alone)),
            "relay": Run.joined(self.relay),
            "node": Run.joined(self.node),
        }
        runs |= {f"node, load {load:g}": run for load, run in self.loads.items()}
        return {name: run.summary() for name, run in runs.items()}

    def verdicts(self) -> list[tuple[str, float, str, bool]]:
        """The limits: name, value, limit, whether it holds."""
        network, node = self.alone(), Run.joined(self.node).latency
        *_, highest = self.loads.values()
        flood = highest.latency
        third = len(flood) // 3
        early, late = (milliseconds(part, 50) for part in (flood[:third], flood[-third:]))
        added = self.added(), milliseconds(node, 99) - milliseconds(network, 99)
        ratio = milliseconds(flood, 50) / milliseconds(network, 50)
        return [
            ("node adds to the network, median (ms)", added[0], "<= 5", added[0] <= 5),
            ("node adds to the network, 99 % (ms)", added[1], "<= 15", added[1] <= 15),
            ("median latency at four times the rate / network", ratio, "< 2", ratio < 2),
            ("last third / first third of it", late / early, "< 1.2", late / early < 1.2),
            ("memory growth during it (MB)", self.growth, "< 20", self.growth < 20),
        ]
