"""Watches for collapse: a decomposition whose slots are empty, undecided or all in one."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from monet_perception.slots import occupied_slots
from train.metrics.means import NamedMeans
from train.validation import collect

COLLAPSE = 0.98
"""Share of the pixels owned by each image's largest slot, on average, above which masks have collapsed."""


def mask_statistics(log_masks: Tensor) -> dict[str, Tensor]:
    """How masks [B, K, H, W] are used, float32 [B] each.

    `active_slots` and `mask_entropy` are those of `monet_perception.assessment`, as in `/diagnostics`: slots that hold
    something, and nats averaged over pixels, at most log K. `largest_slot` is the share of the pixels that the largest
    slot owns.
    """
    masks = log_masks.float().exp()
    owned = torch.nn.functional.one_hot(log_masks.argmax(dim=1), masks.shape[1]).float().mean(dim=(1, 2))
    active = [occupied_slots(image).sum() for image in masks.cpu().numpy()]
    return {
        "active_slots": torch.tensor(active, dtype=torch.float32, device=log_masks.device),
        "mask_entropy": torch.special.entr(masks).sum(dim=1).mean(dim=(1, 2)),
        "largest_slot": owned.amax(dim=1),
    }


class CollapseMonitor(Callback):
    """Logs `mask_statistics` of the validation images, and warns when one slot owns nearly everything."""

    def __init__(self) -> None:
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
        if share > COLLAPSE and not trainer.sanity_checking:
            rank_zero_warn(
                f"collapse: at step {trainer.global_step} one slot owns {share:.1%} of the pixels. What helps: a "
                "pre-trained attention held still at first (--model.pretrained, --model.hold_attention_steps), another "
                "start of the mask KL's weight (--model.objective.gamma_start and gamma_steps), GECO "
                "(--model.objective.geco.goal=-1.2), another seed"
            )
