"""Memberships are balanced within every block, and tell nothing of the target's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.attacks.membership.fleet import block_size, inclusion
from privet.attacks.membership.fleet.inclusion import shadow_seed
from privet.errors import ArgumentError, DataError


@given(st.integers(2, 300), st.floats(0.04, 0.999), st.integers(0, 5), st.integers(0, 2**40))
def test_every_record_is_in_equally_often_within_a_block(size: int, share: float, block: int, seed: int) -> None:
    members = min(max(round(size * share), -(-size // 32), 1), size - 1)
    included = inclusion(size, members, block, seed)
    assert included.shape == (block_size(size, members), size)
    times = set(included.sum(0).tolist())
    assert times == ({len(included) - 1} if members / size >= 2 / 3 else {1})
    sizes = included.sum(1)
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(100, 5_000), st.floats(0.05, 0.87))
def test_a_shadow_is_trained_on_about_as_many_records_as_the_target(size: int, share: float) -> None:
    members = round(size * share)
    sizes = inclusion(size, members, 0, 0).sum(1)
    assert abs(sizes.mean() / size - members / size) < 1 / 6


def test_two_shadows_are_complementary_halves() -> None:
    first, second = inclusion(101, 50, block=3, seed=9)
    assert np.array_equal(first, ~second)


def test_memberships_depend_on_the_seed_and_the_block_and_on_nothing_else() -> None:
    same = inclusion(100, 50, 0, 1)
    assert np.array_equal(same, inclusion(100, 50, 0, 1))
    assert np.array_equal(same, inclusion(100, 49, 0, 1))  # not on who is a member
    for other in (inclusion(100, 50, 1, 1), inclusion(100, 50, 0, 2)):
        assert not np.array_equal(same, other)


def test_members_and_non_members_are_in_as_often() -> None:
    # 400 halves of 100 records: each pair of records is together in 49/99 of them; five standard errors.
    together = sum(inclusion(100, 50, block, 7)[0][[0, 99]].all() for block in range(400)) / 400
    assert abs(together - 49 / 198) < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_seeds_of_shadows_differ_and_fit_every_generator() -> None:
    seeds = [shadow_seed(seed, shadow) for seed in (0, 1) for shadow in range(500)]
    assert len(set(seeds)) == 1_000
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_too_few_members_are_refused_with_how_many_records_to_leave_out() -> None:
    with pytest.raises(DataError, match="at most 310"):
        block_size(10_000, 10)


@pytest.mark.parametrize("members", [0, 10, -1])
def test_members_out_of_range_are_refused(members: int) -> None:
    with pytest.raises(ArgumentError, match="between 1 and 9"):
        inclusion(10, members, 0, 0)


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_a_seed_that_is_no_whole_number_is_refused(seed: object) -> None:
    with pytest.raises(ArgumentError, match="seed"):
        inclusion(10, 5, 0, seed)  # type: ignore[arg-type]
