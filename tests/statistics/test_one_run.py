"""The bound from one run: against linear programs over all private mechanisms, and by its false alarms.

A null test runs 1,000 audits at exact truth, with a nominal error of 5%: more than 71 false alarms (7.1%, three
standard errors) have a probability below 0.2%. The same count must reject bounds with a planted fault.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.stats import binom

from privet.accounting import NoSampling, calibration
from privet.errors import ArgumentError, DataError
from privet.statistics.one_run import OneRunBound, default_guesses, one_run_epsilon, one_run_p_value

RUNS, ALLOWED = 1_000, 71
Bound = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
GRID = (20, 50, 100, 300)


# The p-value, against the best of all mechanisms


def guess_vectors(canaries: int, guesses: int) -> list[tuple[int, ...]]:
    """All of {-1, 0, 1}^m with r that are not 0."""
    return [
        tuple(dict(zip(chosen, signs, strict=True)).get(i, 0) for i in range(canaries))
        for chosen in combinations(range(canaries), guesses)
        for signs in product((-1, 1), repeat=guesses)
    ]


def right(coins: Sequence[int], guess: Sequence[int]) -> int:
    return sum(c == g for c, g in zip(coins, guess, strict=True))


def neighbours(coins: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(*coins[:i], -coins[i], *coins[i + 1 :]) for i in range(len(coins))]


def best_over_all_tables(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The largest P[>= v right] over every conditional law of the guesses that is private for each pair of coins."""
    inputs, outputs = list(product((-1, 1), repeat=canaries)), guess_vectors(canaries, guesses)
    pairs = [(a, b) for a, coins in enumerate(inputs) for b in map(inputs.index, neighbours(coins))]
    laws, width = len(inputs) * len(outputs), len(outputs)
    size = laws + len(pairs) * width
    rows, limits = [], []
    for number, (a, b) in enumerate(pairs):  # excess >= P(t | a) - e^eps P(t | b), summing to delta
        excess = laws + number * width
        for t in range(width):
            row = np.zeros(size)
            row[[a * width + t, b * width + t, excess + t]] = 1.0, -math.exp(epsilon), -1.0
            rows.append(row)
            limits.append(0.0)
        row = np.zeros(size)
        row[excess : excess + width] = 1.0
        rows.append(row)
        limits.append(delta)
    aim, sums = np.zeros(size), np.zeros((len(inputs), size))
    for a, coins in enumerate(inputs):
        sums[a, a * width : (a + 1) * width] = 1.0
        aim[a * width : (a + 1) * width] = [-(right(coins, guess) >= correct) / len(inputs) for guess in outputs]
    found = linprog(aim, A_ub=np.array(rows), b_ub=limits, A_eq=sums, b_eq=np.ones(len(inputs)), method="highs")
    return -float(found.fun)


@pytest.mark.parametrize(
    ("correct", "guesses", "canaries", "epsilon", "delta"),
    [
        (1, 1, 1, 1.0, 0.1),
        (1, 1, 2, 0.5, 0.05),
        (2, 2, 2, 0.5, 0.03),
        (1, 2, 2, 1.0, 0.03),
        (2, 2, 2, 0.0, 0.2),
        (2, 2, 2, 1.0, 0.0),
        (3, 3, 3, 1.0, 0.02),
        (2, 3, 3, 0.7, 0.02),
        (2, 2, 3, 0.7, 0.01),
        (2, 2, 2, 1.0, 0.9),
    ],
)
def test_p_value_is_the_best_of_all_private_mechanisms(
    correct: int, guesses: int, canaries: int, epsilon: float, delta: float
) -> None:
    best = best_over_all_tables(correct, guesses, canaries, epsilon, delta)
    assert one_run_p_value(correct, guesses, canaries, epsilon, delta) == pytest.approx(best, abs=1e-7)


