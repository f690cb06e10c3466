"""The node under test: the real one, with a Decomposer that fails once for each SIGUSR1, as on a lost GPU."""

import signal
import sys
from typing import Any

from monet_perception.decomposer import Decomposer
from monet_perception.nodes.decompose import DecomposeNode
from monet_perception.nodes.process import ros, spin

FAULT = "CUDA error: an illegal memory access was encountered (injected)"


class FailingDecomposer(Decomposer):
    """Fails instead of the next call, as often as is due."""

    due = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if FailingDecomposer.due:
            FailingDecomposer.due -= 1
            raise RuntimeError(FAULT)
        return super().__call__(*arguments, **options)


def run() -> None:
    """Runs the node until SIGINT, with the command line's ROS arguments."""

    def fail(*_: Any) -> None:
        FailingDecomposer.due += 1

    signal.signal(signal.SIGUSR1, fail)
    with ros(sys.argv) as stop:
        node = DecomposeNode(FailingDecomposer)
        spin(node, stop.is_set)
        node.destroy_node()
