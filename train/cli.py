"""The command line that training commands share: a run folder with everything a run leaves, and resuming from it."""

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from monet_perception.checkpoint import CheckpointError
from monet_perception.files import replacing
from monet_perception.networks import ConfigError, PretrainedError
from train.allocation import use_huge_pages
from train.callbacks import (
    AtomicCheckpointIO,
    CollapseMonitor,
    DamagedCheckpoint,
    DecompositionPictures,
    Export,
    LearningRates,
    NonFiniteLoss,
    NonFiniteStop,
    RunCheckpoint,
    RunProgress,
    StepSeed,
    UnknownMonitor,
    ValidationReport,
)
from train.callbacks.checkpointing import CHECKPOINT_NAME
from train.data.manifest import Manifest, StoreError
from train.data.module import SceneData
from train.locks import locked
from train.logger import TensorBoardXLogger
from train.runs import CONFIG_NAME, LAST_NAME, RUN_CHECKPOINTS, VALIDATION_NAME, read_config
from train.task import Task

EXIT_TERMINATED = 143
"""128 + SIGTERM, as a shell reports it: a scheduler sees that the run was ended and not that it finished."""

DEFAULT_RUN = Path("runs/unnamed")
LOCK_NAME = ".lock"
LEFT_BY_A_RUN = (CHECKPOINT_NAME, *RUN_CHECKPOINTS, VALIDATION_NAME)
"""What another training in the same folder would replace."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's, with the description's lines left as they are."""


class RunError(RuntimeError):
    """A run that can't begin or go on; the message says why and what to do."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the run's config.yaml when training begins: settings that fail before that replace none that worked."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing: it is too early."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            config = self.config.clone()
            config["resume"] = False  # as a recipe it begins another run
            with replacing(Path(config["run"]) / CONFIG_NAME) as temporary:
                self.parser.save(config, temporary, skip_unset=False, overwrite=True, multifile=False)


def cpu_computes_in_bf16() -> bool:
    """Whether the CPU has instructions for bf16; also true where PyTorch doesn't tell."""
    if not hasattr(torch.cpu, "get_capabilities"):  # PyTorch before 2.11
        return True
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


