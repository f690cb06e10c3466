"""What Lightning trains: a MONet network with its objective, optimiser and validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from monet_perception.checkpoint import save_checkpoint
from monet_perception.networks import (
    ConfigError,
    Monet,
    MonetConfig,
    MonetLoss,
    MonetOutput,
    load_network,
    load_pretrained,
    network_config,
)
from monet_perception.shipped import checkpoint_path
from train.data.manifest import Manifest
from train.data.module import Batch, scene_data
from train.metrics.means import NamedMeans, SegmentationMetrics
from train.metrics.segmentation import mean_squared_error
from train.objective import Objective, ObjectiveOptions
from train.optimisation import OptimiserOptions, make_optimiser, make_schedule
from train.validation import collect, first_visits

BURGESS_OPTIMISER = OptimiserOptions()
EQUATION_4_7 = ObjectiveOptions()


class ValidationOutput(TypedDict, total=False):
    """What the callbacks see of a validation batch."""

    images: Tensor
    log_masks: Tensor
    output: MonetOutput  # where a component VAE has run


def unit_images(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in [0, 1], channels last: the layout in which convolutions are fast."""
    return images.float().div(255).contiguous(memory_format=torch.channels_last)


def check_image_size(config: MonetConfig, store: Path, manifest: Manifest) -> None:
    """Raises ConfigError if a store's images have another size than the network takes."""
    if (manifest.height, manifest.width) != (config.image_size,) * 2:
        raise ConfigError(
            f"the images of {store} are {manifest.height} x {manifest.width}, the network takes {config.image_size} x "
            f"{config.image_size}: set --model.network.image_size or prepare the store at the network's size"
        )


class Task(LightningModule):
    """What train.cli trains."""

    resumes = False
    """Whether a checkpoint's weights are due, so that the file where training once started isn't needed any more."""
    optimiser_options: OptimiserOptions


