"""Self-assessment without labels, and what a mask is taken for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monet_perception.assessment import assess, kl_per_latent, mask_entropy
from monet_perception.decomposition import Decomposition
from monet_perception.region import Region
from monet_perception.slots import background_slots, border_share, mask_area, occupied_slots

SLOTS, SIZE, LATENTS = 4, 16, 6
seeds = st.integers(0, 2**32 - 1)


def decomposition(masks: np.ndarray, image: np.ndarray | None = None, reconstructions: np.ndarray | None = None):
    slots = len(masks)
    return Decomposition(
        masks=masks.astype(np.float32),
        latent_mean=np.zeros((slots, LATENTS), np.float32),
        latent_log_sigma=np.zeros((slots, LATENTS), np.float32),
        roi=Region(0, 0, SIZE, SIZE),
        source_height=SIZE,
        source_width=SIZE,
        image=np.zeros((SIZE, SIZE, 3), np.uint8) if image is None else image,
        reconstructions=reconstructions,
    )


def soft_masks(seed: int) -> np.ndarray:
    masks = np.exp(3 * np.random.default_rng(seed).normal(size=(SLOTS, SIZE, SIZE)))
    return masks / masks.sum(0)


def crisp_masks(seed: int) -> np.ndarray:
    owner = np.random.default_rng(seed).integers(0, SLOTS, (SIZE, SIZE))
    return (owner == np.arange(SLOTS)[:, None, None]).astype(float)


@given(seeds)
def test_kl_of_latents_is_that_of_torch(seed):
    rng = np.random.default_rng(seed)
    mean, log_sigma = rng.normal(0, 2, (SLOTS, LATENTS)), rng.normal(-1, 1, (SLOTS, LATENTS))
    posterior = torch.distributions.Normal(torch.tensor(mean), torch.tensor(log_sigma).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(posterior, prior).numpy()
    np.testing.assert_allclose(kl_per_latent(mean, log_sigma), expected, rtol=1e-5, atol=1e-9)


@given(seeds)
def test_entropy_lies_between_one_owner_and_all_alike(seed):
    assert mask_entropy(crisp_masks(seed)) == 0
    assert 0 < mask_entropy(soft_masks(seed)) < np.log(SLOTS)
    assert mask_entropy(np.full((SLOTS, SIZE, SIZE), 1 / SLOTS)) == pytest.approx(np.log(SLOTS), rel=1e-5)


@given(seeds)
def test_the_error_map_shows_where_the_scene_is_not_explained(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    reconstructions = np.repeat(image[None] / np.float32(255), SLOTS, axis=0)
    reconstructions[:, 3:6, 4:9] = 1 - reconstructions[:, 3:6, 4:9]
    result = assess(decomposition(soft_masks(seed), image, reconstructions))
    unexplained = np.zeros((SIZE, SIZE), bool)
    unexplained[3:6, 4:9] = True
    expected = ((1 - 2 * (image / 255)) ** 2).mean(-1) * unexplained
    np.testing.assert_allclose(result.error_map, expected, atol=1e-5)
    assert result.reconstruction_error == pytest.approx(expected.mean(), abs=1e-6)


def test_a_frame_that_was_not_decoded_has_no_reconstruction_error():
    result = assess(decomposition(soft_masks(0)))
    assert np.isnan(result.reconstruction_error)
    assert result.error_map is None


def test_everything_in_one_slot_is_one_active_slot():
    masks = np.zeros((SLOTS, SIZE, SIZE))
    masks[2] = 1
    assert assess(decomposition(masks)).active_slots == 1
    assert assess(decomposition(crisp_masks(0))).active_slots == SLOTS


def test_a_batch_is_refused():
    batch = decomposition(soft_masks(0)[None])
    with pytest.raises(ValueError, match="one frame at a time"):
        assess(batch)


@given(seeds)
def test_areas_and_shares_of_the_border_sum_to_one(seed):
    masks = soft_masks(seed)
    assert mask_area(masks).sum() == pytest.approx(1)
    assert border_share(masks).sum() == pytest.approx(1)


def test_walls_are_background_and_things_are_not():
    masks = np.zeros((4, 32, 32))
    masks[0, :, :16], masks[1, :, 16:] = 1, 1
    masks[:2, 8:20, 10:22], masks[2, 8:20, 10:22] = 0, 1  # a thing in the middle
    masks[:2, 28:, 4:10], masks[3, 28:, 4:10] = 0, 1  # a thing at the edge
    assert background_slots(masks).tolist() == [True, True, False, False]


def test_a_slot_spread_thinly_over_the_whole_image_is_empty():
    masks = np.full((SLOTS, SIZE, SIZE), 0.01)
    masks[0] = 0.97
    assert occupied_slots(masks).tolist() == [True, False, False, False]
    assert background_slots(masks).tolist() == [True, False, False, False]
