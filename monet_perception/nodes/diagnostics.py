"""What the node tells about itself: /diagnostics, with three statuses.

| status | WARN | ERROR |
| --- | --- | --- |
| camera | no image for `camera_timeout` seconds; broken frames since the last report; a tenth of the images or depth images since then lost on the way; a publisher of incompatible QoS beside a good one; images without a stamp; less than half of the frames in 3D though depth is published, none because it comes in the form of the other `depth_transport`, or depth in another frame than its image or of another shape | no image for five times that, or for once that because of an incompatible QoS; no good frame among those since the last report |
| network | half of the last latencies above `max_latency`; failed frames or a recovery since the last report | no network: `configure` or another transition failed, or the device doesn't come back |
| scene | reconstruction error above `max_reconstruction_error`; fewer than two active slots; mask entropy above half of log K | never |

Silence is reported only while somebody listens, because without listeners the node doesn't subscribe to the camera.
Dropped frames are no fault: a camera faster than the network is the rule.
"""  # noqa: E501

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from monet_perception.assessment import Assessment
from monet_perception.nodes.inputs import Source
from monet_perception.nodes.process import LOG_EVERY
from monet_perception.nodes.statistics import Counts, Statistics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
ERROR_AFTER = 5.0
"""Multiple of `camera_timeout` after which silence is an ERROR."""
MAX_LOST_SHARE = 0.1
"""Share of lost images above which a report warns; a few are lost on any network."""
MIN_SHARE_IN_3D = 0.5
"""Share of frames in 3D, where depth is published, below which a report warns."""


@dataclass(frozen=True)
class Thresholds:
    """Limits above which a status becomes WARN; the node's parameters of the same names."""

    camera_timeout: float
    max_latency: float
    max_reconstruction_error: float


@dataclass(frozen=True)
class Situation:
    """What a report is made of, beside the counts.

    Attributes:
        state: of the lifecycle (`active`, ...).
        listened: whether images are wanted, because somebody subscribes to an output, and should therefore come.
        listening_since: when they began to be, seconds of time.monotonic().
        publishers: what offers images on the input topic, as text; empty if nothing does.
        of_other_types: what offers something else there, likewise.
        elsewhere: images that other options would bring, the likeliest first.
        topic: the input topic's full name.
        input_fault: why images can't be received, as a sentence; empty if nothing is known to hinder them.
        depth_topic: full name.
        depth_publishers: how many offer depth on it.
        depth_elsewhere: the same depth images in another form, if there are any.
        track_resets: how often all tracks were ended.
        network_fault: why there is no network; empty if there is one or none is needed.
        recoveries: of the network after device errors.
        network: what is loaded: device, precision, model id, memory.
        assessment: of the last frame that was assessed; None where that is long ago.
    """

    state: str
    listened: bool
    listening_since: float
    publishers: str
    of_other_types: str
    elsewhere: Sequence[Source]
    topic: str
    input_fault: str
    depth_topic: str
    depth_publishers: int
    depth_elsewhere: Source | None
    track_resets: int
    network_fault: str
    recoveries: int
    network: Mapping[str, str]
    assessment: Assessment | None