class MonetTask(Task):
    """Trains MONet, MONet-RN50 or MONet-RN50* without labels.

    Args:
        preset: One of the networks of the thesis, "monet", "monet_rn50", "monet_rn50_star", or MONet-RN18*
            for CPUs, "monet_rn18_star".
        network: Fields of the preset's MonetConfig to change, e.g. {slots: 11, image_size: 128}.
        initialisation: Of what is not pre-trained: "kaiming" or "default" (section 4.3).
        pretrained: Where the attention network starts: "imagenet" or "coco" (downloaded by torchvision), a shipped
            network (rooms, household), or a file that `python -m train.pretrain` or a former training wrote. Left out:
            from scratch.
        fine_tune: Where the whole network starts, attention and component VAE: a shipped network (rooms, household), or
            a file that a former training or `python -m train.export` wrote. Goes without pretrained.
        hold_attention_steps: Optimiser steps for which the attention network's weights stay as they are, while a
            fresh component VAE learns to follow its masks. The running means and variances of the attention's batch
            norms still follow the images. Its learning-rate warm-up begins afterwards.
        optimiser: How the weights are moved.
        objective: The loss and its schedules.
        compile: Compile the network with torch.compile (minutes at the start; pays in long runs).
    """

    def __init__(
        self,
        preset: str = "monet_rn50_star",
        network: dict[str, Any] | None = None,
        initialisation: Literal["kaiming", "default"] = "kaiming",
        pretrained: Literal["imagenet", "coco"] | Path | None = None,
        fine_tune: Path | None = None,
        hold_attention_steps: int = 0,
        optimiser: OptimiserOptions = BURGESS_OPTIMISER,
        objective: ObjectiveOptions = EQUATION_4_7,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if hold_attention_steps < 0:
            raise ValueError(f"hold_attention_steps must not be negative, got {hold_attention_steps}")
        if pretrained is not None and fine_tune is not None:
            raise ConfigError(
                f"pretrained ({pretrained}) and fine_tune ({fine_tune}) both say where the attention network starts: "
                "give one, and null for the other"
            )
        self.config = network_config(preset, network)
        self.initialisation = initialisation
        self.pretrained = checkpoint_path(pretrained) if isinstance(pretrained, Path) else pretrained
        self.fine_tune = checkpoint_path(fine_tune) if fine_tune is not None else None
        self.hold_attention_steps = hold_attention_steps
        self.optimiser_options = optimiser
        self.compile_network = compile
        self.network = Monet(self.config, initialisation).to(memory_format=torch.channels_last)
        self.objective = Objective(objective, self.config)
        self.means = NamedMeans((*MonetLoss._fields, "mse"))
        self.scores: SegmentationMetrics | None = None

    # ---- set-up

    def setup(self, stage: str) -> None:
        """Checks the data against the network and loads pre-trained weights, unless the run resumes.

        Raises:
            StoreError: the store can't be read.
            ConfigError: its images have another size than the network takes.
            PretrainedError: the pre-trained weights can't be read, or don't fit.
        """
        data = scene_data(self.trainer)
        check_image_size(self.config, data.store, data.manifest)
        if data.val_manifest.has_labels:
            self.scores = SegmentationMetrics(background_labels=data.val_manifest.background_labels).to(self.device)
        if stage == "fit" and not self.resumes:
            self._load_start()
        if self.compile_network:
            self.network.compile()

    def _load_start(self) -> None:
        if self.fine_tune is not None:
            load_network(self.network, self.fine_tune)
            self.print(f"the network starts from {self.fine_tune}")
        elif self.pretrained is not None:
            self.print(f"{load_pretrained(self.network, self.pretrained)} starts from {self.pretrained}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = make_optimiser(
            self.optimiser_options, self.network.attention.parameters(), self.network.component.parameters()
        )
        total = self.trainer.estimated_stepping_batches
        schedule = make_schedule(self.optimiser_options, optimiser, total, hold=self.hold_attention_steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- training

    @property
    def holding(self) -> bool:
        """Whether the attention network's weights are being held still."""
        return self.global_step < self.hold_attention_steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # DDP wants a gradient for each weight that it knows of, so there only the update is left out
        if self.hold_attention_steps and self.trainer.world_size == 1:
            self.network.attention.requires_grad_(not self.holding)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.holding:
            for parameter in self.network.attention.parameters():
                parameter.grad = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images = unit_images(batch["images"])
        loss = self.objective(self.network(images), images, self.global_step)
        means = {name: value.detach().mean() for name, value in loss._asdict().items()}
        self.log_dict({f"train/{name}": value for name, value in means.items() if name != "total"})
        self.log("train/loss", means["total"], prog_bar=True)
        if self.objective.options.geco is not None:
            self.log("train/geco_factor", self.objective.log_factor.exp())
        return loss.total.mean()

    def export(self, path: Path, dataset: str, steps: int, metrics: Mapping[str, float]) -> None:
        """Writes the network as a checkpoint that the node loads."""
        save_checkpoint(path, self.network, dataset=dataset, steps=steps, metrics=metrics)

    # ---- validation

    def validation_step(self, batch: Batch, batch_idx: int) -> ValidationOutput:
        images = unit_images(batch["images"])
        output = self.network(images)
        loss = self.objective.unscheduled(output, images)
        new = first_visits(self.trainer, batch_idx, len(images))
        error = mean_squared_error(images, output.mixture().clamp(0, 1))[:new]
        self.means.update(mse=error, **{name: values[:new] for name, values in loss._asdict().items()})
        if self.scores is not None:
            self.scores.update(batch["labels"][:new], output.log_masks[:new].argmax(dim=1))
        shown = MonetOutput(*(tensor[:new] for tensor in output))
        return {"images": images[:new], "log_masks": shown.log_masks, "output": shown}

    def on_validation_epoch_end(self) -> None:
        self.log_dict({**collect(self.means), **(collect(self.scores) if self.scores is not None else {})})
