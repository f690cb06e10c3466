"""MONet's loss with the schedules that steady its training: beta warm-up, GECO, and schedules of gamma and sigma."""

import math
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from monet_perception.networks import MonetConfig, MonetLoss, MonetOutput, monet_loss


@dataclass(frozen=True)
class GecoOptions:
    """Constrained optimisation in place of fixed weights (Rezende and Viola 2018, as Genesis uses it).

    Both KL terms are multiplied by one factor that falls while the reconstruction is worse than the goal and rises,
    at most to `maximum`, while it is better.

    Args:
        goal: Negative log likelihood wanted, in nats per pixel and channel. At sigma 0.11 a perfect reconstruction
            gives -1.29, an error of 0.05 gives -1.19.
        rate: How fast the logarithm of the factor moves, per step and nat.
        momentum: Of the running mean of the constraint.
        minimum: Lower bound of the factor.
        maximum: Upper bound of the factor.
    """

    goal: float
    rate: float = 1e-2
    momentum: float = 0.99
    minimum: float = 1e-4
    maximum: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise ValueError(f"geco needs 0 < minimum <= maximum, got {self.minimum} and {self.maximum}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"geco.momentum must lie in [0, 1), got {self.momentum}")


@dataclass(frozen=True)
class ObjectiveOptions:
    """Weights of the loss (equation 4.7) and how they change over the optimiser steps.

    Args:
        beta: Weight of the latent KL.
        gamma: Weight of the mask KL.
        beta_warmup_steps: Steps over which beta rises linearly from zero.
        gamma_start: Weight of the mask KL at the first step; it goes linearly to `gamma` over `gamma_steps`.
            Left out: `gamma` from the start.
        gamma_steps: Length of that schedule, needed with `gamma_start`.
        sigma_start_scale: Factor on both sigmas at the first step; it goes linearly to one over `sigma_steps`.
        sigma_steps: Length of that schedule, needed with another `sigma_start_scale` than one.
        geco: Constrained optimisation of both KL weights; left out, they stay as above.

    Raises:
        ValueError: A value is out of its range, or a start has no steps over which to leave it.
    """

    beta: float = 0.5
    gamma: float = 0.5
    beta_warmup_steps: int = 0
    gamma_start: float | None = None
    gamma_steps: int = 0
    sigma_start_scale: float = 1.0
    sigma_steps: int = 0
    geco: GecoOptions | None = None

    def __post_init__(self) -> None:
        for name in ("beta", "gamma", "beta_warmup_steps", "gamma_steps", "sigma_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"objective.{name} must not be negative, got {getattr(self, name)}")
        if not self.sigma_start_scale > 0:
            raise ValueError(f"objective.sigma_start_scale must be above zero, got {self.sigma_start_scale}")
        if self.gamma_start is not None and self.gamma_steps == 0:
            raise ValueError("objective.gamma_start has no effect without objective.gamma_steps")
        if self.sigma_start_scale != 1 and self.sigma_steps == 0:
            raise ValueError("objective.sigma_start_scale has no effect without objective.sigma_steps")


def ramp(start: float, end: float, steps: int, step: int) -> float:
    """The value at `step` on a straight line from `start` at step 0 to `end` at `steps`, and `end` from there on."""
    if step >= steps:
        return end
    return start + (end - start) * step / steps


class Objective(nn.Module):
    """The weighted loss at a given step. GECO's state lives in buffers, so that a checkpoint holds it."""

    log_factor: Tensor
    constraint: Tensor

    def __init__(self, options: ObjectiveOptions, config: MonetConfig):
        super().__init__()
        self.options = options
        self.config = config
        self.register_buffer("log_factor", torch.zeros(()))
        self.register_buffer("constraint", torch.zeros(()))

    def forward(self, output: MonetOutput, images: Tensor, step: int) -> MonetLoss:
        """The loss of a batch.

        Args:
            output: What the network made of the images.
            images: [B, 3, H, W] float32 in [0, 1].
            step: Optimiser steps done so far.
        Returns:
            The three terms unweighted and their weighted sum `total`, each [B] float32 in nats.
        """
        options = self.options
        beta, gamma = self.weights(step)
        sigma_scale = ramp(options.sigma_start_scale, 1.0, options.sigma_steps, step)
        loss = monet_loss(output, images, self.config, beta=beta, gamma=gamma, sigma_scale=sigma_scale)
        if options.geco is None:
            return loss
        factor = self.log_factor.exp()
        if self.training:
            self._update_geco(options.geco, loss.reconstruction.detach().mean() / images[0].numel())
        kl = beta * loss.latent_kl + gamma * loss.mask_kl
        return loss._replace(total=loss.reconstruction + factor * kl)

    def unscheduled(self, output: MonetOutput, images: Tensor) -> MonetLoss:
        """The same where every schedule ends, and without GECO's factor: losses of different steps can be compared."""
        return monet_loss(output, images, self.config, beta=self.options.beta, gamma=self.options.gamma)

    def weights(self, step: int) -> tuple[float, float]:
        """Beta and gamma at a step, before GECO's factor."""
        options = self.options
        gamma_start = options.gamma if options.gamma_start is None else options.gamma_start
        return (
            ramp(0.0, options.beta, options.beta_warmup_steps, step),
            ramp(gamma_start, options.gamma, options.gamma_steps, step),
        )

    @torch.no_grad()
    def _update_geco(self, geco: GecoOptions, error: Tensor) -> None:
        """Moves the factor by the running mean of the constraint, which all processes share."""
        constraint = error - geco.goal
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(constraint)
            constraint = constraint / torch.distributed.get_world_size()
        self.constraint.lerp_(constraint, 1 - geco.momentum)
        self.log_factor.sub_(geco.rate * self.constraint).clamp_(math.log(geco.minimum), math.log(geco.maximum))