class RunCLI(LightningCLI):
    """LightningCLI with `--run`, `--resume` and the callbacks of every training.

    Args:
        task: What is trained.
        command: Name of the command's module, with what follows it.
        monitor: The validation value that says which network is best.
        description: Shown by `--help`.
        argv: Command line without the program's name.
    """

    def __init__(
        self,
        task: type[Task],
        command: str,
        *,
        monitor: str,
        description: str,
        argv: Sequence[str],
    ) -> None:
        self._default_monitor = monitor
        super().__init__(
            task,
            SceneData,
            run=False,
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the tasks make their own
            save_config_callback=SaveRunConfig,
            trainer_defaults={
                "max_epochs": -1,
                "precision": "bf16-mixed",
                "check_val_every_n_epoch": None,
                "num_sanity_val_steps": 1,
                "log_every_n_steps": 20,
                "enable_model_summary": False,
            },
            parser_kwargs={
                "description": description,
                "formatter_class": HelpFormatter,
                "prog": f"python -m {command}",
                "usage": "%(prog)s --config RECIPE --run FOLDER [--resume] [--SETTING VALUE ...]",
            },
            args=with_own_config(list(argv)),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning's own warns whenever sys.argv holds something too.

        Raises:
            RunError: a file given as --config is no text; the seed is negative, or not that of the run that is resumed.
        """
        try:
            self.config = parser.parse_args(args)
        except UnicodeDecodeError as error:
            raise RunError(
                f"{_first_binary(args)} is no text file ({error.reason}): --config takes a recipe "
                f"(config/train/*.yaml) or the {CONFIG_NAME} of a run"
            ) from error
        # Not a file's: those that earlier versions wrote ask for it, and would train over a run in the folder.
        self.config["resume"] = _resuming(args)[0].resume
        self._check_seed()
        self._check_intervals()

    def _check_intervals(self) -> None:
        """Raises RunError for zeros that Lightning would divide by."""
        trainer = self.config["trainer"]
        if trainer["val_check_interval"] == 0:
            raise RunError(
                "--trainer.val_check_interval must not be 0; without validation: --trainer.limit_val_batches 0"
            )
        if trainer["accumulate_grad_batches"] == 0:
            raise RunError("--trainer.accumulate_grad_batches must not be 0")

    def _check_seed(self) -> None:
        """Raises RunError for a negative seed, and for another than that of the run that is resumed."""
        if isinstance(self.config["seed_everything"], bool):
            raise RunError("--seed_everything takes a whole number: a run has to be repeatable")
        seed, run = _seed(self.config["seed_everything"]), Path(self.config["run"])
        if seed < 0:
            raise RunError(f"--seed_everything must not be negative, got {seed}")
        own = read_config(run) if self.config["resume"] and (run / CHECKPOINT_NAME).exists() else None
        if isinstance(own, dict) and _seed(own.get("seed_everything", seed)) != seed:
            raise RunError(
                f"{run} was trained with seed {own['seed_everything']}, which gave its weights and the order of its "
                f"images: go on with --seed_everything {own['seed_everything']}, or begin a new run (--run) with {seed}"
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run",
            type=Path,
            default=DEFAULT_RUN,
            help="Folder of the run: its configuration, checkpoints, networks, pictures and TensorBoard files.",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="Go on exactly where the run in this folder was; from the beginning where it has no checkpoint yet. "
            "Without --config it uses the run's own configuration.",
        )
        parser.add_argument(
            "--checkpoint_steps", type=int, default=1000, help="Optimiser steps between two checkpoints to resume from."
        )
        parser.add_argument(
            "--monitor",
            type=str,
            default=self._default_monitor,
            help="What makes a network the best: ari_multi is the ARI "
            "over images with two objects or more, as one object alone says nothing of how objects are told apart.",
        )
        parser.add_argument(
            "--monitor_mode",
            type=Literal["max", "min"] | None,
            default=None,
            help="Whether its highest or its lowest value is the best: min for losses and errors, else max.",
        )
        # Two runs of a table differ in all that is drawn, and the split of a store isn't part of that.
        parser.link_arguments("seed_everything", "data.order_seed", compute_fn=_seed)

    @property
    def folder(self) -> Path:
        """Of this run."""
        return Path(self.config["run"])

    @property
    def checkpoint(self) -> Path:
        """The file that the run resumes from."""
        return self.folder / CHECKPOINT_NAME

    def before_instantiate_classes(self) -> None:
        self._check_folder_is_free()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the run's folder {self.folder} can't be made ({error.strerror}): choose another one (--run)"
            ) from error
        if torch.cuda.is_available():
            # what autocast leaves in float32 would otherwise do without tensor cores
            torch.set_float32_matmul_precision("high")

    def _check_folder_is_free(self) -> None:
        """Raises RunError if the folder holds what a run left, and this command doesn't resume it."""
        left = self._left_by_a_run()
        if self.config["resume"] or not left:
            return
        if self.checkpoint.exists():
            remedy = "go on with it (--resume), choose another folder (--run), or delete it"
        else:
            remedy = (
                f"choose another folder (--run), or delete it; without {CHECKPOINT_NAME} it can't go on, and --resume "
                "starts it from the beginning"
            )
        raise RunError(f"{self.folder} already holds a run ({', '.join(left)}): {remedy}")

    def _left_by_a_run(self) -> list[str]:
        return [name for name in LEFT_BY_A_RUN if (self.folder / name).exists()]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = {**self._get(self.config_init, "trainer"), **kwargs}
        if config["logger"] is None:
            config["logger"] = TensorBoardXLogger(self.folder, name="", version="")
        config["default_root_dir"] = config["default_root_dir"] or self.folder
        self.checkpoint_io = AtomicCheckpointIO()
        config["plugins"] = [self.checkpoint_io, *(config["plugins"] or [])]
        config["callbacks"] = [*self._run_callbacks(config), *(config["callbacks"] or [])]
        trainer = self._instantiate_trainer(config, [])
        if trainer.strategy.root_device.type == "cpu" and "bf16" in trainer.precision and not cpu_computes_in_bf16():
            rank_zero_warn(
                f"this CPU has no instructions for bf16: precision {trainer.precision} takes three times as long as "
                "--trainer.precision 32-true"
            )
        return trainer

    def _run_callbacks(self, trainer_config: dict[str, Any]) -> list[Callback]:
        callbacks: list[Callback] = [
            StepSeed(_seed(self.config["seed_everything"])),
            NonFiniteStop(self.folder),
            CollapseMonitor(),
            DecompositionPictures(self.folder / "pictures"),
            ValidationReport(self.folder),
            self._export(),
            LearningRates(),
            RunCheckpoint(self.folder, self.config["checkpoint_steps"]),
        ]
        if trainer_config["logger"]:
            callbacks.append(LearningRateMonitor(logging_interval="step"))
        if trainer_config["enable_progress_bar"] is not False:
            callbacks.append(RunProgress())
        return callbacks

    def fit(self) -> None:
        """Trains, from the run's checkpoint if it resumes and has one.

        Raises:
            RunError: another process trains in the folder, or has trained there meanwhile; the checkpoint is damaged
                or of another network, or the last one was not written.
            StoreError, ConfigError, PretrainedError: of the data's and the task's `setup`.
            NonFiniteLoss, CheckpointError: the loss or a weight is not finite.
            UnknownMonitor: the first validation has no value of the name that `--monitor` gave.
            MisconfigurationException: settings of Lightning that don't fit the data.
            OSError: a file that training begins with can't be read or written.
            SIGTERMException: the run was told to end, and has saved itself.
        """
        if not self.trainer.is_global_zero:  # the other processes of a run write nothing
            self._fit()
            return
        with only_process_in(self.folder):
            self._check_folder_is_free()  # again: another process may have trained here since
            self._fit()

    def _fit(self) -> None:
        resume = self.config["resume"] and self.checkpoint.exists()
        if self.config["resume"] and not resume:
            left = self._left_by_a_run()
            replaced = f", and replaces {', '.join(left)}" if left else ""
            rank_zero_info(f"{self.checkpoint} does not exist: the run starts from the beginning{replaced}")
        path = str(self.checkpoint) if resume else None
        cast(Task, self.model).resumes = resume
        try:
            self.trainer.fit(self.model, self.datamodule, ckpt_path=path, weights_only=True)
        except DamagedCheckpoint as error:
            raise RunError(f"{error}; {self._new_start()}") from error
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            raise RunError(
                f"{path} is of another network than these settings describe: leave --config and --model out, and the "
                f"run's own settings ({self.folder / CONFIG_NAME}) hold"
            ) from error
        if self.checkpoint_io.error is not None:
            raise RunError(f"the last checkpoint of {self.folder} was not written: {self.checkpoint_io.error}")

    def _new_start(self) -> str:
        """What to do instead of resuming."""
        network = self.folder / LAST_NAME
        if not network.exists():
            return f"delete {self.folder} and start the run anew"
        option = "fine_tune" if hasattr(self.model, "fine_tune") else "pretrained"
        return f"start a new run from its network with --model.{option} {network}"

    def _export(self) -> Export:
        monitor, mode = self.config["monitor"], self.config["monitor_mode"]
        return Export(self.folder, self._dataset(), monitor, mode, else_loss=monitor == self._default_monitor)

    def _dataset(self) -> str:
        manifest = Manifest.read(Path(self.config["data"]["store"]))
        return f"{manifest.dataset}/{manifest.split}"


@contextlib.contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a run's folder.

    Raises:
        RunError: another process trains there, or the folder can't be written to.
    """
    try:
        # Workers that read data outlive a killed run for seconds, and must not keep it from going on.
        file = locked(folder / LOCK_NAME, by_forks_too=False)
    except BlockingIOError:
        raise RunError(
            f"another process trains in {folder}: wait for it, stop it, or choose another folder (--run)"
        ) from None
    except OSError as error:
        raise RunError(f"{folder} can't be written to ({error.strerror}): choose another folder (--run)") from error
    with file:
        yield


def main(make_cli: Callable[[Sequence[str]], RunCLI], argv: Sequence[str] | None = None) -> int:
    """Runs a training command; what a user can mend is told in a sentence and not in a traceback.

    Returns:
        The exit status: 0, 1 after an error, 143 where the run was told to end.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _silence()
    use_huge_pages()
    try:
        cli = make_cli(argv)
    except (RunError, ValueError, OSError, MisconfigurationException) as error:  # settings, and files that they name
        return _told(error)
    try:
        cli.fit()
    except SIGTERMException:
        return EXIT_TERMINATED
    except (
        RunError,
        StoreError,
        ConfigError,
        CheckpointError,
        PretrainedError,
        NonFiniteLoss,
        UnknownMonitor,
        MisconfigurationException,
        OSError,
    ) as error:
        return _told(error)
    return 0


def _told(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _silence() -> None:
    """Drops what Lightning says that is no user's business here: a product's advertisement and its own deprecations."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(lambda record: "litlogger" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".*LeafSpec")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval")


def with_own_config(argv: list[str]) -> list[str]:
    """The command line of a resumed run with the run's own configuration in front, unless one is given.

    Raises:
        RunError: the run has none, and the command line names no data to begin it with.
    """
    known, others = _resuming(argv)
    if not known.resume or known.config:
        return argv
    own = known.run / CONFIG_NAME
    if own.is_file():
        return ["--config", str(own), *argv]
    if not {argument.partition("=")[0] for argument in others} & {"--data", "--data.store", "--help", "-h"}:
        raise RunError(
            f"{known.run} holds no run to resume: {own} does not exist. Name the run's folder (--run), or begin it "
            "with --config and --data.store"
        )
    return argv


def _resuming(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """`run`, `config` (a list) and `resume` of a command line, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", type=Path, default=DEFAULT_RUN)
    parser.add_argument("--config", "-c", action="append", default=[])
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(argv)


def _first_binary(argv: list[str]) -> str:
    """The first file given as --config that is no text."""
    for path in _resuming(argv)[0].config:
        try:
            Path(path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            return str(path)
    return "a file of the configuration"


def _seed(seed_everything: bool | int) -> int:
    """The number that `--seed_everything` gives, 0 where it is `true` or `false`."""
    return 0 if isinstance(seed_everything, bool) else int(seed_everything)
