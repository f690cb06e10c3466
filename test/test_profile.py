"""train.profile: the thesis's numbers counted, and a whole report."""

import json
from pathlib import Path

import pytest

from train.cost import count
from train.profile import main


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
    assert count("monet", 7, 64).attention_training_flop == pytest.approx(3 * flop["monet"][0], rel=0.02)


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
