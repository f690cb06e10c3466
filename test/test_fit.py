"""train.fit through its command line: what a run leaves, how it goes on, and how it ends."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors.torch import load_file
from small_training import NETWORK, arguments, write_squares

from monet_perception.checkpoint import load_checkpoint, read_info
from train.cli import EXIT_TERMINATED, main
from train.fit import make_cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("stores") / "squares")


def fit(store: Path, run: Path, steps: int, *flags: str, **changes: object) -> int:
    return main(make_cli, [*arguments(store, run, steps, **changes), *flags])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last.safetensors")


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt", weights_only=True)


def validations(run: Path) -> dict[int, dict[str, float]]:
    """What was measured, by step."""
    path = run / "validation.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["step"]: {name: value for name, value in line.items() if name != "minutes"} for line in lines}


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, running statistics and the optimiser's state, bit by bit, and what both measured on the way."""
    a, b = checkpoint(one), checkpoint(other)
    assert a["global_step"] == b["global_step"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert [name for name, value in a["state_dict"].items() if not torch.equal(value, b["state_dict"][name])] == []
    states = [c["optimizer_states"][0]["state"] for c in (a, b)]
    assert all(torch.equal(states[0][i]["square_avg"], states[1][i]["square_avg"]) for i in states[0])
    values = validations(one)
    assert all(line == values[step] for step, line in validations(other).items())
    exported = weights(other)
    assert all(torch.equal(value, exported[name]) for name, value in weights(one).items())


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
    assert not list(killed.glob(".*")), "an interrupted write was left behind"


class SignalAt(Callback):
    """Sends this process a signal amid a step, or amid a validation."""

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
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("callback", "saved", "accumulate"),
    [
        (SignalAt(3, signal.SIGTERM), 4, 2),  # with the first of two batches: the second belongs to the same step
        (SignalAt(4, signal.SIGINT), 5, 1),
        (SignalAt(3, signal.SIGTERM, validating=True), 3, 1),
    ],
)
def test_told_to_end_it_saves_and_ends(
    store: Path, tmp_path: Path, callback: Callback, saved: int, accumulate: int
) -> None:
    settings = {
        "trainer__accumulate_grad_batches": accumulate,
        "data__val_fraction": 0.3,
        "trainer__precision": "32-true",
    }
    cli = make_cli(arguments(store, tmp_path / "parts", 8, **settings))
    cli.trainer.callbacks.insert(0, callback)
    with pytest.raises(SIGTERMException):
        cli.fit()
    assert checkpoint(tmp_path / "parts")["global_step"] == saved
    assert read_info(tmp_path / "parts/last.safetensors").steps == saved

    assert fit(store, tmp_path / "parts", 8, "--resume", **settings) == 0
    assert fit(store, tmp_path / "whole", 8, **settings) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_exit_status_says_that_it_was_told_to_end(store: Path, tmp_path: Path) -> None:
    def interrupted(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, SignalAt(2, signal.SIGTERM))
        return cli

    assert main(interrupted, arguments(store, tmp_path, 8)) == EXIT_TERMINATED


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

    def poisoned(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, poison)
        return cli

    assert main(poisoned, arguments(store, tmp_path, 20, checkpoint_steps=1)) == 1
    assert "the loss is nan at step 3" in capsys.readouterr().err
    assert torch.equal(load_file(tmp_path / "nonfinite_step_3_rank_0.safetensors")["images"], poison.images)
    assert checkpoint(tmp_path)["global_step"] == 2


def test_failed_write_is_told_and_the_last_checkpoint_kept(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class FileLimit(Callback):
        """From step 3 on the kernel refuses files above 64 KiB."""

        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))

    def limited(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, FileLimit())
        return cli

    try:
        with pytest.warns(UserWarning, match="of an earlier step is kept"):
            status = main(limited, arguments(store, tmp_path, 6, checkpoint_steps=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert status == 1
    assert "was not written" in capsys.readouterr().err
    assert checkpoint(tmp_path)["global_step"] == 2
    assert not list(tmp_path.glob(".*"))
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

    cli = make_cli(arguments(store, tmp_path, 5, model__hold_attention_steps=3, trainer__limit_val_batches=0))
    cli.trainer.callbacks.insert(0, Watch())
    cli.fit()
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
    ],
)
def test_error_names_its_cause(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict[str, Any], message: str
) -> None:
    assert fit(store, tmp_path, 2, **changes) == 1
    assert message in capsys.readouterr().err


