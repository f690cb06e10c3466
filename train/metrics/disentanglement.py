"""Disentanglement scores of codes whose ground-truth factors are known: DCI, MIG, SAP, FactorVAE and InfoMEC.

All of them ask whether each latent says something about one factor and each factor is said by one latent. Continuous
factors are cut into bins of equal population where a score needs classes. The settings follow Locatello et al. (2019)
and, for InfoMEC, Hsu et al. (2023), so that the figures compare with published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

Floats = NDArray[np.float64]
BINS_OF_LATENTS = 20  # Locatello et al. 2019, for MIG
BINS_OF_FACTORS = 10
TRAINING_VOTES = 10_000  # Locatello et al. 2019, for the majority vote of the FactorVAE score
EVALUATION_VOTES = 5_000
SAMPLES_OF_A_VOTE = 64
MIN_SAMPLES = 100
MIN_UNCOMMON = 10  # samples beside a factor's commonest class: fewer may all fall on one side of the split, two to one
ACTIVE_RANGE = 1 / 20  # Hsu et al. 2023: a latent whose range is below this share of the widest one is inactive


class DisentanglementError(ValueError):
    """Codes and factors from which no score can be computed; the message says why."""


@dataclass(frozen=True)
class Factor:
    """One ground-truth factor of N samples.

    Attributes:
        values: [N]; class numbers of a categorical factor (-1: unknown), else real values (NaN: unknown).
        period: after which an angle begins again; None: no angle.
    """

    name: str
    values: NDArray[np.generic]
    categorical: bool = False
    period: float | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """[N], where the factor has a value."""
        values = self.values.astype(np.float64)
        return values >= 0 if self.categorical else np.isfinite(values)

    @property
    def targets(self) -> list[NDArray[np.generic]]:
        """What a regression predicts, each [N]: the values, or an angle's sine and cosine, which have no jump."""
        if self.period is None:
            return [self.values]
        angle = 2 * np.pi * self.values.astype(np.float64) / self.period
        return [np.sin(angle), np.cos(angle)]

    def classes(self) -> NDArray[np.int64]:
        """[N] class of each sample: its category, or one of ten bins of about equal population."""
        if self.categorical:
            return self.values.astype(np.int64)
        values = self.values.astype(np.float64)
        distinct = np.unique(values[self.known])
        if len(distinct) <= BINS_OF_FACTORS:
            return np.searchsorted(distinct, values).astype(np.int64)
        edges = np.quantile(values[self.known], np.linspace(0, 1, BINS_OF_FACTORS + 1)[1:-1])
        return np.digitize(values, np.unique(edges)).astype(np.int64)


