"""The PLD accountant: against exact divergences, golden brackets, dp-accounting, simulation, and its own laws."""

import itertools
import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting import (
    PLD,
    RDP,
    Event,
    NeighbouringRelation,
    NoSampling,
    Poisson,
    TruncatedPoisson,
    pld,
    spectrum,
)
from privet.accounting.loss_cells import Atoms, loss_grid, lower_atoms, top_loss, upper_atoms
from privet.accounting.reference import reference_epsilon
from privet.errors import AccountingError, ArgumentError, UnsupportedEventError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pld.json").read_text())["rows"]
ADD_OR_REMOVE = NeighbouringRelation.ADD_OR_REMOVE_ONE
rates = st.floats(1e-4, 0.9)
noises = st.floats(0.4, 8.0)
losses = st.floats(-2.0, 6.0)


def normal_above(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


def exact_delta(rate: float, noise: float, epsilon: float, *, reverse: bool) -> float:
    """The hockey-stick divergence of one subsampled Gaussian, from its definition, in 40 digits."""
    with mpmath.workdps(40):
        q, z, ratio = mpmath.mpf(rate), mpmath.mpf(noise), mpmath.exp(mpmath.mpf(-epsilon if reverse else epsilon))
        inside = (ratio - 1 + q) / q
        if inside <= 0:  # every outcome has a larger loss
            return float(1 - mpmath.exp(epsilon)) if not reverse else 0.0
        x = z**2 * mpmath.log(inside) + mpmath.mpf(1) / 2
        q_above, shifted = normal_above(x / z), normal_above((x - 1) / z)
        p_above = (1 - q) * q_above + q * shifted
        if reverse:
            return float((1 - q_above) - mpmath.exp(epsilon) * (1 - p_above))
        return float(p_above - ratio * q_above)


def lattice_delta(atoms: Atoms, spacing: float, row: int, epsilon: float) -> float:
    loss = atoms.points * spacing
    gain = -np.expm1(np.minimum(epsilon - loss, 0.0))
    return float(atoms.masses[row] @ gain + atoms.infinite[row])


@settings(max_examples=60)
@given(rates, st.lists(noises, min_size=1, max_size=4), losses, st.sampled_from([1e-3, 0.01]))
def test_atoms_bound_the_exact_divergence_from_both_sides(
    rate: float, noise: list[float], epsilon: float, spacing: float
) -> None:
    levels = np.array(sorted(noise))
    high = top_loss(levels[0], rate, 1e-14)
    points = loss_grid(spacing, 0.006, np.log1p(-rate) - 3 * spacing, high)
    above, below = upper_atoms(points, spacing, levels, rate), lower_atoms(points, spacing, levels, rate)
    for direction, reverse in enumerate((False, True)):
        for row, level in enumerate(levels):
            truth = exact_delta(rate, level, epsilon, reverse=reverse)
            assert lattice_delta(above[direction], spacing, row, epsilon) >= truth - 1e-13
            assert lattice_delta(below[direction], spacing, row, epsilon) <= truth + 1e-13
            for atoms in (above[direction], below[direction]):
                assert (atoms.masses >= 0).all()
                assert atoms.masses[row].sum() + atoms.infinite[row] == pytest.approx(1.0, abs=1e-12)


def test_both_bounds_are_of_second_order() -> None:
    """Halving a cell takes a quarter of the error: an optimistic rounding would take a half."""
    errors = []
    for spacing in (0.02, 0.01, 0.005):
        levels = np.array([1.0])
        points = loss_grid(spacing, 1e-9, np.log1p(-0.2) - 3 * spacing, top_loss(1.0, 0.2, 1e-14))
        total = np.zeros(2)
        for epsilon in np.linspace(0.05, 1.5, 401):
            truth = exact_delta(0.2, 1.0, epsilon, reverse=False)
            total[0] += lattice_delta(upper_atoms(points, spacing, levels, 0.2)[0], spacing, 0, epsilon) - truth
            total[1] += truth - lattice_delta(lower_atoms(points, spacing, levels, 0.2)[0], spacing, 0, epsilon)
        errors.append(total)
    for coarse, fine in itertools.pairwise(errors):
        assert (coarse / fine > 3.5).all()
        assert (coarse / fine < 4.5).all()


@settings(max_examples=150)
@given(st.floats(0.3, 10.0), st.floats(0.3, 10.0), st.floats(0.0, 1.0), rates, st.floats(-3.0, 8.0), st.booleans())
def test_a_level_is_dominated_by_the_mixture_that_matches_its_total_variation(
    one: float, other: float, share: float, rate: float, epsilon: float, reverse: bool
) -> None:
    """Brute force over random triples: delta is convex in theta = 2 Phi(1 / (2 z)) - 1 at every epsilon."""
    with mpmath.workdps(30):
        theta = [mpmath.erf(1 / (2 * mpmath.mpf(z) * mpmath.sqrt(2))) for z in (one, other)]
        between = share * theta[0] + (1 - share) * theta[1]
        level = float(1 / (2 * mpmath.sqrt(2) * mpmath.erfinv(between)))
    mixture = share * exact_delta(rate, one, epsilon, reverse=reverse)
    mixture += (1 - share) * exact_delta(rate, other, epsilon, reverse=reverse)
    assert exact_delta(rate, level, epsilon, reverse=reverse) <= mixture + 1e-13


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "lower", "upper"), GOLDEN)
def test_golden_brackets(rate: float, noise: float, steps: int, delta: float, lower: float, upper: float) -> None:
    bound = PLD().epsilon([Event(noise, Poisson(rate), steps)], delta)
    assert bound.lower <= upper
    assert bound.upper >= lower
    assert bound.width <= 3e-4


