"""ROC curves against brute force over all pairs and all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.errors import ArgumentError, DataError
from privet.statistics import roc_curve

few_levels = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)
any_level = st.lists(st.floats(allow_nan=False), min_size=1, max_size=12)


def brute_auc(members: list[float], non_members: list[float]) -> float:
    return float(np.mean([[(m > n) + (m == n) / 2 for n in non_members] for m in members]))


@given(few_levels | any_level, few_levels | any_level)
def test_auc_is_the_share_of_ordered_pairs(members: list[float], non_members: list[float]) -> None:
    assert roc_curve(members, non_members).auc == pytest.approx(brute_auc(members, non_members), abs=1e-12)


def test_ties_move_as_blocks() -> None:
    assert roc_curve([9, 5], [9, 5]).auc == 0.5
    curve = roc_curve([1.0] * 7, [1.0] * 3)
    assert curve.true_positive_rates.tolist() == curve.false_positive_rates.tolist() == [0.0, 1.0]


@given(few_levels, few_levels)
def test_every_point_is_a_rule_that_exists(members: list[float], non_members: list[float]) -> None:
    curve = roc_curve(members, non_members)
    for fpr, tpr, threshold in zip(
        curve.false_positive_rates, curve.true_positive_rates, curve.thresholds, strict=True
    ):
        assert fpr == pytest.approx(np.mean(np.array(non_members) >= threshold))
        assert tpr == pytest.approx(np.mean(np.array(members) >= threshold))


@given(few_levels, few_levels, st.floats(0, 1))
def test_tpr_at_is_the_best_rule_within_the_rate(members: list[float], non_members: list[float], fpr: float) -> None:
    best = 0.0
    for threshold in {*members, *non_members}:
        if np.mean(np.array(non_members) >= threshold) <= fpr:
            best = max(best, float(np.mean(np.array(members) >= threshold)))
    assert roc_curve(members, non_members).tpr_at(fpr) == pytest.approx(best)


@pytest.mark.parametrize("scores", [[], [[1.0]], [np.nan], ["high"]])
def test_scores_that_cannot_be_ordered_are_refused(scores: list[object]) -> None:
    with pytest.raises(DataError, match="member scores"):
        roc_curve(scores, [1.0])
    with pytest.raises(DataError, match="non-member scores"):
        roc_curve([1.0], scores)


def test_a_rate_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ArgumentError, match="fpr"):
        roc_curve([1.0], [0.0]).tpr_at(1.5)
