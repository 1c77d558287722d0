"""Laws that every shape obeys, by one table."""

import itertools
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet import schedules
from privet.errors import ArgumentError
from privet.schedules import (
    Constant,
    Cosine,
    ExponentialDecay,
    Floor,
    Linear,
    NoiseSchedule,
    Scaled,
    Staircase,
    StepDecay,
    TimeDecay,
)


@dataclass(frozen=True)
class Path:
    """A shape by its ends, and the same by text."""

    name: str
    between: Callable[[float, float, int], NoiseSchedule]
    text: str
    grows: bool = False


PATHS = (
    Path("time", TimeDecay.reaching, "time({start!r}, to={end!r})"),
    Path("step", StepDecay.reaching, "step({start!r}, to={end!r})"),
    Path("exponential", ExponentialDecay.reaching, "exponential({start!r}, to={end!r})"),
    Path("linear", Linear, "linear({start!r}, to={end!r})", grows=True),
    Path("cosine", Cosine, "cosine({start!r}, to={end!r})", grows=True),
    Path(
        "staircase",
        lambda start, end, steps: Staircase.reaching(start, end, steps, every=3),
        "staircase({start!r}, to={end!r}, every=3)",
    ),
)
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)

SHAPES: dict[str, NoiseSchedule] = {
    "constant": Constant(1.1),
    "time": TimeDecay(2.0, 0.01),
    "step": StepDecay(2.0, 0.01),
    "exponential": ExponentialDecay(2.0, 1e-2),
    "staircase": Staircase(2.0, 0.9, every=7),
    "stairs up": Staircase(0.5, 1.1, every=7),
    "linear": Linear(2.0, 0.6, steps=50),
    "cosine": Cosine(2.0, 0.6, steps=50),
    "floor": Floor(ExponentialDecay(2.0, 0.1), 0.7),
    "two floors": Floor(Floor(Linear(2.0, 0.1, steps=50), 0.7), 0.4),
}
each_shape = pytest.mark.parametrize("schedule", SHAPES.values(), ids=SHAPES)

noises = st.floats(0.05, 50.0)
lengths = st.integers(4, 400)  # more than one window of the staircase


@each_path
@given(ends=st.tuples(noises, noises), steps=lengths)
def test_begins_at_the_start_and_is_at_the_end_at_the_last_step(
    path: Path, ends: tuple[float, float], steps: int
) -> None:
    end, start = sorted(ends)
    values = schedules.evaluate(path.between(start, end, steps), steps)
    assert len(values) == steps
    assert values[0] == start
    assert values[-1] == pytest.approx(end, rel=1e-9)
    assert all(later <= value * (1 + 1e-12) for value, later in itertools.pairwise(values))
    assert all(isinstance(value, float) and value > 0.0 for value in values)


@each_path
def test_the_end_is_not_reached_before_its_time(path: Path) -> None:
    values = schedules.evaluate(path.between(2.0, 0.6, 10), 10)
    assert values[-2] > 0.6 + 1e-3  # t = 9 opens a window of 3


@each_path
@given(ends=st.tuples(noises, noises), steps=lengths)
def test_text_says_the_same(path: Path, ends: tuple[float, float], steps: int) -> None:
    end, start = sorted(ends)
    assert schedules.parse(path.text.format(start=start, end=end), steps) == path.between(start, end, steps)


@each_path
def test_growth_is_for_lines_only(path: Path) -> None:
    if path.grows:
        values = schedules.evaluate(path.between(0.6, 2.0, 10), 10)
        assert (values[0], values[-1]) == (0.6, 2.0)
        assert list(values) == sorted(values)
    else:
        with pytest.raises(ArgumentError, match=r"end = 2.0 is not allowed; give at most the start, 0.6"):
            path.between(0.6, 2.0, 10)


@each_path
def test_one_step_has_one_noise(path: Path) -> None:
    assert schedules.evaluate(path.between(1.3, 1.3, 1), 1) == (1.3,)
    with pytest.raises(ArgumentError, match=r"end = 0.6 is not allowed; give the start, 2.0"):
        path.between(2.0, 0.6, 1)


