"""Events describe: what is written is read back unchanged, and what is not known is refused by name."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.accounting import Bound, Event, NoSampling, Poisson, TruncatedPoisson, joint_noise
from privet.errors import ArgumentError, UnsupportedEventError

rates = st.floats(0.0, 1.0, exclude_min=True)
counts = st.integers(1, 10**9)
samplings = st.one_of(
    st.just(NoSampling()), st.builds(Poisson, rates), st.builds(TruncatedPoisson, rates, counts, counts)
)
events = st.builds(Event, st.floats(1e-100, 1e100), samplings, counts)


@given(events)
def test_json_gives_the_event_back_exactly(event: Event) -> None:
    assert Event.from_json(json.loads(json.dumps(event.to_json(), allow_nan=False))) == event


GOOD = Event(1.1, Poisson(0.01), 3).to_json()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "laplace"}, UnsupportedEventError, "'laplace'"),
        ({"version": 2}, UnsupportedEventError, "version 2"),
        ({"sampling": {"kind": "shuffled"}}, UnsupportedEventError, "'shuffled'"),
        ({"sampling": {"kind": "poisson"}}, ArgumentError, "exactly the fields kind, rate"),
        ({"sampling": {"kind": "none", "rate": 0.1}}, ArgumentError, "exactly the fields kind"),
        ({"sampling": []}, ArgumentError, "sampling"),
        ({"extra": 1}, ArgumentError, "exactly the fields"),
        ({"count": 0}, ArgumentError, "count"),
        ({"count": 1.5}, ArgumentError, "count"),
        ({"count": True}, ArgumentError, "count"),
        ({"noise_multiplier": 0.0}, ArgumentError, "noise_multiplier"),
        ({"noise_multiplier": "1"}, ArgumentError, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, ArgumentError, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, ArgumentError, "noise_multiplier"),
        ({"noise_multiplier": 10**400}, ArgumentError, "noise_multiplier"),
        ({"sampling": {"kind": "poisson", "rate": 0.0}}, ArgumentError, "rate"),
        ({"sampling": {"kind": "poisson", "rate": 1.5}}, ArgumentError, "rate"),
        ({"sampling": {"kind": "truncated-poisson", "rate": 0.1, "cap": 0, "population": 9}}, ArgumentError, "cap"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Event.from_json({**GOOD, **change})


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=5))
def test_joint_noise_adds_precisions(noise: list[float]) -> None:
    assert joint_noise(noise) ** -2 == pytest.approx(sum(z**-2 for z in noise))
    assert joint_noise(noise) <= min(noise) * (1 + 1e-12)


@pytest.mark.parametrize("noise", [[], [0.0], [math.inf], [1.0, -1.0], [math.nan]])
def test_joint_noise_of_nothing_sensible_is_refused(noise: list[float]) -> None:
    with pytest.raises(ArgumentError, match="noise_multipliers"):
        joint_noise(noise)


def test_a_bound_shows_its_upper_end_first_and_never_rounds_it_down() -> None:
    assert str(Bound(2.3811, 2.3812)) == "<= 2.382 (not below 2.381)"
    assert str(Bound(0.0, math.inf)) == "unbounded"
    for ends in ((-1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ArgumentError, match="0 <= lower <= upper"):
            Bound(*ends)


def test_an_event_describes_itself() -> None:
    assert str(Event(1.1, Poisson(0.01), 3)) == "Gaussian, noise multiplier 1.1, Poisson rate 0.01, 3 times"
    assert "no sampling, once" in str(Event(2.0, NoSampling()))
    assert "at most 20 of 100" in str(Event(2.0, TruncatedPoisson(0.1, 20, 100)))
