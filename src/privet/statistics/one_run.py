"""A lower bound of epsilon from one run: canaries in or out by coin flips, and how many guesses are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betainc, betaln

from privet.errors import ArgumentError, DataError
from privet.statistics.estimate import check_confidence
from privet.statistics.roc import checked_scores

__all__ = ["OneRunBound", "default_guesses", "one_run_epsilon", "one_run_p_value"]

_TIES = 0x7469_6573  # seed of the order among equal scores: fixed, and blind to who was included
_UNFAIR = 1e-9  # coins that fair coins would show more rarely than this are refused
_UNDERFLOW = 1e-280  # below, a ratio of tails is bounded instead of computed
_EXACT = 1e-12  # how far below the crossing the answer may lie


@dataclass(frozen=True)
class OneRunBound:
    """Epsilon is at least this, unless the coins fell as they do in a share 1 - confidence of all runs.

    Attributes:
        epsilon_low: the lower bound, >= 0; 0 means that nothing was shown.
        guesses: how many canaries were guessed, r; of a grid, those of its strongest test.
        correct: how many of the guesses are right, v.
        canaries: m.
        delta: at which epsilon is bounded.
        confidence: of the bound, one-sided, whatever the number of tests.
        tests: the number of pre-registered tests, each at confidence 1 - (1 - confidence) / tests.

    Example:
        >>> print(OneRunBound(1.52, guesses=80, correct=71, canaries=1_000, delta=1e-5, confidence=0.95, tests=1))
        epsilon >= 1.52 at delta 1e-05 (95% confidence; 71 of 80 guesses right, 1,000 canaries)
    """

    epsilon_low: float
    guesses: int
    correct: int
    canaries: int
    delta: float
    confidence: float
    tests: int

    def __str__(self) -> str:
        shown, percent = math.floor(self.epsilon_low * 100.0) / 100.0, 100.0 * self.confidence
        return (
            f"epsilon >= {shown:.2f} at delta {self.delta:g} ({percent:.4g}% confidence; {self.correct:,} of "
            f"{self.guesses:,} guesses right, {self.canaries:,} canaries)"
        )


def default_guesses(canaries: int) -> int:
    r"""How many canaries to guess where nothing else was fixed beforehand: about :math:`2.5 \sqrt m`.

    Few guesses are surer ones, many are more evidence. For scores of a Gaussian mechanism at delta 1e-5 the best number
    grows like the square root: near 20, 80 and 200 of 100, 1,000 and 10,000 canaries at epsilon 4, and the bound is
    flat around it. It depends on the number of canaries alone, so it is fixed before any score is seen.

    Args:
        canaries: m >= 1.

    Returns:
        A number of guesses in 1 ... m, even where m > 1.

    Example:
        >>> [default_guesses(m) for m in (1, 100, 1_000, 10_000)]
        [1, 24, 80, 250]
    """
    if canaries < 1:
        raise ArgumentError("canaries", canaries, "at least 1")
    return min(2 * math.ceil(1.25 * math.sqrt(canaries) - 0.5), canaries - canaries % 2) or 1


def one_run_p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    r"""The largest probability of that many right guesses that any (epsilon, delta)-private mechanism allows.

    With :math:`W \sim \mathrm{Bin}(r, q)`, :math:`q = e^\varepsilon / (1 + e^\varepsilon)` and
    :math:`\beta = P[W \ge v]`,

    .. math:: p = \beta + (1 - \beta) \min\Big(1, \frac{m \delta\, \beta}{v\, P[W = v]}\Big).

    Why: averaged over a relabelling of the canaries and over swapping in and out, a mechanism is described by the law
    :math:`w_k = P[W = k]\, \rho_k` of its number of right guesses alone. Privacy then says
    :math:`\sum_k k\, P[W = k]\, (\rho_k - \rho_{k-1})_+ \le m \delta`: rho may fall freely and must pay to rise. A rise
    of u at k adds at most :math:`u\, \beta\, P[W < k]` to :math:`P[\ge v]` for k <= v, and
    :math:`u\, (1 - \beta) P[W \ge k]` for k >= v; per price that is largest at k = v, from both sides. One mechanism
    attains it: with probability :math:`m \delta \beta / (v P[W = v])` it draws W given W >= v, else W. So the
    probability is the largest there is. For delta = 0 it is that of the theorem below; for delta > 0 and p up to 1/2 it
    is less, for the theorem adds :math:`2 m \delta \max_i P[v - i \le W < v] / i` to beta.

    Args:
        correct: v, in 0 ... r.
        guesses: r, in 1 ... m; fixed before the scores were seen, and made for any r of the m canaries.
        canaries: m, each in or out by an independent fair coin.
        epsilon: >= 0.
        delta: in [0, 1).

    Returns:
        p in (0, 1], rising in epsilon and delta, falling in v.

    Raises:
        ArgumentError: if a number is out of range.

    Example:
        >>> round(one_run_p_value(correct=71, guesses=80, canaries=1_000, epsilon=1.5, delta=1e-5), 4)
        0.0645

    References:
        Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", 2023, theorem 5.2.
    """
    _number_of_guesses(guesses, canaries)
    _check_delta(delta)
    if not 0.0 <= epsilon < math.inf:
        raise ArgumentError("epsilon", epsilon, "a finite number of at least 0")
    if not 0 <= correct <= guesses:
        raise ArgumentError("correct", correct, f"a whole number from 0 to {guesses}, the number of guesses")
    if correct == 0:
        return 1.0
    odds = math.exp(min(epsilon, 700.0))
    q = odds / (1.0 + odds)
    tail = float(betainc(correct, guesses - correct + 1, q))
    log_q, log_rest = -math.log1p(1.0 / odds), -math.log1p(odds)
    # C(r, v) = 1 / ((r + 1) B(v + 1, r - v + 1))
    log_choices = -math.log1p(guesses) - float(betaln(correct + 1, guesses - correct + 1))
    mass = math.exp(log_choices + correct * log_q + (guesses - correct) * log_rest)
    if mass > _UNDERFLOW:
        ratio = max(tail / mass, 1.0)
    elif correct > guesses * q:  # terms of the tail fall at least this fast
        ratio = 1.0 / (1.0 - odds * (guesses - correct) / (correct + 1.0))
    else:
        return 1.0
    return tail + (1.0 - tail) * min(1.0, canaries * delta * ratio / correct)


def one_run_epsilon(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    *,
    guesses: int | Sequence[int] | None = None,
    confidence: float = 0.95,
) -> OneRunBound:
    r"""A lower bound of epsilon at delta, from one run of a mechanism on randomly included canaries.

    Of r guesses, the r/2 highest scores are taken for "in" and the r/2 lowest for "out"; about the other canaries
    nothing is said. If v are right, the bound is

    .. math:: \max\{\varepsilon \ge 0 : p(v, r, m, \varepsilon, \delta) \le 1 - c\}

    with p of :func:`one_run_p_value` and c the confidence (0 where there is none).

    Equal scores are ordered by a fixed shuffle of the canaries that knows nothing of the coins.

    Args:
        scores: of the canaries (m,); higher means "in". They may depend on everything that the mechanism released, on
            all data but the coins, and on all canaries.
        included: whether each was in (m,), bool or 0/1.
        delta: in [0, 1).
        guesses: their number r, fixed before the scores are seen; or several such numbers, each tested with its share
            of the error (Bonferroni) and the strongest kept; None for :func:`default_guesses`. Trying numbers and
            keeping the best *without* that correction makes false alarms in about a third of all runs.
        confidence: c, one-sided, in (0, 1).

    Returns:
        The bound and what it rests on.

    Raises:
        ArgumentError: if a number is out of range.
        DataError: if scores and coins do not fit each other, or the coins were not fair.

    Guarantees:
        The neighbouring relation is add or remove one record: here, one canary. If each canary was included by its own
        fair coin, independent of the others and of everything else, and the mechanism is (epsilon, delta)-private under
        that relation, whatever the other records are, then the bound exceeds epsilon with probability at most
        1 - confidence over the coins and the mechanism. So a bound above a claimed epsilon refutes the claim at that
        confidence. Nothing is assumed about the model, the attack or the scores: a weak attack makes a low bound,
        never a wrong one. A low bound proves no privacy. A number of included canaries that was fixed (say, half of
        them) is not a set of independent coins, and the guarantee does not hold for it.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> included = generator.random(1_000) < 0.5
        >>> print(one_run_epsilon(included + generator.normal(size=1_000), included, delta=1e-5))
        epsilon >= 1.92 at delta 1e-05 (95% confidence; 75 of 80 guesses right, 1,000 canaries)

    References:
        Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", 2023, algorithm 1 and theorem 5.2.
    """
    values = checked_scores("canary scores", scores)
    coins = _coins(included, values.size)
    check_confidence(confidence)
    grid = _grid(guesses, values.size)
    _check_delta(delta)
    error = (1.0 - confidence) / len(grid)
    right_high, right_low = _right(values, coins)
    best = OneRunBound(-1.0, 0, 0, values.size, delta, confidence, len(grid))
    for number in grid:
        correct = int(right_high[number - number // 2] + right_low[number // 2])
        low = _epsilon_at(correct, number, values.size, delta, error)
        if low > best.epsilon_low:
            best = OneRunBound(low, number, correct, values.size, delta, confidence, len(grid))
    return best


def _right(scores: NDArray[np.float64], coins: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many of the k highest are in, and how many of the k lowest are out, for k in 0 ... m."""
    shuffled = np.random.default_rng(_TIES).permutation(scores.size)
    order = shuffled[np.argsort(scores[shuffled], kind="stable")[::-1]]  # highest first
    ordered = coins[order]
    none = np.zeros(1, dtype=np.intp)
    return np.concatenate((none, np.cumsum(ordered))), np.concatenate((none, np.cumsum(~ordered[::-1])))


