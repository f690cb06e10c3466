"""Disentanglement scores of codes whose answer is known, and against a public implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from train.metrics.disentanglement import (
    DisentanglementError,
    Factor,
    dci,
    disentanglement_scores,
    factor_vae_score,
    infomec,
    mutual_information_gap,
    separated_attribute_predictability,
)

SAMPLES = 1500
FACTORS = 4


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (SAMPLES, FACTORS))


@pytest.fixture(scope="module")
def factors(truth: np.ndarray) -> list[Factor]:
    """Three continuous factors and one of five classes."""
    classes = Factor("shape", np.digitize(truth[:, 3], [-0.6, -0.2, 0.2, 0.6]), categorical=True)
    return [*(Factor(name, truth[:, i]) for i, name in enumerate(("x", "y", "size"))), classes]


@pytest.fixture(scope="module")
def perfect(truth: np.ndarray, factors: list[Factor]) -> np.ndarray:
    """Each factor in a latent of its own, scaled, flipped and permuted; four more latents are all but dead."""
    own = np.column_stack([truth[:, :3], factors[3].values]) * [2.0, -1.0, 0.5, 1.0]
    dead = np.random.default_rng(1).normal(0, 0.001, (SAMPLES, 4))
    return np.column_stack([dead[:, :2], own[:, [2, 0, 3, 1]], dead[:, 2:]])


def test_perfect_codes_score_one(perfect: np.ndarray, factors: list[Factor]) -> None:
    heard: list[str] = []
    scores = disentanglement_scores(perfect, factors, progress=heard.append)
    assert scores.dci.disentanglement > 0.95
    assert scores.dci.completeness > 0.95
    assert scores.dci.informativeness > 0.98
    assert scores.mig > 0.85  # ten bins of a factor do not fall on twenty bins of a latent
    assert scores.sap > 0.6  # of four classes in a row, a linear machine on one latent can't tell the middle ones
    assert scores.factor_vae > 0.99
    assert scores.infomec.modularity > 0.95
    assert scores.infomec.compactness > 0.9
    assert scores.infomec.active.tolist() == [False, False, True, True, True, True, False, False]
    assert heard == ["DCI", "MIG", "SAP", "FactorVAE", "InfoMEC"]
    assert scores.dci.importance[:, 0].argmax() == 3  # x is in the fourth latent


def test_an_angle_has_no_jump_where_it_begins_again() -> None:
    """A code that holds the angle as a point on a circle, which says nothing of where zero is."""
    turns = np.random.default_rng(0).uniform(0, 1, SAMPLES)
    circle = np.column_stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)])
    for zero in (0.0, 0.3):
        angle = Factor("hue", (turns + zero) % 1, period=1.0)
        scores = dci(circle, [angle])
        assert scores.by_factor["hue"] > 0.99
        np.testing.assert_allclose(scores.importance[:, 0], 0.5, atol=0.1)
        assert separated_attribute_predictability(circle, [angle]) < 0.05, "both halves say as much"
    noisy = circle + np.random.default_rng(1).normal(0, 0.15, circle.shape)
    of_angle, of_line = (dci(noisy, [Factor("hue", turns, period=period)]).by_factor["hue"] for period in (1.0, None))
    assert of_angle > 0.9
    assert of_line < of_angle - 0.05, "whatever lies around zero is mistaken for the other end"


def test_a_value_that_nearly_all_share_is_left_out(perfect: np.ndarray, factors: list[Factor]) -> None:
    rare = np.zeros(SAMPLES)
    rare[:30] = np.linspace(1, 2, 30)
    # One part of a split has nothing of a class of one sample: a classifier can't be fitted to the other class alone.
    handle = Factor("handle", np.arange(SAMPLES) == 7, categorical=True)
    scores = disentanglement_scores(perfect, [*factors, Factor("lid", rare), handle])
    assert scores.constant == ("lid", "handle")
    assert scores.factors == tuple(factor.name for factor in factors)


def test_explicitness_of_a_linear_code_is_one() -> None:
    classes = np.random.default_rng(0).integers(0, 2, 600)
    codes = np.column_stack([classes * 2.0 - 1, np.random.default_rng(1).normal(size=600)])
    assert infomec(codes, [Factor("side", classes, categorical=True)]).explicitness > 0.99


def test_random_codes_score_nothing(factors: list[Factor]) -> None:
    codes = np.random.default_rng(2).normal(size=(SAMPLES, 8))
    scores = disentanglement_scores(codes, factors)
    assert scores.dci.disentanglement < 0.15
    assert scores.dci.completeness < 0.15
    assert scores.dci.informativeness < 0.1  # R2 of 0 three times, chance among five classes once
    assert scores.mig < 0.03
    assert scores.sap < 0.05
    assert scores.factor_vae < 0.4  # one in four is chance
    assert scores.infomec.explicitness < 0.05


def test_rotated_codes_are_informative_but_not_disentangled(truth: np.ndarray, factors: list[Factor]) -> None:
    """Every rotation of independent factors holds the same information; only the axes tell."""
    mixed = truth @ (np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2)
    straight, rotated = dci(truth, factors), dci(mixed, factors)
    assert straight.disentanglement > 0.95
    assert rotated.disentanglement < 0.15
    assert rotated.completeness < 0.15
    assert rotated.informativeness > 0.7
    assert mutual_information_gap(mixed, factors) < 0.05
    assert separated_attribute_predictability(mixed, factors) < 0.1
    straight_info, rotated_info = infomec(truth, factors), infomec(mixed, factors)
    assert straight_info.modularity > 0.95 > 0.2 > rotated_info.modularity
    assert straight_info.compactness > 0.95 > 0.2 > rotated_info.compactness
    assert rotated_info.explicitness == pytest.approx(straight_info.explicitness, abs=0.02)


def test_any_rotation_lowers_the_scores(truth: np.ndarray, factors: list[Factor]) -> None:
    for seed in range(3):
        mixed = truth @ ortho_group.rvs(FACTORS, random_state=seed)
        assert mutual_information_gap(mixed, factors) < 0.6 * mutual_information_gap(truth, factors)
        assert infomec(mixed, factors).modularity < infomec(truth, factors).modularity


def test_unknown_values_and_constant_factors_are_left_out(perfect: np.ndarray, factors: list[Factor]) -> None:
    hidden = np.random.default_rng(3).random(SAMPLES) < 0.3
    x = np.where(hidden, np.nan, factors[0].values.astype(float))
    shape = np.where(hidden, -1, factors[3].values)
    holed = [Factor("x", x), factors[1], Factor("colour", np.zeros(SAMPLES)), Factor("shape", shape, categorical=True)]
    scores = disentanglement_scores(perfect, holed)
    assert scores.factors == ("x", "y", "shape")
    assert scores.constant == ("colour",)
    assert scores.dci.disentanglement > 0.95
    assert scores.factor_vae > 0.99


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(SAMPLES), "no factor takes more than one value"),
        (np.arange(SAMPLES - 1.0), "1499 values for 1500 codes"),
        (np.where(np.arange(SAMPLES) < 50, np.arange(SAMPLES), np.nan), "known for 50 samples"),
    ],
)
def test_bad_input_is_named(perfect: np.ndarray, values: np.ndarray, message: str) -> None:
    with pytest.raises(DisentanglementError, match=message):
        disentanglement_scores(perfect, [Factor("x", values)])


def test_agrees_with_a_public_implementation(truth: np.ndarray) -> None:
    """`disent` (Michlo 2021, after Locatello et al. 2019) gives the same DCI, MIG and SAP of classes."""
    pytest.importorskip("disent", reason="pip install disent to compare with it")
    from disent.metrics import _dci, _mig, _sap

    random = np.random.default_rng(4)
    half = truth.copy()
    half[:, 0] += truth[:, 1]  # neither disentangled nor not
    codes = np.column_stack([half, random.normal(size=(SAMPLES, 2))]) + random.normal(0, 0.1, (SAMPLES, 6))
    classes = np.digitize(truth, [-0.5, 0.2, 0.5])
    factors = [Factor(f"f{i}", classes[:, i], categorical=True) for i in range(FACTORS)]

    theirs = _mig._compute_mig(codes.T.copy(), classes.T)["mig.discrete_score"]
    assert mutual_information_gap(codes, factors) == pytest.approx(theirs, abs=0.01)

    ours = dci(codes, factors)
    assert ours.disentanglement == pytest.approx(_dci._disentanglement(ours.importance), abs=1e-6)
    assert ours.completeness == pytest.approx(_dci._completeness(ours.importance), abs=1e-6)
    cut = SAMPLES * 2 // 3
    parts = codes[:cut].T, classes[:cut].T, codes[cut:].T, classes[cut:].T
    whole = _dci._compute_dci(*parts)
    assert ours.disentanglement == pytest.approx(whole["dci.disentanglement"], abs=0.05)
    assert ours.completeness == pytest.approx(whole["dci.completeness"], abs=0.05)
    assert ours.informativeness == pytest.approx(whole["dci.informativeness_test"], abs=0.05)
    sap = _sap._compute_sap(*parts, continuous_factors=False)["sap.score"]
    assert separated_attribute_predictability(codes, factors) == pytest.approx(sap, abs=0.05)
    continuous = [Factor(f"f{i}", truth[:, i]) for i in range(FACTORS)]
    exact = _sap._compute_sap(codes.T, truth.T, codes.T, truth.T, continuous_factors=True)["sap.score"]
    assert separated_attribute_predictability(codes, continuous) == pytest.approx(exact, abs=1e-9)


def test_factor_vae_counts_a_dead_code_as_nothing(factors: list[Factor]) -> None:
    assert factor_vae_score(np.zeros((SAMPLES, 3)), factors) == 0.0
