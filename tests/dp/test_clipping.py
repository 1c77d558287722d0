"""No example passes its clip norm, whatever its norm; counts are bounded; what is split adds up to what is spent."""

import json
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from privet.accounting import NeighbouringRelation, joint_noise
from privet.dp.clipping import (
    ClippingState,
    FixedNorm,
    changed_contributions,
    check_strategy,
    clip_norms,
    estimated_fractions,
    noise_split,
    rounded_up,
)
from privet.errors import ArgumentError

ADD_OR_REMOVE, REPLACE = NeighbouringRelation.ADD_OR_REMOVE_ONE, NeighbouringRelation.REPLACE_ONE
DTYPES = {32: torch.float32, 64: torch.float64}

bounds = st.floats(1e-12, 1e12)
widths = st.sampled_from([32, 64])


def norms_of(width: int) -> st.SearchStrategy[float]:
    """Everything a norm can be, subnormal, near the bounds, NaN and infinity."""
    return st.one_of(
        st.floats(0.0, width=width, allow_infinity=True),
        st.just(math.nan),
        st.floats(1e-13, 1e13).map(lambda x: float(np.float32(x)) if width == 32 else x),
    )


@given(st.data(), widths, st.lists(bounds, min_size=1, max_size=3))
def test_no_example_passes_a_clip_norm(data: st.DataObject, width: int, norms: list[float]) -> None:
    examples = data.draw(st.lists(st.tuples(*[norms_of(width)] * len(norms)), min_size=1, max_size=6))
    seen = torch.tensor(examples, dtype=DTYPES[width]).T
    factors = clip_norms(ClippingState(tuple(norms)), seen, ()).factors
    assert factors.dtype == seen.dtype
    assert factors.shape == seen.shape
    for example, row in zip(seen.T.tolist(), factors.T.tolist(), strict=True):
        if not all(map(math.isfinite, example)):
            assert row == [0.0] * len(norms)  # taken out of every group
            continue
        for norm, factor, bound in zip(example, row, norms, strict=True):
            assert 0.0 <= factor <= 1.0
            # Exactly, but for the one rounding of the last product.
            assert Fraction(factor) * Fraction(norm) <= Fraction(bound) * (1 + Fraction(1, 2**53))


@given(st.data(), widths, bounds)
def test_nothing_is_clipped_more_than_it_must_be(data: st.DataObject, width: int, bound: float) -> None:
    norm = data.draw(norms_of(width).filter(math.isfinite))
    factor = clip_norms(ClippingState((bound,)), torch.tensor([[norm]], dtype=DTYPES[width]), ()).factors.item()
    if norm <= bound:
        assert factor == 1.0
    else:
        step = np.finfo(f"float{width}")
        assert factor >= bound / norm * (1.0 - 3.0 * float(step.eps)) - 2.0 * float(step.smallest_subnormal)


def test_a_subnormal_factor_is_rounded_down() -> None:
    seen = torch.tensor([[3e38]])
    for bound in np.geomspace(1e-7, 1e-5, 200).tolist():
        factor = clip_norms(ClippingState((bound,)), seen, ()).factors.item()
        assert Fraction(factor) * Fraction(seen.item()) <= Fraction(bound)


@given(st.lists(norms_of(64), max_size=8), bounds, st.integers(0, 7))
def test_one_example_moves_a_centred_count_by_a_half(norms: list[float], bound: float, which: int) -> None:
    assume(which < len(norms))
    state = ClippingState((bound,))
    rest = norms[:which] + norms[which + 1 :]

    def count(of: Sequence[float]) -> float:
        below = clip_norms(state, torch.tensor([of], dtype=torch.float64), (0,)).below
        assert below.dtype == torch.float64
        assert below.shape == (1,)
        return float(below.item())

    assert abs(count(norms) - count(rest)) == 0.5
    expected = sum(0.5 if norm <= bound else -0.5 for norm in norms)  # NaN and infinity are not below
    assert count(norms) == expected


