"""The ratio of two attacks' rates: against resamples written out, and by false alarms and misses over fixed seeds."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.statistics import tpr_at_fpr, tpr_ratio
from privet.statistics.area import drawn_rows
from privet.statistics.paired import _resampled_rates

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def attacks(experiment: int, size: int, shifts: tuple[float, float], shared: float = 0.5) -> tuple[Pair, Pair]:
    """Two attacks on the same records, whose scores share so much of their variance."""
    generator = np.random.default_rng(experiment)
    common = generator.normal(size=(2, size)) * np.sqrt(shared)
    scores = common + generator.normal(size=(2, 2, size)) * np.sqrt(1.0 - shared)  # (attack, member or not, size)
    return (scores[0, 0] + shifts[0], scores[0, 1]), (scores[1, 0] + shifts[1], scores[1, 1])


@pytest.mark.parametrize("tied", [False, True])
def test_resampled_rates_are_those_of_the_drawn_records(tied: bool) -> None:
    first, second = attacks(0, 60, (1.0, 0.5))
    if tied:
        first, second = (np.round(first[0]), np.round(first[1])), (np.round(second[0]), np.round(second[1]))
    ours = _resampled_rates(first, second, 6, 25, np.random.default_rng(4))
    again = np.random.default_rng(4)
    members, non_members = drawn_rows(60, 25, again), drawn_rows(60, 25, again)
    for attack, rates in zip((first, second), ours, strict=True):
        expected = [
            tpr_at_fpr(attack[0][m], attack[1][n], 0.1).tpr.value for m, n in zip(members, non_members, strict=True)
        ]
        assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("confidence", "beyond"), [(0.95, 25), (0.9, 50)])
def test_the_stated_share_of_resamples_lies_beyond_each_end(confidence: float, beyond: int) -> None:
    first, second = attacks(0, 400, (2.0, 1.0))
    ratio = tpr_ratio(first, second, 0.05, seed=3, confidence=confidence)
    above, below = _resampled_rates(first, second, 20, 1_000, np.random.default_rng(3))
    ratios = above / below
    assert np.count_nonzero(ratios < ratio.low) <= beyond <= np.count_nonzero(ratios <= ratio.low) + 1
    assert np.count_nonzero(ratios > ratio.high) <= beyond <= np.count_nonzero(ratios >= ratio.high) + 1


def test_the_value_is_the_ratio_of_the_rates() -> None:
    first, second = attacks(0, 400, (2.0, 1.0))
    rates = [tpr_at_fpr(*attack, 0.05).tpr.value for attack in (first, second)]
    ours = tpr_ratio(first, second, 0.05, seed=0)
    assert ours.value == pytest.approx(rates[0] / rates[1])
    assert ours.n == 400
    assert ours == tpr_ratio(first, second, 0.05, seed=0) != tpr_ratio(first, second, 0.05, seed=1)


@pytest.mark.parametrize(("size", "fpr", "shift"), [(150, 0.1, 1.0), (150, 0.02, 2.0), (150, 0.02, 0.0)])
def test_equal_attacks_are_not_told_apart(size: int, fpr: float, shift: float) -> None:
    """1,000 null runs: at most 7.1% in which one of two equal attacks is called better; each end is nominally 2.5%."""
    better = halved = 0
    for experiment in range(1_000):
        ratio = tpr_ratio(*attacks(experiment, size, (shift, shift)), fpr, seed=experiment, resamples=400)
        better += ratio.low > 1.0
        halved += ratio.value > 1.0 and (ratio.low * ratio.value**3) ** 0.25 > 1.0
    assert better <= 71
    assert halved > 71  # an end a quarter as far away, on the log scale, is rejected


def test_the_lower_end_lies_below_the_true_ratio() -> None:
    """300 draws at 2.5%: more than 20 misses have probability below 1e-4; an end half as far away has more."""
    misses = near = 0
    truth = norm.sf(norm.isf(0.05) - 1.5) / norm.sf(norm.isf(0.05) - 0.5)
    for experiment in range(300):
        ratio = tpr_ratio(*attacks(experiment, 200, (1.5, 0.5)), 0.05, seed=experiment, resamples=400)
        misses += ratio.low > truth
        near += (ratio.low * ratio.value) ** 0.5 > truth
    assert misses <= 20
    assert near > 20


def test_scores_of_the_same_records_are_drawn_together() -> None:
    """Attacks that agree on every record have the ratio 1 in every resample; drawn apart they would not."""
    first, _ = attacks(0, 300, (1.0, 1.0))
    same = tpr_ratio(first, (3.0 * first[0], 3.0 * first[1]), 0.05, seed=0)
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
    close, apart = (tpr_ratio(*attacks(1, 500, (1.0, 1.0), shared), 0.1, seed=0) for shared in (0.95, 0.0))
    assert np.log(close.high / close.low) < 0.75 * np.log(apart.high / apart.low)


def test_an_attack_that_finds_nobody_is_taken_to_have_found_one() -> None:
    some = (np.arange(100.0), np.linspace(-50.0, 50.0, 100))
    nobody = (np.zeros(100), np.arange(100.0))
    none_found = tpr_ratio(nobody, nobody, 0.01, seed=0)
    assert (none_found.low, none_found.value, none_found.high) == (0.0, 0.0, np.inf)
    ratio = tpr_ratio(some, nobody, 0.01, seed=0)
    found = tpr_at_fpr(*some, 0.01).tpr.value
    assert ratio.value == pytest.approx(100 * found)
    assert 0.5 * ratio.value < ratio.low <= ratio.value < ratio.high == np.inf
    assert tpr_ratio(nobody, some, 0.01, seed=0).low == 0.0


def test_what_cannot_be_compared_is_refused() -> None:
    first, second = attacks(0, 100, (1.0, 1.0))
    with pytest.raises(DataError, match="a has scores of 100 members and 100 non-members, b of 99 and 100"):
        tpr_ratio(first, (second[0][1:], second[1]), 0.1, seed=0)
    with pytest.raises(DataError, match=r"b: member scores.*NaN"):
        tpr_ratio(first, (np.full(100, np.nan), second[1]), 0.1, seed=0)
    with pytest.raises(SampleTooSmallError, match="100 non-members"):
        tpr_ratio(first, second, 0.001, seed=0)
    with pytest.raises(SampleTooSmallError, match="9 members"):
        tpr_ratio((first[0][:9], first[1]), (second[0][:9], second[1]), 0.1, seed=0)
    with pytest.raises(ArgumentError, match=r"resamples = 1000 .* at least 2,000"):
        tpr_ratio(first, second, 0.1, seed=0, confidence=0.99)
    with pytest.raises(ArgumentError, match="fpr"):
        tpr_ratio(first, second, 0.0, seed=0)
    with pytest.raises(ArgumentError, match="seed"):
        tpr_ratio(first, second, 0.1, seed=-1)
