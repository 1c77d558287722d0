"""Label-only: equal to loops over single votes, quiet without a leak, better than whether the label is right."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from tests.attacks.shadows import Drawn, area, draw, drawn, false_alarms, uneven
from tests.reference import membership as reference

from privet.attacks.membership import label_only, label_only_rotated
from privet.errors import DataError


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(some=drawn())
def test_scores_are_those_of_the_loops(some: Drawn) -> None:
    votes, target = some.signals > 2, some.target > 2
    expected = reference.label_only(votes, some.membership, target)
    close(label_only(votes, some.membership, target), expected)
    as_floats = label_only(votes.astype(np.float32), some.membership, target.astype(np.float32))
    np.testing.assert_array_equal(as_floats, label_only(votes, some.membership, target))


@settings(deadline=None, max_examples=30)
@given(some=drawn())
def test_a_rotated_row_is_what_is_left_without_its_block(some: Drawn) -> None:
    votes = some.signals > 2
    for row, scores in enumerate(label_only_rotated(votes, some.membership, some.blocks)):
        others = some.blocks != some.blocks[row]
        close(scores, reference.label_only(votes[others], some.membership[others], votes[row]))


def test_of_one_query_the_last_axis_may_be_left_out() -> None:
    some = draw(0, blocks=3)
    votes, target = some.signals > 2, some.target > 2
    found = label_only(votes[:, :, 0], some.membership, target[:, 0])
    np.testing.assert_array_equal(found, label_only(votes, some.membership, target))


def test_without_a_leak_nothing_is_found() -> None:
    def first(some: Drawn) -> Any:
        return label_only_rotated(some.signals > 2, some.membership, some.blocks)[0], some.membership[0]

    assert false_alarms(first) <= 0.088  # 5% and three standard errors of 300 runs


def test_the_null_run_catches_what_is_not_left_out() -> None:
    def own(some: Drawn) -> Any:
        return label_only(some.signals > 2, some.membership, some.signals[0] > 2), some.membership[0]

    def alone(some: Drawn) -> Any:
        return label_only(some.signals[1:] > 2, some.membership[1:], some.signals[0] > 2), some.membership[0]

    assert false_alarms(own, 50) > 0.25
    assert false_alarms(alone, 50, "less") > 0.25


def test_votes_beside_shadows_find_what_a_right_label_does_not() -> None:
    some = uneven(0, blocks=16)
    easy = np.random.default_rng(1).normal(size=(1, len(some.target), 1))  # how easy a record is, seen or not
    votes = some.signals + 4 * easy > 6.5
    naive = area(votes[:, :, 0].astype(float), some.membership)
    assert area(label_only_rotated(votes, some.membership, some.blocks), some.membership) > naive + 0.02


def test_a_query_that_tells_nothing_costs_nothing() -> None:
    some = uneven(2)
    votes = some.signals > 6
    noise = np.random.default_rng(0).random((*votes.shape[:2], 8)) < 0.5
    alone = area(label_only_rotated(votes, some.membership, some.blocks), some.membership)
    both = area(label_only_rotated(np.concatenate([votes, noise], 2), some.membership, some.blocks), some.membership)
    assert both > alone - 0.01


GOOD = draw(9, blocks=2, records=3)
VOTES = GOOD.signals > 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"votes": GOOD.signals}, "votes: .* is no vote"),
        ({"target": GOOD.target}, "target: .* is no vote"),
        ({"target": np.full((3, 1), 2)}, "target: 2.0 is no vote"),
        ({"votes": VOTES[:, :2]}, "membership is bool"),
        ({"membership": np.ones((4, 3), bool)}, "record 0 has 0 OUT shadows"),
        ({"membership": np.zeros((4, 3), bool)}, "record 0 has 0 IN shadows"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    arguments = {"votes": VOTES, "membership": GOOD.membership, "target": GOOD.target > 2} | change
    with pytest.raises(DataError, match=words):
        label_only(**arguments)


def test_rotating_needs_two_blocks() -> None:
    with pytest.raises(DataError, match="all shadows are of one block"):
        label_only_rotated(VOTES, GOOD.membership, np.zeros(4, int))