def best_over_counts(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The same over laws of the number of right guesses, which symmetry allows; for more canaries."""
    odds, count = math.exp(epsilon), guesses + 1
    size = count + 2 * guesses
    rows = []
    for k in range(1, count):
        up, down = np.zeros(size), np.zeros(size)
        up[[k, k - 1, count + k - 1]] = k, -odds * (guesses - k + 1), -1.0
        down[[k - 1, k, count + guesses + k - 1]] = guesses - k + 1, -odds * k, -1.0
        rows += [up, down]
    rows.append(np.concatenate((np.zeros(count), np.ones(2 * guesses))))
    aim, total = np.zeros(size), np.zeros((1, size))
    aim[correct:count], total[0, :count] = -1.0, 1.0
    limits = [0.0] * (2 * guesses) + [canaries * delta]
    return -float(linprog(aim, A_ub=np.array(rows), b_ub=limits, A_eq=total, b_eq=[1.0], method="highs").fun)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 40), st.floats(0.0, 3.0), st.floats(-5.0, -0.5))
def test_p_value_is_the_best_of_all_laws_of_counts(
    data: st.DataObject, canaries: int, epsilon: float, e: float
) -> None:
    guesses = data.draw(st.integers(1, canaries))
    correct = data.draw(st.integers(0, guesses))
    best = best_over_counts(correct, guesses, canaries, epsilon, 10.0**e)
    assert one_run_p_value(correct, guesses, canaries, epsilon, 10.0**e) == pytest.approx(best, abs=1e-6)


def worst_law(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> NDArray[np.float64]:
    """The mechanism of the docstring: randomised response, now and then drawn until v guesses are right (r + 1,)."""
    law = binom.pmf(np.arange(guesses + 1), guesses, 1.0 / (1.0 + math.exp(-epsilon)))
    tail = law[correct:].sum()
    often = min(1.0, canaries * delta * tail / (correct * law[correct]))
    return law * ((1.0 - often) + often * (np.arange(guesses + 1) >= correct) / tail)


@pytest.mark.parametrize(("correct", "guesses", "canaries"), [(3, 4, 4), (2, 3, 4), (1, 2, 4), (4, 4, 5)])
def test_a_mechanism_that_enumeration_shows_to_be_private_attains_it(correct: int, guesses: int, canaries: int) -> None:
    epsilon, delta = 0.8, 0.02
    law = worst_law(correct, guesses, canaries, epsilon, delta)
    share = [law[k] / math.comb(guesses, k) / math.comb(canaries, guesses) for k in range(guesses + 1)]
    outputs, coins = guess_vectors(canaries, guesses), (1,) * canaries
    chances = np.array([share[right(coins, guess)] for guess in outputs])
    assert chances.sum() == pytest.approx(1.0)
    for other in neighbours(coins):  # by symmetry, all pairs
        others = np.array([share[right(other, guess)] for guess in outputs])
        for one, two in ((chances, others), (others, chances)):
            assert np.maximum(one - math.exp(epsilon) * two, 0.0).sum() <= delta + 1e-12
    reached = sum(c for c, guess in zip(chances, outputs, strict=True) if right(coins, guess) >= correct)
    assert reached == pytest.approx(one_run_p_value(correct, guesses, canaries, epsilon, delta), abs=1e-12)


@given(st.data(), st.integers(1, 20_000), st.floats(0.0, 40.0), st.floats(0.0, 4.0), st.floats(-12.0, -0.1))
def test_p_value_is_monotone(data: st.DataObject, canaries: int, epsilon: float, more: float, e: float) -> None:
    guesses = data.draw(st.integers(1, canaries))
    correct = data.draw(st.integers(1, guesses))
    delta = 10.0**e
    p = one_run_p_value(correct, guesses, canaries, epsilon, delta)
    slack = 1e-9 * p
    assert 0.0 <= p <= 1.0
    assert p <= one_run_p_value(correct, guesses, canaries, epsilon + more, delta) + slack
    assert p <= one_run_p_value(correct, guesses, canaries, epsilon, min(2.0 * delta, 0.99)) + slack
    assert p <= one_run_p_value(correct - 1, guesses, canaries, epsilon, delta) + slack
    assert p >= one_run_p_value(correct, guesses, canaries, epsilon, 0.0) - slack


@given(st.data(), st.integers(1, 3_000), st.floats(0.0, 6.0), st.floats(-7.0, -2.0))
def test_a_p_value_up_to_a_half_stays_below_the_theorem_it_rests_on(
    data: st.DataObject, canaries: int, epsilon: float, e: float
) -> None:
    guesses = data.draw(st.integers(1, min(canaries, 400)))
    q = 1.0 / (1.0 + math.exp(-epsilon))
    correct = data.draw(st.integers(math.ceil(q * guesses), guesses))
    p = one_run_p_value(correct, guesses, canaries, epsilon, 10.0**e)
    assume(p <= 0.5)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q)) / np.arange(1, correct + 1)
    theirs = binom.sf(correct - 1, guesses, q) + 2.0 * canaries * 10.0**e * below.max()
    assert p <= theirs * (1.0 + 1e-9)


# False alarms


def single(delta: float = 0.0, guesses: int | None = None) -> Bound:
    return lambda scores, coins: one_run_epsilon(scores, coins, delta, guesses=guesses).epsilon_low


def bonferroni(delta: float = 0.0) -> Bound:
    return lambda scores, coins: one_run_epsilon(scores, coins, delta, guesses=GRID).epsilon_low


def best_of(numbers: Sequence[int]) -> Bound:
    """The planted fault: the best over numbers of guesses on the same coins, uncorrected. Infinity: above 0."""
    rights = {
        r: next(v for v in range(r + 1) if v == r or one_run_p_value(v, r, 1_000, 0.0, 0.0) <= 0.05) for r in numbers
    }
    some = {r: v for r, v in rights.items() if one_run_p_value(v, r, 1_000, 0.0, 0.0) <= 0.05}

    def bound(scores: NDArray[np.float64], coins: NDArray[np.bool_]) -> float:
        ordered = coins[np.argsort(-scores)]
        high, low = np.cumsum(ordered), np.cumsum(~ordered[::-1])
        return math.inf if any(high[r // 2 - 1] + low[r // 2 - 1] >= v for r, v in some.items()) else 0.0

    return bound


def coins_of(generator: np.random.Generator, canaries: int) -> NDArray[np.bool_]:
    return generator.integers(0, 2, canaries).astype(bool)


def false_alarms(bound: Bound, epsilon: float, canaries: int = 1_000) -> int:
    """Runs of randomised response at exactly epsilon, each canary's answer with a strength of its own."""
    alarms = 0
    for run in range(RUNS):
        generator = np.random.default_rng([7, run])
        coins = coins_of(generator, canaries)
        told = coins ^ (generator.random(canaries) < 1.0 / (1.0 + math.exp(epsilon)))
        alarms += bound(np.where(told, 1.0, -1.0) * generator.exponential(size=canaries), coins) > epsilon
    return alarms


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("bound", [single(), single(guesses=301), bonferroni()], ids=["single", "301", "bonferroni"])
def test_false_alarms_at_exact_truth_stay_at_their_nominal_rate(bound: Bound, epsilon: float) -> None:
    assert 5 <= false_alarms(bound, epsilon) <= ALLOWED


def test_the_best_of_several_numbers_of_guesses_is_caught() -> None:
    assert false_alarms(best_of(GRID), 0.0) > ALLOWED
    assert 260 <= false_alarms(best_of(range(2, 1_001, 2)), 0.0) <= 500


def worst_case_alarms(delta: float, taken_for: float) -> int:
    """Runs of the mechanism that at epsilon 1 reaches the test's own threshold most often; the test knows one delta."""
    guesses, canaries, epsilon = 80, 1_000, 1.0
    correct = next(v for v in range(81) if one_run_p_value(v, guesses, canaries, epsilon, taken_for) <= 0.05)
    law = worst_law(correct, guesses, canaries, epsilon, delta)
    alarms = 0
    for run in range(RUNS):
        generator = np.random.default_rng([8, run])
        coins = coins_of(generator, canaries)
        scores = generator.uniform(-1.0, 1.0, canaries)
        chosen = generator.permutation(canaries)[:guesses]
        is_right = np.arange(guesses) < generator.choice(guesses + 1, p=law)
        said = np.where(is_right, coins[chosen], ~coins[chosen])
        scores[chosen] = np.where(said, 2.0, -2.0) + 0.1 * scores[chosen]
        # as many of each side as were said; the theorem holds for any rule that makes r guesses
        high, low = int(said.sum()), guesses - int(said.sum())
        order = np.argsort(-scores)
        v = int(coins[order[:high]].sum() + (~coins[order[canaries - low :]]).sum())
        alarms += one_run_p_value(v, guesses, canaries, epsilon, taken_for) <= 0.05
    return alarms


def test_the_worst_mechanism_at_a_large_delta_raises_no_more_alarms_and_delta_left_out_is_caught() -> None:
    assert 20 <= worst_case_alarms(1e-3, taken_for=1e-3) <= ALLOWED
    assert worst_case_alarms(5e-3, taken_for=0.0) > ALLOWED


# Power


def gaussian_bounds(bound: Bound) -> NDArray[np.float64]:
    """Ideal scores of a Gaussian mechanism at epsilon 4, delta 1e-5, of 1,000 canaries; 100 draws."""
    noise = calibration.noise_multiplier(NoSampling(), 1, 1e-5, 4.0)
    bounds = []
    for run in range(100):
        generator = np.random.default_rng([9, run])
        coins = coins_of(generator, 1_000)
        bounds.append(bound(coins + generator.normal(0.0, noise, 1_000), coins))
    return np.array(bounds)


def test_ideal_gaussian_scores_at_epsilon_4_show_at_least_1_4() -> None:
    for bound in (single(1e-5), bonferroni(1e-5)):
        bounds = gaussian_bounds(bound)
        assert bounds.mean() >= 1.4
        assert bounds.max() < 4.0
    assert gaussian_bounds(lambda scores, coins: single(1e-5)(-scores, coins)).max() == 0.0


@given(st.integers(2, 400), st.sampled_from([0.0, 1e-6, 1e-4]))
def test_perfect_scores_give_the_maximum_that_is_known(canaries: int, delta: float) -> None:
    coins = np.arange(canaries) < (canaries + 1) // 2  # so that all guesses can be right
    bound = one_run_epsilon(coins, coins, delta, guesses=canaries)
    assert bound.correct == canaries
    if delta == 0.0:
        share = 0.05 ** (1.0 / canaries)
        assert bound.epsilon_low == pytest.approx(max(0.0, math.log(share / (1.0 - share))), abs=1e-9)
    assert bound.epsilon_low <= one_run_epsilon(coins, coins, 0.0, guesses=canaries).epsilon_low


# Ties, order, arguments


def test_equal_scores_are_not_sorted_in_favour() -> None:
    coins = np.arange(1_000) < 500  # those that were in come first, as a careless caller may give them
    for scores in (np.zeros(1_000), np.ones(1_000)):
        bound = one_run_epsilon(scores, coins, 0.0, guesses=(100, 1_000))
        assert bound.epsilon_low == 0.0
        assert abs(one_run_epsilon(scores, coins, 0.0, guesses=1_000).correct - 500) < 60
    assert one_run_epsilon(scores, ~coins, 0.0).epsilon_low == 0.0


@given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.integers(0, 2**32 - 1))
def test_guesses_never_look_at_the_coins(scores: list[int], seed: int) -> None:
    """The guess about each canary, read off by including one canary at a time, is one and the same for all coins."""
    size = len(scores)
    guesses = size - size % 2
    none = one_run_epsilon(scores, np.zeros(size), 0.0, guesses=guesses).correct if size < 30 else None
    coins = coins_of(np.random.default_rng(seed), size)
    assume(4 <= coins.sum() <= size - 4 or size < 30)
    base = one_run_epsilon(scores, coins, 0.0, guesses=guesses).correct
    steps = []
    for i in range(size):
        flipped = coins.copy()
        flipped[i] = ~flipped[i]
        change = one_run_epsilon(scores, flipped, 0.0, guesses=guesses).correct - base
        steps.append(change if flipped[i] else -change)  # +1: guessed in, -1: guessed out, 0: not guessed
    assert sorted(steps)[:: max(size - 1, 1)] in ([-1, 1], [-1], [1])
    assert steps.count(1) == steps.count(-1) == guesses // 2
    assert base == sum((s == 1) * c + (s == -1) * (not c) for s, c in zip(steps, coins, strict=True))
    assert none is None or none == guesses // 2


