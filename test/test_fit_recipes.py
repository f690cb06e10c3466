"""Every recipe of config/train loads, describes a network that can be built, and trains a step."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_training import NETWORK, write_squares

from monet_perception.networks import Monet, network_config
from train import fit, pretrain
from train.cli import RunCLI, cpu_computes_in_bf16, main
from train.render import main as render

RECIPES = sorted((Path(__file__).parents[1] / "config" / "train").glob("*.yaml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("stores") / "squares", count=30)


def merged(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """As one `--config` after the other."""
    return settings | {
        name: merged(settings.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in more.items()
    }


def make_cli(args: Any) -> RunCLI:
    return pretrain.make_cli(args) if args[0] in ("masks", "classes") else fit.make_cli(args)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_a_step(recipe: Path, store: Path, tmp_path: Path) -> None:
    recipes = [recipe]
    if recipe.stem.startswith("budget"):  # goes after another one
        recipes.insert(0, recipe.with_name("rooms_rn50_star_cpu.yaml"))
    settings = functools.reduce(merged, (yaml.safe_load(path.read_text()) for path in recipes))
    # the recipe's own network, without the memory for its weights
    with torch.device("meta"):
        Monet(network_config(settings["model"]["preset"], settings["model"].get("network")), initialisation=None)

    smaller = {
        "--data.store": store, "--data.val_store": "null", "--data.val_fraction": 0.2, "--data.batch_size": 2,
        "--data.workers": 0, "--model.network": NETWORK, "--model.pretrained": "null", "--run": tmp_path,
        "--trainer.max_steps": 1, "--trainer.limit_val_batches": 0, "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false",
    }  # fmt: skip
    if "fine_tune" in settings["model"]:
        smaller["--model.fine_tune"] = "null"
    if settings["model"].get("compile"):
        smaller["--model.compile"] = "false"  # a minute of compiling is no test's business
    if "classes" in settings["model"]:
        smaller["--model.classes"] = "[tone]"
    what = recipe.stem.split("_")[1:2] if recipe.stem.startswith("pretrain") else []
    configs = [argument for path in recipes for argument in ("--config", str(path))]
    args = [*what, *configs, *(f"{name}={value}" for name, value in smaller.items())]
    assert main(make_cli, args) == 0
    assert (tmp_path / "last.safetensors").is_file()


def test_thesis_recipes_have_its_iterations_and_batches() -> None:
    wanted = {"objects_room": (1_000_000, 64), "objects_room_init": (500_000, 64), "clevr": (500_000, 32)}
    found = set()
    for recipe in RECIPES:
        settings = yaml.safe_load(recipe.read_text())
        for prefix in sorted(wanted, key=len, reverse=True):
            if recipe.stem.startswith(prefix):
                assert (settings["trainer"]["max_steps"], settings["data"]["batch_size"]) == wanted[prefix], recipe.name
                assert settings["model"]["optimiser"] == {"name": "rmsprop", "attention_lr": 1e-4, "component_lr": 1e-4}
                found.add((prefix, settings["model"]["preset"]))
                break
    networks = ("monet", "monet_rn50", "monet_rn50_star")
    assert {(p, n) for p in ("objects_room", "clevr") for n in networks} <= found
    assert {("objects_room_init", n) for n in networks[:2]} <= found


def test_quick_recipe_tells_objects_of_rendered_rooms_apart(tmp_path: Path) -> None:
    """Transfer learning as in the thesis: masks of other rooms with labels, then these rooms without."""
    for name, seed in (("other", 1), ("rooms", 2)):
        options = ["--count", "300", "--size", "32", "--shadow-size", "0", "--processes", "1", "--seed", str(seed)]
        assert render(["rooms", *options, "--store", str(tmp_path / name)]) == 0
    recipes = {path.stem: path for path in RECIPES}
    precision = "bf16-mixed" if cpu_computes_in_bf16() else "32-true"  # emulated, it takes three times as long
    common = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", f"--trainer.precision={precision}"]

    masks = ["masks", "--config", str(recipes["pretrain_masks_rooms32_quick_cpu"]), f"--run={tmp_path / 'masks'}"]
    assert main(make_cli, [*masks, *common, f"--data.store={tmp_path / 'other'}"]) == 0
    fit_args = ["--config", str(recipes["rooms32_quick_cpu"]), f"--run={tmp_path / 'fit'}"]
    start = f"--model.pretrained={tmp_path / 'masks' / 'last.safetensors'}"
    assert main(make_cli, [*fit_args, *common, f"--data.store={tmp_path / 'rooms'}", start]) == 0

    lines = [json.loads(line) for line in (tmp_path / "fit" / "validation.jsonl").read_text().splitlines()]
    assert lines[-1]["ari_multi"] > 0.2  # four seeds: 0.30 to 0.47; chance is zero
    assert lines[-1]["mse"] < 0.75 * lines[0]["mse"]  # 0.28 to 0.62
