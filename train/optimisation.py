"""Optimisers and learning-rate schedules, with rates of their own for the attention network and the component VAE."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

from monet_perception.networks import ConfigError


@dataclass(frozen=True)
class OptimiserOptions:
    """How the weights are moved.

    Args:
        name: "rmsprop" is what MONet used (Burgess et al. 2019); "adam" learns faster in short runs.
        attention_lr: Learning rate of the attention network.
        component_lr: Learning rate of the component VAE.
        warmup_steps: Optimiser steps over which both rates rise linearly from zero.
        schedule: What follows the warm-up: "constant", or "cosine" down to `final_fraction` at the last step.
        final_fraction: Where the cosine ends, as a fraction of the learning rate.
    """

    name: Literal["rmsprop", "adam"] = "rmsprop"
    attention_lr: float = 1e-4
    component_lr: float = 1e-4
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.01

    def __post_init__(self) -> None:
        for name in ("attention_lr", "component_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimiser.{name} must be above zero, got {getattr(self, name)}")
        if self.warmup_steps < 0:
            raise ValueError(f"optimiser.warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(f"optimiser.final_fraction must lie in [0, 1], got {self.final_fraction}")


def make_optimiser(
    options: OptimiserOptions, attention: Iterable[nn.Parameter], component: Iterable[nn.Parameter] = ()
) -> Optimizer:
    """One optimiser with a parameter group for each of the two networks (the first group is the attention's)."""
    groups = [
        {"params": list(attention), "lr": options.attention_lr},
        {"params": list(component), "lr": options.component_lr},
    ]
    groups = [group for group in groups if group["params"]]
    return RMSprop(groups) if options.name == "rmsprop" else Adam(groups)


def make_schedule(options: OptimiserOptions, optimiser: Optimizer, total_steps: float, hold: int = 0) -> LambdaLR:
    """Learning rates by optimiser step; the attention's group, held still for `hold` steps, warms up after them."""
    starts = [hold] + [0] * (len(optimiser.param_groups) - 1)
    return LambdaLR(optimiser, [_factor(options, start, total_steps) for start in starts])


def set_rates(options: OptimiserOptions, checkpoint: dict[str, Any]) -> None:
    """Puts the options' learning rates into a Lightning checkpoint, whose own ones would hold otherwise.

    Raises:
        ConfigError: the checkpoint has the state of another optimiser.
    """
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    name = "adam" if "betas" in groups[0] else "rmsprop"
    if name != options.name:
        raise ConfigError(
            f"the run was trained with {name} and can't go on with {options.name}: set --model.optimiser.name {name}, "
            "or start a new run"
        )
    rates = {"attention": options.attention_lr, "component": options.component_lr}
    for group, (network, rate) in zip(groups, rates.items(), strict=False):  # pre-training has the first group only
        if rate != group["initial_lr"]:
            rank_zero_info(f"{network}_lr is {rate:g} from here on, and was {group['initial_lr']:g}")
            group["lr"] *= rate / group["initial_lr"]
            group["initial_lr"] = rate
    checkpoint["lr_schedulers"][0]["base_lrs"] = [group["initial_lr"] for group in groups]


def _factor(options: OptimiserOptions, start: int, total_steps: float) -> Callable[[int], float]:
    """The factor on a learning rate as a function of the step, for a group that starts to learn at `start`."""

    def factor(step: int) -> float:
        step -= start
        if step < 0:
            return 0.0
        if step < options.warmup_steps:
            return (step + 1) / options.warmup_steps
        if options.schedule == "constant" or not math.isfinite(total_steps):
            return 1.0
        length = max(total_steps - start - options.warmup_steps, 1)
        progress = min((step - options.warmup_steps) / length, 1.0)
        return options.final_fraction + (1 - options.final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return factor
