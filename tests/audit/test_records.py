"""Records that stand out: ordered by score, each with the wrong accusations that catching it costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit import samples

from privet.audit.records import rank_records, records_of
from privet.errors import ArgumentError, DataError
from privet.statistics import clopper_pearson

few = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(few, few)
def test_a_record_is_caught_with_every_other_that_scores_as_high(members: list[int], others: list[int]) -> None:
    records = rank_records("a", members, others)
    assert len(records) == len(members) + len(others)
    for record in records:
        own = members if record.is_member else others
        assert record.score == own[record.row]
        above = sum(other >= record.score for other in others)
        assert record.caught_at == clopper_pearson(above, len(others))


@given(few, few)
def test_the_highest_score_comes_first_and_ties_keep_their_order(members: list[int], others: list[int]) -> None:
    records = list(rank_records("a", members, others))
    keys = [(-record.score, not record.is_member, record.row) for record in records]
    assert keys == sorted(keys)


@given(few, few, st.integers(1, 20))
def test_the_top_is_of_members_alone(members: list[int], others: list[int], count: int) -> None:
    top = rank_records("a", members, others).top(count)
    assert sorted(top.scores.tolist(), reverse=True) == sorted(members, reverse=True)[:count]
    assert top.is_member.all()


def test_held_out_scores_keep_the_rows_they_were_given_in() -> None:
    records = rank_records("a", [1.0, 5.0], [2.0], member_rows=[7, 3], non_member_rows=[9])
    assert [(record.row, record.is_member) for record in records] == [(3, True), (9, False), (7, True)]


def test_as_many_members_as_expected_score_so_high_by_chance() -> None:
    """Members that score like the others: over many draws, the expectation is met at the highest other score."""
    generator = np.random.default_rng(0)
    found, expected = [], []
    for _ in range(2_000):
        records = rank_records("a", generator.normal(size=50), generator.normal(size=30))
        first = int(np.flatnonzero(records.above > 0)[0])  # the highest non-member
        found.append(first)
        expected.append(records.members / (records.non_members + 1))
    assert abs(np.mean(found) - np.mean(expected)) < 4 * np.std(found) / np.sqrt(2_000)
    top = rank_records("a", [3.0, 1.0, 0.0], [2.0, 1.0]).top(3)
    assert [top.expected_by_chance(place) for place in range(3)] == [1.0, 3.0, 3.0]


def test_an_audit_ranks_by_its_headline_and_at_its_confidence() -> None:
    result = samples.leak()
    records = records_of(result)
    assert records.attack == result.headline == "LiRA"
    assert records[0].caught_at.confidence == result.confidence
    exposed = records.top(50).rows
    assert np.mean(exposed % 5 == 0) > 0.9, "every fifth member is exposed"


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match="count"):
        rank_records("a", [1.0], [0.0]).top(0)
    with pytest.raises(ArgumentError, match="count"):
        rank_records("a", [1.0], [0.0]).top(1.5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="member_rows"):
        rank_records("a", [1.0], [0.0], member_rows=[1, 2])
    with pytest.raises(DataError, match="NaN"):
        rank_records("a", [np.nan], [0.0])
