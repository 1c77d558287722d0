"""Written estimates: nothing is narrower, or further from chance, than it was measured."""

from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from privet.report import Cell, write_estimate
from privet.statistics import Estimate

shares = st.tuples(*[st.floats(0.0, 1.0)] * 3).map(sorted)
NOISE = Decimal("1e-8")  # of a number that is a short decimal but for its last bits


def read(text: str) -> Decimal:
    number = Decimal(text.removesuffix("%"))
    return number


@given(shares, st.booleans())
def test_the_written_interval_holds_the_measured_one(ends: list[float], percent: bool) -> None:
    low, value, high = ends
    written = write_estimate(Estimate(value, low, high, 0.95, 9), percent=percent)
    factor = 100 if percent else 1
    assert read(written.low) <= Decimal(low) * factor + NOISE
    assert read(written.high) >= Decimal(high) * factor - NOISE
    assert read(written.low) <= read(written.value) <= read(written.high)


@given(shares, st.sampled_from((0, 2)), st.floats(-0.01, 0.01), st.booleans())
def test_an_end_is_written_on_its_side_of_chance(ends: list[float], near: int, by: float, percent: bool) -> None:
    low, value, high = ends
    chance = ends[near] + by
    assume(all(abs(end - chance) > 2e-6 for end in (low, high)))
    written = write_estimate(Estimate(value, low, high, 0.95, 9), percent=percent, chance=chance)
    factor = 100 if percent else 1
    assert (read(written.low) > Decimal(chance) * factor) == (low > chance)
    assert (read(written.high) < Decimal(chance) * factor) == (high < chance)


def test_only_what_lies_beyond_chance_is_drawn_as_a_leak() -> None:
    def cell(low: float, chance: float | None) -> Cell:
        return Cell(Estimate(0.7, low, 0.9, 0.95, 9), chance=chance)

    assert cell(0.51, 0.5).stands_out
    assert not cell(0.5, 0.5).stands_out
    assert not cell(0.51, None).stands_out


def test_digits_follow_the_size() -> None:
    assert str(write_estimate(Estimate(0.5, 0.25, 0.75, 0.95, 9), percent=True)) == "50.0% (25.0–75.0%)"
    assert str(write_estimate(Estimate(0.0098, 0.0061, 0.0142, 0.95, 9), percent=True)) == "0.98% (0.61–1.42%)"
    assert str(write_estimate(Estimate(0.62, 0.58, 0.66, 0.95, 9))) == "0.620 (0.580–0.660)"
