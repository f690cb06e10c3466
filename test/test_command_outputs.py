"""Commands that measure: what can't be written is told before anything is measured, and no result is lost after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from painted_scenes import paint_store, save_network

from benchmarks import attention, inference, learning, tracking
from train import disentanglement, evaluate, profile, samples, traverse
from train.command import run_command
from train.data.store import Store

Command = Callable[[list[str]], int]
SMALL_PROFILE = ["--presets", "monet_rn18_star", "--slots", "3", "--image-size", "32", "--device", "cpu"]
SMALL_PROFILE += ["--batch-size", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return paint_store(tmp_path_factory.mktemp("stores") / "painted", count=160)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="module")
def inputs(network: Path, store: Store) -> dict[Command, list[str]]:
    """Arguments of each command, but for its outputs."""
    measured = [str(network), "--store", str(store.path), "--backend", "torch", "--device", "cpu"]
    return {
        evaluate.main: [*measured, "--bootstrap", "20", "--limit", "8", "--examples", "1"],
        disentanglement.main: [*measured, "--min-iou", "0", "--factors", "x", "shape"],
        traverse.main: [*measured, "--steps", "2", "--latents", "1"],
        samples.main: [str(store.path), "--rows", "1", "--columns", "2"],
        profile.main: [*SMALL_PROFILE, "--count-only"],
        attention.main: [],
        learning.main: [],
        inference.main: [],
        tracking.main: [],
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what stands in the way of outputs: a file, a folder, a pipe."""
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "option", "output", "message"),
    [
        (evaluate.main, "--json", "/proc/x/scores.json", "nothing can be written to /proc/x"),
        (evaluate.main, "--json", "folder", "folder is a folder: name a file"),
        (evaluate.main, "--json", "pipe", "pipe is no ordinary file: name a file"),
        (evaluate.main, "--markdown", "/proc/x.md", "nothing can be written to /proc "),
        (evaluate.main, "--figures", "file", "file is a file: name a folder"),
        (evaluate.main, "--figures", "file/below", "nothing can be written to"),
        (disentanglement.main, "--json", "/proc/x/scores.json", "nothing can be written to /proc/x"),
        (disentanglement.main, "--figures", "file", "file is a file: name a folder"),
        (traverse.main, "--output", "file", "file is a file: name a folder"),
        (samples.main, "--output", "/proc/x", "nothing can be written to /proc/x"),
        (profile.main, "--output", "file", "file is a file: name a folder"),
        (attention.main, "--output", "file", "file is a file: name a folder"),
        (learning.main, "--output", "file", "file is a file: name a folder"),
        (inference.main, "--output", "file", "file is a file: name a folder"),
        (tracking.main, "--json", "folder", "folder is a folder: name a file"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_measured(
    inputs: dict[Command, list[str]],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    command: Command,
    option: str,
    output: str,
    message: str,
) -> None:
    assert command([*inputs[command], option, str(place / output)]) == 1  # an absolute output stays what it is
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder", "pipe"]
    assert (place / "file").read_text() == "precious"


def test_scores_are_kept_where_a_figure_cannot_be_written(
    inputs: dict[Command, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder stands where a figure belongs, which only shows when the figure is written."""
    for command, figure in (
        (evaluate.main, "decomposition_painted_net.png"),
        (disentanglement.main, "importance_painted_net.png"),
    ):
        (tmp_path / figure).mkdir()
        scores = tmp_path / f"{figure}.json"
        assert command([*inputs[command], "--figures", str(tmp_path), "--json", str(scores)]) == 1
        told = capsys.readouterr()
        assert figure in told.err
        assert "net" in told.out
        assert json.loads(scores.read_text())["networks"]


def test_a_profile_is_shown_where_it_cannot_be_kept(
    inputs: dict[Command, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile.json").mkdir()
    assert profile.main([*inputs[profile.main], "--output", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "| monet_rn18_star | 3 |" in told.out
    assert told.err.startswith("error: ")


def interrupted(work: Callable[[], int], after: float) -> int:
    """Does the work; Ctrl-C comes after so many seconds."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs lack
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        return work()
    except KeyboardInterrupt:
        pytest.fail("Ctrl-C was not caught")
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)


def test_ctrl_c_ends_a_command_with_one_line(
    inputs: dict[Command, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    endless = ["--bootstrap", "100000000"]
    assert interrupted(lambda: evaluate.main([*inputs[evaluate.main], *endless]), after=2) == 130
    assert capsys.readouterr().err == "Interrupted. The same command begins again from the start.\n"
    many = [argument for argument in inputs[disentanglement.main] if argument not in ("--factors", "x", "shape")]
    assert interrupted(lambda: disentanglement.main(many), after=0.3) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert interrupted(lambda: run_command(lambda: time.sleep(60)), after=0.1) == 130


def test_ctrl_c_in_a_terminal_ends_a_profile_with_one_line(tmp_path: Path) -> None:
    """A terminal sends it to all processes of the command, also to that which measures memory."""
    command = [sys.executable, "-m", "train.profile", *SMALL_PROFILE, "--repeats", "1", "--output", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = b""
    while b"memory:" not in said:
        character = process.stderr.read(1)
        assert character, said.decode()
        said += character
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    said += process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert b"Traceback" not in said
    assert said.endswith(b"Interrupted. The same command begins again from the start.\n")