def test_seeds_of_a_run_move_the_order_of_its_images(store: Path, tmp_path: Path) -> None:
    for given, order in ((0, 0), (3, 3), ("true", 0)):
        cli = make_cli(arguments(store, tmp_path / str(given), 2, seed_everything=given))
        assert cli.datamodule.order_seed == order
        assert cli.datamodule.seed == 0


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


def test_fine_tuning_refuses_another_structure(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path / "first", 1) == 0
    changes = {"model__fine_tune": tmp_path / "first" / "last.safetensors", "model__preset": "monet"}
    assert fit(store, tmp_path / "other", 1, **changes) == 1
    assert "does not fit the network" in capsys.readouterr().err


def test_resumed_run_keeps_its_network(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 1) == 0
    assert fit(store, tmp_path, 2, "--resume", model__network=NETWORK.replace("slots: 4", "slots: 5")) == 1
    assert "another network" in capsys.readouterr().err
    assert main(make_cli, ["--run", str(tmp_path), "--resume", "--trainer.max_steps", "2"]) == 0


def test_run_is_never_overwritten(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fit(store, tmp_path, 1) == 0
    before = (tmp_path / "last.ckpt").read_bytes()
    assert fit(store, tmp_path, 2) == 1
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_best_network_that_the_disk_refused_is_not_taken_for_written(store: Path, tmp_path: Path) -> None:
    class FullDisk(Callback):
        """While the first validation ends."""

        def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
            limit = 1 << 16 if trainer.global_step == 3 else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        def on_train_batch_start(self, *args: Any) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def limited(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, FullDisk())
        return cli

    # The loss falls, so the first validation is the best one and the second the best that there is room for.
    settings = {"monitor": "val/total", "monitor_mode": "max", "trainer__limit_val_batches": 1}
    with pytest.warns(UserWarning, match="best.safetensors was not written"):
        assert main(limited, arguments(store, tmp_path, 6, **settings)) == 0
    assert validations(tmp_path)[3]["total"] > validations(tmp_path)[6]["total"]
    assert load_checkpoint(tmp_path / "best.safetensors")[1].steps == 6


def test_training_goes_on_where_a_validation_can_not_be_written(store: Path, tmp_path: Path) -> None:
    class Blocked(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            (tmp_path / "validation.jsonl").mkdir(exist_ok=True)

    def blocked(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, Blocked())
        return cli

    with pytest.warns(UserWarning, match="validation.jsonl was not written"):
        assert main(blocked, arguments(store, tmp_path, 3)) == 0
    assert checkpoint(tmp_path)["global_step"] == 3


def test_training_goes_on_without_pictures_and_tensorboard_while_the_disk_is_full(store: Path, tmp_path: Path) -> None:
    class FullDisk(Callback):
        """From step 3 to step 12 the kernel refuses to let files grow beyond a kilobyte."""

        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            limit = 1 << 10 if 3 <= trainer.global_step < 12 else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def limited(args: Any) -> Any:
        cli = make_cli(args)
        cli.trainer.callbacks.insert(0, FullDisk())
        return cli

    # Dozens of values in line would block in tensorboardX, whose writing thread is dead by then.
    settings = {"trainer__log_every_n_steps": 1, "trainer__val_check_interval": 4, "checkpoint_steps": 500}
    with pytest.warns(UserWarning, match="no longer written") as warned:
        assert main(limited, arguments(store, tmp_path, 60, **settings)) == 0
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


def test_training_without_validation(store: Path, tmp_path: Path) -> None:
    assert fit(store, tmp_path, 2, data__val_fraction=0) == 0
    assert load_checkpoint(tmp_path / "last.safetensors")[1].steps == 2


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux")
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_cpus_that_only_emulate_bf16_are_told(
    store: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, precision: str
) -> None:
    has_bf16 = any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    assert fit(store, tmp_path / "run", 1, trainer__precision=precision) == 0
    told = any("no instructions for bf16" in str(warning.message) for warning in recwarn)
    assert told == (precision == "bf16-mixed" and not has_bf16)
