"""Faults planted in the accounting are caught by the laws that its tests rest on."""

import itertools

import numpy as np
import pytest

from privet.accounting import PLD, Bound, Event, Poisson, joint_noise, pld
from privet.accounting.gaussian import gaussian_delta
from privet.accounting.loss_cells import Atoms, loss_grid, top_loss, upper_atoms
from privet.accounting.spectrum import ComposedLoss, Steps, compose

GRADIENT, COUNT, RATE, STEPS, DELTA = 1.0, 1.5, 0.05, 40, 1e-3


def simulated_delta(epsilon: float) -> tuple[float, float]:
    """Two Gaussian queries answered on one sample: the truth, by 400,000 draws of the composed loss, and its error."""
    generator, draws = np.random.default_rng(0), 400_000
    total = np.zeros(draws)
    for _ in range(STEPS):
        taken = generator.random(draws) < RATE
        exponent = np.zeros(draws)
        for z in (GRADIENT, COUNT):
            exponent += (2 * (generator.normal(0.0, z, draws) + taken) - 1) / (2 * z**2)
        total += np.log1p(RATE * np.expm1(exponent))
    gain = np.maximum(-np.expm1(epsilon - total), 0.0)
    return float(gain.mean()), float(gain.std() / np.sqrt(draws))


def law_epsilon_covers_what_was_released(bound: Bound) -> None:
    """At the upper end, delta is not above what was asked for: 4 standard errors, a false alarm in 30,000."""
    mean, error = simulated_delta(bound.upper)
    assert mean <= DELTA + 4 * error


def joint(noise: float) -> Bound:
    return PLD().epsilon([Event(noise, Poisson(RATE), STEPS)], DELTA)


def test_two_queries_on_one_sample() -> None:
    law_epsilon_covers_what_was_released(joint(joint_noise([GRADIENT, COUNT])))


def test_the_count_omitted_is_caught() -> None:
    with pytest.raises(AssertionError):
        law_epsilon_covers_what_was_released(joint(GRADIENT))


def test_one_sample_accounted_as_two_is_caught() -> None:
    two = [Event(GRADIENT, Poisson(RATE), STEPS), Event(COUNT, Poisson(RATE), STEPS)]
    with pytest.raises(AssertionError):
        law_epsilon_covers_what_was_released(PLD().epsilon(two, DELTA))


def law_levels_are_dominated(upper: float) -> None:
    assert upper >= PLD(nodes=200).epsilon(DECAYING, 1e-5).lower


DECAYING = [Event(float(z), Poisson(0.01)) for z in 2.0 * 0.3 ** (np.arange(200) / 199)]


def test_noise_rounded_up_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    law_levels_are_dominated(PLD(nodes=40).upper_epsilon(DECAYING, 1e-5))
    monkeypatch.setattr(pld, "_mixed", pld._rounded_up)
    with pytest.raises(AssertionError):
        law_levels_are_dominated(PLD(nodes=40).upper_epsilon(DECAYING, 1e-5))


def test_weights_averaged_within_a_pair_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An average of mixtures is no bound on their composition: here it spends less than the steps' own mixtures do."""
    proper = pld._mixed

    def averaged(*arguments: object) -> pld.Nodes:
        levels, row, weight, count = proper(*arguments)  # type: ignore[arg-type]
        weight = weight.copy()
        for pair in np.unique(row):
            weight[row == pair] = np.average(weight[row == pair], weights=count[row == pair])
        return levels, row, weight, count

    spread = [Event(z, Poisson(0.3)) for z in (0.6, 0.61, 1.99, 2.0)]
    own = PLD(nodes=2).upper_epsilon(spread, 0.1)
    assert own >= PLD().epsilon(spread, 0.1).lower
    monkeypatch.setattr(pld, "_mixed", averaged)
    assert PLD(nodes=2).upper_epsilon(spread, 0.1) < own - 0.01


def law_direction_is_exact(delta: float, error: float, truth: float) -> None:
    assert truth - 1e-3 * truth <= delta + error
    assert delta - error <= truth * 1.05


def test_the_short_cut_to_the_other_direction_is_caught() -> None:
    """Mass times e^-loss after composition amplifies rounding where the loss is low; two transforms do not.

    At a rate of nearly 1 the pair is nearly that of the Gaussian mechanism, whose two directions are one.
    """
    rate, noise, steps, epsilon = 1.0 - 1e-9, 2.0, 144, 45.0
    mu = np.sqrt(steps) / noise
    truth = gaussian_delta(epsilon, mu)
    spacing = 1e-3
    high = top_loss(noise, rate, 1e-18)
    points = loss_grid(spacing, 0.006, -high, high)
    forward, reverse = upper_atoms(points, spacing, np.array([noise]), rate)
    one = Steps(np.zeros(1, dtype=np.int64), np.ones(1), np.array([float(steps)]))
    law_direction_is_exact(*compose(reverse, spacing, one, 1e-19).delta(epsilon), truth)
    composed = compose(forward, spacing, one, 1e-19)
    with pytest.raises(AssertionError):
        law_direction_is_exact(*short_cut(composed, forward, spacing, steps, epsilon), truth)


def short_cut(
    composed: ComposedLoss, forward: Atoms, spacing: float, steps: int, epsilon: float
) -> tuple[float, float]:
    transform = np.fft.rfft(np.bincount(forward.points % composed.size, forward.masses[0], composed.size))
    masses = np.fft.irfft(transform**steps, composed.size)
    losses = (composed.start + (np.arange(composed.size) - composed.start) % composed.size) * spacing
    masses = masses * np.exp(-losses)
    return float((masses * np.maximum(-np.expm1(epsilon + losses), 0.0)).sum()), 0.0


def test_a_step_left_out_is_caught() -> None:
    whole = PLD().trajectory([Event(1.0, Poisson(0.02), 64)], 1e-5, [61, 62, 63, 64])
    for fewer, more in itertools.pairwise(whole):
        assert fewer.upper < more.lower, "brackets are narrow enough to tell one step"
