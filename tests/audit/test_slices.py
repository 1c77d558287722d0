"""Groups: one threshold for all, one correction over all, and nothing said about a few records."""

from typing import Any

import numpy as np
import pytest
from tests.audit import samples

from privet.attacks.membership import MembershipScores
from privet.audit.slices import FEWEST, Slice, checked_columns, slice_scores, slices_of
from privet.errors import ArgumentError, DataError
from privet.statistics import tpr_at_fpr

M, N = 400, 600


def drawn(seed: int, shift: float = 0.0, group: int = 0) -> tuple[MembershipScores, tuple[np.ndarray, np.ndarray]]:
    """Scores of four groups, one of whose members are moved up."""
    generator = np.random.default_rng(seed)
    ours, theirs = np.arange(M) % 4, np.arange(N) % 4
    members = generator.normal(size=M) + shift * (ours == group)
    return MembershipScores("a", members, generator.normal(size=N)), (ours, theirs)


def sliced(seed: int, shift: float = 0.0) -> tuple[Slice, ...]:
    scores, column = drawn(seed, shift, group=2)
    return slice_scores(scores, {"class": column})


def test_the_groups_together_are_the_whole() -> None:
    """With one threshold for all, the shares of the groups add up to the shares of everybody."""
    scores, column = drawn(1, 1.5)
    groups = slice_scores(scores, {"class": column}, fpr=0.05)
    whole = tpr_at_fpr(scores.members, scores.non_members, 0.05)
    assert sum(one.tpr.value * one.members for one in groups if one.tpr) == pytest.approx(whole.tpr.value * M)
    assert sum(one.fpr.value * one.non_members for one in groups if one.fpr) == pytest.approx(whole.fpr.value * N)


def test_a_leak_is_found_in_its_group_alone() -> None:
    assert [one.group for one in sliced(2, shift=4.0) if one.leaks] == ["2"]


def test_the_whole_table_raises_few_false_alarms() -> None:
    """Nominal 5% a table of four groups; more than 13 of 100 happen less than once in 1,000 such tests."""
    alarms = sum(any(one.leaks for one in sliced(seed)) for seed in range(100, 200))
    assert alarms <= 13


def test_the_correction_counts_groups_that_are_judged_in_all_columns() -> None:
    scores, (ours, theirs) = drawn(3)
    half = ours % 2, theirs % 2
    few = np.where(np.arange(M) < 5, 1, 0), np.zeros(N, dtype=int)
    groups = slice_scores(scores, {"class": (ours, theirs), "half": half, "few": few}, confidence=0.9)
    assert [one.too_few for one in groups] == [False] * 7 + [True]
    expected = 1.0 - 0.1 / (2 * 7)
    for one in groups[:-1]:
        for estimate in (one.auc, one.tpr, one.fpr):
            assert estimate is not None
            assert estimate.confidence == pytest.approx(expected)


@pytest.mark.parametrize("missing", ["members", "non_members"])
def test_nothing_is_said_about_a_few_records(missing: str) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = (FEWEST - 1, 300) if missing == "members" else (300, FEWEST - 1)
    scores = MembershipScores("a", generator.normal(size=ours) + 9.0, generator.normal(size=theirs))
    (one,) = slice_scores(scores, {"all": (np.zeros(ours), np.zeros(theirs))})
    assert one.too_few
    assert (one.auc, one.tpr, one.fpr, one.leaks) == (None, None, None, False)


def test_without_a_threshold_there_is_no_rate() -> None:
    """Too few non-members for the rate, or too many equal scores for any threshold: the area alone is judged."""
    generator = np.random.default_rng(0)
    small = MembershipScores("a", generator.normal(size=50), generator.normal(size=50))
    tied = MembershipScores("a", np.repeat([1.0, 0.0], [150, 50]), np.repeat([1.0, 0.0], 100))
    for scores in (small, tied):
        (one,) = slice_scores(scores, {"all": (np.zeros(scores.members.size), np.zeros(scores.non_members.size))})
        assert one.auc is not None
        assert (one.tpr, one.fpr) == (None, None)


def test_held_out_scores_are_sorted_by_the_groups_of_their_own_rows() -> None:
    scores, (ours, theirs) = drawn(5, 3.0)
    kept_m, kept_n = np.arange(M)[::-2], np.arange(N)[::-3]
    part = MembershipScores("a", scores.members[kept_m], scores.non_members[kept_n], kept_m, kept_n)
    direct = MembershipScores("a", scores.members[kept_m], scores.non_members[kept_n])
    assert slice_scores(part, {"class": (ours, theirs)}) == slice_scores(
        direct, {"class": (ours[kept_m], theirs[kept_n])}
    )


def test_an_audit_is_sliced_by_its_headline() -> None:
    groups = slices_of(samples.leak())
    assert {one.column for one in groups} == {"class", "source"}
    assert [one.group for one in groups if one.too_few] == ["rare"]
    assert sum(one.members for one in groups if one.column == "class") == samples.MEMBERS


def test_columns_come_whole_or_in_two_parts() -> None:
    whole = checked_columns({"c": list("aabbb")}, 2, 3)["c"]
    parts = checked_columns({"c": (["a", "a"], np.array(["b", "b", "b"], dtype=object))}, 2, 3)["c"]
    assert whole.tolist() == parts.tolist() == list("aabbb")


@pytest.mark.parametrize(
    ("columns", "error", "match"),
    [
        ("class", ArgumentError, "mapping"),
        ({1: [0, 1]}, ArgumentError, "name"),
        ({"c": [0, 1, 1]}, DataError, "3 values for 2 records"),
        ({"c": ([0, 1], [])}, DataError, "2 values for the members"),
        ({"c": [0.0, np.nan]}, DataError, "NaN"),
        ({"c": [[0], [1]]}, DataError, "shape"),
        ({"c": [0, None]}, DataError, "object"),
        ({"c": 3}, DataError, "shape"),
    ],
)
def test_bad_columns_are_refused(columns: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        checked_columns(columns, 1, 1)


def test_a_column_of_numbers_that_are_all_different_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"2,000 different values.*ranges"):
        checked_columns({"age": np.arange(2_000)}, 1_000, 1_000)
