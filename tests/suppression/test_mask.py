"""The selection against a loop over weights, on every type, layout and pattern of ties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privet.errors import DivergedError
from privet.suppression.mask import MASKABLE, Mask

TYPES = sorted(MASKABLE, key=str)


def reference(weights: list[float], masked: set[int], count: int) -> set[int]:
    """Masked ones first, then by magnitude, then by index: sorted one by one."""
    order = sorted(range(len(weights)), key=lambda index: (index not in masked, abs(weights[index]), index))
    return set(order[: max(count, len(masked))])


def masked_of(mask: Mask) -> set[int]:
    return set(mask.masked.reshape(-1).nonzero().reshape(-1).tolist())


@given(
    st.lists(st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, -1.0, 2.0, 3.5]), min_size=2, max_size=30),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.sampled_from(TYPES),
    st.randoms(use_true_random=False),
)
def test_it_chooses_what_a_loop_would(
    values: list[float], shares: list[float], dtype: torch.dtype, random: object
) -> None:
    weights = torch.tensor(values, dtype=dtype)
    mask, expected = Mask(weights), set[int]()
    for share in sorted(shares):
        count = min(int(share * len(values)), len(values) - 1)
        weights = weights[torch.randperm(len(values))].clone()  # they move between updates; masked ones are looked past
        expected = reference(weights.tolist(), expected, count)
        mask.add(mask.smallest(weights, count))
        assert masked_of(mask) == expected
        assert mask.count == len(expected)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("size", [7, 9_999, 10_000, 10_001, 70_000])
def test_any_size_is_the_same_case(dtype: torch.dtype, size: int) -> None:
    weights = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)  # halves tie a lot
    mask = Mask(weights)
    for share in (0.1, 0.5, 0.95):
        mask.add(mask.smallest(weights, int(share * size)))
    assert masked_of(mask) == reference(weights.tolist(), set(), int(0.95 * size))


def test_places_are_in_row_major_order_whatever_the_memory_is_like() -> None:
    weights = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    last = weights.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    for other in (last, weights.transpose(0, 1).contiguous().transpose(0, 1)):
        plain, mask = Mask(weights), Mask(other)
        for count in (50, 120, 290):
            plain.add(plain.smallest(weights, count))
            mask.add(mask.smallest(other, count))
            assert torch.equal(plain.masked, mask.masked)
        assert mask.kept.stride() == other.stride()
        mask.clear(other)
        assert torch.equal(other == 0, plain.masked | (weights == 0))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_is_cleared_is_plus_zero_and_the_rest_is_untouched(dtype: torch.dtype) -> None:
    odd = torch.tensor([-1.0, float("inf"), float("nan"), -0.0, 1e-8, 3.0], dtype=dtype)
    mask = Mask(odd)
    mask.set(torch.tensor([True, True, True, True, False, False]))
    before = odd.clone()
    mask.clear(odd)
    assert torch.equal(odd[:4], torch.zeros(4, dtype=dtype))
    assert not torch.signbit(odd).any()
    assert torch.equal(odd[4:], before[4:])


def test_a_value_of_another_type_is_cleared_too() -> None:
    mask = Mask(torch.zeros(3, dtype=torch.bfloat16))
    mask.set(torch.tensor([True, False, True]))
    state = torch.ones(3, dtype=torch.float32)
    mask.clear(state)
    assert state.tolist() == [0, 1, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_without_an_order_are_refused(value: float) -> None:
    weights = torch.tensor([1.0, value, 2.0])
    with pytest.raises(DivergedError, match="NaN or infinite"):
        Mask(weights).smallest(weights, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_an_accelerator_chooses_the_same() -> None:
    weights = torch.randn(70_000, generator=torch.Generator().manual_seed(0)).half().float()
    here, there = Mask(weights), Mask(weights.cuda())
    here.add(here.smallest(weights, 60_000))
    there.add(there.smallest(weights.cuda(), 60_000))
    assert torch.equal(here.masked, there.masked.cpu())