def test_an_example_taken_out_is_not_below_in_any_group() -> None:
    seen = torch.tensor([[0.1, 0.1], [math.nan, 0.1], [0.1, 9.0]])
    clipped = clip_norms(ClippingState((1.0, 1.0, 1.0)), seen, (0, 2))
    assert clipped.below.tolist() == [0.0, -1.0]  # of groups 0 and 2: -1/2 + 1/2, -1/2 - 1/2
    assert clipped.factors[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert clipped.factors[:, 1].tolist() == pytest.approx([1.0, 1.0, 1 / 9])


def test_a_batch_without_examples_has_no_factor_and_counts_nothing() -> None:
    clipped = clip_norms(ClippingState((1.0, 2.0)), torch.zeros(2, 0), (1,))
    assert clipped.factors.shape == (2, 0)
    assert clipped.below.tolist() == [0.0]


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    seen = torch.rand(1, 100, generator=torch.Generator().manual_seed(0)) * 2
    state = ClippingState((1.0,))
    parts = [clip_norms(state, part, (0,)).below for part in seen.split(33, dim=1)]
    assert torch.stack(parts).sum() == clip_norms(state, seen, (0,)).below.item()


@pytest.mark.parametrize(
    "seen", [torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 3).half(), torch.zeros(1, 3, dtype=torch.int64)]
)
def test_norms_of_another_shape_or_dtype_are_refused(seen: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="norms"):
        clip_norms(ClippingState((1.0,)), seen, ())


# What is released.


def test_the_denominator_of_a_fraction_is_the_expected_batch_size() -> None:
    assert estimated_fractions([30.0, 0.0], [2.0, -1.0], 128.0) == (0.75, 0.5 - 1.0 / 128.0)
    with pytest.raises(ArgumentError, match="noise"):
        estimated_fractions([30.0], [], 128.0)


def test_replacing_one_changes_two_contributions() -> None:
    assert (changed_contributions(ADD_OR_REMOVE), changed_contributions(REPLACE)) == (1, 2)


@given(
    st.floats(1e-3, 1e3),
    st.integers(1, 20),
    st.lists(st.floats(0.01, 1e4), max_size=4),
    st.sampled_from(NeighbouringRelation),
)
def test_gradients_and_counts_together_have_the_planned_noise(
    z: float, groups: int, shares: list[float], relation: NeighbouringRelation
) -> None:
    f = 2 if relation is REPLACE else 1
    total = math.hypot(*(1.0 / share for share in shares), 1e-9)
    stds = [z * f / 2.0 * share * total * 1.001 for share in shares]  # just enough, or far more than that
    gradient = noise_split(z, groups, stds, relation)
    assert gradient >= z * math.sqrt(groups) * (1.0 - 1e-15)
    joint = joint_noise([gradient] * groups + [2.0 * std / f for std in stds])
    assert joint == pytest.approx(z, rel=1e-12)
    assert joint >= z * (1.0 - 1e-12)


def test_the_split_agrees_with_a_computation_by_hand() -> None:
    assert noise_split(1.0, 1, (), ADD_OR_REMOVE) == 1.0
    assert noise_split(1.0, 4, (), REPLACE) == 2.0
    assert noise_split(1.2, 1, (2.0,), ADD_OR_REMOVE) == pytest.approx((1.2**-2 - 4.0**-2) ** -0.5, rel=1e-14)
    assert noise_split(1.2, 1, (2.0,), REPLACE) == pytest.approx((1.2**-2 - 2.0**-2) ** -0.5, rel=1e-14)


@given(st.floats(1e-3, 1e3), st.integers(1, 5), st.sampled_from(NeighbouringRelation))
def test_counts_that_spend_it_all_are_refused_with_a_noise_that_works(
    z: float, counts: int, relation: NeighbouringRelation
) -> None:
    limit = z * changed_contributions(relation) / 2.0 * math.sqrt(counts)
    with pytest.raises(ArgumentError, match="count_noise_std") as caught:
        noise_split(z, 1, [limit] * counts, relation)
    proposed = float(caught.value.allowed.split()[2])
    assert limit < proposed < 1.02 * limit
    assert math.isfinite(noise_split(z, 1, [proposed] * counts, relation))


