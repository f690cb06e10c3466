"""Training on a CPU waits for few pages of memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
# Linux marks memory that it has been asked to lay in huge pages by "hg". Whether it has such pages at hand depends on
# how fragmented the machine's memory is.
PROGRAM = """
import re, sys, torch
from train.allocation import use_huge_pages

if sys.argv[1] == "huge":
    use_huge_pages()
tensor = torch.ones(64 << 20)
for mapping in re.split("\\n(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read()):
    start, end = (int(address, 16) for address in mapping.split(maxsplit=1)[0].split("-"))
    if start <= tensor.data_ptr() < end:
        print("hg" in re.search("VmFlags:(.*)", mapping)[1].split())
"""


def asks_for_huge_pages(pages: str) -> bool:
    # a training in this process may have asked for them
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", PROGRAM, pages]
    printed = subprocess.run(command, check=True, capture_output=True, env=environment, text=True).stdout.strip()
    return {"True": True, "False": False}[printed]


@pytest.mark.skipif(not HUGE_PAGES.is_dir(), reason="the kernel has no huge pages")
def test_tensors_ask_for_huge_pages() -> None:
    assert asks_for_huge_pages("huge")
    assert not asks_for_huge_pages("small")
