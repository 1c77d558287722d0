"""Clipping: how much of each example's gradient enters a step. A strategy sees norms only, never gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Protocol

import torch
from torch import Tensor

from privet.accounting.events import NeighbouringRelation
from privet.errors import ArgumentError
from privet.schedules.checks import check_count, check_noise

__all__ = [
    "Clipped",
    "ClippingState",
    "ClippingStrategy",
    "FixedNorm",
    "changed_contributions",
    "check_fractions",
    "check_norm",
    "check_strategy",
    "clip_norms",
    "estimated_fractions",
    "noise_split",
    "one_group",
    "rounded_up",
]

SMALLEST, LARGEST = 1e-12, 1e12  # their squares, and noise times them, are far from both ends of a float32
_LEFT = 1e-6  # of 1/z^2: what counts must leave to the gradient, whose noise would have no bound without it


@dataclass(frozen=True)
class ClippingState:
    """The clip norm of each group in the step that comes. It depends on released values only, so it may be shown.

    Attributes:
        max_grad_norms: C of each group, from 1e-12 to 1e12; at least one group.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> ClippingState.from_json(ClippingState((1.0, 0.5)).to_json()).max_grad_norms
        (1.0, 0.5)
    """

    max_grad_norms: tuple[float, ...]

    def __post_init__(self) -> None:
        norms: object = self.max_grad_norms
        if not isinstance(norms, tuple) or not norms:
            raise ArgumentError("max_grad_norms", norms, "a tuple with the clip norm of at least one group")
        for index, norm in enumerate(norms):
            check_norm(f"max_grad_norms[{index}]", norm)

    def to_json(self) -> dict[str, Any]:
        """The state as plain JSON data; :meth:`from_json` gives it back unchanged."""
        return {"kind": "clipping-state", "version": 1, "max_grad_norms": [float(norm) for norm in self.max_grad_norms]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClippingState:
        """Read what :meth:`to_json` wrote.

        Raises:
            ArgumentError: if it is of another kind or version, or a value is out of range.
        """
        fields: object = data  # what was read from a file may be anything
        norms = fields.get("max_grad_norms") if isinstance(fields, Mapping) else None
        if not isinstance(norms, list) or fields != {"kind": "clipping-state", "version": 1, "max_grad_norms": norms}:
            raise ArgumentError("clipping state", data, "what ClippingState.to_json() gives, of version 1")
        return cls(tuple(norms))


@dataclass(frozen=True, eq=False)
class Clipped:
    """What a strategy makes of the norms of some examples; the parts of a batch are clipped one by one.

    Attributes:
        factors: what each example's gradient is multiplied by, in [0, 1], (G, B), of the norms' dtype.
        below: the sum over the examples of b - 1/2, b being whether the norm is at most C, for each count that
            :meth:`ClippingStrategy.count_noise_stds` has a noise for, in that order, (K,), float64.
    """

    factors: Tensor
    below: Tensor


class ClippingStrategy(Protocol):
    """Which parameters are clipped together, to what norm, and how that norm moves. Frozen; the state is a value.

    Every method is a pure function of its arguments. Data enter by ``clip`` alone, and of its result only the sums
    leave a step, with noise added.
    """

    @property
    def least_groups(self) -> int:
        """How many groups there are at least, whatever the parameters."""

    def groups(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """A partition of the names of the trainable parameters, each group clipped on its own."""

    def initial(self, groups: int) -> ClippingState:
        """The state of the first step."""

    def count_noise_stds(self, groups: int, expected_batch_size: float) -> tuple[float, ...]:
        """The noise std of each count that is released, in the order of the groups; empty when nothing is counted."""

    def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
        """Factors and counts for the norms of each group and example, (G, B)."""

    def update(self, state: ClippingState, noisy_fractions: Sequence[float]) -> ClippingState:
        """The state of the next step, from one released fraction for each count."""

    def to_json(self) -> dict[str, Any]:
        """Everything that changes the guarantee, as plain JSON data."""


@dataclass(frozen=True)
class FixedNorm:
    r"""The same clip norm at every step, for all parameters together.

    .. math:: \bar g_i = g_i \min(1, C / \lVert g_i \rVert_2)

    Attributes:
        max_grad_norm: C, from 1e-12 to 1e12.

    Raises:
        ArgumentError: if it is out of range.

    Example:
        >>> strategy = FixedNorm(1.0)
        >>> strategy.clip(strategy.initial(1), torch.tensor([[0.5, 2.0, 0.0, math.inf]])).factors
        tensor([[1.0000, 0.5000, 1.0000, 0.0000]])

    References:
        Abadi et al., "Deep learning with differential privacy", 2016.
    """

    max_grad_norm: float

    def __post_init__(self) -> None:
        check_norm("max_grad_norm", self.max_grad_norm)

    @property
    def least_groups(self) -> int:
        """One."""
        return 1

    def groups(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """All parameters in one group."""
        return one_group(names)

    def initial(self, groups: int) -> ClippingState:
        """C for each group."""
        check_count("groups", groups)
        return ClippingState((float(self.max_grad_norm),) * groups)

    def count_noise_stds(self, groups: int, expected_batch_size: float) -> tuple[float, ...]:
        """Nothing is counted."""
        return ()

    def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
        """Factors; see :func:`clip_norms`."""
        return clip_norms(state, norms, ())

    def update(self, state: ClippingState, noisy_fractions: Sequence[float]) -> ClippingState:
        """The same state."""
        check_fractions(noisy_fractions, 0)
        return state

    def to_json(self) -> dict[str, Any]:
        """Kind, version and the norm."""
        return {"kind": "fixed-norm", "version": 1, "max_grad_norm": float(self.max_grad_norm)}


def clip_norms(state: ClippingState, norms: Tensor, counted: Sequence[int]) -> Clipped:
    r"""Factors that hold each example to the clip norm of each group, and counts of those that needed none.

    .. math:: f_{g,i} = \min(1, C_g / n_{g,i})

    Rounded so that :math:`f n`, computed in float64, is never above C. An example with a norm that is NaN or infinite
    in any group is taken out: factor 0 in all groups, and not below any norm, so that what it adds is the same
    whatever it is.

    Args:
        state: C_g of the G groups.
        norms: n, at least 0, float32 or float64, (G, B); B may be 0.
        counted: the groups that are counted, in ascending order.

    Raises:
        ArgumentError: if ``norms`` is of another shape or dtype.
    """
    groups = len(state.max_grad_norms)
    if norms.dim() != 2 or norms.shape[0] != groups:
        raise ArgumentError("norms", tuple(norms.shape), f"norms of shape ({groups}, examples)")
    if norms.dtype not in (torch.float32, torch.float64):
        raise ArgumentError("norms", norms.dtype, "torch.float32 or torch.float64")
    exact = norms.detach().double()  # (G, B)
    bounds = torch.tensor(state.max_grad_norms, dtype=torch.float64, device=norms.device).unsqueeze(1)  # (G, 1)
    usable = torch.isfinite(exact).all(dim=0)  # (B,)
    factors = (bounds / exact).clamp_(max=1.0).to(norms.dtype)
    excess = factors.double() * exact > bounds
    factors = torch.where(excess, torch.nextafter(factors, torch.zeros_like(factors)), factors)
    factors = torch.where(usable, factors, 0.0)
    chosen = exact[list(counted)]  # (K, B)
    bits = (chosen <= bounds[list(counted)]) & usable
    return Clipped(factors, (bits.double() - 0.5).sum(dim=1))


def estimated_fractions(
    below: Sequence[float], noise: Sequence[float], expected_batch_size: float
) -> tuple[float, ...]:
    r"""The released estimates of the share of examples below each norm; they may lie outside [0, 1].

    .. math:: \tilde b = \Big(\sum_i (b_i - 1/2) + \xi\Big) / B + 1/2

    Args:
        below: the sums over a whole logical batch, 0 for an empty one.
        noise: one draw for each, of the count noise std.
        expected_batch_size: B, the expected and never the realised number of examples.

    Raises:
        ArgumentError: if there is not one draw for each sum.

    Example:
        >>> estimated_fractions([25.0], [0.5], 100.0)
        (0.755,)

    References:
        Andrew et al., "Differentially private learning with adaptive clipping", 2021, algorithm 1.
    """
    if len(below) != len(noise):
        raise ArgumentError("noise", list(noise), f"one draw for each of the {len(below)} sums")
    check_noise("expected_batch_size", expected_batch_size)
    return tuple((one + drawn) / expected_batch_size + 0.5 for one, drawn in zip(below, noise, strict=True))


def changed_contributions(relation: NeighbouringRelation) -> int:
    """By how many examples neighbouring data sets differ: 1, or 2 where one is replaced by another.

    A sum of gradients clipped to C changes by at most this times C, a centred count by at most this over 2.
    """
    return 2 if relation is NeighbouringRelation.REPLACE_ONE else 1


def noise_split(z: float, groups: int, count_noise_stds: Sequence[float], relation: NeighbouringRelation) -> float:
    r"""The gradient noise multiplier of each group with which gradients and counts together have noise multiplier z.

    .. math:: G / z_g^2 + \sum_k (f / (2 \sigma_k))^2 = 1 / z^2

    f is 1 under add-or-remove-one, 2 under replace-one. The noise added to group g is :math:`z_g f C_g`.

    Args:
        z: what is accounted for, finite and above 0.
        groups: G, at least 1.
        count_noise_stds: sigma of each count, finite and above 0.
        relation: of the ledger.

    Returns:
        z_g, at least ``z * sqrt(groups)``.

    Raises:
        ArgumentError: if a value is out of range, or the counts alone spend what z allows.

    Example:
        >>> round(noise_split(1.0, 1, (1.0,), NeighbouringRelation.ADD_OR_REMOVE_ONE), 6)
        1.154701

    References:
        Andrew et al., "Differentially private learning with adaptive clipping", 2021, theorem 1.
    """
    check_noise("z", z)
    check_count("groups", groups)
    for index, std in enumerate(count_noise_stds):
        check_noise(f"count_noise_stds[{index}]", std)
    half = changed_contributions(relation) / 2.0
    shares = [half * z / std for std in count_noise_stds]
    left = 1.0 - math.fsum(share * share for share in shares)  # of 1/z^2
    if left < _LEFT:
        counts = len(count_noise_stds)
        least = rounded_up(half * z * math.sqrt(counts / (1.0 - 2.0 * _LEFT)), digits=3)
        raise ArgumentError(
            "count_noise_std",
            min(count_noise_stds),
            f"at least {least!r} ({counts} {'count' if counts == 1 else 'counts'}, noise multiplier {z:g})",
            "Below it the counts alone spend what the noise multiplier allows; twice as much leaves three quarters to "
            "the gradient. A larger batch bears more count noise.",
        )
    return z * math.sqrt(groups / left)


def check_norm(name: str, value: object) -> None:
    """An ArgumentError if ``value`` is no clip norm."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
        raise ArgumentError(name, value, f"a number from {SMALLEST:g} to {LARGEST:g}")


def check_strategy(name: str, value: object) -> None:
    """An ArgumentError if ``value`` is no clipping strategy."""
    methods = ("groups", "initial", "count_noise_stds", "clip", "update", "to_json")
    callables = all(callable(getattr(value, method, None)) for method in methods)
    if isinstance(value, type) or not callables or not hasattr(value, "least_groups"):
        raise ArgumentError(name, value, "a clipping strategy such as FixedNorm(1.0)")


def check_fractions(noisy_fractions: Sequence[float], counts: int) -> None:
    """An ArgumentError if there is not one finite fraction for each count."""
    if len(noisy_fractions) != counts or not all(math.isfinite(one) for one in noisy_fractions):
        raise ArgumentError("noisy_fractions", list(noisy_fractions), f"{counts} finite numbers, one for each count")


def one_group(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """All names in one group; an ArgumentError if there is none, or one comes twice."""
    if isinstance(names, str) or not names or len(set(names)) != len(names):
        raise ArgumentError("names", names, "the names of at least one trainable parameter, each once")
    return (tuple(names),)


def rounded_up(value: float, digits: int) -> float:
    """The smallest number of so many decimal digits that is not below ``value``, above 0."""
    exact = Decimal(value)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() + 1 - digits), ROUND_CEILING))