@dataclass(frozen=True)
class Dci:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018), each in [0, 1]."""

    disentanglement: float
    completeness: float
    informativeness: float
    """Mean over factors of the held-out R2 (continuous, 0 at least; an angle's is that of sine and cosine) or accuracy
    (categorical)."""
    importance: Floats
    """[L, F], how much each latent matters to the prediction of each factor; columns sum to one."""
    by_factor: dict[str, float]


@dataclass(frozen=True)
class InfoMec:
    """InfoMEC (Hsu et al. 2023): modularity, explicitness and compactness."""

    modularity: float
    explicitness: float
    compactness: float
    mutual_information: Floats
    """[L, F], I(z; s) / H(s)."""
    active: NDArray[np.bool_]
    """[L], latents that vary enough to be scored."""


@dataclass(frozen=True)
class Disentanglement:
    """Every score of one set of codes."""

    samples: int
    factors: tuple[str, ...]
    constant: tuple[str, ...]
    """Factors with a single known value, or nearly so, which nothing can be said about."""
    dci: Dci
    mig: float
    sap: float
    factor_vae: float
    """In [0, 1]; codes that know nothing score about one over the number of factors."""
    infomec: InfoMec


def disentanglement_scores(
    codes: NDArray[np.floating],
    factors: Sequence[Factor],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Disentanglement:
    """All scores.

    Args:
        codes: [N, L] latent means.
        factors: ground truth of the same N samples; those that hardly vary are left out.
        seed: of splits, trees and votes.
        progress: told the name of each score before it is computed.
    Raises:
        DisentanglementError: no factor varies enough, or there are too few samples.
    """
    exact = codes.astype(np.float64)
    varying = [factor for factor in factors if _varies(factor)]
    _check(exact, varying)

    def announced[T](name: str, score: Callable[[], T]) -> T:
        progress(name)
        return score()

    return Disentanglement(
        samples=len(codes),
        factors=tuple(factor.name for factor in varying),
        constant=tuple(factor.name for factor in factors if not _varies(factor)),
        dci=announced("DCI", lambda: dci(exact, varying, seed=seed)),
        mig=announced("MIG", lambda: mutual_information_gap(exact, varying)),
        sap=announced("SAP", lambda: separated_attribute_predictability(exact, varying, seed=seed)),
        factor_vae=announced("FactorVAE", lambda: factor_vae_score(exact, varying, seed=seed)),
        infomec=announced("InfoMEC", lambda: infomec(exact, varying, seed=seed)),
    )


def dci(codes: Floats, factors: Sequence[Factor], *, seed: int = 0) -> Dci:
    """DCI from gradient boosted trees (Eastwood and Williams 2018; trees as in Locatello et al. 2019).

    A latent's disentanglement is one minus the entropy of its importance over factors; a factor's completeness is one
    minus the entropy of its importance over latents; both are weighted by their share of the whole importance.

    Args:
        codes: [N, L], finite.
        factors: of the same N samples, each with ten or more beside its commonest class; others are left out by
            `disentanglement_scores`.
        seed: of the split, two thirds to one, and of the trees.
    Raises:
        ValueError: a factor has too few known samples to be divided, or a part of them holds one category alone.
    """
    importance = np.zeros((codes.shape[1], len(factors)))
    quality: dict[str, float] = {}
    for column, factor in enumerate(factors):
        scores = []
        for target in factor.targets:
            model = (GradientBoostingClassifier if factor.categorical else GradientBoostingRegressor)(random_state=seed)
            train_x, test_x, train_y, test_y = _split(codes, factor, target, seed)
            model.fit(train_x, train_y)
            importance[:, column] += model.feature_importances_ / len(factor.targets)
            scores.append(float(model.score(test_x, test_y)))
        quality[factor.name] = max(0.0, float(np.mean(scores)))
    return Dci(
        disentanglement=_concentration(importance),
        completeness=_concentration(importance.T),
        informativeness=float(np.mean(list(quality.values()))),
        importance=importance,
        by_factor=quality,
    )


def mutual_information_gap(codes: Floats, factors: Sequence[Factor]) -> float:
    """MIG (Chen et al. 2018): how much more the best latent knows of a factor than the second best, over its entropy.

    The mutual information is that of histograms with 20 bins a latent (Locatello et al. 2019).

    Args: as `dci`.
    Returns:
        Mean over factors, in [0, 1].
    Raises:
        ZeroDivisionError: a factor has one class alone.
    """
    gaps = []
    for factor in factors:
        classes = factor.classes()[factor.known]
        information = [mutual_info_score(_histogram_bins(code), classes) for code in codes[factor.known].T]
        second, first = _top_two(np.array(information))
        gaps.append((first - second) / mutual_info_score(classes, classes))
    return float(np.mean(gaps))


def separated_attribute_predictability(codes: Floats, factors: Sequence[Factor], *, seed: int = 0) -> float:
    """SAP (Kumar et al. 2018): how much better the best single latent predicts a factor than the second best.

    Predicts by a line (R2) for continuous factors, sine and cosine for angles, and by a linear support vector machine
    (held-out accuracy) for classes.

    Args: as `dci`.
    Returns:
        Mean over factors, in [0, 1].
    Raises:
        ValueError: as `dci`.
    """
    gaps = []
    for factor in factors:
        second, first = _top_two(np.array([_predictability(code, factor, seed) for code in codes.T]))
        gaps.append(first - second)
    return float(np.mean(gaps))


def factor_vae_score(codes: Floats, factors: Sequence[Factor], *, seed: int = 0) -> float:
    """FactorVAE score (Kim and Mnih 2018): can the fixed factor be told from the latent that varies least?

    Groups of samples that share a factor's class are drawn from the data, since nothing new can be rendered here.

    Args: as `dci`; the seed is that of the votes.
    Returns:
        In [0, 1]; 0 where no latent varies.
    """
    random = np.random.default_rng(seed)
    variance = codes.var(axis=0, ddof=1)
    alive = variance > 0
    if not alive.any():
        return 0.0
    normalised = codes[:, alive] / np.sqrt(variance[alive])
    training, evaluation = (_votes(normalised, factors, n, random) for n in (TRAINING_VOTES, EVALUATION_VOTES))
    winner = training.argmax(axis=1)
    return float(evaluation[np.arange(len(winner)), winner].sum() / evaluation.sum())


def infomec(codes: Floats, factors: Sequence[Factor], *, seed: int = 0) -> InfoMec:
    """InfoM, InfoE and InfoC (Hsu et al. 2023, section 5).

    Mutual information is estimated with nearest neighbours between a continuous latent and a factor's classes.
    Modularity asks whether each active latent knows of one factor, compactness whether each factor is known to one
    active latent; 0 is what an even spread would score. Explicitness is the share of a factor's entropy that a linear
    classifier takes away. Where it is near 0, the other two are ratios of noise and say nothing.

    Args: as `dci`; the seed is that of the noise that breaks ties between neighbours.
    Raises:
        ValueError: a factor has one class alone, or none with two samples.
    """
    spread = codes.std(axis=0)
    scaled = (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1)
    information = np.stack([_normalised_information(scaled, factor, seed) for factor in factors], axis=1)
    ranges = np.ptp(codes, axis=0)
    active = (ranges > ranges.max() * ACTIVE_RANGE) & (ranges > 0)
    return InfoMec(
        modularity=_evenness_corrected(information[active]),
        explicitness=float(np.mean([_linear_information(scaled, factor) for factor in factors])),
        compactness=_evenness_corrected(information[active].T),
        mutual_information=information,
        active=active,
    )


def _varies(factor: Factor) -> bool:
    """Whether the scores have more than one class to tell apart: a value that nearly all share fills every bin."""
    _, samples = np.unique(factor.classes()[factor.known], return_counts=True)
    return int(samples.sum() - samples.max(initial=0)) >= MIN_UNCOMMON


def _check(codes: Floats, factors: Sequence[Factor]) -> None:
    if len(codes) < MIN_SAMPLES:
        raise DisentanglementError(
            f"{len(codes)} samples are too few; at least {MIN_SAMPLES} are needed to say anything"
        )
    if not factors:
        raise DisentanglementError(
            "no factor takes more than one value, a few samples aside: there is nothing to disentangle"
        )
    if not np.isfinite(codes).all():
        raise DisentanglementError("the codes hold NaN or infinity")
    for factor in factors:
        if len(factor.values) != len(codes):
            raise DisentanglementError(f"{factor.name} has {len(factor.values)} values for {len(codes)} codes")
        if factor.known.sum() < MIN_SAMPLES:
            raise DisentanglementError(
                f"{factor.name} is known for {factor.known.sum()} samples; at least {MIN_SAMPLES} are needed"
            )


def _split(codes: Floats, factor: Factor, target: NDArray[np.generic], seed: int) -> list[NDArray[np.generic]]:
    """train codes, test codes, train target, test target; two to one, as Locatello et al. (10,000 to 5,000)."""
    known = factor.known
    parts: list[NDArray[np.generic]] = train_test_split(codes[known], target[known], test_size=1 / 3, random_state=seed)
    return parts


def _concentration(importance: Floats) -> float:
    """One minus the entropy of each row, rows weighted by their sum."""
    total = importance.sum()
    if total == 0:
        return 0.0
    rows = importance.sum(axis=1)
    used = rows > 0
    base = max(importance.shape[1], 2)
    return float(np.sum((1 - entropy(importance[used], base=base, axis=1)) * rows[used]) / total)


def _histogram_bins(values: Floats) -> NDArray[np.int64]:
    edges = np.histogram_bin_edges(values, bins=BINS_OF_LATENTS)
    return np.digitize(values, edges[1:-1]).astype(np.int64)


def _top_two(values: Floats) -> tuple[float, float]:
    """Second best and best; a lone value's rival is 0."""
    best = np.sort(np.append(values, 0.0))[-2:]
    return float(best[0]), float(best[1])


def _predictability(code: Floats, factor: Factor, seed: int) -> float:
    known = factor.known
    if code[known].std() < 1e-6:  # says nothing; a line through it isn't defined
        if not factor.categorical:
            return 0.0
        return float(np.bincount(factor.values[known].astype(np.int64)).max() / known.sum())
    if not factor.categorical:
        targets = [target[known].astype(np.float64) for target in factor.targets]
        return float(np.mean([np.corrcoef(code[known], target)[0, 1] ** 2 for target in targets if np.ptp(target) > 0]))
    train_x, test_x, train_y, test_y = _split(code[:, None], factor, factor.values, seed)
    model = LinearSVC(C=0.01, class_weight="balanced", random_state=seed).fit(train_x, train_y)
    return float(model.score(test_x, test_y))


def _votes(normalised: Floats, factors: Sequence[Factor], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """[L, F], how often each latent varied least while each factor was fixed."""
    votes = np.zeros((normalised.shape[1], len(factors)), dtype=np.int64)
    for column, drawn in enumerate(random.multinomial(count, np.full(len(factors), 1 / len(factors)))):
        known = np.flatnonzero(factors[column].known)
        classes = factors[column].classes()[known]
        for label, times in zip(*np.unique(random.choice(classes, drawn), return_counts=True), strict=True):
            members = known[classes == label]
            if len(members) < 2:  # a variance needs two
                continue
            samples = normalised[random.choice(members, (times, SAMPLES_OF_A_VOTE))]
            votes[:, column] += np.bincount(samples.var(axis=1).argmin(axis=1), minlength=len(votes))
    return votes


def _normalised_information(scaled: Floats, factor: Factor, seed: int) -> Floats:
    classes = factor.classes()[factor.known]
    information = mutual_info_classif(scaled[factor.known], classes, n_neighbors=10, random_state=seed)
    return np.asarray(information / mutual_info_score(classes, classes))


def _evenness_corrected(information: Floats) -> float:
    """Mean over rows of the largest share, rescaled so that an even spread over the columns scores 0."""
    rows, columns = information.shape
    if rows == 0:
        return 0.0
    if columns == 1:  # a single partner can't be shared
        return 1.0
    total = information.sum(axis=1)
    share = np.divide(information.max(axis=1), total, out=np.full(rows, 1 / columns), where=total > 0)
    return float((share.mean() - 1 / columns) / (1 - 1 / columns))


def _linear_information(scaled: Floats, factor: Factor) -> float:
    """Share of the factor's entropy that a linear classifier of all latents removes, in [0, 1]."""
    classes = factor.classes()[factor.known]
    # Balanced, as the authors' code: otherwise a rare class is written off.
    model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=500)
    inputs = scaled[factor.known]
    conditional = log_loss(classes, model.fit(inputs, classes).predict_proba(inputs))
    marginal = log_loss(classes, model.fit(np.zeros_like(inputs), classes).predict_proba(np.zeros_like(inputs)))
    return float(max(0.0, 1 - conditional / marginal))