def test_a_higher_score_is_a_guess_for_in_and_ends_may_be_infinite() -> None:
    coins = coins_of(np.random.default_rng(0), 200)
    scores = np.where(coins, np.inf, -np.inf)
    assert one_run_epsilon(scores, coins, 0.0).correct == default_guesses(200) == 36
    assert one_run_epsilon(-scores, coins, 0.0).correct == 0


def test_a_grid_keeps_the_strongest_test_at_its_share_of_the_error() -> None:
    generator = np.random.default_rng(3)
    coins = coins_of(generator, 1_000)
    scores = coins + generator.normal(size=1_000)
    bound = one_run_epsilon(scores, coins, 1e-5, guesses=GRID)
    apart = [one_run_epsilon(scores, coins, 1e-5, guesses=n, confidence=1.0 - 0.05 / 4) for n in GRID]
    best = max(apart, key=lambda one: one.epsilon_low)
    assert (bound.epsilon_low, bound.guesses, bound.correct) == (best.epsilon_low, best.guesses, best.correct)
    assert (bound.tests, bound.confidence) == (4, 0.95)
    assert OneRunBound(**json.loads(json.dumps(asdict(bound)))) == bound


def test_the_bound_is_where_the_p_value_crosses_the_error() -> None:
    for correct in (55, 71, 80):
        scores = np.concatenate((np.full(40, 2.0), np.full(20, 1.0), np.zeros(40)))
        coins = np.concatenate((np.ones(60), np.zeros(40)))
        coins[: 80 - correct] = 0
        bound = one_run_epsilon(scores, coins, 1e-4, guesses=80)
        assert bound.correct == correct
        for epsilon, holds in ((bound.epsilon_low, True), (bound.epsilon_low * (1 + 1e-9) + 1e-9, False)):
            assert (one_run_p_value(correct, 80, 100, epsilon, 1e-4) <= 0.05) is holds


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"guesses": 0}, "guesses = 0"),
        ({"guesses": 201}, "guesses = 201"),
        ({"guesses": ()}, "guesses"),
        ({"guesses": (10, 10)}, "guesses"),
        ({"guesses": (10, 0)}, "guesses = 0"),
        ({"guesses": True}, "guesses"),
        ({"guesses": 2.5}, "guesses"),
        ({"guesses": "80"}, "guesses"),
        ({"delta": -1e-9}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_arguments_out_of_range_are_refused(changed: dict[str, object], named: str) -> None:
    coins = coins_of(np.random.default_rng(0), 200)
    with pytest.raises(ArgumentError, match=named):
        one_run_epsilon(np.zeros(200), coins, **({"delta": 0.0} | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "included", "said"),
    [
        (np.full(200, np.nan), np.arange(200) % 2, r"canary scores\[0\] is NaN"),
        (np.zeros(200), np.arange(199) % 2, "one coin a canary"),
        (np.zeros(200), np.arange(200) % 3, "0 and 1"),
        (np.zeros(200), np.array(["in", "out"] * 100), "0 and 1"),
        (np.zeros(200), np.ones(200), "200 of 200 canaries"),
        (np.zeros(1_000), np.arange(1_000) < 100, "100 of 1,000 canaries"),
    ],
)
def test_scores_and_coins_that_carry_no_theorem_are_refused(
    scores: NDArray[np.float64], included: NDArray[np.int64], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        one_run_epsilon(scores, included, 0.0)
