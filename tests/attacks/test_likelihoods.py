"""Likelihoods keep their digits in both tails; records alike are grouped by value."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import membership as reference

from privet.attacks.membership.likelihoods import cell_of, normal_log_mass, student_log_mass
from privet.attacks.membership.neighbours import groups_of

ENDS = st.one_of(st.floats(-10, 10), st.floats(-1e4, 1e4))
WIDTHS = st.one_of(st.floats(0.01, 10), st.floats(0.01, 1e4))


@given(low=ENDS, width=WIDTHS, open_=st.sampled_from(["", "low", "high"]), student=st.booleans())
def test_a_cell_has_its_mass_in_either_tail(low: float, width: float, open_: str, student: bool) -> None:
    ends = -math.inf if open_ == "low" else low, math.inf if open_ == "high" else low + width
    mass = student_log_mass if student else normal_log_mass
    found = float(mass(np.array([ends[0]]), np.array([ends[1]]))[0])
    assert found == pytest.approx(reference.log_mass(*ends, student), rel=1e-9, abs=1e-9)


@given(decimals=st.integers(0, 4), share=st.floats(0, 1))
def test_a_cell_holds_what_is_rounded_to_it(decimals: int, share: float) -> None:
    unit = 10.0**-decimals
    shown = round(share, decimals)
    kept = min(max(shown, unit / 4), 1 - unit / 4)
    low, high = cell_of(np.array([math.log(kept / (1 - kept))], np.float32).astype(np.float64), unit)
    assert 1 / (1 + np.exp(-low[0])) == pytest.approx(max(shown - unit / 2, 0), abs=1e-12)
    assert 1 / (1 + np.exp(-high[0])) == pytest.approx(min(shown + unit / 2, 1), abs=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 2_500),
    values=st.sampled_from([1, 2, 5, 30, 10**6]),
    power=st.sampled_from([1.0, 6.0]),
)
def test_groups_are_large_ordered_and_part_no_equals(seed: int, size: int, values: int, power: float) -> None:
    centre = np.floor(values * np.random.default_rng(seed).random(size) ** power)
    group = groups_of(centre)
    counts = np.bincount(group)
    assert len(counts) <= min(20, max(size // 100, 1))
    assert counts.min() >= min(size, 50)
    assert (np.diff(group[np.argsort(centre, kind="stable")]) >= 0).all()
    for one in range(len(counts) - 1):
        assert centre[group == one].max() < centre[group == one + 1].min()
    if values == 10**6 and power == 1.0:
        assert len(counts) >= min(20, max(size // 100, 1)) - 1
