"""How alike two slots are: the overlap of their masks and the distance of their latent Gaussians."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def mask_overlap(a: ArrayLike, b: ArrayLike) -> Array:
    """Tanimoto coefficient of every pair of soft masks, <a,b> / (<a,a> + <b,b> - <a,b>), in [0, 1].

    The intersection over union where masks are 0 or 1, and one for identical masks however soft they are. Computed from
    one matrix product, which is what allows it for every pair at full resolution. Two empty masks have overlap zero.

    Args:
        a: [N, H, W] in [0, 1].
        b: [M, H, W] in [0, 1], the same H and W.
    Returns:
        [N, M].
    """
    first, second = _flat(a), _flat(b)
    product = (first @ second.T).astype(np.float64)
    norms = np.einsum("np,np->n", first, first)[:, None] + np.einsum("mp,mp->m", second, second)[None]
    union = norms - product
    return np.clip(np.divide(product, union, out=np.zeros_like(product), where=union > 0), 0.0, 1.0)


def _flat(masks: ArrayLike) -> NDArray[np.float32]:
    masks = np.asarray(masks, np.float32)
    return masks.reshape(len(masks), -1)


def latent_distance(
    mean_a: ArrayLike, log_sigma_a: ArrayLike, mean_b: ArrayLike, log_sigma_b: ArrayLike, drift: ArrayLike = 0.0
) -> Array:
    """Mean squared Hellinger distance over the latents in use, for every pair of diagonal Gaussians, in [0, 1].

    Per latent it is 1 - BC with the Bhattacharyya coefficient of two normal distributions,
    BC = sqrt(2 s_a s_b / (s_a^2 + s_b^2)) exp(-(m_a - m_b)^2 / (4 (s_a^2 + s_b^2))). Averaging it over the latents,
    rather than multiplying the coefficients, keeps one latent that moved (where the object is) from outvoting all
    those that didn't (what it is). Each latent weighs 1 - s_a s_b: nothing where the posterior is the prior (sigma 1),
    which carries no information.

    Args:
        mean_a, log_sigma_a: [N, L].
        mean_b, log_sigma_b: [M, L].
        drift: standard deviation by which the means may have moved apart, a scalar or [N, M]; shared out evenly between
            the two distributions, so that equal means stay close.
    Returns:
        [N, M]; zero between equal distributions, and where no latent is in use.
    """
    mean_a, mean_b = np.asarray(mean_a, np.float64)[:, None], np.asarray(mean_b, np.float64)[None]
    # Clipped: a posterior that has collapsed onto a point would be at distance one from itself moved by a rounding
    # error.
    sigma_a = np.exp(np.clip(np.asarray(log_sigma_a, np.float64), -10, 10))[:, None]
    sigma_b = np.exp(np.clip(np.asarray(log_sigma_b, np.float64), -10, 10))[None]
    weight = np.clip(1.0 - sigma_a * sigma_b, 0.0, 1.0)
    moved = 0.5 * np.asarray(drift, np.float64)[..., None] ** 2
    variance_a, variance_b = sigma_a**2 + moved, sigma_b**2 + moved
    total = variance_a + variance_b
    coefficient = np.sqrt(2 * np.sqrt(variance_a * variance_b) / total) * np.exp(
        -((mean_a - mean_b) ** 2) / (4 * total)
    )
    in_use = weight.sum(axis=-1)
    summed = (weight * (1.0 - coefficient)).sum(axis=-1)
    return np.clip(np.divide(summed, in_use, out=np.zeros_like(summed), where=in_use > 1e-9), 0.0, 1.0)
