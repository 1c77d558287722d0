"""A pool is looked at as a whole before anything is asked: what is wrong with it is said at once."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from privet.attacks.membership import MembershipScores, Pool
from privet.errors import ArgumentError, DataError, LabelError

Set = tuple[Tensor, Tensor]


def records(count: int, seed: int, classes: int = 3) -> Set:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return torch.randn(count, 2, 4, generator=generator), labels


def test_members_come_first_and_nothing_is_changed() -> None:
    members, non_members = records(5, 0), records(3, 1)
    pool = Pool.of(members, (non_members[0], non_members[1].int()), classes=3)
    assert (len(pool), pool.size, pool.members, pool.classes) == (8, 8, 5, 3)
    assert pool.is_member.tolist() == [True] * 5 + [False] * 3
    assert torch.equal(pool.inputs, torch.cat((members[0], non_members[0])))
    assert pool.labels.dtype == torch.int64
    assert torch.equal(pool.labels, torch.cat((members[1], non_members[1])))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64]
)
@given(member=st.integers(0, 29), non_member=st.integers(0, 19), again=st.booleans())
def test_an_input_in_both_sets_is_named(dtype: torch.dtype, member: int, non_member: int, again: bool) -> None:
    values = torch.arange(100).reshape(50, 2).to(dtype)
    first, second = values[:30].clone(), values[30:].clone()
    second[non_member] = first[member]
    if again:
        second[-1] = first[member]
    count = len({non_member, 19}) if again else 1
    with pytest.raises(DataError, match=rf"^{count} of 20 .* first being member {member} and non-member {non_member};"):
        Pool.of((first, torch.zeros(30).long()), (second, torch.ones(20).long()), classes=2)


def test_the_first_pair_in_both_sets_is_named() -> None:
    members, non_members = records(30, 0), records(20, 1)
    members[0][9] = members[0][4]
    non_members[0][[7, 11]] = members[0][[9, 2]]
    with pytest.raises(DataError, match=r"^2 of 20 non-members .* first being member 4 and non-member 7;"):
        Pool.of(members, non_members, classes=3)


def test_zero_equals_minus_zero_in_both_sets() -> None:
    with pytest.raises(DataError, match="same input"):
        Pool.of((torch.tensor([[0.0, 1.0]]), torch.tensor([0])), (torch.tensor([[-0.0, 1.0]]), torch.tensor([1])), 2)


def test_inputs_that_differ_in_one_value_or_stand_twice_in_one_set_are_let_through() -> None:
    members, non_members = records(6, 0), records(4, 1)
    members[0][3] = members[0][1]
    non_members[0][0] = members[0][0]
    non_members[0][0, 1, 3] += 1e-6
    pool = Pool.of(members, non_members, classes=3)
    assert pool.copies.tolist() == [0, 1, 2, 1, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("which", ["members", "non-members"])
def test_sets_of_so_many_copies_that_intervals_miss_are_refused(which: str) -> None:
    few, many = records(160, 0), records(160, 1)
    rows = torch.arange(160)
    rows[140:] = torch.arange(20)  # an eighth are second copies
    some = many[0][rows], many[1][rows]
    Pool.of(*((some, few) if which == "members" else (few, some)), classes=3)
    rows[139] = 20
    some = many[0][rows], many[1][rows]
    with pytest.raises(DataError, match=f"^{which}: only 139 of 160 inputs are different ones .* keep one of each"):
        Pool.of(*((some, few) if which == "members" else (few, some)), classes=3)
    rows = torch.arange(160)
    rows[:8] = 3
    some = many[0][rows], many[1][rows]
    with pytest.raises(DataError, match=r"\(input 0 stands 8 times\)"):
        Pool.of(*((some, few) if which == "members" else (few, some)), classes=3)


def test_as_many_copies_as_are_let_through_leave_false_alarms_near_their_rate() -> None:
    generator = np.random.default_rng(0)

    def false_alarms(copies: int, runs: int = 20_000) -> float:
        """The share of runs in which the mean of one set is above that of the other, both of nothing but noise."""
        rows = np.concatenate((np.arange(160 - copies), np.arange(copies)))
        sides = generator.normal(size=(2, runs, 160))[:, :, rows]
        z = (sides[0].mean(1) - sides[1].mean(1)) / np.sqrt((sides.var(2, ddof=1) / 160).sum(0))
        return float((z > norm.isf(0.05)).mean())

    assert false_alarms(0) < 0.056
    assert 0.06 < false_alarms(20) < 0.077
    assert false_alarms(80) > 0.1


def nan(inputs: Tensor) -> Tensor:
    inputs = inputs.clone()
    inputs[2, 0, 1] = torch.nan
    return inputs


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), DataError, "at least one"),
        (lambda x, y: (x[:-1], y), DataError, "as many of each"),
        (lambda x, y: (nan(x), y), DataError, "input 2 holds NaN"),
        (
            lambda x, y: (x.clone().index_fill_(0, torch.tensor([1]), torch.inf), y),
            DataError,
            "input 1 holds NaN or inf",
        ),
        (lambda x, y: (x.double(), y), DataError, "has dtype"),
        (lambda x, y: (x[:, :1], y), DataError, r"has shape"),
        (lambda x, y: (x.to(torch.complex64), y), DataError, "real numbers"),
        (lambda x, y: (x.numpy(), y), DataError, "a ndarray"),
        (lambda x, y: (x, y.tolist()), DataError, "a list"),
        (lambda x, y: (x, y.float()), LabelError, "float32"),
        (lambda x, y: (x, y[:, None]), LabelError, "shape"),
        (lambda x, y: (x, torch.full_like(y, 3)), LabelError, "label 0 is 3"),
        (lambda x, y: (x, torch.full_like(y, -1)), LabelError, "label 0 is -1"),
    ],
)
def test_what_is_wrong_with_either_set_is_refused(
    spoil: Callable[[Tensor, Tensor], Set], error: type[Exception], message: str, swapped: bool
) -> None:
    good, bad = records(5, 0), spoil(*records(4, 1))
    with pytest.raises(error, match=message):
        Pool.of(*((bad, good) if swapped else (good, bad)), classes=3)


@pytest.mark.parametrize("classes", [1, 0, -2, 2.0, True, "3"])
def test_the_number_of_classes_is_a_whole_number(classes: object) -> None:
    with pytest.raises(ArgumentError, match="classes"):
        Pool.of(records(5, 0, 1), records(4, 1, 1), classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [0, 9, -1, 20])
def test_a_pool_has_members_and_others(members: int) -> None:
    with pytest.raises(ArgumentError, match="members"):
        Pool(torch.zeros(9, 2), torch.zeros(9, dtype=torch.int64), members, 2)


def test_records_of_one_number_and_of_none_are_records_too() -> None:
    pool = Pool.of((torch.arange(4.0), torch.zeros(4).long()), (torch.arange(4.0) + 9, torch.zeros(4).long()), 2)
    assert len(set(pool.copies.tolist())) == 8
    with pytest.raises(DataError, match="same input"):
        Pool.of((torch.zeros(2, 0), torch.zeros(2).long()), (torch.zeros(2, 0), torch.zeros(2).long()), 2)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"members": [0.0, np.nan], "non_members": [0.0]}, "NaN"),
        ({"members": [], "non_members": [0.0]}, "at least one"),
        ({"members": [[0.0]], "non_members": [0.0]}, "vector"),
        ({"members": [0.0, 1.0], "non_members": [0.0], "member_rows": [0]}, "member_rows"),
        ({"members": [0.0, 1.0], "non_members": [0.0], "member_rows": [1, 1]}, "member_rows"),
        ({"members": [0.0], "non_members": [0.0, 1.0], "non_member_rows": [-1, 0]}, "non_member_rows"),
        ({"members": [0.0], "non_members": [0.0], "non_member_rows": [0.5]}, "non_member_rows"),
    ],
)
def test_scores_that_cannot_be_ordered_or_placed_are_refused(scores: dict[str, list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MembershipScores("made up", **{name: np.array(value) for name, value in scores.items()})


def test_infinite_scores_are_scores() -> None:
    assert MembershipScores("made up", np.array([np.inf]), np.array([-np.inf])).members[0] == np.inf
