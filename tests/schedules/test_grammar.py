"""The noise grammar: what it reads, what it writes, what it refuses."""

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


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("1.1", Constant(1.1)),
        (" 2 ", Constant(2.0)),
        ("constant(1.1)", Constant(1.1)),
        ("exponential(2.0, rate=1e-4)", ExponentialDecay(2.0, 1e-4)),
        ("exponential(2.0, to=0.6)", ExponentialDecay.reaching(2.0, 0.6, 100)),
        ("time( 2.0 ,rate=0.5)", TimeDecay(2.0, 0.5)),
        ("step(2.0, rate=0)", StepDecay(2.0, 0.0)),
        ("linear(2.0, to=0.6)", Linear(2.0, 0.6, steps=100)),
        ("linear(2.0, to=0.6, steps=50)", Linear(2.0, 0.6, steps=50)),
        ("cosine(0.6, to=2.0)", Cosine(0.6, 2.0, steps=100)),
        ("staircase(2.0, factor=0.9, every=10)", Staircase(2.0, 0.9, every=10)),
        ("staircase(2.0, every=10, to=0.6)", Staircase.reaching(2.0, 0.6, 100, every=10)),
        ("constant(1.1, floor=0.5)", Floor(Constant(1.1), 0.5)),
        ("exponential(2.0, floor=0.5, rate=1e-4)", Floor(ExponentialDecay(2.0, 1e-4), 0.5)),
    ],
)
def test_reads(text: str, schedule: NoiseSchedule) -> None:
    assert schedules.parse(text, steps=100) == schedule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sigma",
        "normal(1.0)",
        "constant()",
        "constant(1.0, 2.0)",
        "constant(1.0, rate=1)",
        "constant(sigma=1.0)",
        "exponential(2.0)",
        "exponential(2.0, 0.1)",
        "exponential(2.0, rate=1e-4, to=0.6)",
        "exponential(2.0, rate=1e-4, rate=1e-4)",
        "exponential(2.0, **{})",
        "exponential(2.0, to=3.0)",
        "exponential(2.0, to=True)",
        "exponential(2.0, rate=-1e-4)",
        "exponential(2.0, rate=1e-4, floor=0)",
        "step(2.0, rate=1.0)",
        "linear(2.0)",
        "linear(2.0, rate=0.1)",
        "linear(2.0, to=0.6, steps=2.5)",
        "staircase(2.0, factor=0.9)",
        "staircase(2.0, factor=0.9, every=1.5)",
        "staircase(2.0, factor=0.9, to=1.0, every=1)",
        "constant('1')",
        "constant(1j)",
        "constant(nan)",
        "constant(1e999)",
        "constant(0)",
        "-1.0",
        "constant(--1)",
        "1 + 1",
        "constant(1.0).real",
        "constant(1.0); 2",
        "__import__('os').getcwd()",
        "print(1.0)",
        "(lambda: 1)()",
        "constant(1.0",
        "1\x00",
        "(" * 150,
        "-" * 150 + "1",
        "9" * 201,
    ],
)
def test_refuses_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError) as refusal:
        schedules.parse(text, steps=100)
    assert refusal.value.name == "noise"
    assert refusal.value.value == text
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr().out == ""


@given(
    text=st.text(max_size=30) | st.from_regex(r"(exponential|linear|staircase)\([0-9a-z=., -]{0,20}\)", fullmatch=True)
)
def test_anything_else_is_a_refusal_too(text: str) -> None:
    try:
        schedule = schedules.parse(text, steps=5)
    except ArgumentError:
        return
    assert schedules.parse(schedules.describe(schedule), steps=5) == schedule


@pytest.mark.parametrize("text", [1.1, None, b"1.1"])
def test_text_is_text(text: object) -> None:
    with pytest.raises(ArgumentError, match="noise"):
        schedules.parse(text, steps=5)  # type: ignore[arg-type]


def test_the_refusal_names_the_forms_of_the_shape_and_the_fault() -> None:
    with pytest.raises(ArgumentError, match=r"give exponential\(\.\., to=\.\.\) or exponential\(\.\., rate=\.\.\)"):
        schedules.parse("exponential(2.0)", steps=5)
    with pytest.raises(ArgumentError, match=r"Here, end = 3.0 is not allowed; give at most the start, 2.0"):
        schedules.parse("exponential(2.0, to=3.0)", steps=5)


noises = st.floats(1e-3, 1e3)


@given(
    st.one_of(
        st.builds(Constant, noises),
        st.builds(TimeDecay, noises, st.floats(0, 1e3)),
        st.builds(StepDecay, noises, st.floats(0, 0.999)),
        st.builds(ExponentialDecay, noises, st.floats(0, 1e3)),
        st.builds(Staircase, noises, noises, st.integers(1, 10**9)),
        st.builds(Linear, noises, noises, st.integers(2, 10**9)),
        st.builds(Cosine, noises, noises, st.integers(2, 10**9)),
    ),
    st.none() | noises,
)
def test_what_is_written_reads_back_equal(schedule: NoiseSchedule, floor: float | None) -> None:
    if floor is not None:
        schedule = Floor(schedule, floor)
    assert schedules.parse(schedules.describe(schedule), steps=7) == schedule


def test_callables_of_your_own_are_shown_and_not_read() -> None:
    def warm(step: int) -> float:
        return 1.0

    shown = schedules.describe(Floor(Scaled(warm, 2.0), 0.5))
    assert shown.startswith("custom(")
    assert "warm, scale=2.0, floor=0.5)" in shown
    with pytest.raises(ArgumentError):
        schedules.parse(shown, steps=5)
