"""What Lightning trains before MONet: the attention network on instance masks, or its encoder on classes of pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from monet_perception.checkpoint import save_checkpoint
from monet_perception.files import write_bytes
from monet_perception.networks import ConfigError, Monet, load_pretrained, network_config
from monet_perception.networks.segmentation import SegmentationAttention
from monet_perception.shipped import checkpoint_path
from train.assignment import assign_slots, instance_targets, matched_loss, matching_cost
from train.data.manifest import StoreError
from train.data.module import Batch, scene_data
from train.data.store import Store
from train.metrics.means import NamedMeans, SegmentationMetrics
from train.optimisation import OptimiserOptions, make_optimiser, make_schedule
from train.task import Task, ValidationOutput, check_image_size, unit_images
from train.validation import collect, first_visits

UNKNOWN = -1
"""Class of a pixel that teaches nothing, as its object's category isn't known."""
DEFAULT_OPTIMISER = OptimiserOptions(name="adam", attention_lr=3e-4, schedule="cosine")


class SupervisedTask(Task):
    """What both supervised trainings share: the network, where it starts, and the optimiser.

    Args:
        preset: Network whose attention is trained.
        network: Fields of the preset's MonetConfig to change.
        pretrained: Where to start: "imagenet", "coco" or a file; None: from scratch.
        optimiser: How the weights are moved, by its `attention_lr`.
    """

    means: NamedMeans

    def __init__(
        self, preset: str, network: dict[str, Any] | None, pretrained: str | Path | None, optimiser: OptimiserOptions
    ) -> None:
        super().__init__()
        self.config = network_config(preset, network)
        self.pretrained = checkpoint_path(pretrained) if isinstance(pretrained, Path) else pretrained
        self.optimiser_options = optimiser
        self.network = Monet(self.config).to(memory_format=torch.channels_last)
        self.network.component.requires_grad_(False)  # which also keeps it out of DDP's exchange of gradients
        self.background_labels = self.val_background_labels = 0  # of the stores, from `setup` on

    def setup(self, stage: str) -> None:
        data = scene_data(self.trainer)
        for store, manifest in ((data.store, data.manifest), (data.val_store, data.val_manifest)):
            if not manifest.has_labels:
                raise StoreError(f"{store} has no labels; supervised training needs a store that has them")
            check_image_size(self.config, store or data.store, manifest)
        self.background_labels = data.manifest.background_labels
        self.val_background_labels = data.val_manifest.background_labels
        if stage == "fit" and self.pretrained is not None and not self.resumes:
            self.print(f"{load_pretrained(self.network, self.pretrained)} starts from {self.pretrained}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimiser = make_optimiser(self.optimiser_options, parameters)
        schedule = make_schedule(self.optimiser_options, optimiser, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class MaskTask(SupervisedTask):
    """Trains the whole attention network on instance masks, each matched to a slot by assignment.

    Args:
        preset: Network whose attention is trained: "monet_rn18_star", "monet_rn50_star", "monet_rn50" or "monet".
        network: Fields of the preset's MonetConfig to change, e.g. {slots: 11}.
        background: Everything that is background in "one" slot, the first; or each background label in a slot of its
            "own", in their order.
        object_weight: Pixels that each object counts in the loss beside its own, so that small objects are learnt too.
        dice_weight: Weight of the Dice loss beside the cross entropy where masks are matched to slots.
        pretrained: Where to start: "imagenet", "coco" or a file, as in train.fit. Left out: from scratch.
        optimiser: How the weights are moved; only `attention_lr` counts.
    """

    def __init__(
        self,
        preset: str = "monet_rn50_star",
        network: dict[str, Any] | None = None,
        background: Literal["one", "own"] = "one",
        object_weight: float = 0.0,
        dice_weight: float = 0.0,
        pretrained: Literal["imagenet", "coco"] | Path | None = None,
        optimiser: OptimiserOptions = DEFAULT_OPTIMISER,
    ) -> None:
        super().__init__(preset, network, pretrained, optimiser)
        for name, value in {"object_weight": object_weight, "dice_weight": dice_weight}.items():
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        self.one_background = background == "one"
        self.object_weight = object_weight
        self.dice_weight = dice_weight
        self.means = NamedMeans(("total",))
        self.scores = SegmentationMetrics(background_labels=1)  # of the validation store, from `setup` on

    def setup(self, stage: str) -> None:
        super().setup(stage)
        counts = {self.background_labels, self.val_background_labels}
        if len(counts) > 1 and not self.one_background:
            raise StoreError(f"slots of their own (background: own) need stores with as many backgrounds, not {counts}")
        for background_labels in counts:
            fixed = self._fixed_slots(background_labels)
            if fixed >= self.config.slots:
                raise ConfigError(f"{self.config.slots} slots leave none for objects beside {fixed} backgrounds")
        self.scores = SegmentationMetrics(background_labels=self.val_background_labels).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        log_masks = self.network.attention(unit_images(batch["images"]))
        loss = self._loss(log_masks, batch["labels"], self.background_labels).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> ValidationOutput:
        images = unit_images(batch["images"])
        log_masks = self.network.attention(images)
        new = first_visits(self.trainer, batch_idx, len(images))
        self.means.update(total=self._loss(log_masks, batch["labels"], self.val_background_labels)[:new])
        self.scores.update(batch["labels"][:new], log_masks[:new].argmax(dim=1))
        return {"images": images[:new], "log_masks": log_masks[:new]}

    def on_validation_epoch_end(self) -> None:
        self.log_dict({**collect(self.means), **collect(self.scores)})

    def export(self, path: Path, dataset: str, steps: int, metrics: Mapping[str, float]) -> None:
        """Writes a whole network, its component VAE untrained, so that train.evaluate can judge the masks."""
        save_checkpoint(path, self.network, dataset=f"{dataset} (instance masks)", steps=steps, metrics=metrics)

    def _fixed_slots(self, background_labels: int) -> int:
        return 1 if self.one_background else background_labels

    def _loss(self, log_masks: Tensor, labels: Tensor, background_labels: int) -> Tensor:
        targets = instance_targets(labels, background_labels, self.one_background)
        fixed = self._fixed_slots(background_labels)
        cost, area = matching_cost(log_masks, targets, self.dice_weight)
        matched = assign_slots(cost, area > 0, fixed)
        return matched_loss(log_masks, targets, matched, area, fixed, self.object_weight)


class ClassTask(SupervisedTask):
    """Trains the ResNet encoder alone, on the class of every pixel.

    Args:
        preset: Network whose encoder is trained: "monet_rn18_star", "monet_rn50_star" or "monet_rn50".
        network: Fields of the preset's MonetConfig to change, e.g. {encoder: resnet34}.
        classes: Categorical factors of the store whose combinations are the classes of objects, e.g. [shape, colour].
            Left out, all objects are one class. Each background label is a class too.
        pretrained: Where to start: "imagenet", "coco" or a file, as in train.fit. Left out: from scratch.
        optimiser: How the weights are moved; only `attention_lr` counts.
    """

    def __init__(
        self,
        preset: str = "monet_rn50_star",
        network: dict[str, Any] | None = None,
        classes: list[str] | None = None,
        pretrained: Literal["imagenet", "coco"] | Path | None = None,
        optimiser: OptimiserOptions = DEFAULT_OPTIMISER,
    ) -> None:
        super().__init__(preset, network, pretrained, optimiser)
        attention = self.network.attention
        if not isinstance(attention, SegmentationAttention):
            raise ConfigError(f"the attention of {preset} has no encoder to train on classes; use masks, or a ResNet")
        self.encoder = attention.encoder
        self.network.requires_grad_(False)
        self.encoder.requires_grad_(True)
        self.factors = classes or []
        self.means = NamedMeans(("total", "accuracy", "object_accuracy"))
        self.heads = nn.ModuleList()  # one for each stage, as soon as `setup` knows the classes

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = scene_data(self.trainer)
        self.train_classes = PixelClasses(Store.open(data.store), self.factors)
        self.val_classes = PixelClasses(Store.open(data.val_store or data.store), self.factors)
        if self.val_classes.names != self.train_classes.names:
            raise StoreError(f"{data.store} and {data.val_store} have other classes; use stores of the same kind")
        if not self.heads:
            count = len(self.train_classes.names)
            self.heads.extend(nn.Conv2d(channels, count, kernel_size=1) for channels in self.encoder.channels)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [B, C, H, W], float32: the sum of a linear read-out of each stage, so that all of them learn."""
        size = images.shape[-2:]
        stages = zip(self.heads, self.encoder(images), strict=True)
        logits = [F.interpolate(head(x).float(), size=size, mode="bilinear") for head, x in stages]
        return torch.stack(logits).sum(dim=0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        classes = self.train_classes(batch["labels"], batch["index"])
        logits = self(unit_images(batch["images"]))
        total = F.cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum")
        loss = total / (classes != UNKNOWN).sum().clamp(min=1)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> ValidationOutput:
        images, classes = unit_images(batch["images"]), self.val_classes(batch["labels"], batch["index"])
        logits = self(images)
        loss = F.cross_entropy(logits, classes, reduction="none", ignore_index=UNKNOWN)
        right, known = (logits.argmax(dim=1) == classes).float(), (classes != UNKNOWN).float()
        is_object = known * (batch["labels"] >= self.val_background_labels)
        shares = {
            name: (value * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))  # NaN where there is nothing of the kind
            for name, value, where in (
                ("total", loss, known), ("accuracy", right, known), ("object_accuracy", right, is_object),
            )
        }  # fmt: skip
        new = first_visits(self.trainer, batch_idx, len(images))
        self.means.update(**{name: value[:new] for name, value in shares.items()})
        return {"images": images[:new]}

    def on_validation_epoch_end(self) -> None:
        self.log_dict(collect(self.means))

    def export(self, path: Path, dataset: str, steps: int, metrics: Mapping[str, float]) -> None:
        """Writes the encoder alone, under the names that it has in a whole network."""
        tensors = {f"attention.encoder.{name}": t.contiguous() for name, t in self.encoder.state_dict().items()}
        metadata = {"encoder": self.config.encoder, "dataset": f"{dataset} (classes)", "steps": str(steps)}
        metadata |= {name: str(value) for name, value in metrics.items()}
        content = safetensors.torch.save(tensors, metadata=metadata)  # save_file wouldn't raise OSError on a full disk
        write_bytes(path, content)


