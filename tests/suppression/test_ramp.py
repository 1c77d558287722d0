from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.errors import ArgumentError
from privet.suppression import Ramp
from privet.suppression.ramp import masked_count


def over(**changed: object) -> Ramp:
    return Ramp.over(**{"start_epoch": 3, "end_epoch": 10, "steps_per_epoch": 100} | changed)


@st.composite
def ramps(draw: st.DrawFn) -> Ramp:
    steps = draw(st.integers(1, 40))
    first = draw(st.integers(1, 5))
    last = draw(st.integers(first, 8))
    low = draw(st.floats(0, 0.999))
    return Ramp.over(
        start_epoch=first,
        end_epoch=last,
        steps_per_epoch=steps,
        updates=draw(st.integers(1, (last - first + 1) * steps)),
        sparsity_start=low,
        sparsity_end=draw(st.floats(low, 0.999)),
    )


def exact(ramp: Ramp, step: int) -> Fraction:
    """The cubic, in fractions."""
    low, high = Fraction(ramp.sparsity_start), Fraction(ramp.sparsity_end)
    if step < ramp.start:
        return Fraction(0)
    if step >= ramp.end:
        return high
    return high + (low - high) * (1 - Fraction(step - ramp.start, ramp.end - ramp.start)) ** 3


@given(ramps())
def test_it_is_the_cubic_and_never_falls(ramp: Ramp) -> None:
    found = [ramp.sparsity(step) for step in range(ramp.end + 3)]
    assert found == pytest.approx([float(exact(ramp, step)) for step in range(ramp.end + 3)], abs=1e-12)
    assert found == sorted(found)
    assert found[ramp.end] == ramp.sparsity_end
    if ramp.start < ramp.end:
        assert found[ramp.start] == pytest.approx(ramp.sparsity_start, abs=1e-15)


@given(ramps())
def test_updates_are_as_many_as_said_evenly_spread_and_the_last_is_at_the_end(ramp: Ramp) -> None:
    steps = [step for step in range(ramp.end + 5) if ramp.updates_at(step)]
    assert len(steps) == ramp.updates
    assert steps[-1] == ramp.end
    if ramp.updates > 1:
        assert steps[0] == ramp.start
        gaps = {after - before for before, after in pairwise(steps)}
        assert max(gaps) - min(gaps) <= 1


def test_epochs_count_from_one_and_both_ends_belong_to_the_ramp() -> None:
    ramp = over()
    assert (ramp.start, ramp.end, ramp.updates) == (201, 1_000, 800)
    assert over(steps_per_epoch=10_000).updates == 1_000
    assert over(start_epoch=1, end_epoch=1, steps_per_epoch=1) == Ramp(1, 1, 1, 0.0, 0.95)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"start_epoch": 0}, "start_epoch = 0"),
        ({"start_epoch": True}, "start_epoch = True"),
        ({"start_epoch": 2.5}, "start_epoch = 2.5"),
        ({"end_epoch": 2}, "not before start_epoch = 3"),
        ({"steps_per_epoch": 0}, "steps_per_epoch = 0"),
        ({"updates": 0}, "updates = 0"),
        ({"updates": 801}, "at most 800"),
        ({"sparsity_end": 1.0}, "sparsity_end = 1.0"),
        ({"sparsity_end": -0.1}, "sparsity_end = -0.1"),
        ({"sparsity_end": float("nan")}, "sparsity_end = nan"),
        ({"sparsity_end": "0.9"}, "sparsity_end = '0.9'"),
        ({"sparsity_start": 1.0}, "sparsity_start = 1.0"),
        ({"sparsity_start": 0.96}, "not above sparsity_end = 0.95"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ArgumentError, match=said.replace("(", r"\(")):
        over(**changed)


@given(st.floats(0, 0.9999), st.integers(1, 10**9))
def test_a_share_of_weights_is_rounded_down(sparsity: float, weights: int) -> None:
    assert masked_count(sparsity, weights) == Fraction(str(sparsity)) * weights // 1 < weights


def test_so_many_are_kept() -> None:
    assert masked_count(0.95, 150, minimum_kept=10) == 140
    assert masked_count(0.5, 150, minimum_kept=10) == 75
    assert masked_count(0.5, 10, minimum_kept=10) == 0
    assert masked_count(0.29, 100) == 29
