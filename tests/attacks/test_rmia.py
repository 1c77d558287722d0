"""RMIA: equal to all pairs one by one, exact far out, quiet without a leak."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.shadows import Drawn, area, draw, drawn, false_alarms, uneven
from tests.reference import membership as reference

from privet.attacks.membership import rmia, rmia_rotated
from privet.errors import ArgumentError, DataError


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def shares_of_all_pairs(found: Any, log_ratio: Any, chosen: Any, gamma: float) -> None:
    """The shares of all pairs, where a pair at the very bound may count or not."""
    least = reference.share(log_ratio, chosen, gamma * (1 + 1e-9))
    most = reference.share(log_ratio, chosen, gamma * (1 - 1e-9))
    assert ((least <= found) & (found <= most)).all()


@settings(deadline=None, max_examples=60)
@given(
    some=drawn(),
    offline=st.sampled_from([None, 0.0, 0.3, 1.0]),
    gamma=st.sampled_from([1.0, 1.3, 2.0]),
    chosen=st.integers(0, 63),
)
def test_scores_are_those_of_all_pairs(some: Drawn, offline: float | None, gamma: float, chosen: int) -> None:
    others = (chosen >> np.arange(len(some.target))) % 2 == 1
    others = others if others.any() else ~others
    found = rmia(some.signals, some.membership, some.target, reference=others, gamma=gamma, offline=offline)
    close(found.log_ratio, reference.rmia(some.signals, some.membership, some.target, offline))
    shares_of_all_pairs(found.p_value_share, found.log_ratio, others, gamma)
    np.testing.assert_array_equal(found.ratio, np.exp(found.log_ratio))


@settings(deadline=None, max_examples=30)
@given(some=drawn(), offline=st.sampled_from([None, 0.3]))
def test_a_rotated_row_is_the_average_without_its_block(some: Drawn, offline: float | None) -> None:
    found = rmia_rotated(some.signals, some.membership, some.blocks, offline=offline)
    for row, (log_ratio, share) in enumerate(zip(found.log_ratio, found.p_value_share, strict=True)):
        close(log_ratio, reference.rmia(*some.without(row), some.signals[row], offline))
        shares_of_all_pairs(share, log_ratio, np.ones(len(share), bool), 2.0)


def test_no_reference_means_all_records() -> None:
    some = draw(0, blocks=3, records=40)
    found = rmia(some.signals, some.membership, some.target, gamma=1.0)
    every = rmia(some.signals, some.membership, some.target, gamma=1.0, reference=np.ones(40, bool))
    np.testing.assert_array_equal(found.p_value_share, every.p_value_share)
    assert len(np.unique(found.p_value_share)) > 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confidences_far_out_are_scored(dtype: Any) -> None:
    signals = np.array([[700.0, -700, -690], [-700, 690, -700]] * 2, dtype)
    membership = np.array([[True, False, True], [False, True, False]] * 2)
    found = rmia(signals, membership, np.array([700.0, -700, -690], dtype)).log_ratio
    close(found, [np.log(2), -700 + np.log(2), np.log(2) - np.log1p(np.exp(-10))])
    beyond = rmia(signals * 1000, membership, signals[0] * 1000).log_ratio
    close(beyond, [np.log(2), -700 + np.log(2), 0.0])  # below e^-700 is e^-700
    assert np.isfinite(rmia_rotated(signals, membership, np.array([0, 0, 1, 1])).log_ratio).all()


def test_offline_never_looks_at_shadows_trained_on_the_record() -> None:
    some = draw(6, blocks=4, records=20)
    other = np.where(some.membership[:, :, None], 9.0, some.signals)
    first, second = (rmia(each, some.membership, some.target, offline=0.3) for each in (some.signals, other))
    np.testing.assert_array_equal(first.log_ratio, second.log_ratio)


def test_without_a_leak_nothing_is_found() -> None:
    def first(some: Drawn) -> Any:
        return rmia_rotated(some.signals, some.membership, some.blocks).log_ratio[0], some.membership[0]

    assert false_alarms(first) <= 0.088  # 5% and three standard errors of 300 runs


def test_the_null_run_catches_a_target_within_its_own_average() -> None:
    def own(some: Drawn) -> Any:
        itself = some.signals[0] * (1.0 + 1e-9)  # unchanged, it would be refused
        return rmia(some.signals, some.membership, itself).log_ratio, some.membership[0]

    def alone(some: Drawn) -> Any:
        return rmia(some.signals[1:], some.membership[1:], some.signals[0]).log_ratio, some.membership[0]

    assert false_alarms(own, 50, "less") + false_alarms(own, 50) < 0.3  # the average of both halves weighs it alike
    assert false_alarms(alone, 50) < 0.2


def test_a_leak_is_found() -> None:
    some = uneven(0)
    found = rmia_rotated(some.signals, some.membership, some.blocks, gamma=1.0)
    assert area(found.log_ratio, some.membership) > 0.7
    assert area(found.p_value_share, some.membership) > 0.65


GOOD = draw(9, blocks=2, records=3)


@pytest.mark.parametrize("gamma", [0.5, 0.0, -1.0, np.nan, np.inf])
def test_gamma_is_at_least_one(gamma: float) -> None:
    with pytest.raises(ArgumentError, match="gamma"):
        rmia(GOOD.signals, GOOD.membership, GOOD.target, gamma=gamma)


@pytest.mark.parametrize("offline", [-0.1, 1.1, np.nan])
def test_a_is_a_share(offline: float) -> None:
    with pytest.raises(ArgumentError, match="offline"):
        rmia(GOOD.signals, GOOD.membership, GOOD.target, offline=offline)


@pytest.mark.parametrize("chosen", [np.zeros(3, bool), np.ones(2, bool), np.ones(3, int)])
def test_reference_records_are_chosen_by_bool(chosen: Any) -> None:
    with pytest.raises(DataError, match="reference is"):
        rmia(GOOD.signals, GOOD.membership, GOOD.target, reference=chosen)


def test_every_record_has_shadows_of_both_kinds() -> None:
    every = np.ones((4, 3), bool)
    with pytest.raises(DataError, match="record 0 has 0 OUT shadows"):
        rmia(GOOD.signals, every, GOOD.target)
    with pytest.raises(DataError, match="record 0 has 0 IN shadows"):
        rmia(GOOD.signals, ~every, GOOD.target)
    assert np.isfinite(rmia(GOOD.signals, ~every, GOOD.target, offline=0.3).log_ratio).all()
    with pytest.raises(DataError, match="all shadows are of one block"):
        rmia_rotated(GOOD.signals, GOOD.membership, np.zeros(4, int))


def test_a_ratio_of_exactly_gamma_counts() -> None:
    same = np.ones((4, 3))
    membership = np.array([[True] * 3, [False] * 3] * 2)
    assert (rmia(same, membership, same[0], gamma=1.0).p_value_share == 1.0).all()
    assert (rmia(same, membership, same[0]).p_value_share == 0.0).all()
