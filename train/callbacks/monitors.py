"""Watches for collapse: a decomposition whose slots are empty, undecided or all in one."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from train.validation import NamedMeans, collect

ACTIVE_AREA = 0.005
"""Share of the image that a slot has to own (by argmax) to count as active: 20 pixels of 64 x 64."""


def mask_statistics(log_masks: Tensor) -> dict[str, Tensor]:
    """How masks [B, K, H, W] are used, each [B]: `active_slots`, `mask_entropy` in nats (mean over pixels, at most
    log K), and `largest_slot`, the share of the pixels that the largest slot owns."""
    slots = log_masks.shape[1]
    owned = torch.nn.functional.one_hot(log_masks.argmax(dim=1), slots).float().mean(dim=(1, 2))
    return {
        "active_slots": (owned >= ACTIVE_AREA).sum(dim=1).float(),
        "mask_entropy": torch.special.entr(log_masks.float().exp()).sum(dim=1).mean(dim=(1, 2)),
        "largest_slot": owned.amax(dim=1),
    }


class CollapseMonitor(Callback):
    """Logs `mask_statistics` of the validation images, and warns when one slot owns nearly everything.

    Args:
        largest_slot: Share of the pixels owned by each image's largest slot, on average, above which to warn.
    """

    def __init__(self, largest_slot: float = 0.98) -> None:
        self.largest_slot = largest_slot
        self.means = NamedMeans(("active_slots", "mask_entropy", "largest_slot"))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.means.to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if "log_masks" in outputs:
            self.means.update(**mask_statistics(outputs["log_masks"]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.means.update_called:
            pl_module.log_dict(collect(self.means))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        share = float(trainer.callback_metrics.get("val/largest_slot", 0.0))
        if share > self.largest_slot and not trainer.sanity_checking:
            rank_zero_warn(
                f"collapse: at step {trainer.global_step} one slot owns {share:.1%} of the pixels. What helps: a "
                "pre-trained attention held still at first (--model.pretrained, --model.hold_attention_steps), another "
                "start of the mask KL's weight (--model.objective.gamma_start), GECO (--model.objective.geco), another "
                "seed"
            )
