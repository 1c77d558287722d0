"""Several groups of parameters, each clipped on its own: a group a layer, or groups by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from privet.dp.clipping import Clipped, ClippingState, ClippingStrategy, check_fractions, check_strategy, one_group
from privet.errors import ArgumentError

__all__ = ["Groups", "PerLayer"]


@dataclass(frozen=True)
class PerLayer:
    r"""Every module that owns parameters is a group of its own, and each group gets the same strategy.

    With a norm C for each of G layers, a whole gradient is held to :math:`C \sqrt G`; the noise grows with it.

    Attributes:
        strategy: for one group: :class:`privet.dp.clipping.FixedNorm`,
            :class:`privet.dp.adaptive_clipping.AdaptiveQuantile`, or one's own.

    Raises:
        ArgumentError: if the strategy makes groups itself.

    Example:
        >>> from privet.dp.clipping import FixedNorm
        >>> PerLayer(FixedNorm(1.0)).groups(["conv.weight", "conv.bias", "head.0.weight"])
        (('conv.weight', 'conv.bias'), ('head.0.weight',))
    """

    strategy: ClippingStrategy

    def __post_init__(self) -> None:
        _check_plain(self.strategy)

    @property
    def least_groups(self) -> int:
        """One; how many layers there are, the names tell."""
        return 1

    def groups(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """One group for each module, in the order in which they come."""
        layers: dict[str, list[str]] = {}
        for name in one_group(names)[0]:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        return tuple(tuple(layer) for layer in layers.values())

    def initial(self, groups: int) -> ClippingState:
        """The strategy's norm for each group."""
        return self.strategy.initial(groups)

    def count_noise_stds(self, groups: int, expected_batch_size: float) -> tuple[float, ...]:
        """One for each group, or none."""
        return self.strategy.count_noise_stds(groups, expected_batch_size)

    def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
        """As the strategy does."""
        return self.strategy.clip(state, norms)

    def update(self, state: ClippingState, noisy_fractions: Sequence[float]) -> ClippingState:
        """As the strategy does."""
        return self.strategy.update(state, noisy_fractions)

    def to_json(self) -> dict[str, Any]:
        """Kind, version and the strategy."""
        return {"kind": "per-layer", "version": 1, "strategy": self.strategy.to_json()}


