"""Renyi differential privacy: one divergence per order, added up over the events."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from privet.accounting.bound import Bound
from privet.accounting.events import Event, NeighbouringRelation, Poisson, check_delta, refuse_sampled_replacement
from privet.accounting.renyi import counts_of, epsilon_of_divergences, lowest
from privet.errors import ArgumentError

__all__ = ["RDP", "rdp_epsilon_of_order"]

Floats = NDArray[np.float64]

_LARGEST_BINOMIAL = 256  # whole orders up to here are a finite sum
_REACH = 9.5  # in noise deviations: what lies beyond weighs less than 1e-19
_EXPONENT = 42.0  # the trapezoid rule's error is about e^-42
_LARGEST_GRID = 1 << 22
_CHUNK = 1 << 19  # nodes at once: 4 MiB an array
_LEVELS = 64  # noise levels that stand for all of them while the order is searched
_MARGIN = 1.0 + 1e-11  # the sums are exact to about 1e-12
_SERIES = 0.25  # |t| max(1, alpha - 1) below which the bracket is a power series
_TERMS = 13


@dataclass(frozen=True)
class RDP:
    r"""The accountant by Renyi divergences: valid, fast, above the truth by a few per cent.

    The divergences of :func:`rdp_epsilon_of_order` add up over the events, whatever was chosen in view of what was
    released before; the smallest epsilon that an order gives is the answer.

    Attributes:
        orders: the orders alpha > 1 to use, exactly these; by default the best real order is searched.

    Guarantees:
        The upper end holds for both neighbouring relations; under replace-one only events without sampling are
        accepted. There is no lower end.

    Example:
        >>> from privet.accounting import Event, Poisson
        >>> bound = RDP().epsilon([Event(1.1, Poisson(256 / 60_000), count=14_062)], delta=1e-5)
        >>> round(bound.upper, 4)
        2.5965

    References:
        Mironov, "Renyi differential privacy", 2017. Mironov, Talwar, Zhang, "Renyi differential privacy of the sampled
        Gaussian mechanism", 2019.
    """

    orders: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.orders is not None:
            object.__setattr__(self, "orders", tuple(_check_orders(self.orders).tolist()))

    def epsilon(
        self,
        events: Sequence[Event],
        delta: float,
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> Bound:
        """The epsilon of all events together.

        Args:
            events: what was released, in any order.
            delta: in (0, 1).
            relation: which data sets are told apart; noise multipliers are relative to its sensitivity.

        Returns:
            A bound whose lower end is 0; the upper end is infinite only where no order gives a finite divergence.

        Raises:
            ArgumentError: if delta is out of range.
            UnsupportedEventError: if a sample was truncated, or was Poisson under replace-one with a rate below 1.
        """
        delta = check_delta(delta)
        rates, noise, counts = _levels(events, relation)
        if not counts.size:
            return Bound(0.0, 0.0)
        if self.orders is not None:
            orders = np.array(self.orders)
        else:
            orders = _best_orders(*_representatives(rates, noise, counts), delta)
        divergences = _composed(rates, noise, counts, orders)
        usable = np.isfinite(divergences)
        if not usable.any():
            return Bound(0.0, math.inf)
        return Bound(0.0, float(epsilon_of_divergences(orders[usable], divergences[usable], delta).min()) * _MARGIN)

    def divergences(
        self,
        events: Sequence[Event],
        orders: Sequence[float],
        relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE,
    ) -> Floats:
        """The Renyi divergence of all events together, for each order.

        Args:
            events: what was released, in any order.
            orders: alpha > 1 and finite.
            relation: which data sets are told apart.

        Returns:
            Divergences of the shape of ``orders``, >= 0; infinite where they exceed the largest float.

        Raises:
            ArgumentError: if an order is out of range.
            UnsupportedEventError: if a sample was truncated, or was Poisson under replace-one with a rate below 1.
        """
        checked = _check_orders(orders)
        return _composed(*_levels(events, relation), checked)


def rdp_epsilon_of_order(rate: ArrayLike, noise_multiplier: ArrayLike, order: float) -> Floats:
    r"""The Renyi divergence of one Poisson-sampled Gaussian release.

    .. math:: \varepsilon(\alpha) = \frac{1}{\alpha - 1} \log \mathbb{E}_{x \sim N(0, z^2)}
        \left[\left(1 - q + q\, e^{(2x - 1) / (2 z^2)}\right)^\alpha\right]

    This is the divergence of the release with the record from the one without it; the other direction is never larger
    (theorem 5 of the reference). At q = 1 it is :math:`\alpha / (2 z^2)`.

    Whole orders up to 256 are the binomial sum. Others are the trapezoid rule on x: on the line Im x = d z the
    integrand is at most :math:`e^{d^2/2}` times its value on the real line, as long as it is analytic, d < pi z; so the
    rule with the step h z is off by at most :math:`2 e^{d^2/2} / (e^{2 \pi d / h} - 1)` of the expectation, and h makes
    that e^-42. Both sum :math:`E[r^\alpha - 1 - \alpha (r - 1)]`, whose terms are all positive, so small divergences
    are as exact as large ones. Where the grid would be vast (z below about 1/20 or a huge order) Minkowski's inequality
    bounds the expectation by :math:`(1 - q + q\, e^{(\alpha - 1) / (2 z^2)})^\alpha`.

    Args:
        rate: q in (0, 1], broadcast against ``noise_multiplier``.
        noise_multiplier: z > 0 and finite.
        order: alpha > 1 and finite.

    Returns:
        Divergences >= 0 of the broadcast shape, at least one-dimensional.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> float(rdp_epsilon_of_order(1.0, 2.0, 8.0)[0])
        1.0
        >>> f"{rdp_epsilon_of_order(0.01, 1.1, 2.5)[0]:.6e}"
        '1.620774e-04'

    References:
        Mironov, Talwar, Zhang, "Renyi differential privacy of the sampled Gaussian mechanism", 2019, theorems 4 and 5.
        Trefethen and Weideman, "The exponentially convergent trapezoidal rule", 2014, theorem 5.1.
    """
    alpha = float(_check_orders([order])[0])
    q, z = np.broadcast_arrays(*np.atleast_1d(np.asarray(rate, float), np.asarray(noise_multiplier, float)))
    if not ((q > 0.0) & (q <= 1.0)).all():
        raise ArgumentError("rate", rate, "probabilities above 0 and at most 1")
    if not ((z > 0.0) & np.isfinite(z)).all():
        raise ArgumentError("noise_multiplier", noise_multiplier, "finite numbers above 0")
    with np.errstate(over="ignore"):
        mu = 1.0 / z
        result: Floats = alpha / 2.0 * mu * mu  # sampling never raises it
    sampled = (q < 1.0) & np.isfinite(result)
    if sampled.any():
        log_excess = _log_excess(q[sampled], mu[sampled], alpha)
        divergence = np.logaddexp(0.0, log_excess) / (alpha - 1.0)
        result[sampled] = np.minimum(result[sampled], divergence)
    return result


def _log_excess(q: Floats, mu: Floats, alpha: float) -> Floats:
    """Log(E[r^alpha] - 1) for each pair; all q < 1."""
    if alpha == math.floor(alpha) and alpha <= _LARGEST_BINOMIAL:
        return _binomial(q, mu, int(alpha))
    step = _step(mu)
    nodes = np.ceil((max(alpha, 2.0) * mu + mu + 2.0 * _REACH) / step) + 1.0
    result = np.empty_like(q)
    vast = (nodes > _LARGEST_GRID) | (mu > 20.0)
    if vast.any():
        result[vast] = _minkowski(q[vast], mu[vast], alpha)
    rows = np.flatnonzero(~vast)
    rows = rows[np.argsort(nodes[rows], kind="stable")]
    while rows.size:  # rows of about equally many nodes at once, longest first
        size = int(nodes[rows[-1]])
        take = max(1, _CHUNK // size)
        chosen, rows = rows[-take:], rows[:-take]
        result[chosen] = _trapezoid(q[chosen], mu[chosen], alpha, size)
    return result


def _binomial(q: Floats, mu: Floats, alpha: int) -> Floats:
    # The terms k = 0 and 1 are those of (1 - q + q)^alpha = 1, and drop out with it.
    k = np.arange(2.0, alpha + 1.0)
    log_choose = special.gammaln(alpha + 1.0) - special.gammaln(k + 1.0) - special.gammaln(alpha - k + 1.0)
    loss = 0.5 * k * (k - 1.0) * (mu * mu)[:, None]  # (N, K)
    weight = log_choose + k * np.log(q)[:, None] + (alpha - k) * np.log1p(-q)[:, None]
    return _log_sum_exp(weight + _log_expm1(loss))


def _minkowski(q: Floats, mu: Floats, alpha: float) -> Floats:
    exponent = 0.5 * (alpha - 1.0) * mu * mu
    capped = np.minimum(exponent, 600.0)
    return _log_expm1(alpha * (np.log1p(q * np.expm1(capped)) + (exponent - capped)))


def _trapezoid(q: Floats, mu: Floats, alpha: float, size: int) -> Floats:
    q, mu = q[:, None], mu[:, None]
    high = max(alpha, 2.0) * mu + mu + _REACH
    step = (high + _REACH) / (size - 1)
    x = step * np.arange(size) - _REACH  # (N, size), in noise deviations
    loss = mu * x - 0.5 * mu * mu
    capped = np.minimum(loss, 700.0)
    t = np.log1p(q * np.expm1(capped)) + (loss - capped)  # log r
    log_terms = t + _log_bracket(t, alpha - 1.0) - 0.5 * x * x
    return _log_sum_exp(log_terms) + np.log(step[:, 0]) - 0.5 * math.log(2.0 * math.pi)


def _log_bracket(t: Floats, a: float) -> Floats:
    """Log(e^(a t) - 1 + a (e^-t - 1)), which is log((r^alpha - 1 - alpha (r - 1)) / r) at r = e^t, a = alpha - 1."""
    scale = max(1.0, a)
    scaled = scale * t
    series = np.zeros_like(t)
    for k in range(_TERMS, 1, -1):  # Horner, from the highest power down to the square
        linear = (a / scale) * scale ** (1 - k)
        series = series * scaled + ((a / scale) ** k + (linear if k % 2 == 0 else -linear)) / math.factorial(k)
    growth = a * t
    capped = np.minimum(growth, 600.0)
    bracket = np.where(np.abs(scaled) < _SERIES, series * scaled * scaled, np.expm1(capped) + a * np.expm1(-t))
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(bracket, 0.0)) + (growth - capped)


def _step(mu: Floats) -> Floats:
    """The largest step for which some line d < pi / mu gives an error of e^-42."""
    wide = 2.0 * math.pi / math.sqrt(2.0 * _EXPONENT)  # best line d = 2 pi / h
    edge = math.pi / mu
    return np.where(edge >= 2.0 * math.pi / wide, wide, 2.0 * math.pi * edge / (_EXPONENT + 0.5 * edge * edge))


def _levels(events: Sequence[Event], relation: NeighbouringRelation) -> tuple[Floats, Floats, Floats]:
    """Distinct rates and noise multipliers, and how often each pair occurs; sorted."""
    for event in events:
        if isinstance(event.sampling, Poisson) and event.sampling.rate < 1.0:
            refuse_sampled_replacement(relation)
    counted = counts_of(events, "RDP")
    pairs = np.array(list(counted), dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], np.array(list(counted.values()), dtype=np.float64)


def _composed(rates: Floats, noise: Floats, counts: Floats, orders: Floats) -> Floats:
    composed = [counts @ rdp_epsilon_of_order(rates, noise, float(order)) for order in orders]
    return np.array(composed, dtype=np.float64)


def _representatives(rates: Floats, noise: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """At most 64 levels for each rate that stand for the others while an order is searched; no bound rests on them."""
    if rates.size <= _LEVELS:
        return rates, noise, counts
    bins = np.floor(np.log(noise / noise.min()) / (np.log(noise.max() / noise.min()) + 1e-300) * (_LEVELS - 1))
    rate_bins = np.floor(np.log(rates / rates.min()) / (-np.log(rates.min()) + 1e-300) * (_LEVELS // 4 - 1))
    _, index = np.unique(bins + _LEVELS * rate_bins, return_inverse=True)
    weight = np.bincount(index, counts).astype(np.float64)
    rate = np.sqrt(np.bincount(index, counts * rates**2) / weight)
    level = np.sqrt(weight / np.bincount(index, counts / noise**2))
    return np.minimum(rate, 1.0), level, weight


def _best_orders(rates: Floats, noise: Floats, counts: Floats, delta: float) -> Floats:
    """The order that gives the smallest epsilon, and one next to 1, for the total variation."""

    @functools.cache
    def divergence(log_excess: float) -> float:
        return float(_composed(rates, noise, counts, np.array([1.0 + math.exp(log_excess)]))[0])

    def objective(log_excess: float) -> float:
        a = math.exp(log_excess)
        return divergence(log_excess) - math.log1p(1.0 / a) - (math.log(delta) + math.log1p(a)) / a

    spacing = 0.5
    grid = np.arange(math.log(1e-9), math.log(1e7), spacing).tolist()
    best, best_at = math.inf, grid[0]
    for log_excess in grid:
        value = objective(log_excess)
        if value < best:
            best, best_at = value, log_excess
        a = math.exp(log_excess)
        # The divergence and what is added to it, apart from delta, never fall with the order.
        if divergence(log_excess) - math.log1p(1.0 / a) - math.log1p(a) / a > max(best, 0.0):
            break
    found, _ = lowest(objective, best_at - spacing, best_at + spacing, width=1e-5)
    return np.array([1.0 + 1e-6, 1.0 + math.exp(found)])


def _log_sum_exp(log_terms: Floats) -> Floats:
    highest = np.maximum(log_terms.max(axis=1), -1e300)  # all terms may have underflowed
    total: Floats = np.exp(log_terms - highest[:, None]).sum(axis=1)
    with np.errstate(divide="ignore"):
        result: Floats = highest + np.log(total)
    return result


def _log_expm1(x: Floats) -> Floats:
    capped = np.minimum(x, 600.0)
    return np.log(np.expm1(capped)) + (x - capped)


def _check_orders(orders: Sequence[float]) -> Floats:
    checked = np.asarray(orders, dtype=np.float64)
    if checked.ndim != 1 or not checked.size or not (np.isfinite(checked) & (checked > 1.0)).all():
        raise ArgumentError("orders", orders, "at least one finite number above 1")
    return checked
