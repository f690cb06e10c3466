"""train.profile: the thesis's numbers counted, and a whole report."""

import json
import math
import multiprocessing
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.attention import as_markdown as attention_markdown
from benchmarks.attention import missed
from train.cost import Profile, count
from train.profile import draw, main


@pytest.mark.parametrize(
    ("preset", "millions"), [("monet", 13.926), ("monet_rn50", 54.024), ("monet_rn50_star", 55.791)]
)
def test_parameters_are_those_of_table_5_5(preset: str, millions: float) -> None:
    assert count(preset, 7, 64).attention_parameters / 1e6 == pytest.approx(millions, abs=1e-3)


def test_flop_grow_with_slots_in_monet_and_not_in_rn50_star() -> None:
    flop = {
        preset: [count(preset, k, 64).attention_forward_flop for k in (7, 18)]
        for preset in ("monet", "monet_rn50_star")
    }
    assert flop["monet"][1] / flop["monet"][0] == pytest.approx(17 / 6)  # K - 1 passes of the U-Net
    assert flop["monet"][0] / 6 == pytest.approx(2.21e9, rel=0.01)
    assert flop["monet_rn50_star"][0] == pytest.approx(4.87e9, rel=0.01)
    assert flop["monet_rn50_star"][1] / flop["monet_rn50_star"][0] == pytest.approx(1, abs=0.01)
    monet = count("monet", 7, 64)
    assert monet.attention_training_flop == pytest.approx(3 * flop["monet"][0], rel=0.02)
    # Gradients go through the component VAE into the masks: all of it is paid for three times.
    assert monet.component_training_flop == pytest.approx(3 * monet.component_forward_flop, rel=0.002)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slots", "1"], "slots is 1; it must be a whole number from 2 to 64"),
        (["--slots", "7", "100"], "slots is 100"),
        (["--image-size", "33"], "image_size 33 is not a multiple of the network's stride"),
        (["--device", "banana"], "device 'banana' is unknown; choose auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "device 'cuda:99' was asked for, but"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*options, "--output", str(tmp_path / "profile")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "profile").exists()


def test_help_tells_every_default(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option, default in (("--slots", "7 11 14 18"), ("--image-size", "64"), ("--device", "auto")):
        assert re.search(rf"{option} [A-Z_]+[^-]* \(default: {default}\)", text), option
    assert "by autocast (default: bf16)" in text


def measured_in(precision_factor: float) -> list[Profile]:
    """MONet and RN50* at two K, with times that differ by the factor of a precision."""
    found = []
    for slots in (7, 18):
        for preset, seconds in (("monet", 1.0 * slots), ("monet_rn50_star", 0.1 * slots)):
            found.append(Profile(preset, slots, *[10**9] * 6, *[seconds * precision_factor] * 2))
    return found


def test_component_vaes_that_differ_are_drawn_apart() -> None:
    profiles = [profile for profile in measured_in(1.0) if profile.preset == "monet"]
    profiles += [Profile("monet_rn18_star", slots, *[10**8] * 6) for slots in (7, 18)]
    drawn = {line.get_label(): list(line.get_ydata()) for line in draw({"bf16": profiles}).axes[0].lines}
    assert drawn["component VAE of monet"] == [1.0, 1.0]
    assert drawn["component VAE of monet_rn18_star"] == [0.1, 0.1]


def test_the_benchmark_draws_and_judges_both_precisions() -> None:
    measured = {"fp32": measured_in(1.0), "bf16": measured_in(2.0)}
    flop, times = draw(measured).axes
    assert [line.get_label() for line in flop.lines] == [
        "monet, attention",
        "monet_rn50_star, attention",
        "component VAE",
    ]
    drawn = {line.get_label(): list(line.get_ydata()) for line in times.lines}
    assert drawn["monet, fp32"] == pytest.approx([7e3, 18e3])
    assert drawn["monet_rn50_star, bf16"] == pytest.approx([1.4e3, 3.6e3])
    assert len(drawn) == 4
    assert times.get_ylim()[0] == 0 < max(map(max, drawn.values())) < times.get_ylim()[1]
    assert missed(measured) == []
    table = attention_markdown(measured, "a machine", 8).splitlines()
    assert [row.split("|")[6].strip() for row in table[4:]] == ["0.10"] * 4
    measured["bf16"][0].training_seconds = None
    missing, known = draw(measured).axes[1].lines[2].get_ydata()
    assert math.isnan(missing), "no time is no time of 0 ms"
    assert known == pytest.approx(36e3)
    measured["bf16"][0].training_seconds = 14.0
    measured["bf16"][1].training_seconds = 12.0  # of MONet's 14
    assert missed(measured) == ["bf16, K = 7: 0.86 of MONet's time, at most 0.6 is due"]


def test_report_holds_everything_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--presets", "monet_rn18_star", "--slots", "3", "--image-size", "32", "--batch-size", "2"]
    assert main([*options, "--repeats", "1", "--device", "cpu", "--threads", "1", "--output", str(tmp_path)]) == 0
    table = (tmp_path / "profile.md").read_text()
    assert table in capsys.readouterr().out
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[1:3]] == ["monet_rn18_star", "3"]
    (profile,) = json.loads((tmp_path / "profile.json").read_text())["profiles"]
    assert all(profile.values())
    weights = 4 * (profile["attention_parameters"] + profile["component_parameters"])
    # in training beside the weights their gradients and the optimiser's state
    assert profile["inference_memory"] > weights
    assert profile["training_memory"] > 3 * weights
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


@contextmanager
def processes_killed() -> Iterator[None]:
    """Processes that start meanwhile are killed at once, as Linux does where memory is short."""
    done = threading.Event()

    def kill_all() -> None:
        while not done.wait(0.02):
            for process in multiprocessing.active_children():
                process.kill()

    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lack_of_memory_loses_nothing_that_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--presets", "monet_rn18_star", "--slots", "3", "4", "--image-size", "32", "--device", "cpu"]
    with processes_killed():
        assert main([*options, "--batch-size", str(10**12), "--output", str(tmp_path)]) == 1  # 12 petabytes of images
    told = capsys.readouterr()
    for missing in (
        "times at K = 3 (",
        "times at K = 4 (",
        "can't allocate memory",
        "smaller --batch-size",
        "training memory of monet_rn18_star at K = 3 (A process",
        "inference memory of monet_rn18_star at K = 4 (A process",
    ):
        assert missing in told.err
    profiles = json.loads((tmp_path / "profile.json").read_text())["profiles"]
    assert [profile["slots"] for profile in profiles] == [3, 4]
    assert all(profile["attention_forward_flop"] for profile in profiles)
    assert {profile[name] for profile in profiles for name in ("training_seconds", "training_memory")} == {None}
    assert told.out.count("| - | - | - | - / - |") == 2
    assert (tmp_path / "profile.png").is_file()
