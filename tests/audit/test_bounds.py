"""Bounds: passed only by a whole interval within them, and never by an audit that could not have found a leak."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit import samples

from privet.audit.bounds import Bound, Outcome, assert_bounds, bound_words, check_bound, parse_bound
from privet.audit.result import AuditResult
from privet.audit.verdict import Verdict
from privet.errors import ArgumentError

LEAK, NO_LEAK = samples.leak(), samples.no_leak_found()
READ = (Verdict.LEAK, Verdict.NO_LEAK_FOUND)


@pytest.mark.parametrize(
    ("text", "fpr", "limit"),
    [
        ("tpr@1%>0.05", 0.01, 0.05),
        ("tpr@0.1%>1%", 0.001, 0.01),
        ("TPR @ 0.001 > 0.01", 0.001, 0.01),
        ("tpr@1e-3>1e-2", 0.001, 0.01),
        ("tpr@10%>20 %", 0.1, 0.2),
        (" auc>0.55 ", None, 0.55),
    ],
)
def test_a_bound_is_read_as_written(text: str, fpr: float | None, limit: float) -> None:
    bound = parse_bound(text)
    assert (bound.fpr, bound.limit) == (fpr, limit)
    assert parse_bound(str(bound)) == bound


NO_BOUNDS = "|tpr|tpr>0.1|tpr@1%<0.05|tpr@1%>=0.05|tpr@1%>0.05>0.1|auc@1%>0.5|tpr@..%>0.5|auc>x|auc>0.49|auc>1"
OUT_OF_RANGE = "tpr@1%>0.009|tpr@1%>1|auc>1e999|tpr@5%>0.1|tpr@0>0.1|accuracy>0.5"


@pytest.mark.parametrize("text", [*NO_BOUNDS.split("|"), *OUT_OF_RANGE.split("|")])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        parse_bound(text)


@given(st.sampled_from(Verdict), st.sampled_from((None, 0.001, 0.01, 0.1)), st.floats(0.0, 0.99), st.booleans())
def test_an_outcome_says_where_the_interval_lies(verdict: Verdict, fpr: float | None, share: float, leak: bool) -> None:
    result = replace(LEAK if leak else NO_LEAK, verdict=verdict)
    least = 0.5 if fpr is None else fpr
    bound = Bound(fpr, least + share * (1.0 - least))
    measured = result.auc if fpr is None else result.tpr(fpr)
    outcome = check_bound(result, bound)
    assert f"; {outcome.value}" not in bound_words(result, bound)
    assert f": {outcome.value};" in bound_words(result, bound)
    if verdict is Verdict.CLAIM_VIOLATED:
        assert outcome is Outcome.FAILED
    elif verdict is Verdict.INVALID:
        assert outcome is Outcome.INCONCLUSIVE
    else:
        assert (outcome is Outcome.FAILED) == (measured.low > bound.limit)
        if outcome is Outcome.PASSED:
            assert measured.high <= bound.limit
            assert verdict in READ


def test_the_point_estimate_alone_passes_nothing() -> None:
    measured = NO_LEAK.tpr(0.01)
    between = Bound(0.01, (measured.value + measured.high) / 2)
    assert measured.value < between.limit < measured.high
    assert check_bound(NO_LEAK, between) is Outcome.INCONCLUSIVE
    assert "reaches over" in bound_words(NO_LEAK, between)
    assert check_bound(NO_LEAK, Bound(0.01, measured.high)) is Outcome.PASSED


def test_an_audit_that_could_not_have_found_a_leak_passes_nothing() -> None:
    assert check_bound(samples.underpowered(), Bound(0.01, 0.9)) is Outcome.INCONCLUSIVE
    assert "UNDERPOWERED" in bound_words(samples.underpowered(), Bound(0.01, 0.9))


def test_a_small_leak_does_not_excuse_an_attack_that_missed_the_planted_one() -> None:
    """One attack finds a little, and LiRA is dead: what LiRA could find is not known, whatever the other found."""
    bound = Bound(None, 0.99)
    assert check_bound(LEAK, bound) is Outcome.PASSED
    dead = replace(LEAK, planted=replace(LEAK.planted, missed=("LiRA",)))
    assert dead.verdict is Verdict.LEAK
    assert check_bound(dead, bound) is Outcome.INCONCLUSIVE
    assert "missed by LiRA" in bound_words(dead, bound)


def test_an_audit_whose_shadow_models_were_not_trained_passes_nothing() -> None:
    bound = Bound(None, 0.99)
    assert check_bound(replace(NO_LEAK, shadows=0), bound) is Outcome.PASSED
    cut = replace(NO_LEAK, shadows=0, shadows_asked=16)
    assert check_bound(cut, bound) is Outcome.INCONCLUSIVE
    assert "shadow models" in bound_words(cut, bound)


def test_a_rate_that_the_sample_cannot_show_passes_nothing() -> None:
    result = replace(samples.scores_only(), verdict=Verdict.NO_LEAK_FOUND)
    assert check_bound(result, Bound(0.001, 0.9)) is Outcome.INCONCLUSIVE
    assert "50 non-members" in bound_words(result, Bound(0.001, 0.9))


def only(scores: tuple[np.ndarray, np.ndarray], verdict: Verdict) -> AuditResult:
    return replace(LEAK, attacks=(samples.judged("LiRA", *scores),), verdict=verdict)


def test_a_leak_without_a_threshold_at_this_rate_passes_nothing() -> None:
    """Equal scores make the rate look like zero, though a coin toss among them finds members at any rate."""
    saturated = np.repeat([1.0, 0.0], [600, 600]), np.repeat([1.0, 0.0], [150, 1_350])
    result = only(saturated, Verdict.LEAK)
    assert result.tpr(0.01).high < 0.05
    assert check_bound(result, Bound(0.01, 0.05)) is Outcome.INCONCLUSIVE
    assert "top score" in bound_words(result, Bound(0.01, 0.05))
    beside = replace(LEAK, attacks=(*NO_LEAK.attacks, *result.attacks), verdict=Verdict.LEAK)
    assert check_bound(beside, Bound(0.01, 0.05)) is Outcome.INCONCLUSIVE


def test_all_bounds_hold_or_the_broken_ones_are_named() -> None:
    assert_bounds(NO_LEAK, {"auc": 0.6, "tpr@1%": 0.2})
    with pytest.raises(AssertionError, match=r"tpr@1%>0\.02: failed"):
        assert_bounds(LEAK, {"auc": 0.9, "tpr@1%": 0.02})
    with pytest.raises(AssertionError) as caught:
        LEAK.assert_below(tpr_at_0_1_percent=0.01, tpr_at_1_percent=0.02)
    assert str(caught.value).count("failed") == 2
    for limits in ({}, {"tpr@1%": 0.001}, {"auc": True}, {"tpr@1%": "a"}):
        with pytest.raises(ArgumentError):
            assert_bounds(NO_LEAK, limits)  # type: ignore[arg-type]
