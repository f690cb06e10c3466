"""Training on a CPU waits for few pages of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import resource, sys, torch
from train.allocation import use_huge_pages

if sys.argv[1] == "huge":
    use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64 << 20)  # 256 MiB, 65,536 pages of 4 kB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(pages: str) -> int:
    # a training in this process may have asked for them
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", PROGRAM, pages]
    return int(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)


@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="huge pages are not for programs to ask for",
)
def test_tensors_lie_in_huge_pages() -> None:
    assert page_faults("huge") < page_faults("small") / 4
