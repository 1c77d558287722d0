"""1,000 null runs of every finding: at most 7.1% false alarms (nominal 5% and three standard errors).

Members and non-members are drawn alike: whatever is found is false. Each law is also held against the fault that
it exists to catch, which must find far more. The pooled and the paired findings have theirs in test_pooled.py and
test_paired.py, the one of a single run in test_one_run.py.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from privet.statistics import auc_interval, clopper_pearson, roc_curve, tpr_at_fpr

RUNS, ALLOWED = 1_000, 71
Floats = NDArray[np.float64]


def continuous(generator: np.random.Generator, size: int) -> Floats:
    return generator.normal(size=size)


def rounded(generator: np.random.Generator, size: int) -> Floats:
    return np.round(generator.normal(size=size))


def right_or_wrong(generator: np.random.Generator, size: int) -> Floats:
    return (generator.random(size) < 0.9).astype(np.float64)


def heavy(generator: np.random.Generator, size: int) -> Floats:
    return generator.standard_cauchy(size)


DRAWS = [continuous, rounded, right_or_wrong, heavy]


def false_alarms(
    draw: Callable[[np.random.Generator, int], Floats],
    members: int,
    non_members: int,
    finds: Callable[[Floats, Floats, int], bool],
    runs: int = RUNS,
) -> int:
    """In how many of ``runs`` null runs something is found."""
    alarms = 0
    for run in range(runs):
        generator = np.random.default_rng([7, run])
        alarms += finds(draw(generator, members), draw(generator, non_members), run)
    return alarms


def area_off_half(members: Floats, non_members: Floats, run: int) -> bool:
    area = auc_interval(members, non_members, seed=run, resamples=100)
    return not area.low <= 0.5 <= area.high


def rate_found(members: Floats, non_members: Floats, run: int) -> bool:
    rate = tpr_at_fpr(members, non_members, 0.05)
    return rate.tpr.low > rate.fpr.high


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("sizes", [(60, 60), (25, 200)])
def test_the_area_is_not_off_one_half(draw: Callable[..., Floats], sizes: tuple[int, int]) -> None:
    assert false_alarms(draw, *sizes, area_off_half) <= ALLOWED


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("sizes", [(100, 100), (1_000, 20), (50, 600)])
def test_no_rate_lies_above_its_false_positives(draw: Callable[..., Floats], sizes: tuple[int, int]) -> None:
    assert false_alarms(draw, *sizes, rate_found) <= ALLOWED


def test_ties_sorted_in_favour_would_be_found_out() -> None:
    """The fault: of records with one score, members are taken first."""

    def favoured(members: Floats, non_members: Floats, run: int) -> bool:
        return area_off_half(members + 1e-6, non_members, run)

    assert false_alarms(rounded, 60, 60, favoured) > 5 * ALLOWED
    assert false_alarms(right_or_wrong, 60, 60, favoured) > 5 * ALLOWED


def test_a_threshold_tuned_on_the_judged_records_would_be_found_out() -> None:
    """The fault: of all thresholds the one is taken that shows most, and judged by the records that it was taken on."""

    def tuned(members: Floats, non_members: Floats, run: int) -> bool:
        curve = roc_curve(members, non_members)
        gap = curve.true_positive_rates - curve.false_positive_rates
        best = int(np.argmax(gap / np.sqrt(curve.false_positive_rates * (1 - curve.false_positive_rates) + 0.01)))
        found = clopper_pearson(round(float(curve.true_positive_rates[best]) * members.size), members.size)
        return found.low > curve.false_positive_rates[best]

    def one_threshold(members: Floats, non_members: Floats, run: int) -> bool:
        return clopper_pearson(int((members > 1.0).sum()), members.size).low > 0.15865525393145707

    assert false_alarms(continuous, 100, 100, one_threshold) <= ALLOWED
    assert false_alarms(continuous, 100, 100, tuned) > 2 * ALLOWED


def test_an_interval_too_narrow_would_be_found_out() -> None:
    def narrow(members: Floats, non_members: Floats, run: int) -> bool:
        area = auc_interval(members, non_members, seed=run, resamples=100)
        return not (area.low + area.value) / 2 <= 0.5 <= (area.high + area.value) / 2

    assert false_alarms(continuous, 60, 60, narrow) > 2 * ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWS)
def test_nothing_is_found_among_many_records(draw: Callable[..., Floats]) -> None:
    """2,000 and 2,000 records, as audits have them, at the confidences of corrections over many attacks."""

    def any_found(members: Floats, non_members: Floats, run: int) -> bool:
        area = auc_interval(members, non_members, seed=run, confidence=1 - 0.05 / 3, resamples=200)
        rates = [tpr_at_fpr(members, non_members, fpr, confidence=1 - 0.05 / 3) for fpr in (0.001, 0.01)]
        return area.low > 0.5 or any(rate.tpr.low > rate.fpr.high for rate in rates)

    assert false_alarms(draw, 2_000, 2_000, any_found) <= ALLOWED
