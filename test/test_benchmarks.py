"""Figures of the benchmarks, where they can be worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from ray_cast import Ball, Box, look_at, write_recording

from benchmarks import attention, data, inference, latency, learning, rendering, soak, tracking, training, turning
from benchmarks.soak_report import Record, verdicts
from monet_perception.labels import FIRST_OBJECT_LABEL, label_scene
from monet_perception.projection import Intrinsics

RECIPES = Path(__file__).parents[1] / "config" / "train"
COUNTS = dict.fromkeys(("received", "answered", "dropped", "broken", "failed"), 0)


def test_true_masks_have_no_switch_and_an_idf1_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = [Ball((0.2, 0.5, 0.3), 0.3), Box((-0.3, -0.5, 0.25), (0.4, 0.5, 0.5))]
    cameras = [look_at((-2.2, 0.8 - 0.08 * step, 1.0), (0.0, 0.0, 0.3)) for step in range(8)]
    write_recording(tmp_path / "scene.mcap", objects, cameras, Intrinsics(90.0, 90.0, 63.5, 47.5, 128, 96))
    figures = tmp_path / "figures.json"
    assert tracking.main([str(tmp_path / "scene.mcap"), "--slots", "truth", "--json", str(figures)]) == 0
    (truth,) = json.loads(figures.read_text()).values()
    assert (truth["objects"], truth["visible"], truth["found"]) == (2, 16, 1.0)
    assert (truth["switches_per_object"], truth["idf1"]) == (0.0, 1.0)
    assert truth["error_90"] < 0.15
    assert "truth" in capsys.readouterr().out


def test_idf1_takes_the_best_track_of_each_object_and_counts_the_rest() -> None:
    """Object 4 is seen for 6 frames under track 1 and 2 under track 2, object 5 for 4 under track 2."""
    scores = tracking.Scores(visible=14, found=12, false=2, objects={(0, 4), (0, 5)})
    scores.together |= {((0, 4), (0, 1)): 6, ((0, 4), (0, 2)): 2, ((0, 5), (0, 2)): 4}
    assert scores.summary()["idf1"] == pytest.approx(2 * (6 + 4) / (14 + 12 + 2))


def test_turning_counts_an_object_that_is_found_under_another_track() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[10:20, 10:20], labels[40:50, 40:50] = FIRST_OBJECT_LABEL, FIRST_OBJECT_LABEL + 1
    scene = label_scene(np.zeros((64, 64, 3), np.uint8), labels)
    swapped = scene.masks[[*range(FIRST_OBJECT_LABEL), FIRST_OBJECT_LABEL + 1, FIRST_OBJECT_LABEL]]
    windows = [turning.Window(scene, masks) for masks in [*[scene.masks] * 5, *[swapped] * 5, *[scene.masks] * 5]]
    score = turning.Score()
    turning.track(windows, rate=10.0, with_shift=True, score=score)
    assert (score.switches, score.objects) == (4, 2)


@pytest.mark.parametrize(("recoveries", "holds"), [([0.5, 0.6], True), ([0.5], False)])
def test_a_device_error_without_recovery_fails_a_soak(recoveries: list[float], holds: bool) -> None:
    samples = [{"memory (MB)": 900.0}] * 8
    record = Record(errors=2, recoveries=recoveries, samples=samples, counts=COUNTS)
    assert all(fine for *_, fine in verdicts(record)) is holds


def test_a_recipe_is_timed_without_the_file_it_starts_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load((RECIPES / "rooms32_quick_cpu.yaml").read_text())
    settings["model"]["fine_tune"] = str(tmp_path / "gone.safetensors")
    recipe = tmp_path / "fine_tuned.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    assert training.main(["--recipes", str(recipe), "--steps", "1"]) == 0
    timed = json.loads(capsys.readouterr().out)
    assert timed["images"] == settings["trainer"]["max_steps"] * settings["data"]["batch_size"]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (tracking.main, ["--holes", "2"], "from 0 to 1"),
        (turning.main, ["--rate", "0"], "above 0"),
        (turning.main, ["--step", "-5"], "at least 1"),
        (turning.main, ["--stills", "0"], "at least 1"),
        (attention.main, ["--repeats", "0"], "at least 1"),
        (data.main, ["--seconds", "0"], "above 0"),
        (inference.main, ["--rounds", "0"], "at least 1"),
        (latency.main, ["--rounds", "0"], "at least 1"),
        (latency.main, ["--flood", "0"], "above 0"),
        (learning.main, ["--seed", "-1"], "at least 0"),
        (rendering.main, ["--seconds", "nan"], "above 0"),
        (soak.main, ["--minutes", "0"], "above 0"),
        (training.main, ["--rounds", "0"], "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(command, options: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(options)
    assert message in capsys.readouterr().err
