"""Adaptive clipping: the clip norm follows a quantile of the norms, learned from noisy counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor

from privet.dp.clipping import (
    LARGEST,
    SMALLEST,
    Clipped,
    ClippingState,
    check_fractions,
    check_norm,
    clip_norms,
    one_group,
)
from privet.errors import ArgumentError
from privet.schedules.checks import check_count, check_noise

__all__ = ["AdaptiveQuantile", "ClipUpdate"]

_DECADES = 1e6
_LARGEST_EXPONENT = 700.0  # of e, within a float


class ClipUpdate(Enum):
    r"""How a clip norm moves when the share of examples below it is not the target.

    ``GEOMETRIC``: :math:`C \leftarrow C e^{-\eta (\tilde b - \gamma)}`, at one pace on every scale. ``LINEAR``:
    :math:`C \leftarrow C - \eta (\tilde b - \gamma)`, in the units of the norm.
    """

    GEOMETRIC = "geometric"
    LINEAR = "linear"


@dataclass(frozen=True)
class AdaptiveQuantile:
    r"""A clip norm that follows a quantile of the gradient norms, by a noisy count of the examples below it.

    .. math:: C \leftarrow C \exp(-\eta (\tilde b - \gamma))

    The count is centred and noisy, :math:`\tilde b = (\sum_i (b_i - 1/2) + \xi) / B + 1/2`, and paid for: the noise of
    the gradient is raised by :func:`privet.dp.clipping.noise_split` until both together spend what was planned. A step
    is clipped, and its noise scaled, by the norm before the update.

    Attributes:
        initial_norm: C of the first step, from 1e-12 to 1e12.
        target_quantile: gamma, the share of examples to leave as they are, strictly between 0 and 1.
        learning_rate: eta, finite and above 0.
        count_noise_std: std of xi, finite and above 0; None for a twentieth of the expected batch size, which spends
            little and shakes C by about one percent a step.
        rule: geometric or linear.
        smallest: C never falls below it; None for a millionth of the initial norm. A linear step needs a floor, and a
            geometric one ends on it when every gradient vanishes: without one C would leave the range of a float.
        largest: C never rises above it; None for a million times the initial norm. Norms in training move by a few
            decades; six to either side are out of the way.

    Raises:
        ArgumentError: if a value is out of range, or the initial norm is not between the bounds.

    Example:
        >>> strategy = AdaptiveQuantile(1.0)
        >>> state = strategy.update(strategy.initial(1), [0.75])  # three quarters below: C is too large
        >>> round(state.max_grad_norms[0], 4)
        0.9512

    References:
        Andrew et al., "Differentially private learning with adaptive clipping", 2021.
    """

    initial_norm: float
    target_quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise_std: float | None = None
    rule: ClipUpdate = ClipUpdate.GEOMETRIC
    smallest: float | None = None
    largest: float | None = None

    def __post_init__(self) -> None:
        check_norm("initial_norm", self.initial_norm)
        quantile: object = self.target_quantile
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0.0 < quantile < 1.0:
            raise ArgumentError("target_quantile", quantile, "a number strictly between 0 and 1")
        check_noise("learning_rate", self.learning_rate)
        if self.count_noise_std is not None:
            check_noise("count_noise_std", self.count_noise_std)
        rule: object = self.rule
        if not isinstance(rule, ClipUpdate):
            raise ArgumentError("rule", rule, "ClipUpdate.GEOMETRIC or ClipUpdate.LINEAR")
        low, high = self.bounds
        check_norm("smallest", low)
        check_norm("largest", high)
        if not low <= self.initial_norm <= high:
            raise ArgumentError("initial_norm", self.initial_norm, f"a norm between the bounds {low:g} and {high:g}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which norms C stays."""
        low = max(self.initial_norm / _DECADES, SMALLEST) if self.smallest is None else self.smallest
        high = min(self.initial_norm * _DECADES, LARGEST) if self.largest is None else self.largest
        return low, high

    @property
    def least_groups(self) -> int:
        """One."""
        return 1

    def groups(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """All parameters in one group."""
        return one_group(names)

    def initial(self, groups: int) -> ClippingState:
        """The initial norm for each group."""
        check_count("groups", groups)
        return ClippingState((float(self.initial_norm),) * groups)

    def count_noise_stds(self, groups: int, expected_batch_size: float) -> tuple[float, ...]:
        """One for each group."""
        check_count("groups", groups)
        check_noise("expected_batch_size", expected_batch_size)
        std = expected_batch_size / 20.0 if self.count_noise_std is None else self.count_noise_std
        return (float(std),) * groups

    def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
        """Factors and one count for each group; see :func:`privet.dp.clipping.clip_norms`."""
        return clip_norms(state, norms, range(len(state.max_grad_norms)))

    def update(self, state: ClippingState, noisy_fractions: Sequence[float]) -> ClippingState:
        """The norms of the next step, from the released fraction of each group.

        Raises:
            ArgumentError: if there is not one finite fraction for each group.
        """
        check_fractions(noisy_fractions, len(state.max_grad_norms))
        return ClippingState(tuple(map(self._moved, state.max_grad_norms, noisy_fractions)))

    def to_json(self) -> dict[str, Any]:
        """Kind, version and every setting, the bounds as numbers."""
        low, high = self.bounds
        return {
            "kind": "adaptive-quantile",
            "version": 1,
            "initial_norm": float(self.initial_norm),
            "target_quantile": float(self.target_quantile),
            "learning_rate": float(self.learning_rate),
            "count_noise_std": None if self.count_noise_std is None else float(self.count_noise_std),
            "rule": self.rule.value,
            "smallest": float(low),
            "largest": float(high),
        }

    def _moved(self, norm: float, fraction: float) -> float:
        move = -self.learning_rate * (fraction - self.target_quantile)
        if self.rule is ClipUpdate.LINEAR:
            moved = norm + move
        else:
            moved = norm * math.exp(min(max(move, -_LARGEST_EXPONENT), _LARGEST_EXPONENT))
        low, high = self.bounds
        return float(min(max(moved, low), high))
