"""Where each trainable parameter has its place in the flat gradient buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privet.errors import ArgumentError, PrivateTrainingError

__all__ = ["Part", "PartOf", "Slot", "lay_out"]

_ALIGNED = 16  # numbers; every view starts at a cache line


@dataclass(frozen=True, eq=False)
class Slot:
    """One trainable parameter and its place.

    Attributes:
        name: as in ``named_parameters``.
        parameter: the parameter itself.
        group: which group it is clipped with, 0 ... G - 1.
        offset: of its first number in the flat buffer.
    """

    name: str
    parameter: nn.Parameter
    group: int
    offset: int

    def view(self, flat: Tensor) -> Tensor:
        """The parameter's part of a flat buffer, in the parameter's shape."""
        return flat[self.offset : self.offset + self.parameter.numel()].view(self.parameter.shape)


@dataclass(frozen=True)
class Part:
    """What one layer uses of a parameter: all of it, or rows ``start`` ... ``stop`` - 1 of its first dimension."""

    slot: Slot
    start: int = 0
    stop: int | None = None

    @property
    def shape(self) -> torch.Size:
        """The shape of what is used."""
        return self.value().shape

    def value(self) -> Tensor:
        """The numbers, cut off from the graph: no gradient arrives where the engine does not see it."""
        whole = self.slot.parameter.detach()
        return whole if self.stop is None else whole[self.start : self.stop]

    def view(self, flat: Tensor) -> Tensor:
        """The place of these numbers in a flat buffer."""
        whole = self.slot.view(flat)
        return whole if self.stop is None else whole[self.start : self.stop]

    def overlaps(self, other: Part) -> bool:
        """Whether both use a number in common."""
        if self.slot is not other.slot:
            return False
        if self.stop is None or other.stop is None:
            return True
        return self.start < other.stop and other.start < self.stop


PartOf = Callable[[str], Part | None]
"""From the name of a module's own parameter to its part; None where there is none or it is frozen."""


def lay_out(model: nn.Module, groups: Sequence[Sequence[str]] | None) -> tuple[list[Slot], list[tuple[int, int]]]:
    """Give every trainable parameter its place, group after group.

    Args:
        model: whose parameters.
        groups: a partition of the trainable parameters' names; None for one group of all.

    Returns:
        The slots, and the range [start, stop) of each group in the flat buffer.

    Raises:
        ArgumentError: the groups are not a partition of the names.
        PrivateTrainingError: nothing is trainable, or the parameters are not all of one dtype and device.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise PrivateTrainingError("the model has no parameter with requires_grad=True; there is nothing to train.")
    _check_kind(trainable)
    chosen = [tuple(trainable)] if groups is None else [tuple(group) for group in groups]
    named = [name for group in chosen for name in group]
    if sorted(named) != sorted(trainable) or not all(chosen):
        strange = sorted(set(named) ^ set(trainable)) or sorted(named)
        raise ArgumentError("groups", strange, "each trainable parameter in exactly one group, and no group empty")
    slots, ranges, offset = [], [], 0
    for number, group in enumerate(chosen):
        start = offset
        for name in group:
            slots.append(Slot(name, trainable[name], number, offset))
            offset += -(-trainable[name].numel() // _ALIGNED) * _ALIGNED
        ranges.append((start, offset))
    return slots, ranges


def _check_kind(trainable: dict[str, nn.Parameter]) -> None:
    first_name, first = next(iter(trainable.items()))
    for name, parameter in trainable.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise PrivateTrainingError(
                f"parameter {name!r} is {parameter.dtype}; norms, sums and noise need float32 or float64. Keep the "
                "parameters in float32 (model.float()) and run the forward pass under torch.autocast."
            )
        if (parameter.dtype, parameter.device) != (first.dtype, first.device):
            raise PrivateTrainingError(
                f"parameter {name!r} is {parameter.dtype} on {parameter.device}, {first_name!r} is {first.dtype} on "
                f"{first.device}; all trainable parameters need one dtype and one device."
            )