def _epsilon_at(correct: int, guesses: int, canaries: int, delta: float, error: float) -> float:
    """The largest epsilon whose p-value is at most ``error``, from below."""
    if one_run_p_value(correct, guesses, canaries, 0.0, delta) > error:
        return 0.0
    low, high = 0.0, 1.0
    while one_run_p_value(correct, guesses, canaries, high, delta) <= error and high < 64.0:
        low, high = high, 2.0 * high
    while high - low > _EXACT * high:
        middle = 0.5 * (low + high)
        if one_run_p_value(correct, guesses, canaries, middle, delta) <= error:
            low = middle
        else:
            high = middle
    return low


def _grid(guesses: int | Sequence[int] | None, canaries: int) -> tuple[int, ...]:
    if guesses is None:
        return (default_guesses(canaries),)
    if not isinstance(guesses, Sequence | np.ndarray):
        return (_number_of_guesses(guesses, canaries),)
    grid = tuple(_number_of_guesses(number, canaries) for number in guesses)
    if not grid or len(set(grid)) != len(grid):
        raise ArgumentError("guesses", guesses, "a number, or several different ones")
    return grid


def _number_of_guesses(number: object, canaries: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 1 <= number <= canaries:
        raise ArgumentError("guesses", number, f"a whole number from 1 to {canaries}, the number of canaries")
    return int(number)


def _check_delta(delta: float) -> None:
    if not 0.0 <= delta < 1.0:
        raise ArgumentError("delta", delta, "a number from 0 to below 1, such as 1e-5")


def _coins(included: ArrayLike, canaries: int) -> NDArray[np.bool_]:
    coins = np.asarray(included)
    if coins.shape != (canaries,):
        raise DataError(f"{canaries:,} canary scores and coins of shape {coins.shape}; give one coin a canary, (m,).")
    if coins.dtype.kind not in "biuf" or not bool(np.isin(coins, (0, 1)).all()):
        raise DataError("coins say whether a canary was included; give booleans, or 0 and 1.")
    coins = coins.astype(np.bool_)
    heads = int(np.count_nonzero(coins))
    if 2.0 * float(bdtr(min(heads, canaries - heads), canaries, 0.5)) < _UNFAIR:
        raise DataError(
            f"{heads:,} of {canaries:,} canaries were included, which fair coins do not give; the bound holds for "
            "canaries included by independent fair coins alone. Draw them by CanaryDesign.draw(count), and leave no "
            "canary out of the scores."
        )
    return coins
