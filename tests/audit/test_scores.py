"""Audits of scores alone: every verdict that they can end with, and what is refused."""

import numpy as np
import pytest

from privet.audit import Outcome, Verdict, audit_scores, check_bound, parse_bound
from privet.errors import ArgumentError, DataError, PrivetError, SampleTooSmallError


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_a_leak_is_found(generator):
    result = audit_scores(generator.normal(0.5, 1, 1_500), generator.normal(0, 1, 1_500))
    assert result.verdict is Verdict.LEAK
    assert result.auc.low > 0.6
    assert result.tpr(0.1).low > 0.1


def test_no_leak_is_not_found(generator):
    result = audit_scores(generator.normal(0, 1, 1_500), generator.normal(0, 1, 1_500))
    assert result.verdict is Verdict.NO_LEAK_FOUND
    assert result.auc.low < 0.5 < result.auc.high
    assert not result.null.broken


def test_too_few_records_to_find_the_planted_leak_are_underpowered(generator):
    result = audit_scores(generator.normal(0, 1, 100), generator.normal(0, 1, 100))
    assert result.verdict is Verdict.UNDERPOWERED
    assert result.planted.records_needed > 100


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_two_values_with_most_records_at_the_top_are_underpowered(generator, share):
    one, other = (np.where(generator.random(1_500) < share, 0.0, 1.0) for _ in range(2))
    assert audit_scores(one, other).verdict is Verdict.UNDERPOWERED


def test_members_that_score_lower_are_no_comfort(generator):
    """Losses instead of scores, or exchanged files: no bound may pass, no page may say that nothing was found."""
    result = audit_scores(generator.normal(-0.3, 1, 1_500), generator.normal(0, 1, 1_500))
    assert result.verdict is Verdict.INVALID
    assert "higher score means member" in result.reason
    assert check_bound(result, parse_bound("auc>0.6")) is Outcome.INCONCLUSIVE
    assert "failed" in str(result)
    assert not result.to_json()["readable"]


def test_infinite_scores_are_scores(generator):
    members, non_members = generator.normal(0, 1, 1_500), generator.normal(0, 1, 1_500)
    members[:300] = np.inf
    non_members[:300] = -np.inf
    assert audit_scores(members, non_members).verdict is Verdict.LEAK


def test_the_same_seed_gives_the_same_audit(generator):
    scores = generator.normal(0, 1, 300), generator.normal(0, 1, 300)
    first, second = audit_scores(*scores, seed=7), audit_scores(*scores, seed=7)
    assert first.auc == second.auc
    assert first.null == second.null
    assert first.planted == second.planted


def test_an_unsupported_rate_is_refused_and_warned_of(generator):
    result = audit_scores(generator.normal(0, 1, 500), generator.normal(0, 1, 500))
    with pytest.raises(SampleTooSmallError, match="1,000"):
        result.tpr(0.001)
    with pytest.raises(ArgumentError, match="fpr"):
        result.tpr(0.05)
    assert any("0.1%" in warning for warning in result.warnings)


def test_few_non_members_at_a_small_rate_carry_a_warning(generator):
    result = audit_scores(generator.normal(0, 1, 1_500), generator.normal(0, 1, 1_500))
    assert any("10,000" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"member_scores": []}, DataError),
        ({"member_scores": [1.0] * 9}, SampleTooSmallError),
        ({"member_scores": [np.nan] * 20}, DataError),
        ({"member_scores": np.zeros((20, 2))}, DataError),
        ({"member_scores": ["a"] * 20}, DataError),
        ({"seed": -1}, ArgumentError),
        ({"seed": 0.5}, ArgumentError),
        ({"confidence": 1.0}, ArgumentError),
        ({"planted_share": 0.0}, ArgumentError),
        ({"planted_share": 0.9}, ArgumentError),
    ],
)
def test_what_cannot_be_audited_is_refused(arguments, error):
    given = {"member_scores": np.arange(20.0), "non_member_scores": np.arange(20.0), **arguments}
    with pytest.raises(error) as caught:
        audit_scores(given.pop("member_scores"), given.pop("non_member_scores"), **given)
    assert isinstance(caught.value, PrivetError)