@dataclass
class Report:
    """Builds the statuses; remembers the last report's counts, because levels are about what happened since."""

    name: str
    _counts: Counts = field(default=Counts(), init=False, repr=False)
    _recoveries: int = field(default=0, init=False, repr=False)
    _levels: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    _told: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def worsened(self, statuses: Sequence[DiagnosticStatus]) -> list[DiagnosticStatus]:
        """Those whose level rose since the last call, for the log; each at most once in `LOG_EVERY` seconds."""
        now = time.monotonic()
        found = []
        for status in statuses:
            rose = status.level > self._levels.get(status.name, OK)
            self._levels[status.name] = status.level
            if rose and now - self._told.get(status.name, -math.inf) > LOG_EVERY:
                self._told[status.name] = now
                found.append(status)
        return found

    def build(self, statistics: Statistics, situation: Situation, thresholds: Thresholds) -> list[DiagnosticStatus]:
        """The three statuses: camera, network, scene."""
        counts = statistics.counts
        since = Counts(**{f.name: getattr(counts, f.name) - getattr(self._counts, f.name) for f in fields(Counts)})
        recovered = situation.recoveries - self._recoveries
        self._counts, self._recoveries = counts, situation.recoveries
        return [
            self._status("camera", *_camera(statistics, since, situation, thresholds)),
            self._status("network", *_network(statistics, since, recovered, situation, thresholds)),
            self._status("scene", *_scene(situation, thresholds)),
        ]

    def _status(self, part: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(name=f"{self.name}: {part}", hardware_id="", level=level, message=message, values=pairs)


_Finding = tuple[bytes, str, dict[str, object]]


def _camera(statistics: Statistics, since: Counts, situation: Situation, thresholds: Thresholds) -> _Finding:
    level, message = _camera_level(statistics, since, situation, thresholds)
    rate, _ = statistics.rates()
    counts = statistics.counts
    return (
        level,
        message,
        {
            "topic": situation.topic,
            "publishers": situation.publishers or "none",
            "rate (Hz)": f"{rate:.1f}",
            "received": counts.received,
            "lost": counts.lost,
            "lost depth": counts.lost_depth,
            "broken": counts.broken,
            "broken depth": counts.broken_depth,
            "last fault": statistics.faults.get("broken", "")[:200],
            "depth topic": situation.depth_topic,
            "depth publishers": situation.depth_publishers,
            "frames in 3D": f"{counts.located} of {counts.to_locate}",
            "last fault of 3D": statistics.depth_fault[:200],
            "track resets": situation.track_resets,
        },
    )


def _camera_level(
    statistics: Statistics, since: Counts, situation: Situation, thresholds: Thresholds
) -> tuple[bytes, str]:
    if situation.state != "active":
        return OK, f"node is {situation.state}"
    if not situation.listened:
        return OK, "nobody listens: not subscribed to the camera"
    silent = time.monotonic() - max(statistics.last_received, situation.listening_since)
    if silent > thresholds.camera_timeout:
        severe = situation.input_fault or silent > ERROR_AFTER * thresholds.camera_timeout
        because = situation.input_fault or _silent_because(situation)
        return ERROR if severe else WARN, f"no image on {situation.topic} for {silent:.1f} s: {because}"
    if since.broken:
        fault = statistics.faults.get("broken", "")[:200]
        none_good = not (since.answered + since.dropped + since.failed)
        return ERROR if none_good else WARN, f"{since.broken} of {since.received} images broken: {fault}"
    # The input's fault is here that of a second camera: the first is received.
    doubt = situation.input_fault or _many_lost(since)
    if not doubt and since.unstamped:
        doubt = "images carry no stamp: set header.stamp"
    doubt = doubt or _depth_doubt(statistics, since, situation, thresholds)
    return (WARN, doubt) if doubt else (OK, "images arrive")


def _depth_doubt(statistics: Statistics, since: Counts, situation: Situation, thresholds: Thresholds) -> str:
    """What is wrong with 3D; empty if nothing is, and as long as depth may just be late, as at the start."""
    starting = time.monotonic() - situation.listening_since < thresholds.camera_timeout
    if starting:
        return ""
    other = situation.depth_elsewhere
    if not situation.depth_publishers:
        return f"depth comes on {other.topic} only: start with {other.options}" if other and since.to_locate else ""
    if since.located < MIN_SHARE_IN_3D * since.to_locate:
        return f"{since.located} of {since.to_locate} frames have 3D: {statistics.depth_fault[:200]}"
    return statistics.depth_fault[:200] if since.doubtful else ""


def _silent_because(situation: Situation) -> str:
    if situation.publishers:
        return f"{situation.publishers} should send them"
    nobody = "nothing publishes there"
    if situation.of_other_types:
        nobody = f"only {situation.of_other_types} publishes there"
    if not situation.elsewhere:
        return nobody
    likeliest, others = situation.elsewhere[0], [source.topic for source in situation.elsewhere[1:5]]
    kind = "compressed images" if likeliest.transport == "compressed" else "images"
    also = f" (others on {', '.join(others)})" if others else ""
    return f"{nobody}; there are {kind} on {likeliest.topic}: start with {likeliest.options}{also}"


def _many_lost(since: Counts) -> str:
    """What is to be done about images that didn't arrive, if they are many; empty if not."""
    for what, lost, received in (
        ("images", since.lost, since.received),
        ("depth images", since.lost_depth, since.received_depth),
    ):
        if lost > MAX_LOST_SHARE * (lost + received):
            return (
                f"{lost} of {lost + received} {what} were lost on the way: give the camera's process the Fast DDS "
                "profile as well, or let it publish reliably"
            )
    return ""


def _network(
    statistics: Statistics, since: Counts, recovered: int, situation: Situation, thresholds: Thresholds
) -> _Finding:
    median, high, longest = statistics.latencies()
    _, rate = statistics.rates()
    counts = statistics.counts
    values = {
        "rate (Hz)": f"{rate:.1f}",
        "latency, median (ms)": f"{1000 * median:.1f}",
        "latency, 99th percentile (ms)": f"{1000 * high:.1f}",
        "latency, maximum (ms)": f"{1000 * longest:.1f}",
        "answered": counts.answered,
        "dropped": counts.dropped,
        "failed": counts.failed,
        "recoveries": situation.recoveries,
        **situation.network,
        "memory of the process (MB)": f"{resident_memory() / 1e6:.0f}",
    }
    level, message = OK, f"node is {situation.state}"
    if situation.network_fault:
        level, message = ERROR, situation.network_fault[:400]
    elif since.failed or recovered > 0:
        fault = statistics.faults.get("failed", "")[:200]
        level, message = WARN, f"{since.failed} frames failed, {recovered} recoveries: {fault}"
    elif median > thresholds.max_latency:
        level, message = WARN, f"median latency is {1000 * median:.0f} ms, above {1000 * thresholds.max_latency:.0f} ms"
    return level, message, values


def _scene(situation: Situation, thresholds: Thresholds) -> _Finding:
    assessment = situation.assessment
    if assessment is None:
        return OK, "no frame assessed lately", {}
    values = {
        "reconstruction error (MSE)": f"{assessment.reconstruction_error:.5f}",
        "latent KL, mean over slots (nats)": f"{float(np.mean(assessment.latent_kl)):.2f}",
        "mask entropy (nats)": f"{assessment.mask_entropy:.3f}",
        "active slots": assessment.active_slots,
    }
    if assessment.reconstruction_error > thresholds.max_reconstruction_error:
        error, limit = assessment.reconstruction_error, thresholds.max_reconstruction_error
        return WARN, f"reconstruction error {error:.4f} is above {limit}: unknown scene?", values
    if assessment.active_slots < 2:
        return WARN, "everything has fallen into one slot", values
    if assessment.mask_entropy > 0.5 * math.log(len(assessment.latent_kl)):
        return WARN, "masks are undecided between slots", values
    return OK, "the scene is explained", values


def resident_memory(process: int | str = "self") -> int:
    """Bytes of physical memory that a process holds, given by its id; 0 where the system doesn't tell."""
    statm = Path(f"/proc/{process}/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