@pytest.mark.parametrize(
    ("z", "groups", "stds", "name"),
    [
        (0.0, 1, (), "z"),
        (math.inf, 1, (), "z"),
        (1.0, 0, (), "groups"),
        (1.0, 1, (0.0,), "count_noise_stds"),
        (1.0, 1, (9.0, math.nan), "count_noise_stds"),
        (1.0, 1, (1e-300,), "count_noise_std "),
    ],
)
def test_a_split_of_what_is_no_noise_is_refused(z: float, groups: int, stds: tuple[float, ...], name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        noise_split(z, groups, stds, ADD_OR_REMOVE)


@given(st.floats(1e-6, 1e6), st.integers(1, 9))
def test_rounding_goes_up_and_not_far(value: float, digits: int) -> None:
    up = rounded_up(value, digits)
    assert value <= up <= value * (1.0 + 10.0 ** (1 - digits)) * (1.0 + 1e-15)
    assert rounded_up(up, 17) == up


# The state and the strategy as values.


@given(st.lists(bounds, min_size=1, max_size=4))
def test_a_state_survives_a_file(norms: list[float]) -> None:
    state = ClippingState(tuple(norms))
    assert ClippingState.from_json(json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"kind": "clipping-state", "version": 2, "max_grad_norms": [1.0]},
        {"kind": "clipping", "version": 1, "max_grad_norms": [1.0]},
        {"kind": "clipping-state", "version": 1, "max_grad_norms": []},
        {"kind": "clipping-state", "version": 1, "max_grad_norms": 1.0},
        {"kind": "clipping-state", "version": 1, "max_grad_norms": [math.nan]},
        {"kind": "clipping-state", "version": 1, "max_grad_norms": ["1"]},
        {"kind": "clipping-state", "version": 1, "max_grad_norms": [1.0], "more": 1},
    ],
)
def test_a_state_of_another_form_is_refused(data: object) -> None:
    with pytest.raises(ArgumentError):
        ClippingState.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, 1e-13, 1e13, True, "1", None, 10**400])
def test_what_is_no_clip_norm_is_refused(norm: object) -> None:
    with pytest.raises(ArgumentError, match="max_grad_norm"):
        FixedNorm(norm)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_grad_norms"):
        ClippingState((1.0, norm))  # type: ignore[arg-type]


def test_a_fixed_norm_is_one_group_that_counts_nothing_and_stays() -> None:
    strategy = FixedNorm(0.5)
    assert strategy.groups(["a.weight", "a.bias", "b"]) == (("a.weight", "a.bias", "b"),)
    state = strategy.initial(2)
    assert state == ClippingState((0.5, 0.5))
    assert strategy.count_noise_stds(2, 100.0) == ()
    assert strategy.clip(state, torch.ones(2, 3)).below.shape == (0,)
    assert strategy.update(state, ()) == state
    with pytest.raises(ArgumentError, match="noisy_fractions"):
        strategy.update(state, (0.5,))
    assert strategy.to_json() == {"kind": "fixed-norm", "version": 1, "max_grad_norm": 0.5}
    assert FixedNorm(1).to_json() == FixedNorm(1.0).to_json()


@pytest.mark.parametrize("wrong", [1.0, FixedNorm, None, "fixed"])
def test_what_cannot_clip_is_no_strategy(wrong: object) -> None:
    check_strategy("clipping", FixedNorm(1.0))
    with pytest.raises(ArgumentError, match="clipping"):
        check_strategy("clipping", wrong)


@pytest.mark.parametrize("names", [[], ["a", "a"], "a.weight"])
def test_names_that_are_no_parameters_are_refused(names: Sequence[str]) -> None:
    with pytest.raises(ArgumentError, match="names"):
        FixedNorm(1.0).groups(names)