class PixelClasses:
    """The class of each pixel: a background label, or the combination of an object's categories; `UNKNOWN` where the
    store doesn't know one of them.

    Args:
        store: With labels and the factors.
        factors: Names of categorical factors.
    Raises:
        StoreError: the store lacks such a factor.
    """

    def __init__(self, store: Store, factors: list[str]) -> None:
        self.background_labels = store.manifest.background_labels
        names = [""] if factors else ["object"]
        combined: np.ndarray | None = None
        for name in factors:
            factor = store.manifest.factors.get(name)
            if factor is None or factor["kind"] != "categorical":
                known = [key for key, value in store.manifest.factors.items() if value["kind"] == "categorical"]
                has = ", ".join(known) or "none"
                raise StoreError(f"{store.path} has no categorical factor {name!r}; it has: {has}")
            values = factor["values"] or []
            codes = np.asarray(store.factors[name], np.int64)
            if combined is not None:
                codes = np.where((combined < 0) | (codes < 0), -1, combined * len(values) + codes)
            combined = codes
            names = [f"{former} {value}".strip() for former in names for value in values]
        self.names = [f"background {label}" for label in range(self.background_labels)] + names
        self._objects = None if combined is None else torch.from_numpy(combined)

    def __call__(self, labels: Tensor, index: Tensor) -> Tensor:
        """Classes [B, H, W] int64 of labels [B, H, W] of the images at places `index` [B] of the store."""
        labels = labels.long()
        entity = labels - self.background_labels
        if self._objects is None:
            categories = torch.zeros_like(labels)
        else:
            rows = self._objects[index.cpu()].to(labels.device)
            categories = rows.gather(1, entity.clamp(min=0).flatten(1)).view_as(labels)
        objects = torch.where(categories < 0, UNKNOWN, self.background_labels + categories)
        return torch.where(entity < 0, labels, objects)
