"""How likely an answer is, stably in both tails: a point's density or a rounded answer's cell, normal or Student's."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from privet.attacks.membership.shadow_matrix import Floats
from privet.errors import ArgumentError
from privet.output_form import OutputForm

__all__ = [
    "cell_of",
    "normal_log_density",
    "normal_log_mass",
    "student_log_density",
    "student_log_mass",
    "unit_of",
]

_FINEST = 6  # decimals; with more, float32 has no finer steps near 1 than the rounding
Cell = tuple[Floats, Floats]


def unit_of(form: OutputForm) -> float | None:
    """The step of the probabilities that are answered; None where they are not rounded as far as float32 can tell.

    Raises:
        ArgumentError: if only labels are answered.
    """
    if form.labels_only:
        raise ArgumentError("form", form, "a form that answers scores", "Behind labels alone, label_only scores votes.")
    if not form.probabilities or form.decimals is None or form.decimals > _FINEST:
        return None
    return float(10.0**-form.decimals)


def cell_of(phi: Floats, unit: float) -> Cell:
    r"""The log-odds of all probabilities that are rounded to this one.

    .. math:: [\operatorname{logit}(p - u/2),\; \operatorname{logit}(p + u/2)]

    with :math:`p = \sigma(\phi)` rounded to a multiple of u; open where it reaches 0 or 1.
    """
    steps = round(1.0 / unit)
    shown = np.rint(steps / (1.0 + np.exp(-phi)))  # 0 ... steps
    with np.errstate(divide="ignore"):  # log 0 is the open end
        low = np.log(np.maximum(shown - 0.5, 0.0)) - np.log(steps - shown + 0.5)
        high = np.log(shown + 0.5) - np.log(np.maximum(steps - shown - 0.5, 0.0))
    return low, high


def normal_log_density(z: Floats) -> Floats:
    """Up to a constant."""
    return -0.5 * z * z


def normal_log_mass(low: Floats, high: Floats) -> Floats:
    """Log of Phi(high) - Phi(low), low < high, in the tail where both are small."""
    upper = low + high > 0.0
    larger = log_ndtr(np.where(upper, -low, high))
    smaller = log_ndtr(np.where(upper, -high, low))
    mass: Floats = larger + np.log(-np.expm1(np.minimum(smaller - larger, -_EPSILON)))
    return mass


def student_log_density(z: Floats) -> Floats:
    """With four degrees of freedom, up to a constant."""
    log_density: Floats = -2.5 * np.log1p(0.25 * z * z)
    return log_density


def student_log_mass(low: Floats, high: Floats) -> Floats:
    r"""Log of F(high) - F(low), low < high, for four degrees of freedom.

    .. math:: 1 - F(z) = u^2 (3 - u) / 4, \quad u = 1 - z / \sqrt{4 + z^2}

    so that a cell in the tail is a difference of small numbers.
    """
    lower = low + high < 0.0
    low, high = np.where(lower, -high, low), np.where(lower, -low, high)
    a, b = _student_u(low), _student_u(high)
    mass = (a - b) * (3.0 * (a + b) - (a * a + a * b + b * b)) / 4.0
    log_mass: Floats = np.log(np.maximum(mass, _SMALLEST))
    return log_mass


def _student_u(z: Floats) -> Floats:
    root = np.hypot(2.0, z)
    with np.errstate(invalid="ignore"):  # infinity / infinity is not chosen
        u: Floats = np.where(z > 0.0, 4.0 / (root * (root + z)), 1.0 - np.where(np.isinf(z), -1.0, z / root))
    return u


_EPSILON = float(np.finfo(np.float64).eps)
_SMALLEST = float(np.finfo(np.float64).tiny)
