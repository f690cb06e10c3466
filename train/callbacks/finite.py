"""Ends a training whose loss is no longer finite, before anything non-finite reaches a file."""

import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from monet_perception.files import write_bytes


class NonFiniteLoss(RuntimeError):
    """The loss or a weight is NaN or infinite; the message names the step, the saved batch and remedies."""


class PendingLoss:
    """The loss of a step on its way from the device, and the batch that gave it."""

    def __init__(self, step: int, loss: Tensor, batch: dict[str, Tensor]) -> None:
        self.step = step
        self.batch = batch
        self._value = loss.to("cpu", non_blocking=True)
        # A question put to the device a step later would be answered only after the work queued by then.
        self._arrived = torch.cuda.Event() if loss.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(loss.device))

    def value(self) -> float:
        """Waits for the step, and for nothing that was begun after it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)


class NonFiniteStop(Callback):
    """Stops at the first non-finite loss and saves the batch that gave it.

    A loss is looked at one step late, so that the device always has a step to do while this process waits for the one
    before; what saves a checkpoint looks at the newest loss and at all weights first.

    Args:
        folder: Where the batch is saved, as `nonfinite_step_<step>_rank_<rank>.safetensors`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: PendingLoss | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check_pending(trainer)
        self._pending = PendingLoss(trainer.global_step, outputs["loss"].detach(), batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_pending(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_pending(trainer)
        for name, weight in pl_module.state_dict().items():
            if weight.is_floating_point() and not torch.isfinite(weight).all():
                raise NonFiniteLoss(
                    f"the weights of {name} are not finite at step {trainer.global_step}, no checkpoint was written. "
                    + _REMEDY
                )

    def _check_pending(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        step, loss = pending.step, pending.value()
        finite = math.isfinite(loss)
        # all processes end together: the others would wait for this one's gradients
        all_finite = trainer.strategy.reduce_boolean_decision(finite)
        if not finite:
            path = self.folder / f"nonfinite_step_{step}_rank_{trainer.global_rank}.safetensors"
            saved = _save(pending, path, loss)
            raise NonFiniteLoss(f"the loss is {loss} at step {step}; its batch {saved}. " + _REMEDY)
        if not all_finite:
            raise NonFiniteLoss(f"the loss of another process is not finite at step {step}. " + _REMEDY)


def _save(pending: PendingLoss, path: Path, loss: float) -> str:
    """Saves the batch of a loss; what became of it."""
    tensors = {name: value.contiguous().cpu() for name, value in pending.batch.items()}
    content = safetensors.torch.save(tensors, metadata={"step": str(pending.step), "loss": str(loss)})
    try:
        write_bytes(path, content)
    except OSError as error:
        return f"could not be saved in {path} ({error.strerror})"
    return f"is saved in {path}"


_REMEDY = (
    "Lower the learning rates (--model.optimiser.attention_lr, --model.optimiser.component_lr), clip gradients "
    "(--trainer.gradient_clip_val 1.0) or train in full precision (--trainer.precision 32-true), and go on from the "
    "last checkpoint with --resume."
)
