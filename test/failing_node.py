"""The node `decompose`, failing where it is told to: SIGUSR1 its device at the next frame, SIGUSR2 the middleware."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from monet_perception.nodes.decompose import DecomposeNode
from monet_perception.nodes.process import ros, spin

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.soak_node import FailingDecomposer

FAULT = "no more readers (injected)"


class FailingNode(DecomposeNode):
    """Fails to make or to destroy the next subscription, as often as is due."""

    due = 0

    def create_subscription(self, *arguments: Any, **options: Any) -> Any:
        self._fail_if_due()
        return super().create_subscription(*arguments, **options)

    def destroy_subscription(self, *arguments: Any) -> bool:
        self._fail_if_due()
        return super().destroy_subscription(*arguments)

    def _fail_if_due(self) -> None:
        if self.due:
            self.due -= 1
            raise RuntimeError(FAULT)


def main() -> None:
    with ros(sys.argv) as stop:
        node = FailingNode(FailingDecomposer)

        def fail_device(*_: Any) -> None:
            FailingDecomposer.due += 1

        def fail_middleware(*_: Any) -> None:
            node.due += 1

        signal.signal(signal.SIGUSR1, fail_device)
        signal.signal(signal.SIGUSR2, fail_middleware)
        spin(node, stop.is_set)
        node.destroy_node()


if __name__ == "__main__":
    main()
