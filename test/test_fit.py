"""train.fit through its command line: what a run leaves, how it goes on, and how it ends."""

import io
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors.torch import load_file, save_file
from small_training import (
    NETWORK,
    FileSizeLimit,
    arguments,
    assert_same_run,
    checkpoint,
    validations,
    with_callback,
    write_squares,
)

from monet_perception.checkpoint import load_checkpoint, read_info
from train.cli import EXIT_TERMINATED, main
from train.fit import make_cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("stores") / "squares")


def fit(store: Path, run: Path, steps: int, *flags: str, **changes: object) -> int:
    return main(make_cli, [*arguments(store, run, steps, **changes), *flags])


def test_run_leaves_what_the_next_tools_need(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 6, trainer__enable_progress_bar="true") == 0
    output = capsys.readouterr()
    assert "step 6" in output.out
    assert "6/6" in output.err

    monet, info = load_checkpoint(tmp_path / "best.safetensors")
    assert (info.dataset, monet.config.slots) == ("squares/train", 4)
    assert load_checkpoint(tmp_path / "last.safetensors")[1].steps == 6
    values = validations(tmp_path)
    assert list(values) == [3, 6]
    assert {"ari", "msc", "mse", "reconstruction", "latent_kl", "mask_kl"} <= values[6].keys()
    assert {"active_slots", "mask_entropy", "largest_slot"} <= values[6].keys()
    assert info.metrics["ari_multi"] == pytest.approx(max(v["ari_multi"] for v in values.values()), abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["step_0000003.png", "step_0000006.png"]
    assert (tmp_path / "config.yaml").is_file()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert "torch.utils.tensorboard" not in sys.modules


@pytest.mark.parametrize(
    ("interrupted", "changes"),
    [
        (4, {}),  # amid an epoch of six batches
        (6, {"trainer__val_check_interval": 6}),  # at its end, where a validation is due too
        (5, {"trainer__accumulate_grad_batches": 2, "trainer__precision": "32-true"}),  # in the second epoch
        (4, {"model__hold_attention_steps": 5, "model__objective__geco__goal": -1, "trainer__gradient_clip_val": 10}),
    ],
)
def test_resumed_run_equals_uninterrupted_one(
    store: Path, tmp_path: Path, interrupted: int, changes: dict[str, Any]
) -> None:
    assert fit(store, tmp_path / "whole", 9, **changes) == 0
    assert fit(store, tmp_path / "parts", interrupted, **changes) == 0
    assert fit(store, tmp_path / "parts", 9, "--resume", **changes) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert validations(tmp_path / "whole").keys() <= validations(tmp_path / "parts").keys()


def test_killed_run_goes_on_exactly(store: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    settings = {"trainer__val_check_interval": 50, "checkpoint_steps": 5}
    command = [sys.executable, "-m", "train.fit", *arguments(store, killed, 100_000, **settings)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    least = int.from_bytes(os.urandom(1)) % 20
    while process.poll() is None:
        if (killed / "last.ckpt").exists() and checkpoint(killed)["global_step"] > least:
            break
        time.sleep(0.02)
    process.kill()
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output

    (killed / ".last.0123abcd.part.ckpt").write_bytes(b"what a process killed while it writes leaves")
    steps = checkpoint(killed)["global_step"] + 8
    # no --config: the run's own
    assert main(make_cli, ["--run", str(killed), "--resume", "--trainer.max_steps", str(steps)]) == 0
    assert fit(store, tmp_path / "whole", steps, **settings) == 0
    assert_same_run(tmp_path / "whole", killed)
    assert not list(killed.glob(".*.part*")), "an interrupted write was left behind"


class SignalAt(Callback):
    """Another process sends this one and its workers a signal amid a step, or amid a validation."""

    def __init__(self, step: int, number: int, validating: bool = False) -> None:
        self.step, self.number, self.validating = step, number, validating
        self.sent = False

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self._send(trainer, not self.validating)

    def on_validation_batch_start(self, trainer: Any, *args: Any) -> None:
        self._send(trainer, self.validating)

    def _send(self, trainer: Any, here: bool) -> None:
        if here and trainer.global_step == self.step and not self.sent:
            self.sent = True
            group = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
            subprocess.run(["kill", f"-{self.number}", *map(str, group)], check=True)


@pytest.mark.parametrize(
    ("callback", "saved", "accumulate", "workers"),
    [
        (SignalAt(3, signal.SIGTERM), 4, 2, 1),  # with the first of two batches: the second belongs to the same step
        (SignalAt(4, signal.SIGINT), 5, 1, 1),
        (SignalAt(3, signal.SIGTERM, validating=True), 3, 1, 0),
    ],
)
def test_told_to_end_it_saves_and_ends(
    store: Path, tmp_path: Path, callback: Callback, saved: int, accumulate: int, workers: int
) -> None:
    settings = {
        "data__workers": workers,
        "trainer__accumulate_grad_batches": accumulate,
        "data__val_fraction": 0.3,
        "trainer__precision": "32-true",
    }
    cli = with_callback(callback)(arguments(store, tmp_path / "parts", 8, **settings))
    with pytest.raises(SIGTERMException):
        cli.fit()
    assert checkpoint(tmp_path / "parts")["global_step"] == saved
    assert read_info(tmp_path / "parts/last.safetensors").steps == saved

    assert fit(store, tmp_path / "parts", 8, "--resume", **settings) == 0
    assert fit(store, tmp_path / "whole", 8, **settings) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_exit_status_says_that_it_was_told_to_end(store: Path, tmp_path: Path) -> None:
    assert main(with_callback(SignalAt(2, signal.SIGTERM)), arguments(store, tmp_path, 8)) == EXIT_TERMINATED


def test_non_finite_loss_stops_and_saves_its_batch(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 20, model__optimiser__component_lr=1e30, checkpoint_steps=1) == 1
    message = capsys.readouterr().err
    assert message.startswith("error:") or "\nerror:" in message
    assert "--resume" in message
    assert all(value.isfinite().all() for value in checkpoint(tmp_path)["state_dict"].values())


def test_batch_of_a_non_finite_loss_is_saved(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Poison(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 2:
                self.images = batch["images"].clone()
                pl_module.network.component.encoder.mlp[0].bias.data.fill_(torch.nan)

    poison = Poison()
    assert main(with_callback(poison), arguments(store, tmp_path, 20, checkpoint_steps=1)) == 1
    assert "the loss is nan at step 3" in capsys.readouterr().err
    saved = tmp_path / "nonfinite_step_3_rank_0.safetensors"
    assert torch.equal(load_file(saved)["images"], poison.images)
    assert checkpoint(tmp_path)["global_step"] == 2

    saved.unlink()
    saved.mkdir()  # it can't be written
    assert main(with_callback(poison), [*arguments(store, tmp_path, 20), "--resume"]) == 1
    message = capsys.readouterr().err
    assert f"the loss is nan at step 3; its batch could not be saved in {saved} (Is a directory)" in message


def test_failed_write_is_told_and_the_last_checkpoint_kept(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.warns(UserWarning, match="of an earlier step is kept"):
        status = main(with_callback(FileSizeLimit(1 << 16, 3, 100)), arguments(store, tmp_path, 6, checkpoint_steps=2))
    assert status == 1
    assert "was not written" in capsys.readouterr().err
    assert checkpoint(tmp_path)["global_step"] == 2
    assert not list(tmp_path.glob(".*.part*"))
    assert fit(store, tmp_path, 6, "--resume", checkpoint_steps=2) == 0


def test_two_processes_evaluate_as_one(tmp_path: Path) -> None:
    store = write_squares(tmp_path / "store", count=45)
    settings = {"data__val_store": write_squares(tmp_path / "val", count=13, seed=1), "trainer__precision": "32-true"}
    run = tmp_path / "run"
    command = [sys.executable, "-m", "train.fit"]
    command += arguments(store, run, 4, trainer__val_check_interval=4, trainer__devices=2, trainer__strategy="ddp",
                         data__batch_size=4, checkpoint_steps=2, **settings)  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    together = json.loads((run / "validation.jsonl").read_text())

    cli = make_cli(arguments(store, tmp_path / "alone", 4, **settings))
    alone = cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=run / "last.ckpt", weights_only=True)[0]
    assert {"val/ari", "val/msc", "val/mse", "val/total", "val/mask_entropy"} <= alone.keys()
    for name, value in alone.items():
        assert together[name.removeprefix("val/")] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_attention_is_held_still(store: Path, tmp_path: Path) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            network = pl_module.network
            watched = network.attention.head.weight, network.component.encoder.mlp[0].weight
            seen.append(tuple(weight.detach().clone() for weight in watched))

    settings = {"model__hold_attention_steps": 3, "trainer__limit_val_batches": 0}
    assert main(with_callback(Watch()), arguments(store, tmp_path, 5, **settings)) == 0
    moved = [not torch.equal(a[0], b[0]) for a, b in itertools.pairwise(seen)]
    assert moved == [False, False, True, True]
    assert all(not torch.equal(a[1], b[1]) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__store": "nowhere"}, "no store at nowhere"),
        ({"model__preset": "monet_rn5"}, "there is no preset 'monet_rn5'"),
        ({"model__network": "{slot: 7}"}, "unknown fields"),
        ({"model__network": "{image_size: 64}"}, "16 x 16"),
        ({"model__pretrained": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"model__fine_tune": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
        ({"model__pretrained": "imagenet", "model__fine_tune": "a.safetensors"}, "give one, and null for the other"),
        ({"data__batch_size": 0}, "batch_size has to be at least 1, not 0"),
        ({"data__workers": -1}, "workers must not be negative, got -1"),
        ({"seed_everything": -1}, "--seed_everything must not be negative, got -1"),
        ({"checkpoint_steps": 0}, "the steps between two checkpoints must be at least one, got 0"),
        ({"trainer__val_check_interval": 0}, "must not be 0; without validation: --trainer.limit_val_batches 0"),
        ({"trainer__accumulate_grad_batches": 0}, "--trainer.accumulate_grad_batches must not be 0"),
        ({"trainer__max_steps": -5}, "`max_steps` must be a non-negative integer"),
        ({"model__hold_attention_steps": -1}, "hold_attention_steps must not be negative, got -1"),
        ({"model__optimiser__attention_lr": -1}, "attention_lr must be above zero, got -1"),
        ({"model__objective__gamma_start": 3}, "gamma_start has no effect without objective.gamma_steps"),
        ({"config": "/bin/sh"}, "/bin/sh is no text file"),
        ({"trainer__limit_val_batches": 0.01}, "Please increase the `limit_val_batches`"),
    ],
)
def test_error_names_its_cause(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    assert fit(store, tmp_path, 2, **changes) == 1
    assert message in capsys.readouterr().err


def test_folder_that_can_not_be_made_or_written_is_told(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert fit(store, tmp_path / "file" / "run", 1) == 1
    assert f"the run's folder {tmp_path / 'file' / 'run'} can't be made" in capsys.readouterr().err
    (tmp_path / "run" / "config.yaml").mkdir(parents=True)
    assert fit(store, tmp_path / "run", 1) == 1
    assert f"Is a directory: '{tmp_path / 'run'}" in capsys.readouterr().err


def test_seeds_of_a_run_move_the_order_of_its_images(store: Path, tmp_path: Path) -> None:
    for given in (0, 3):
        cli = make_cli(arguments(store, tmp_path / str(given), 2, seed_everything=given))
        assert cli.datamodule.order_seed == given
        assert cli.datamodule.seed == 0


def test_a_seed_is_a_number(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Lightning's `true`, "a random seed", was always 0."""
    assert fit(store, tmp_path / "run", 2, seed_everything="true") == 1
    assert "--seed_everything takes a whole number" in capsys.readouterr().err


def test_fine_tuning_starts_from_the_whole_network(store: Path, tmp_path: Path) -> None:
    still = "{name: adam, attention_lr: 1e-12, component_lr: 1e-12}"
    assert fit(store, tmp_path / "first", 3) == 0
    start = tmp_path / "first" / "last.safetensors"
    assert fit(store, tmp_path / "tuned", 2, model__fine_tune=start, model__optimiser=still, seed_everything=5) == 0
    before, after = load_checkpoint(start)[0], load_checkpoint(tmp_path / "tuned" / "last.safetensors")[0]
    names = [name for name, _ in before.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"attention", "component"}
    parameters = dict(after.named_parameters())
    for name, weight in before.named_parameters():
        torch.testing.assert_close(parameters[name], weight, rtol=0, atol=1e-8)


def test_start_of_another_structure_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path / "first", 1) == 0
    path = tmp_path / "first" / "last.safetensors"
    other = NETWORK.replace("slots: 4", "slots: 5").replace("latent_size: 4", "latent_size: 8")
    differing = {"pretrained": ["slots 4"], "fine_tune": ["slots 4", "latent_size 4"]}
    for option, theirs in differing.items():
        start = {f"model__{option}": path}
        capsys.readouterr()
        assert fit(store, tmp_path / option, 1, model__network=other, **start) == 1
        message = capsys.readouterr().err
        remedy = " ".join(f"--model.network.{field}" for field in theirs)
        assert f"it was trained with {', '.join(theirs)}, this network has slots 5" in message
        assert f"set {remedy}, or use another file" in message
        assert fit(store, tmp_path / option, 1, *remedy.split(), model__network=other, **start) == 0
    assert fit(store, tmp_path / "unet", 1, model__fine_tune=path, model__preset="monet") == 1
    assert "set --model.network.attention resnet --model.network" in capsys.readouterr().err

    save_file(load_file(path), tmp_path / "foreign.safetensors")
    assert (
        fit(store, tmp_path / "foreign", 1, model__network=other, model__fine_tune=tmp_path / "foreign.safetensors")
        == 1
    )
    message = capsys.readouterr().err.splitlines()[-1]
    assert "foreign.safetensors does not fit the network: Error(s) in loading state_dict" in message
    assert len(message) < 500


@pytest.mark.parametrize("option", ["pretrained", "fine_tune"])
def test_resumed_run_needs_no_start(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, option: str) -> None:
    assert fit(store, tmp_path / "first", 1) == 0
    start, run = tmp_path / "first" / "last.safetensors", tmp_path / "run"
    assert fit(store, run, 1, **{f"model__{option}": start}) == 0
    assert f"starts from {start}" in capsys.readouterr().out
    start.unlink()
    assert main(make_cli, ["--run", str(run), "--resume", "--trainer.max_steps", "2"]) == 0
    assert "starts from" not in capsys.readouterr().out
    assert checkpoint(run)["global_step"] == 2
    assert "resume: false" in (run / "config.yaml").read_text()


def test_resumed_run_keeps_its_network_and_seed(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 1) == 0
    other = {"model__network": NETWORK.replace("slots: 4", "slots: 5"), "model__optimiser__name": "adam"}
    assert fit(store, tmp_path, 2, "--resume", **other) == 1
    assert "another network" in capsys.readouterr().err
    assert main(make_cli, ["--run", str(tmp_path), "--resume", "--seed_everything", "7"]) == 1
    assert "was trained with seed 0" in capsys.readouterr().err
    (tmp_path / "validation.jsonl").write_text('{"step": 1, "ar')  # copied while it was written
    assert main(make_cli, ["--run", str(tmp_path), "--resume", "--trainer.max_steps", "3"]) == 0
    assert list(validations(tmp_path)) == [3]


class RatesUsed(Callback):
    """Notes every step's learning rates."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def test_resumed_run_takes_other_learning_rates_but_no_other_optimiser(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    settings = {"model__optimiser__warmup_steps": 4, "trainer__limit_val_batches": 0}
    other = {"model__optimiser__attention_lr": 1e-5, "model__optimiser__component_lr": 3e-5, **settings}
    assert fit(store, tmp_path, 2, **settings) == 0
    config = (tmp_path / "config.yaml").read_text()
    assert fit(store, tmp_path, 3, "--resume", model__optimiser__name="adam", **settings) == 1
    assert "error: the run was trained with rmsprop and can't go on with adam" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == config
    watch = RatesUsed()
    assert main(with_callback(watch), [*arguments(store, tmp_path, 4, **other), "--resume"]) == 0
    assert watch.rates == [[pytest.approx(1e-5 * s), pytest.approx(3e-5 * s)] for s in (0.75, 1)]
    assert checkpoint(tmp_path)["lr_schedulers"][0]["base_lrs"] == [1e-5, 3e-5]


def test_run_is_never_overwritten(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 1) == 0
    before = (tmp_path / "last.ckpt").read_bytes()
    assert fit(store, tmp_path, 2) == 1
    assert "go on with it (--resume)" in capsys.readouterr().err
    recipe = tmp_path / "config.yaml"
    recipe.write_text(recipe.read_text().replace("resume: false", "resume: true"))  # as earlier versions wrote it
    assert main(make_cli, ["--config", str(recipe)]) == 1
    assert "go on with it (--resume)" in capsys.readouterr().err
    assert (tmp_path / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("left", ["best.safetensors", "last.safetensors", "validation.jsonl"])
def test_run_without_its_checkpoint_is_not_overwritten_either(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, left: str
) -> None:
    (tmp_path / left).write_text("of a run whose checkpoint was deleted, or that was killed before its first one")
    assert fit(store, tmp_path, 1) == 1
    assert f"already holds a run ({left}): choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_two_processes_do_not_train_in_one_folder(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = {"checkpoint_steps": 5, "data__workers": 1}  # workers outlive a killed run for a while
    command = [sys.executable, "-m", "train.fit", *arguments(store, tmp_path, 100_000, **settings)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not (tmp_path / "last.ckpt").exists():
                time.sleep(0.02)
            resume = ["--run", str(tmp_path), "--resume", "--trainer.max_steps"]
            assert main(make_cli, [*resume, "1"]) == 1
            assert f"another process trains in {tmp_path}" in capsys.readouterr().err
            assert process.poll() is None
        finally:
            process.kill()
    steps = [json.loads(line)["step"] for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == steps
    reached = checkpoint(tmp_path)["global_step"]
    assert main(make_cli, [*resume, str(reached + 1)]) == 0


def test_damaged_checkpoint_is_told(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 1) == 0
    path = tmp_path / "last.ckpt"
    whole, other = path.read_bytes(), io.BytesIO()
    torch.save({"a": 1}, other)
    turned = whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]
    remedy = f"start a new run from its network with --model.fine_tune {tmp_path / 'last.safetensors'}"
    for content in (b"", whole[:1000], whole[:-1], turned, b"hello world\n" * 50, other.getvalue()):
        path.write_bytes(content)
        assert fit(store, tmp_path, 2, "--resume") == 1
        message = capsys.readouterr().err
        assert f"error: {path} is truncated or damaged" in message
        assert remedy in message
    (tmp_path / "last.safetensors").unlink()
    assert fit(store, tmp_path, 2, "--resume") == 1
    assert "start the run anew" in capsys.readouterr().err


def test_nothing_to_resume(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(make_cli, ["--resume", "--run", str(tmp_path / "nope")]) == 1
    assert f"{tmp_path / 'nope'} holds no run to resume" in capsys.readouterr().err
    assert not (tmp_path / "nope").exists()
    assert fit(store, tmp_path / "new", 1, "--resume") == 0  # as a scheduler's script begins and goes on


def test_best_network_that_the_disk_refused_is_not_taken_for_written(store: Path, tmp_path: Path) -> None:
    # The loss falls, so the first validation is the best one and the second the best that there is room for.
    settings = {"monitor": "val/total", "monitor_mode": "max", "trainer__limit_val_batches": 1}
    with pytest.warns(UserWarning, match="best.safetensors was not written"):
        assert main(with_callback(FileSizeLimit(1 << 16, 3, 4)), arguments(store, tmp_path, 6, **settings)) == 0
    assert validations(tmp_path)[3]["total"] > validations(tmp_path)[6]["total"]
    assert load_checkpoint(tmp_path / "best.safetensors")[1].steps == 6


def test_training_goes_on_where_a_validation_can_not_be_written(store: Path, tmp_path: Path) -> None:
    class Blocked(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            (tmp_path / "validation.jsonl").mkdir(exist_ok=True)

    with pytest.warns(UserWarning, match="validation.jsonl was not written"):
        assert main(with_callback(Blocked()), arguments(store, tmp_path, 3)) == 0
    assert checkpoint(tmp_path)["global_step"] == 3


def test_training_goes_on_without_pictures_and_tensorboard_while_the_disk_is_full(store: Path, tmp_path: Path) -> None:
    # Dozens of values in line would block in tensorboardX, whose writing thread is dead by then.
    settings = {"trainer__log_every_n_steps": 1, "trainer__val_check_interval": 4, "checkpoint_steps": 500}
    with pytest.warns(UserWarning, match="no longer written") as warned:
        # from step 3 to step 12 files don't grow beyond a kilobyte
        assert main(with_callback(FileSizeLimit(1 << 10, 3, 12)), arguments(store, tmp_path, 60, **settings)) == 0
    assert sum("no longer written" in str(warning.message) for warning in warned) == 1
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "step_0000008.png" not in pictures
    assert "step_0000060.png" in pictures
    assert checkpoint(tmp_path)["global_step"] == 60


def test_run_that_its_time_ended_can_be_resumed(store: Path, tmp_path: Path) -> None:
    settings = {"checkpoint_steps": 10**6, "trainer__max_time": "00:00:00:02", "trainer__limit_val_batches": 0}
    assert fit(store, tmp_path, 10**6, **settings) == 0
    reached = checkpoint(tmp_path)["global_step"]
    assert reached == load_checkpoint(tmp_path / "last.safetensors")[1].steps > 0
    assert fit(store, tmp_path, reached + 1, "--resume", trainer__max_time="null", trainer__limit_val_batches=0) == 0
    assert checkpoint(tmp_path)["global_step"] == reached + 1


def test_scores_are_those_of_the_validation_store(tmp_path: Path) -> None:
    """Its labels count, whatever the training store has: none, or others."""
    unlabelled, labelled = (write_squares(tmp_path / str(labels), labels=labels) for labels in (False, True))
    other = write_squares(tmp_path / "other", background_labels=4)  # the same images and objects
    found = {}
    for name, store, val_store in (("none", unlabelled, labelled), ("same", labelled, labelled),
                                   ("other", labelled, other)):  # fmt: skip
        assert fit(store, tmp_path / name / "run", 3, data__val_store=val_store) == 0
        found[name] = validations(tmp_path / name / "run")[3]
    assert found["none"]["ari"] == found["same"]["ari"] == found["other"]["ari"]
    assert found["same"]["msc"] == found["other"]["msc"]
    assert fit(labelled, tmp_path / "run", 3, data__val_store=unlabelled) == 0
    assert "ari" not in validations(tmp_path / "run")[3]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"data__val_fraction": 0}, "--data.val_fraction"),
        ({"trainer__limit_val_batches": 0}, "--trainer.limit_val_batches"),
        ({"trainer__val_check_interval": 7}, "lower --trainer.val_check_interval"),
    ],
)
def test_training_without_validation_says_so(store: Path, tmp_path: Path, changes: dict[str, Any], remedy: str) -> None:
    # three steps of two batches
    settings = {"trainer__accumulate_grad_batches": 2, "trainer__precision": "32-true", **changes}
    with pytest.warns(UserWarning, match=f"there will be no best.safetensors .use last.safetensors.; .*{remedy}"):
        assert fit(store, tmp_path, 3, **settings) == 0
    assert load_checkpoint(tmp_path / "last.safetensors")[1].steps == 3
    assert not (tmp_path / "best.safetensors").exists()


def test_training_with_a_validation_at_its_end_does_not_say_so(
    store: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    settings = {"trainer__accumulate_grad_batches": 2, "trainer__val_check_interval": 6}
    assert fit(store, tmp_path, 3, **settings) == 0
    assert fit(store, tmp_path, 4, "--resume", **settings) == 0  # its best network is there already
    last, best = (read_info(tmp_path / f"{name}.safetensors") for name in ("last", "best"))
    assert (last.steps, last.metrics) == (4, best.metrics)  # of its newest validation, which was before
    assert not any("best.safetensors" in str(warning.message) for warning in recwarn)
    assert (tmp_path / "best.safetensors").exists()


def test_unknown_monitor_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.warns(UserWarning, match="val/arri"):  # before it trains at all
        assert fit(store, tmp_path / "misspelt", 3, monitor="val/arri") == 1
    message = capsys.readouterr().err
    assert "no value 'val/arri'" in message
    assert "val/ari," in message
    unlabelled = write_squares(tmp_path / "unlabelled", labels=False)
    assert fit(unlabelled, tmp_path / "labels", 3, monitor="val/ari") == 1
    assert "val/ari," not in capsys.readouterr().err
    assert fit(unlabelled, tmp_path / "loss", 3) == 0  # the default is the best there is: the loss
    assert "best so far: val/total" in capsys.readouterr().out


def test_network_with_the_lowest_error_is_the_best(store: Path, tmp_path: Path) -> None:
    assert fit(store, tmp_path, 3, monitor="val/mse", trainer__val_check_interval=1) == 0
    errors = [values["mse"] for values in validations(tmp_path).values()]
    assert len(set(errors)) == 3
    assert load_checkpoint(tmp_path / "best.safetensors")[1].metrics["mse"] == pytest.approx(min(errors), abs=1e-5)


def test_another_monitor_chooses_the_best_network_anew(store: Path, tmp_path: Path) -> None:
    every = {"trainer__val_check_interval": 1}
    assert fit(store, tmp_path, 1, **every) == 0
    assert fit(store, tmp_path, 3, "--resume", monitor="val/mse", **every) == 0
    errors = {step: values["mse"] for step, values in validations(tmp_path).items() if step > 1}
    assert load_checkpoint(tmp_path / "best.safetensors")[1].steps == min(errors, key=errors.__getitem__)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_cpus_that_only_emulate_bf16_are_told(
    store: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, precision: str
) -> None:
    has_bf16 = any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    assert fit(store, tmp_path / "run", 1, trainer__precision=precision) == 0
    told = any("no instructions for bf16" in str(warning.message) for warning in recwarn)
    assert told == (precision == "bf16-mixed" and not has_bf16)
