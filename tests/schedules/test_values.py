"""What a plan makes of a schedule: values, their digest, and how many there are."""

import hashlib
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet import schedules
from privet.errors import ArgumentError
from privet.schedules import Constant, ExponentialDecay, Floor, Linear, Scaled, Staircase


def test_every_step_is_evaluated_once_and_in_order() -> None:
    asked: list[int] = []

    def own(step: int) -> float:
        asked.append(step)
        return 1.0 + step

    assert schedules.evaluate(own, 4) == (1.0, 2.0, 3.0, 4.0)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [0.0, -0.5, math.nan, math.inf, -math.inf, True, "1", None, 1j, 10**400])
@pytest.mark.parametrize("wrap", [lambda own: own, lambda own: Scaled(own, 1.0)])
def test_the_step_and_the_value_that_are_wrong_are_named(bad: object, wrap) -> None:
    own = wrap(lambda step: bad if step == 2 else 1.0)
    with pytest.raises(ArgumentError, match=r"schedule\(2\) = .* is not allowed; give a finite number above 0"):
        schedules.evaluate(own, 3)
    assert schedules.evaluate(own, 2) == (1.0, 1.0)


def test_a_floor_holds_up_numbers_and_hides_nothing_else() -> None:
    for low in (0.0, -0.5, -math.inf):
        assert schedules.evaluate(Floor(lambda step, low=low: low, 0.5), 1) == (0.5,)
    for bad in (math.nan, math.inf, True, "1", None):
        with pytest.raises(ArgumentError, match=r"schedule\(0\)"):
            schedules.evaluate(Floor(lambda step, bad=bad: bad, 0.5), 1)  # type: ignore[arg-type, return-value]


def test_other_numbers_become_floats() -> None:
    values = schedules.evaluate(lambda step: [1, np.float32(0.5), Fraction(1, 4)][step], 3)  # type: ignore[arg-type, return-value]
    assert values == (1.0, 0.5, 0.25)
    assert {type(value) for value in values} == {float}


def test_noise_that_leaves_the_floats_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"schedule\(1000\) = 0.0"):
        schedules.evaluate(ExponentialDecay(1.0, 0.7451332191019412), 1001)
    with pytest.raises(ArgumentError, match=r"schedule\(1024\) = inf"):
        schedules.evaluate(Staircase(1.0, 2.0, every=1), 1025)


@pytest.mark.parametrize("bad", [0, -3, 1.0, True])
def test_steps_are_counted(bad: object) -> None:
    with pytest.raises(ArgumentError, match="steps"):
        schedules.evaluate(Constant(1.0), bad)  # type: ignore[arg-type]


def test_what_cannot_be_called_is_no_schedule() -> None:
    with pytest.raises(ArgumentError, match="a callable"):
        schedules.evaluate(1.1, 3)  # type: ignore[arg-type]


def test_digest_is_of_the_bits() -> None:
    values = schedules.evaluate(Linear(2.0, 0.6, steps=9), 9)
    assert schedules.digest(values) == hashlib.sha256(np.asarray(values, dtype="<f8").tobytes()).hexdigest()
    assert schedules.digest(values) == schedules.digest(list(values))
    least = list(values)
    least[4] = math.nextafter(least[4], 9.0)
    others = [values[:-1], (*values, values[-1]), tuple(reversed(values)), tuple(least)]
    assert len({schedules.digest(other) for other in [values, *others]}) == 5


def test_a_floor_scales_with_its_schedule() -> None:
    assert schedules.scaled(Floor(Constant(1.0), 0.5), 2.0) == Floor(Constant(2.0), 1.0)


def test_scaling_a_callable_of_your_own() -> None:
    own = lambda step: 1.0 + step  # noqa: E731
    twice = schedules.scaled(schedules.scaled(own, 3.0), 2.0)
    assert twice == Scaled(own, 6.0)
    assert schedules.evaluate(twice, 2) == (6.0, 12.0)


@pytest.mark.parametrize(
    ("epochs", "population", "batch_size", "steps"),
    [
        (20, 60_000, 256, 4688),  # 4687.5: the last, partial step counts
        (1, 60_000, 60_000, 1),
        (1, 7, 2, 4),
        (0.1, 10, 1, 1),  # the float 0.1 is above 1/10
        (1.1, 10, 1, 11),  # 1.1 * 10 is 11.000000000000002
        (0.07, 100, 1, 7),  # 0.07 * 100 is 7.000000000000001
        (0.29, 100, 1, 29),
        (0.1 * 3, 10, 1, 4),  # 0.30000000000000004 epochs are what was given
        (Fraction(3, 10), 10, 1, 3),
        (Decimal("0.3"), 10, 1, 3),
        (1e-9, 10, 1, 1),
        (1, 2**53, 2**53 - 1, 2),
    ],
)
def test_steps_for(epochs: float, population: int, batch_size: int, steps: int) -> None:
    assert schedules.steps_for(epochs, population, batch_size) == steps


@given(hundredths=st.integers(1, 10_000), population=st.integers(1, 10**6), share=st.integers(1, 10**6))
def test_steps_are_the_least_whole_number_not_below(hundredths: int, population: int, share: int) -> None:
    batch_size = min(share, population)
    steps = schedules.steps_for(hundredths / 100, population, batch_size)
    assert (steps - 1) * 100 * batch_size < hundredths * population <= steps * 100 * batch_size


@pytest.mark.parametrize("bad", [0, -1, 0.0, math.nan, math.inf, True, "1", None, Decimal("NaN"), Fraction(-1, 2)])
def test_epochs_out_of_range(bad: object) -> None:
    with pytest.raises(ArgumentError, match="epochs"):
        schedules.steps_for(bad, 10, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("population", "batch_size"), [(0, 1), (10, 0), (10, 11), (10.0, 1), (10, 1.0), (True, True)])
def test_batches_come_from_the_population(population: object, batch_size: object) -> None:
    with pytest.raises(ArgumentError, match=r"population|batch_size"):
        schedules.steps_for(1, population, batch_size)  # type: ignore[arg-type]


def test_schedules_load_nothing_heavy() -> None:
    code = "import sys, privet.schedules; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
