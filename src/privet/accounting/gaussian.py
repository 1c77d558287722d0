"""The Gaussian mechanism without sampling, whose delta is known exactly."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, special

from privet.accounting.bound import Bound
from privet.accounting.events import check_delta
from privet.errors import ArgumentError

__all__ = ["gaussian_delta", "gaussian_epsilon", "log_gaussian_delta"]

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SMALL_MU = 0.05  # below, the difference of two Mills ratios is expanded about the middle


def gaussian_delta(epsilon: float, mu: float) -> float:
    r"""Delta of a Gaussian release, exactly.

    .. math:: \delta = \Phi(-\varepsilon/\mu + \mu/2) - e^\varepsilon\, \Phi(-\varepsilon/\mu - \mu/2)

    Several releases, adapted to one another or not, are one with :math:`\mu^2 = \sum_i 1 / z_i^2`.

    Args:
        epsilon: at least 0.
        mu: L2 sensitivity / noise std, above 0 and finite.

    Returns:
        Delta; 0 where it is below the smallest float (:func:`log_gaussian_delta` goes on).

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> round(gaussian_delta(4.377178, 1.0), 10)
        1e-05

    References:
        Balle and Wang, "Improving the Gaussian mechanism for differential privacy", 2018, theorem 8.
    """
    return math.exp(log_gaussian_delta(epsilon, mu))


def log_gaussian_delta(epsilon: float, mu: float) -> float:
    r"""The natural logarithm of :func:`gaussian_delta`, with an error of about 1e-13 down to delta = 1e-300.

    With the Mills ratio :math:`m(x) = \Phi(-x) / \varphi(x)` and :math:`x = \varepsilon/\mu \mp \mu/2`, delta is
    :math:`\varphi(x_1) (m(x_1) - m(x_2))`, in which nothing under- or overflows.

    Args:
        epsilon: at least 0.
        mu: L2 sensitivity / noise std, above 0 and finite.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> round(log_gaussian_delta(100.0, 1.0), 6)
        -4960.254554
    """
    if not 0.0 <= epsilon < math.inf:
        raise ArgumentError("epsilon", epsilon, "a finite number of at least 0")
    if not 0.0 < mu < math.inf:
        raise ArgumentError("mu", mu, "a finite number above 0")
    middle = epsilon / mu
    near = middle - mu / 2.0
    if math.isinf(middle):
        return -math.inf
    if near < 0.0 and mu >= _SMALL_MU:  # the first term is at least 1/2
        density = math.exp(-0.5 * near * near - _LOG_SQRT_2PI)
        return math.log(float(special.ndtr(-near)) - density * _mills(near + mu))
    return -0.5 * near * near - _LOG_SQRT_2PI + math.log(_mills_difference(near, mu))


def gaussian_epsilon(delta: float, mu: float) -> Bound:
    """Epsilon of a Gaussian release at a delta: both ends are the exact value, apart from rounding.

    Args:
        delta: in (0, 1).
        mu: L2 sensitivity / noise std, at least 0 and finite; 0 for nothing released.

    Returns:
        Ends that are apart by about 1e-12 of the value (where epsilon is far below mu: of mu); delta at the upper end
        is at most the given one.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> round(gaussian_epsilon(1e-5, 1.0).upper, 6)
        4.377178

    References:
        Balle and Wang, "Improving the Gaussian mechanism for differential privacy", 2018, theorem 8.
    """
    target = math.log(check_delta(delta))
    if not 0.0 <= mu < math.inf:
        raise ArgumentError("mu", mu, "a finite number of at least 0")
    rounding = 1e-13 + 4.0 * float(np.spacing(abs(target)))
    if mu == 0.0 or log_gaussian_delta(0.0, mu) <= target - rounding:
        return Bound(0.0, 0.0)
    # By Phi(-x) <= exp(-x^2 / 2), delta at this epsilon is below the target.
    high = 2.0 * (mu * mu / 2.0 + mu * math.sqrt(-2.0 * target)) + 1e-300

    def excess(epsilon: float) -> float:
        return max(log_gaussian_delta(epsilon, mu), -1e300) - target

    root = 0.0
    if excess(0.0) > 0.0:
        root = float(optimize.brentq(excess, 0.0, high, xtol=high * 1e-17, rtol=1e-15, maxiter=500))
    lower, upper = root, root
    step = max(root, high * 1e-12) * 1e-14
    while excess(upper) > -rounding:
        upper, step = root + step, 1.5 * step
    step = max(root, high * 1e-12) * 1e-14
    while lower > 0.0 and excess(lower) < rounding:
        lower, step = max(root - step, 0.0), 1.5 * step
    return Bound(lower, upper)


def _mills(x: float) -> float:
    return math.sqrt(math.pi / 2.0) * float(special.erfcx(x / math.sqrt(2.0)))


def _mills_difference(near: float, mu: float) -> float:
    """m(near) - m(near + mu) for near >= -mu/2, without cancellation."""
    if near > 40.0:  # m(x) = sum (-1)^k (2k-1)!! / x^(2k+1); near^-p - far^-p = near^-p (1 - (near/far)^p)
        powers = range(1, 17, 2)
        coefficients = [1.0, -1.0, 3.0, -15.0, 105.0, -945.0, 10395.0, -135135.0]
        shrink = math.log1p(mu / near)
        return math.fsum(c * near**-p * -math.expm1(-p * shrink) for c, p in zip(coefficients, powers, strict=True))
    if mu >= _SMALL_MU:
        return _mills(near) - _mills(near + mu)
    middle, half = near + mu / 2.0, mu / 2.0
    derivatives = [_mills(middle)]
    derivatives.append(middle * derivatives[0] - 1.0)
    for order in range(1, 7):
        derivatives.append(order * derivatives[order - 1] + middle * derivatives[order])
    return -2.0 * math.fsum(derivatives[k] * half**k / math.factorial(k) for k in (1, 3, 5, 7))
