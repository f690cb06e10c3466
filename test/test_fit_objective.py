"""The loss's schedules, GECO, learning rates and collapse monitors, by their definitions."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from monet_perception.assessment import mask_entropy
from monet_perception.networks import PRESETS, MonetOutput, monet_loss
from monet_perception.slots import occupied_slots
from train.callbacks.monitors import mask_statistics
from train.objective import GecoOptions, Objective, ObjectiveOptions, ramp
from train.optimisation import OptimiserOptions, make_optimiser, make_schedule

CONFIG = PRESETS["monet_rn18_star"]


def output_and_images(seed: int = 0) -> tuple[MonetOutput, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks, latents = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 3, 4, generator=generator)
    images = torch.rand(2, 3, 8, 8, generator=generator)
    reconstructions = torch.rand(2, 3, 3, 8, 8, generator=generator)
    return MonetOutput(masks.log_softmax(dim=1), latents, latents, reconstructions, masks.flip(1)), images


def test_without_schedules_it_is_equation_4_7() -> None:
    output, images = output_and_images()
    loss = Objective(ObjectiveOptions(beta=0.3, gamma=0.7), CONFIG)(output, images, step=5)
    torch.testing.assert_close(loss, monet_loss(output, images, CONFIG, beta=0.3, gamma=0.7))


@given(start=st.floats(-5, 5), end=st.floats(-5, 5), steps=st.integers(0, 100), step=st.integers(0, 200))
def test_ramp_goes_straight_and_stays(start: float, end: float, steps: int, step: int) -> None:
    value = ramp(start, end, steps, step)
    assert value == pytest.approx(end if step >= steps else start + (end - start) * step / steps)


def test_schedules_set_the_weights_of_their_terms() -> None:
    options = ObjectiveOptions(
        beta_warmup_steps=10, gamma_start=4.0, gamma_steps=10, sigma_start_scale=3.0, sigma_steps=10
    )
    output, images = output_and_images()
    objective = Objective(options, CONFIG)
    first, middle, last = (objective(output, images, step) for step in (0, 5, 10))
    torch.testing.assert_close(first.total, first.reconstruction + 4.0 * first.mask_kl)
    torch.testing.assert_close(middle.total, middle.reconstruction + 0.25 * middle.latent_kl + 2.25 * middle.mask_kl)
    torch.testing.assert_close(last, monet_loss(output, images, CONFIG))
    torch.testing.assert_close(objective.unscheduled(output, images), last)
    wide = replace(CONFIG, sigma_background=3 * CONFIG.sigma_background, sigma_foreground=3 * CONFIG.sigma_foreground)
    torch.testing.assert_close(first.reconstruction, monet_loss(output, images, wide).reconstruction)
    # random pixels are far likelier under a wider Gaussian
    assert (first.reconstruction < middle.reconstruction).all()
    assert (middle.reconstruction < last.reconstruction).all()


def test_sigmas_may_start_beyond_what_a_network_may_have() -> None:
    output, images = output_and_images()
    wide = Objective(ObjectiveOptions(sigma_start_scale=1000.0, sigma_steps=10), CONFIG)(output, images, 0)
    assert (wide.reconstruction > 0).all(), "a density far below one"


@pytest.mark.parametrize("start", [{"gamma_start": 0.0}, {"sigma_start_scale": 3.0}])
def test_start_without_steps_is_refused(start: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="has no effect without"):
        ObjectiveOptions(**start)


def test_geco_weighs_the_kl_down_until_the_goal_is_reached() -> None:
    output, images = output_and_images()
    loss = monet_loss(output, images, CONFIG)
    error = float(loss.reconstruction.mean()) / images[0].numel()
    for goal, direction in ((error - 1, -1), (error + 1, 1)):
        geco = GecoOptions(goal=goal, rate=0.1, momentum=0.9, maximum=2.0)
        objective = Objective(ObjectiveOptions(geco=geco), CONFIG)
        assert torch.equal(objective(output, images, 0).total, loss.total)  # the factor starts at one
        for _ in range(3):
            objective(output, images, 0)
        mean = [1 - 0.9**step for step in range(1, 5)]  # of a constraint of one, which began at zero
        assert float(objective.log_factor) == pytest.approx(direction * 0.1 * sum(mean), rel=1e-4)
        factor = objective.log_factor.exp()
        now = objective.eval()(output, images, 0)
        torch.testing.assert_close(now.total, loss.reconstruction + factor * 0.5 * (loss.latent_kl + loss.mask_kl))
        for _ in range(200):
            objective.train()(output, images, 0)
        assert math.exp(objective.log_factor) == pytest.approx(2.0 if direction > 0 else 1e-4, rel=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("rmsprop", optim.RMSprop), ("adam", optim.Adam)])
def test_weights_are_moved_by_the_optimiser_named(name: Literal["rmsprop", "adam"], kind: type) -> None:
    assert type(make_optimiser(OptimiserOptions(name=name), nn.Linear(1, 1).parameters())) is kind


@given(warmup=st.integers(0, 20), hold=st.integers(0, 20), total=st.integers(50, 100), cosine=st.booleans())
def test_rates_warm_up_after_the_hold_and_end_where_told(warmup: int, hold: int, total: int, cosine: bool) -> None:
    options = OptimiserOptions(
        attention_lr=2.0,
        component_lr=3.0,
        warmup_steps=warmup,
        schedule="cosine" if cosine else "constant",
        final_fraction=0.1,
    )
    optimiser = make_optimiser(options, nn.Linear(1, 1).parameters(), nn.Linear(1, 1).parameters())
    scheduler = make_schedule(options, optimiser, total, hold)
    rates = []
    for _ in range(total + 1):
        rates.append(scheduler.get_last_lr())
        optimiser.step()
        scheduler.step()
    for group, (lr, start) in enumerate(((2.0, hold), (3.0, 0))):
        own = [rate[group] for rate in rates]
        assert own[:start] == [0.0] * start
        assert all(rate > 0 for rate in own[start:])
        assert own[start : start + warmup] == sorted(own[start : start + warmup])
        turn = np.linspace(0, math.pi if cosine else 0, total - start - warmup + 1)
        assert own[start + warmup :] == pytest.approx(lr * (0.1 + 0.9 * (1 + np.cos(turn)) / 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OptimiserOptions(attention_lr=0.0),
        lambda: OptimiserOptions(warmup_steps=-1),
        lambda: OptimiserOptions(final_fraction=2.0),
        lambda: ObjectiveOptions(beta=-1.0),
        lambda: ObjectiveOptions(sigma_start_scale=0.0),
        lambda: GecoOptions(goal=0.0, minimum=2.0, maximum=1.0),
        lambda: GecoOptions(goal=0.0, momentum=1.0),
    ],
)
def test_options_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        make()  # type: ignore[operator]


def test_collapse_and_indecision_are_told_apart() -> None:
    collapsed = torch.full((1, 4, 10, 10), -50.0)
    collapsed[:, 2] = 0.0
    undecided = torch.full((1, 4, 10, 10), -math.log(4.0))
    halves = torch.full((1, 4, 10, 10), -50.0)
    halves[0, 0, :5] = 0.0
    halves[0, 2, 5:] = 0.0
    values = [mask_statistics(masks) for masks in (collapsed, undecided, halves)]
    assert [float(v["active_slots"]) for v in values] == [1, 0, 2]  # a mask spread thinly holds nothing
    assert [float(v["largest_slot"]) for v in values] == [1, 1, 0.5]
    assert [float(v["mask_entropy"]) for v in values] == pytest.approx([0, math.log(4.0), 0], abs=1e-5)


def test_validation_counts_slots_as_diagnostics_do() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 6, 16, 16, generator=generator) + 6 * torch.randn(8, 6, 1, 1, generator=generator)
    log_masks = logits.log_softmax(dim=1)
    values = mask_statistics(log_masks)
    active = [int(occupied_slots(masks).sum()) for masks in log_masks.exp().numpy()]
    assert values["active_slots"].tolist() == active
    assert len(set(active)) > 2  # not what a constant would give
    entropy = [mask_entropy(masks) for masks in log_masks.exp().numpy()]
    assert values["mask_entropy"].tolist() == pytest.approx(entropy, rel=1e-5)