@dataclass(frozen=True, init=False)
class Groups:
    """Groups by name, each with a strategy of its own; fixed and adaptive ones may stand side by side.

    Args:
        *parts: for each group, names and a strategy. A name is that of a parameter, or of a module, which stands for
            all parameters in it: ``"features"`` for ``features.0.weight`` and whatever else begins with ``features.``.
            Each trainable parameter belongs to exactly one group.

    Raises:
        ArgumentError: if there is no group, a group has no name, or a strategy makes groups itself.

    Example:
        >>> from privet.dp.adaptive_clipping import AdaptiveQuantile
        >>> from privet.dp.clipping import FixedNorm
        >>> strategy = Groups((("features",), FixedNorm(1.0)), (("head", "scale"), AdaptiveQuantile(0.1)))
        >>> strategy.groups(["features.0.weight", "scale", "head.weight"])
        (('features.0.weight',), ('scale', 'head.weight'))
    """

    parts: tuple[tuple[tuple[str, ...], ClippingStrategy], ...]

    def __init__(self, *parts: tuple[Sequence[str], ClippingStrategy]) -> None:
        if not parts:
            raise ArgumentError("parts", parts, "at least one group: (names, strategy)")
        for part in parts:
            _check_part(part)
        object.__setattr__(self, "parts", tuple((tuple(names), strategy) for names, strategy in parts))

    def __repr__(self) -> str:
        return f"Groups({', '.join(map(repr, self.parts))})"

    @property
    def least_groups(self) -> int:
        """As many as were given."""
        return len(self.parts)

    def groups(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """The parameters of each group, in the order of the groups.

        Raises:
            ArgumentError: if a parameter is in no group or in two, or a name stands for no trainable parameter.
        """
        given = [name for members, _ in self.parts for name in members]
        for name in one_group(names)[0]:
            holders = [members for members, _ in self.parts if any(_covers(one, name) for one in members)]
            if len(holders) != 1:
                found = "is in none" if not holders else f"is in {' and in '.join(map(str, holders))}"
                raise ArgumentError("groups", given, f"each trainable parameter to exactly one group; {name!r} {found}")
        for one in given:
            if not any(_covers(one, name) for name in names):
                raise ArgumentError("groups", one, f"names among the trainable parameters, {', '.join(names)}")
        return tuple(
            tuple(name for name in names if any(_covers(one, name) for one in members)) for members, _ in self.parts
        )

    def initial(self, groups: int) -> ClippingState:
        """The norm of each group."""
        self._check_groups(groups)
        return _joined([strategy.initial(1) for _, strategy in self.parts])

    def count_noise_stds(self, groups: int, expected_batch_size: float) -> tuple[float, ...]:
        """Those of the groups that count, in order."""
        self._check_groups(groups)
        return tuple(std for _, strategy in self.parts for std in strategy.count_noise_stds(1, expected_batch_size))

    def clip(self, state: ClippingState, norms: Tensor) -> Clipped:
        """Each group by its strategy; an example that is taken out of one is taken out of all."""
        if norms.dim() != 2 or norms.shape[0] != len(self.parts):
            raise ArgumentError("norms", tuple(norms.shape), f"norms of shape ({len(self.parts)}, examples)")
        usable = torch.isfinite(norms).all(dim=0)  # (B,)
        norms = torch.where(usable, norms, torch.nan)
        clipped = [
            strategy.clip(own, norms[index : index + 1])
            for index, ((_, strategy), own) in enumerate(zip(self.parts, self._states(state), strict=True))
        ]
        return Clipped(torch.cat([one.factors for one in clipped]), torch.cat([one.below for one in clipped]))

    def update(self, state: ClippingState, noisy_fractions: Sequence[float]) -> ClippingState:
        """Each group by its strategy, from the fractions of its counts."""
        counts = [len(strategy.count_noise_stds(1, 1.0)) for _, strategy in self.parts]
        check_fractions(noisy_fractions, sum(counts))
        fractions = iter(noisy_fractions)
        return _joined(
            [
                strategy.update(own, tuple(islice(fractions, count)))
                for (_, strategy), own, count in zip(self.parts, self._states(state), counts, strict=True)
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Kind, version, and names and strategy of each group."""
        parts = [{"names": list(names), "strategy": strategy.to_json()} for names, strategy in self.parts]
        return {"kind": "groups", "version": 1, "parts": parts}

    def _check_groups(self, groups: int) -> None:
        if groups != len(self.parts):
            raise ArgumentError("groups", groups, f"{len(self.parts)}, the number of groups named")

    def _states(self, state: ClippingState) -> list[ClippingState]:
        self._check_groups(len(state.max_grad_norms))
        return [ClippingState((norm,)) for norm in state.max_grad_norms]


def _covers(given: str, name: str) -> bool:
    """Whether a name given for a group stands for a parameter."""
    return name == given or name.startswith(f"{given}.")


def _joined(states: Sequence[ClippingState]) -> ClippingState:
    return ClippingState(tuple(norm for state in states for norm in state.max_grad_norms))


def _check_part(part: object) -> None:
    match part:
        case ((*names,), strategy) if names and all(isinstance(name, str) and name for name in names):
            _check_plain(strategy)
        case _:
            raise ArgumentError("parts", part, '(names, strategy), as in (("features", "head.bias"), FixedNorm(1.0))')


def _check_plain(strategy: object) -> None:
    check_strategy("strategy", strategy)
    if isinstance(strategy, PerLayer | Groups):
        raise ArgumentError("strategy", strategy, "a strategy for one group, such as FixedNorm or AdaptiveQuantile")
