"""What the node's reports are made of, where all is well but for what a test changes."""

from __future__ import annotations

import time
from typing import Any

from monet_perception.nodes.diagnostics import Situation, Thresholds

THRESHOLDS = Thresholds(camera_timeout=1.0, max_latency=0.1, max_reconstruction_error=0.02)


def situation(**fields: Any) -> Situation:
    values = {
        "state": "active", "listened": True, "listening_since": time.monotonic(), "publishers": "/camera",
        "of_other_types": "", "elsewhere": (),
        "topic": "/image", "input_fault": "", "network_fault": "", "recoveries": 0, "network": {},
        "depth_topic": "/depth", "depth_publishers": 0, "depth_elsewhere": None, "track_resets": 0, "assessment": None,
    }  # fmt: skip
    return Situation(**{**values, **fields})