@each_path
def test_equal_ends_are_one_level(path: Path) -> None:
    assert set(schedules.evaluate(path.between(1.3, 1.3, 40), 40)) == {1.3}


@each_path
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, True, "2", None, 10**400])
def test_ends_are_noise_multipliers(path: Path, bad: object) -> None:
    for start, end in ((bad, 0.5), (2.0, bad)):
        with pytest.raises(ArgumentError, match="finite number above 0"):
            path.between(start, end, 10)  # type: ignore[arg-type]


@each_path
@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "9", 2**53 + 1])
def test_steps_are_counted(path: Path, bad: object) -> None:
    with pytest.raises(ArgumentError, match=r"steps = .* whole number"):
        path.between(2.0, 0.6, bad)  # type: ignore[arg-type]


@each_shape
def test_description_gives_the_same_values_back(schedule: NoiseSchedule) -> None:
    # Read for another number of steps: what is described stands on its own.
    again = schedules.parse(schedules.describe(schedule), steps=3)
    assert schedules.evaluate(again, 120) == schedules.evaluate(schedule, 120)


@each_shape
@given(factor=st.floats(0.01, 100.0))
def test_scaling_multiplies_every_value(schedule: NoiseSchedule, factor: float) -> None:
    before = schedules.evaluate(schedule, 60)
    after = schedules.evaluate(schedules.scaled(schedule, factor), 60)
    assert after == pytest.approx([factor * value for value in before], rel=1e-12)
    assert type(schedules.scaled(schedule, factor)) is type(schedule)


@each_shape
@pytest.mark.parametrize("bad", [-1, 1.5, True, "1", None])
def test_steps_begin_at_zero(schedule: NoiseSchedule, bad: object) -> None:
    with pytest.raises(ArgumentError, match="step = "):
        schedule(bad)  # type: ignore[arg-type]


@each_shape
def test_shapes_are_values(schedule: NoiseSchedule) -> None:
    assert hash(schedule) == hash(schedules.scaled(schedule, 1.0))
    with pytest.raises(FrozenInstanceError):
        schedule.start = 1.0  # type: ignore[attr-defined]


def test_formulas() -> None:
    for step in (0, 1, 7, 1000):
        assert TimeDecay(2.0, 0.3)(step) == pytest.approx(2.0 / (1.0 + 0.3 * step), rel=1e-12)
        assert StepDecay(2.0, 0.003)(step) == pytest.approx(2.0 * 0.997**step, rel=1e-12)
        assert ExponentialDecay(2.0, 0.003)(step) == pytest.approx(2.0 * math.exp(-0.003 * step), rel=1e-12)
        assert Staircase(2.0, 0.99, every=7)(step) == pytest.approx(2.0 * 0.99 ** (step // 7), rel=1e-12)
    assert [Linear(2.0, 1.0, steps=5)(step) for step in range(7)] == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0, 1.0]
    quarter = 1.0 + (1.0 + math.sqrt(0.5)) / 2.0
    assert [Cosine(2.0, 1.0, steps=5)(step) for step in (0, 1, 2, 3, 4, 9)] == pytest.approx(
        [2.0, quarter, 1.5, 3.0 - quarter, 1.0, 1.0], rel=1e-12
    )


def test_a_small_rate_keeps_its_digits() -> None:
    rate = 1e-13
    assert StepDecay(1.0, rate)(10**13) == pytest.approx(math.exp(-1.0), rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeDecay(2.0, -1e-9),
        lambda: TimeDecay(2.0, math.inf),
        lambda: StepDecay(2.0, 1.0),
        lambda: StepDecay(2.0, -0.1),
        lambda: ExponentialDecay(2.0, math.nan),
        lambda: ExponentialDecay(2.0, True),
        lambda: Staircase(2.0, 0.0, every=3),
        lambda: Staircase(2.0, 0.9, every=0),
        lambda: Staircase.reaching(2.0, 0.5, steps=3, every=3),
        lambda: Constant(0.0),
        lambda: Constant(False),
        lambda: Floor(Constant(1.0), 0.0),
        lambda: Scaled(Constant(1.0), -1.0),
        lambda: schedules.scaled(Constant(1.0), 0.0),
        lambda: schedules.scaled(Constant(1e300), 1e300),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ArgumentError):
        make()
