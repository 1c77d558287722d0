"""Sample sizes against simulation: a leak of the stated size is found as often as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privet.errors import ArgumentError, SampleTooSmallError
from privet.statistics import power_to_find, records_needed, smallest_fpr, tpr_at_fpr


def found(members: int, non_members: int, share: float, fpr: float, confidence: float, *, planted: bool) -> float:
    """How often 400 simulated leaks of this share are found: outright members, or members with higher scores."""
    count, shift = 0, norm.isf(fpr) - norm.isf(share)
    for experiment in range(400):
        generator = np.random.default_rng(experiment)
        scores = generator.normal(size=non_members)
        if planted:
            members_scores = np.where(generator.random(members) < share, 9.0, -9.0)
        else:
            members_scores = generator.normal(shift, size=members)
        rate = tpr_at_fpr(members_scores, scores, fpr, confidence)
        count += rate.tpr.low > rate.fpr.high
    return count / 400


@pytest.mark.parametrize(
    ("members", "non_members", "share", "fpr", "confidence"),
    [(400, 400, 0.05, 0.01, 0.95), (300, 2_000, 0.04, 0.01, 0.95), (1_000, 500, 0.2, 0.1, 0.9999)],
)
def test_the_power_is_that_of_simulated_leaks(
    members: int, non_members: int, share: float, fpr: float, confidence: float
) -> None:
    """Standard error of 400 simulations: 2.5% at most; four of them."""
    power = power_to_find(members, non_members, share, fpr, confidence)
    assert 0.1 < power < 0.99
    assert found(members, non_members, share, fpr, confidence, planted=True) == pytest.approx(power, abs=0.1)


@pytest.mark.parametrize(
    ("share", "fpr", "confidence", "power"), [(0.05, 0.01, 0.95, 0.8), (0.05, 0.01, 0.999, 0.9), (0.2, 0.1, 0.99, 0.6)]
)
def test_so_many_records_find_the_leak_and_half_as_many_do_not(
    share: float, fpr: float, confidence: float, power: float
) -> None:
    size = records_needed(share, fpr, confidence, power)
    assert found(size, size, share, fpr, confidence, planted=True) > power - 0.08
    assert found(size // 2, size // 2, share, fpr, confidence, planted=True) < power
    assert found(size, size, share, fpr, confidence, planted=False) > power - 0.2  # the threshold varies too


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.001, 0.01, 0.1]), st.floats(0.12, 1.0), st.floats(0.5, 0.9999), st.floats(0.1, 0.95))
def test_fewer_steps_of_records_are_not_enough(fpr: float, share: float, confidence: float, power: float) -> None:
    size, step = records_needed(share, fpr, confidence, power), round(1 / fpr)
    assert size % step == 0
    assert power_to_find(size, size, share, fpr, confidence) >= power
    if size > step:
        assert power_to_find(size - step, size - step, share, fpr, confidence) < power
    assert records_needed(share, fpr, confidence, power, per_side=False) == 2 * size


def test_more_is_needed_for_smaller_leaks_and_surer_findings() -> None:
    sizes = [records_needed(share, 0.01) for share in (0.5, 0.1, 0.05, 0.03, 0.02, 0.0101)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 100
    assert records_needed(0.03, 0.01, 0.95) < records_needed(0.03, 0.01, 0.9999)
    assert records_needed(0.03, 0.01, power=0.8) < records_needed(0.03, 0.01, power=0.99)


def test_the_smallest_rate_is_the_one_that_can_be_asked_for() -> None:
    for size in (2, 3, 7, 49, 1_000, 99_999):
        assert not tpr_at_fpr([1.0], np.arange(float(size)), smallest_fpr(size)).fpr.value > 1 / size
        with pytest.raises(SampleTooSmallError):
            tpr_at_fpr([1.0], np.arange(float(size)), smallest_fpr(size) * 0.999)
    assert smallest_fpr(1_000) == 0.001


def test_no_number_of_members_finds_a_leak_that_no_count_shows() -> None:
    assert power_to_find(1, 100, 1.0, 0.01) == 0.0  # one member says nothing
    assert power_to_find(100, 100, 1.0, 0.01) == 1.0


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"share = 0.01 .* above the false positive rate 0.01"):
        records_needed(0.01, 0.01)
    with pytest.raises(ArgumentError, match="More than"):
        records_needed(0.010_000_1, 0.01)
    with pytest.raises(ArgumentError, match="power"):
        records_needed(0.05, 0.01, power=1.0)
    with pytest.raises(ArgumentError, match="fpr"):
        records_needed(0.05, 0.0)
    with pytest.raises(ArgumentError, match="members"):
        power_to_find(0, 100, 0.05, 0.01)
    with pytest.raises(ArgumentError, match="share"):
        power_to_find(10, 100, 0.0, 0.01)
    with pytest.raises(SampleTooSmallError, match="99 non-members"):
        power_to_find(10, 99, 0.05, 0.01)
    with pytest.raises(ArgumentError, match="non_members"):
        smallest_fpr(1)