@pytest.mark.parametrize("noise", [[1.0], [2.0] * 4, [1.25, 5 / 3], [0.5**-0.5, 2.0, 2.0]])
def test_without_sampling_the_answer_is_exact(noise: list[float]) -> None:
    for sampling in (NoSampling(), Poisson(1.0)):
        bound = PLD().epsilon([Event(z, sampling) for z in noise], 1e-5)
        assert bound.upper == pytest.approx(4.377178, abs=5e-7)
        assert bound.width < 1e-9


DECAY = [float(z) for z in 2.0 * (0.6 / 2.0) ** (np.arange(10_000) / 9_999)]


def test_ten_thousand_levels_of_noise() -> None:
    """The truth lies in [3.870295, 3.870435]: computed once with every level on its own."""
    bound = PLD().epsilon([Event(z, Poisson(256 / 60_000)) for z in DECAY], 1e-5)
    assert 3.870295 <= bound.upper <= 3.870435 + 1e-3
    assert 3.870295 - 1e-2 <= bound.lower <= 3.870435


def test_mixtures_agree_with_every_level_on_its_own() -> None:
    events = [Event(z, Poisson(0.01)) for z in DECAY[::50]]
    alone = PLD(nodes=200).epsilon(events, 1e-5)
    excess = []
    for nodes in (24, 48, 96):
        mixed = PLD(nodes=nodes, lower_nodes=150).epsilon(events, 1e-5)
        assert mixed.upper >= alone.lower
        assert mixed.lower <= alone.upper
        assert mixed.lower >= alone.lower - 0.05
        excess.append(mixed.upper - alone.upper)
    for coarse, fine in itertools.pairwise(excess):
        assert 3.0 < coarse / fine < 5.0, "the error is of second order in the number of nodes"


def random_events(generator: np.random.Generator, sizes: int = 3) -> list[Event]:
    rate = float(10 ** generator.uniform(-2.5, -0.3))
    return [
        Event(float(generator.uniform(0.7, 4.0)), Poisson(rate), int(generator.integers(1, 60)))
        for _ in range(generator.integers(1, sizes + 1))
    ]


