"""An open-ended run: never below the truth, close to it, whatever is appended, in whatever order."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting import PLD, Event, Poisson, live, live_layout
from privet.accounting.calibration import merged_events
from privet.accounting.live import OpenRun
from privet.accounting.live_layout import Layout, Side
from privet.accounting.spectrum import Steps
from privet.errors import ArgumentError


def decaying(start: float, end: float, steps: int) -> list[float]:
    return [float(noise) for noise in np.geomspace(start, end, steps)]


def law_an_upper_end_close_to_pld(
    rate: float, noise: list[float], at: Iterable[int], delta: float = 1e-5, within: float = 1e-2
) -> OpenRun:
    run, events = OpenRun(rate, delta), merged_events(noise, Poisson(rate))
    asked = set(at)
    for step, level in enumerate(noise, 1):
        run.append(level)
        if step > 64 and step % 4 == 0:
            run.upper_epsilon()  # often, as a monitor does
        if step in asked:
            found = run.upper_epsilon()
            truth = PLD().epsilon(live_first(events, step), delta)
            assert truth.lower <= found <= truth.upper * (1.0 + within), (step, found, truth)
    return run


def live_first(events: list[Event], steps: int) -> list[Event]:
    taken = []
    for event in events:
        if steps > 0:
            taken.append(replace(event, count=min(event.count, steps)))
            steps -= event.count
    return taken


@pytest.mark.parametrize(
    ("rate", "noise", "at", "delta"),
    [
        (256 / 60_000, decaying(2.0, 0.6, 300), (1, 63, 64, 65, 83, 84, 300), 1e-5),
        (0.02, decaying(4.0, 1.0, 150), (150,), 1e-6),
        (0.1, decaying(1.0, 8.0, 120), (70, 120), 1e-5),  # rising noise
        (0.5, decaying(6.0, 3.0, 100), (64, 100), 1e-5),
        (0.01, [1.1] * 150, (64, 150), 1e-9),
        (0.01, [1.5, 0.5] * 60, (64, 120), 1e-5),
        (0.01, [2.0] * 100 + [0.6] + [2.0] * 20, (100, 101, 121), 1e-5),  # noise that leaves the nodes at once
    ],
)
def test_never_below_and_close(rate: float, noise: list[float], at: tuple[int, ...], delta: float) -> None:
    assert law_an_upper_end_close_to_pld(rate, noise, at, delta)._layout is not None


def test_thousands_of_steps_with_a_noise_of_their_own() -> None:
    run, noise = OpenRun(256 / 60_000, 1e-5), decaying(2.0, 0.8, 3_000)
    for level in noise[:2_500]:
        run.append(level)
    run.upper_epsilon()
    for level in noise[2_500:]:
        run.append(level)
    found, truth = run.upper_epsilon(), PLD().epsilon(run.events(), 1e-5)
    assert run._layout is not None
    assert truth.lower <= found <= truth.upper * 1.001


@settings(max_examples=4)
@given(
    st.floats(5e-3, 0.6),
    st.lists(st.tuples(st.floats(0.6, 6.0), st.integers(1, 60)), min_size=2, max_size=4),
    st.sampled_from([1e-5, 1e-7]),
)
def test_any_run_appended_in_any_parts(rate: float, parts: list[tuple[float, int]], delta: float) -> None:
    run = OpenRun(rate, delta)
    for noise, count in [(2.0, 64), *parts]:
        expected = run.would_spend(noise, count)
        run.append(noise, count)
        found = run.upper_epsilon()
        assert found == pytest.approx(expected, rel=1e-2)
    assert run.steps == 64 + sum(count for _, count in parts) == sum(event.count for event in run.events())
    truth = PLD().epsilon(run.events(), delta)
    assert truth.lower <= found <= truth.upper * 1.01


def test_would_spend_records_nothing() -> None:
    run = OpenRun(0.02, 1e-5)
    run.append(1.3, 200)
    before = run.upper_epsilon()
    assert run.would_spend(0.9) > before
    assert run.would_spend(0.9, 100) > run.would_spend(0.9)
    assert (run.upper_epsilon(), run.steps) == (before, 200)


def test_appending_a_step_costs_no_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[int] = []
    lay_out = live.lay_out
    monkeypatch.setattr(live, "lay_out", lambda *given: composed.append(1) or lay_out(*given))
    run = OpenRun(0.02, 1e-5, PLD())
    run.append(1.3, 100)
    run.upper_epsilon()
    monkeypatch.setattr(PLD, "upper_epsilon", lambda *_: pytest.fail("composed afresh"))
    for step in range(29):
        run.append(1.3 - 0.002 * step)
        run.upper_epsilon()
    assert len(composed) == 1


def test_nothing_costs_nothing_and_much_noise_next_to_nothing() -> None:
    run = OpenRun(1e-3, 1e-5)
    assert run.upper_epsilon() == 0.0
    run.append(1_000.0, 100)
    assert run.upper_epsilon() == 0.0


def test_where_the_arithmetic_does_not_reach_the_accountant_answers() -> None:
    run = OpenRun(0.01, 1e-5)
    run.append(0.009, 70)
    assert run.upper_epsilon() == PLD().upper_epsilon(run.events(), 1e-5)
    small = OpenRun(0.01, 1e-14)
    small.append(1.0, 200)
    truth = PLD().epsilon(small.events(), 1e-14)
    assert truth.lower <= small.upper_epsilon() <= truth.upper * 1.01


@pytest.mark.parametrize(
    "call",
    [
        lambda: OpenRun(1.0, 1e-5),
        lambda: OpenRun(0.0, 1e-5),
        lambda: OpenRun(0.1, 1.0),
        lambda: OpenRun(0.1, 1e-5).append(0.0),
        lambda: OpenRun(0.1, 1e-5).append(1.0, 0),
        lambda: OpenRun(0.1, 1e-5).would_spend(-1.0),
    ],
)
def test_what_is_out_of_range_is_refused(call: object) -> None:
    with pytest.raises(ArgumentError):
        call()  # type: ignore[operator]


def law_the_larger_direction_decides() -> None:
    """The forward direction is the larger one here; exchanged, the other must decide, and nothing may change."""
    run = OpenRun(0.02, 1e-5)
    run.append(1.0, 100)
    honest = run.upper_epsilon()
    layout = run._layout
    assert layout is not None
    assert layout.forward.composed().delta(honest)[0] > 1.5 * layout.reverse.composed().delta(honest)[0]
    run._layout = replace(layout, forward=layout.reverse, reverse=layout.forward)
    assert run.upper_epsilon() == pytest.approx(honest, rel=1e-4)


def test_both_directions_are_asked() -> None:
    law_the_larger_direction_decides()


@pytest.mark.parametrize("kept", [0, 1], ids=["reverse dropped", "forward dropped"])
def test_the_law_catches_a_dropped_direction(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_root", lambda losses, *rest, root=live._root: root((losses[kept],) * 2, *rest))
    with pytest.raises(AssertionError):
        law_the_larger_direction_decides()


def test_the_law_catches_a_window_that_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = [3.0] * 64 + [2.45] * 19
    law_an_upper_end_close_to_pld(0.3, noise, (83,))
    monkeypatch.setattr(live, "AHEAD", 1e9)  # no new layout unless one is asked for
    crowd = [3.0] * 64 + [2.45] * 600
    law_an_upper_end_close_to_pld(0.3, crowd, (100, 300, 664))
    monkeypatch.setattr(Side, "covered", True)
    with pytest.raises(AssertionError):
        law_an_upper_end_close_to_pld(0.3, crowd, (100, 300, 664))


def test_the_law_catches_weights_of_the_wrong_node(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = live_layout._placed

    def rounded_up(variation: np.ndarray, theta: np.ndarray, counts: np.ndarray) -> Steps:
        return replace(placed(variation, theta, counts), weight=np.ones(theta.size))

    monkeypatch.setattr(live_layout, "_placed", rounded_up)
    with pytest.raises(AssertionError):
        law_an_upper_end_close_to_pld(0.02, decaying(2.0, 1.0, 200), (200,))


def test_the_law_catches_a_release_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "after", lambda self, noise, count: self)
    with pytest.raises(AssertionError):
        law_an_upper_end_close_to_pld(0.02, [1.2] * 82, (82,))
