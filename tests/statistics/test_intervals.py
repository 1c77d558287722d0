"""Intervals: against independent formulas, and by their coverage over many fixed-seed draws.

Each coverage test draws 2,000 experiments with a nominal error of 5%; at the true coverage of 95% the count of misses
exceeds 138 (6.9%) with probability below 1e-4. The same counts must reject an interval that is too narrow.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.statistics import Estimate, auc_interval, clopper_pearson, roc_curve, tpr_at_fpr
from privet.statistics.area import _resampled_areas, drawn_rows, logit_ends

EXPERIMENTS, ALLOWED_MISSES = 2_000, 138


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_clopper_pearson_equals_an_independent_form(counts: tuple[int, int], confidence: float) -> None:
    successes, trials = counts
    theirs = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    ours = clopper_pearson(successes, trials, confidence)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))


def order_statistic_misses(shrink: float, ties: bool) -> int:
    """How often the true rate of the threshold lies above the upper end (one-sided 2.5%)."""
    misses = 0
    for experiment in range(EXPERIMENTS):
        draws = np.random.default_rng(experiment).normal(size=300)
        scores = np.round(draws, 1) if ties else draws
        result = tpr_at_fpr([0.0], scores, 0.05)
        edge = result.threshold + (0.05 if ties else 0.0)  # a rounded score is above where its draw is above the edge
        misses += float(norm.sf(edge)) > result.fpr.value + shrink * (result.fpr.high - result.fpr.value)
    return misses


@pytest.mark.parametrize("ties", [False, True])
def test_the_upper_end_of_the_realised_rate_covers(ties: bool) -> None:
    assert order_statistic_misses(1.0, ties) <= ALLOWED_MISSES / 2 + 10
    assert order_statistic_misses(0.5, False) > ALLOWED_MISSES


def test_the_interval_of_the_true_positive_rate_covers() -> None:
    misses = 0
    for experiment in range(EXPERIMENTS):
        generator = np.random.default_rng(experiment)
        result = tpr_at_fpr(generator.normal(1.0, size=200), generator.normal(size=200), 0.05)
        misses += not result.tpr.low <= norm.sf(result.threshold - 1.0) <= result.tpr.high
    assert misses <= ALLOWED_MISSES


def test_counts_are_of_records_strictly_above_the_threshold() -> None:
    result = tpr_at_fpr([4.0, 3.0, 3.0, 9.0], [1.0, 2.0, 3.0, 3.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.2)
    assert result.threshold == 3.0
    assert (result.tpr.value, result.fpr.value) == (0.5, 0.1)
    assert result.coarse
    assert result.reached
    assert not tpr_at_fpr([1.0, 0.0], [1.0] * 9 + [0.0], 0.2).reached


def test_a_rate_that_the_sample_cannot_show_is_refused() -> None:
    with pytest.raises(SampleTooSmallError, match=r"999 non-members.*at least 1,000"):
        tpr_at_fpr([0.0], np.arange(999.0), 0.001)
    assert tpr_at_fpr([0.0], np.arange(1_000.0), 0.001).fpr.value == 0.001


@given(
    st.lists(st.integers(0, 4).map(float), min_size=10, max_size=20),
    st.lists(st.integers(0, 4).map(float), min_size=10, max_size=20),
)
def test_auc_value_is_that_of_the_curve(members: list[float], non_members: list[float]) -> None:
    estimate = auc_interval(members, non_members, seed=0, resamples=100)
    assert estimate.value == pytest.approx(roc_curve(members, non_members).auc, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3])
def test_resampled_areas_are_those_of_the_drawn_records(levels: int | None) -> None:
    generator = np.random.default_rng(3)
    members, non_members = generator.normal(0.5, size=12), np.sort(generator.normal(size=17))
    if levels:
        members, non_members = np.round(members), np.round(non_members)
    below, not_above = (np.searchsorted(non_members, members, side) for side in ("left", "right"))
    areas = _resampled_areas(below, not_above, 17, 30, np.random.default_rng(1))
    again = np.random.default_rng(1)
    drawn_members, drawn = drawn_rows(12, 30, again), drawn_rows(17, 30, again)
    expected = [roc_curve(members[m], non_members[n]).auc for m, n in zip(drawn_members, drawn, strict=True)]
    assert areas == pytest.approx(expected, abs=1e-12)


def test_draws_reach_every_record_and_are_even() -> None:
    for size in (10, 70_000):  # the second needs more than 16 bits
        drawn = drawn_rows(size, 20, np.random.default_rng(0))
        assert (drawn.min(), drawn.max()) == (0, size - 1) or size == 70_000
        assert drawn.max() > 0.99 * (size - 1)
        assert abs(drawn.mean() - (size - 1) / 2) < 5 * size / np.sqrt(12 * drawn.size)


def test_an_end_beyond_the_resamples_is_that_of_a_normal_deviate() -> None:
    resampled = expit(np.random.default_rng(0).normal(1.0, 0.2, 1_000))
    for tail in (0.025, 0.0005, 0.00005):
        low, high = logit_ends(resampled, float(expit(1.0)), tail, 1e-6)
        assert logit(low) == pytest.approx(1.0 + 0.2 * norm.ppf(tail), abs=0.12)
        assert logit(high) == pytest.approx(1.0 - 0.2 * norm.ppf(tail), abs=0.12)
    assert low < resampled.min()
    assert high > resampled.max()


@pytest.mark.parametrize("levels", [None, 8])
def test_the_interval_of_the_area_covers(levels: int | None) -> None:
    truth, misses, narrow, experiments = float(norm.cdf(0.5 / np.sqrt(2))), 0, 0, 400
    if levels:
        cut = np.round(np.random.default_rng(0).normal([[0.5], [0.0]], size=(2, 1_000_000)))
        truth = roc_curve(*cut).auc
    for experiment in range(experiments):
        generator = np.random.default_rng(experiment)
        members, non_members = generator.normal(0.5, size=150), generator.normal(size=100)
        if levels:
            members, non_members = np.round(members), np.round(non_members)
        estimate = auc_interval(members, non_members, seed=experiment, resamples=200)
        misses += not estimate.low <= truth <= estimate.high
        half = (estimate.high - estimate.low) / 4
        narrow += abs(estimate.value - truth) > half
    # 400 draws at 5%: more than 40 misses has probability below 1e-5 at nominal; a halved interval misses a third.
    assert misses <= 40
    assert narrow > 80


@pytest.mark.parametrize(
    ("members", "non_members", "shift", "cut"),
    [(10, 10, 1.0, None), (20, 20, 2.5, None), (30, 1_000, 2.0, None), (50, 50, 2.05, 0.0)],
)
def test_the_interval_of_the_area_covers_where_the_bootstrap_alone_does_not(
    members: int, non_members: int, shift: float, cut: float | None
) -> None:
    """Few records, areas near 1, and answers of right or wrong alone; 400 draws, limits as above."""
    truth = float(norm.cdf(shift / np.sqrt(2)))
    if cut is not None:
        truth = 0.5 + (norm.cdf(shift - cut) - norm.cdf(-cut)) / 2
    misses = 0
    for experiment in range(400):
        generator = np.random.default_rng(experiment)
        high, low = generator.normal(shift, size=members), generator.normal(size=non_members)
        if cut is not None:
            high, low = (high > cut).astype(float), (low > cut).astype(float)
        estimate = auc_interval(high, low, seed=experiment, resamples=200)
        misses += not estimate.low <= truth <= estimate.high
    assert misses <= 40


def test_no_interval_has_width_zero() -> None:
    tied = auc_interval([1.0] * 20, [1.0] * 20, seed=0)
    assert tied.low < 0.5 < tied.high


def test_perfect_separation_still_has_a_width() -> None:
    estimate = auc_interval([2.0] * 20, [1.0] * 30, seed=0)
    assert estimate.value == estimate.high == 1.0
    assert estimate.low == pytest.approx(0.025 ** (1 / 20))
    assert auc_interval([1.0] * 20, [2.0] * 30, seed=0).low == 0.0


def test_same_seed_same_interval() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 50))
    assert auc_interval(*scores, seed=1) == auc_interval(*scores, seed=1)
    assert auc_interval(*scores, seed=1) != auc_interval(*scores, seed=2)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match="successes = 5"):
        clopper_pearson(5, 4)
    with pytest.raises(ArgumentError, match="trials"):
        clopper_pearson(0, 0)
    with pytest.raises(ArgumentError, match="confidence"):
        clopper_pearson(1, 2, 1.0)
    for resamples in (10, 1e3, True):
        with pytest.raises(ArgumentError, match="resamples"):
            auc_interval([1.0], [0.0], seed=0, resamples=resamples)  # type: ignore[arg-type]
    for seed in (-1, 1.5, None):
        with pytest.raises(ArgumentError, match="seed"):
            auc_interval([1.0], [0.0], seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="seed"):
        auc_interval([1.0], [0.0], seed=-1)
    with pytest.raises(SampleTooSmallError, match="9 members and 50 non-members"):
        auc_interval([1.0] * 9, [0.0] * 50, seed=0)
    with pytest.raises(ArgumentError, match="successes"):
        clopper_pearson(2.5, 10)
    with pytest.raises(ArgumentError, match="fpr"):
        tpr_at_fpr([1.0], [0.0], 0.0)
    with pytest.raises(DataError, match="NaN"):
        tpr_at_fpr([1.0], [float("nan")], 0.1)
    with pytest.raises(ArgumentError, match="low <= value <= high"):
        Estimate(0.5, 0.6, 0.7, 0.95, 10)
    with pytest.raises(ArgumentError, match="not NaN"):
        Estimate(float("nan"), 0.6, 0.7, 0.95, 10)
    with pytest.raises(ArgumentError, match="n = 0"):
        Estimate(0.6, 0.6, 0.7, 0.95, 0)