def test_brackets_overlap_with_those_of_dp_accounting() -> None:
    """200 random compositions, at an interval at which dp-accounting answers fast."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        events, delta = random_events(generator), float(10 ** generator.uniform(-8, -2))
        bound = PLD().epsilon(events, delta)
        above = reference_epsilon(events, delta, ADD_OR_REMOVE, 4e-3)
        below = reference_epsilon(events, delta, ADD_OR_REMOVE, 4e-3, optimistic=True)
        assert bound.lower <= above + 1e-9
        assert bound.upper >= below - 1e-9
        assert bound.width <= max(5e-4, 1e-3 * bound.upper)


def simulated_delta(events: list[Event], epsilon: float, draws: int, scale: float = 1.0) -> tuple[float, float]:
    """Mean of (1 - e^(epsilon - S))_+ over simulated losses S of "one record more", and its standard error."""
    generator = np.random.default_rng(1)
    total = np.zeros(draws)
    for event in events:
        z, q = event.noise_multiplier * scale, event.rate
        for _ in range(event.count):
            x = generator.normal(0.0, z, draws) + (generator.random(draws) < q)
            total += np.log1p(q * np.expm1((2 * x - 1) / (2 * z**2)))
    gain = np.maximum(-np.expm1(epsilon - total), 0.0)
    return float(gain.mean()), float(gain.std() / np.sqrt(draws))


def test_delta_agrees_with_simulation_and_a_wrong_scale_does_not() -> None:
    """Within 4.5 standard errors of 400,000 draws: a false alarm has probability below 1e-5."""
    events = [Event(0.9, Poisson(0.1), 10), Event(1.4, Poisson(0.1), 15)]
    bound = PLD().delta(events, 1.5, scale=1e-3)
    mean, error = simulated_delta(events, 1.5, 400_000)
    assert bound.upper - bound.lower < error
    assert abs(mean - bound.upper) < 4.5 * error
    for scale in (0.97, 1.03):
        wrong, error = simulated_delta(events, 1.5, 400_000, scale)
        assert abs(wrong - bound.upper) > 4.5 * error


def test_more_noise_fewer_steps_less_sampling_and_more_delta_cost_less() -> None:
    generator = np.random.default_rng(2)
    for _ in range(25):
        rate, noise = 10 ** generator.uniform(-3, -0.5), generator.uniform(0.6, 3.0)
        steps = generator.integers(2, 2_000)
        delta = float(10 ** generator.uniform(-9, -3))
        bound = PLD().epsilon([Event(float(noise), Poisson(float(rate)), int(steps))], delta)
        for less in (
            PLD().epsilon([Event(float(noise) * 1.1, Poisson(float(rate)), int(steps))], delta),
            PLD().epsilon([Event(float(noise), Poisson(float(rate) * 0.9), int(steps))], delta),
            PLD().epsilon([Event(float(noise), Poisson(float(rate)), int(steps) - 1)], delta),
            PLD().epsilon([Event(float(noise), Poisson(float(rate)), int(steps))], delta * 1.5),
        ):
            assert less.lower <= bound.upper + 1e-9
            assert less.upper <= bound.upper + bound.width + less.width + 1e-9


def test_order_and_merging_never_matter() -> None:
    events = [Event(1.0, Poisson(0.02), 30), Event(2.0, Poisson(0.05), 20), Event(3.0, NoSampling(), 2)]
    apart = [Event(event.noise_multiplier, event.sampling) for event in events for _ in range(event.count)]
    expected = PLD().epsilon(events, 1e-6)
    for other in (events[::-1], apart, apart[::-1]):
        bound = PLD().epsilon(other, 1e-6)
        assert (bound.lower, bound.upper) == (pytest.approx(expected.lower), pytest.approx(expected.upper))


def test_rdp_is_never_below() -> None:
    generator = np.random.default_rng(3)
    for _ in range(60):
        events, delta = random_events(generator, 4), float(10 ** generator.uniform(-9, -2))
        assert RDP().epsilon(events, delta).upper >= PLD().epsilon(events, delta).lower


@settings(max_examples=40)
@given(
    st.floats(-6, 0).map(lambda x: 10**x),
    st.floats(-3, 2).map(lambda x: 10**x),
    st.floats(0, 5).map(lambda x: int(10**x)),
    st.floats(-12, -1).map(lambda x: 10**x),
)
def test_any_composition_has_a_bracket(rate: float, noise: float, steps: int, delta: float) -> None:
    events = [Event(noise, Poisson(rate), steps)]
    bound = PLD(width=1e-2).epsilon(events, delta)
    assert 0.0 <= bound.lower <= bound.upper
    assert bound.lower <= RDP().epsilon(events, delta).upper


def test_delta_and_epsilon_are_inverse() -> None:
    events = [Event(1.0, Poisson(0.02), 200)]
    epsilon = PLD().epsilon(events, 1e-5)
    assert PLD().delta(events, epsilon.lower, scale=1e-5).upper >= 1e-5
    assert PLD().delta(events, epsilon.upper, scale=1e-5).lower <= 1e-5


def test_trajectory_is_the_bracket_of_each_prefix() -> None:
    events = [Event(1.5, Poisson(0.02), 40), Event(1.0, Poisson(0.02), 40)]
    whole = PLD().trajectory(events, 1e-5, [0, 40, 50, 80])
    assert whole[0].upper == 0.0
    assert whole[1] == PLD().epsilon(events[:1], 1e-5)
    assert whole[3] == PLD().epsilon(events, 1e-5)
    assert [bound.upper for bound in whole] == sorted(bound.upper for bound in whole)
    with pytest.raises(ArgumentError, match="steps = 81"):
        PLD().trajectory(events, 1e-5, [81])


def test_what_cannot_be_interpreted_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedEventError, match="TruncatedPoisson"):
        PLD().epsilon([Event(1.0, TruncatedPoisson(0.1, 10, 100))], 1e-5)
    with pytest.raises(UnsupportedEventError, match="replace-one"):
        PLD().epsilon([Event(1.0, Poisson(0.1))], 1e-5, NeighbouringRelation.REPLACE_ONE)
    assert PLD().epsilon([Event(1.0, NoSampling())], 1e-5, NeighbouringRelation.REPLACE_ONE).upper > 4.0
    assert PLD().epsilon([], 1e-5).upper == 0.0
    for bad in ({"width": 0.0}, {"nodes": 1}, {"lower_nodes": 1}):
        with pytest.raises(ArgumentError):
            PLD(**bad)
    for delta in (0.0, 1.0, float("nan")):
        with pytest.raises(ArgumentError, match="delta"):
            PLD().epsilon([Event(1.0, NoSampling())], delta)


def test_both_ways_to_the_spectrum_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole transforms that stop early, and sampled frequencies with a bound between them, give the same bracket."""
    generator = np.random.default_rng(4)
    for levels in (2, 10, 40):
        for rate in (0.005, 0.1):
            noise = generator.uniform(0.7, 3.0, levels)
            events = [Event(float(z), Poisson(rate), int(generator.integers(1, 4_000 // levels))) for z in noise]
            whole = PLD().epsilon(events, 1e-6)
            with monkeypatch.context() as patch:
                patch.setattr(spectrum, "_FFT_AT_MOST", 0)
                sampled = PLD().epsilon(events, 1e-6)
            assert sampled.upper == pytest.approx(whole.upper, abs=2e-6)
            assert sampled.lower == pytest.approx(whole.lower, abs=2e-6)


def test_one_release_has_the_epsilon_of_the_closed_form() -> None:
    """Few steps keep every frequency, small factors among them: 60 random releases against 40 digits."""
    generator = np.random.default_rng(5)
    for _ in range(60):
        noise, rate = float(10 ** generator.uniform(-0.6, 0.7)), float(10 ** generator.uniform(-4, 0) * 0.98)
        delta = float(10 ** generator.uniform(-9, -2))
        bound = PLD().epsilon([Event(noise, Poisson(rate))], delta)

        def truth(epsilon: float, noise: float = noise, rate: float = rate) -> float:
            return max(exact_delta(rate, noise, epsilon, reverse=reverse) for reverse in (False, True))

        assert truth(bound.upper) <= delta
        assert bound.lower == 0.0 or truth(bound.lower) >= delta
        assert bound.width <= max(2e-3, 2e-3 * bound.upper)


@pytest.mark.parametrize(
    ("low", "high"), [(0.04, 2.0), (0.062, 2.0), (0.08, 1.0), (0.5, 50.0), (1.0, 1.001), (5.0, 1e3)]
)
def test_nodes_dominate_every_level(low: float, high: float) -> None:
    noise = np.geomspace(low, high, 300)
    levels, row, weight, _ = pld._mixed(noise, np.ones(300), 256)
    assert levels[-1] <= low
    assert (levels[row + 1] <= noise * (1 + 1e-12)).all()
    assert ((weight == 0.0) | (levels[row] >= noise * (1 - 1e-12)) | (row == 0)).all()
    with mpmath.workdps(40):

        def theta(z: float) -> mpmath.mpf:
            return mpmath.erf(1 / (2 * mpmath.sqrt(2) * mpmath.mpf(float(z))))

        for at in range(0, 300, 23):
            share = mpmath.mpf(float(weight[at]))
            mixture = share * theta(levels[row[at]]) + (1 - share) * theta(levels[row[at] + 1])
            assert mixture >= theta(noise[at])


@pytest.mark.parametrize(
    "event",
    [Event(1e100, NoSampling()), Event(1e-100, NoSampling()), Event(1e100, Poisson(0.1)), Event(1e-100, Poisson(0.1)),
     Event(1.0, Poisson(0.1), 10**15), Event(1e4, Poisson(0.01), 10**12), Event(0.05, Poisson(0.01), 300)],
)  # fmt: skip
def test_what_lies_far_out_is_left_to_rdp_without_an_accident(event: Event) -> None:
    bound = PLD().epsilon([event], 1e-5)
    assert 0.0 <= bound.lower <= bound.upper <= max(RDP().epsilon([event], 1e-5).upper, bound.lower) * (1 + 1e-9)


def test_ends_that_cross_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upper end that under-counts is found by the lower end, and refused instead of clipped."""
    events = [Event(1.0, Poisson(0.02), 100)]
    truth = PLD().epsilon(events, 1e-5)
    monkeypatch.setattr(PLD, "upper_epsilon", lambda *_: truth.lower - 1e-3)
    with pytest.raises(AccountingError, match="lies above the upper end"):
        PLD().epsilon(events, 1e-5)
