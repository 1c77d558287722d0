"""What may be answered next to the defended part: nothing that holds any of it.

Parts of one tensor are told apart by their slices alone, before any call. Parts of other tensors are told apart by the
memory that they are in, at each call. A copy that the network itself makes is in no common memory and is not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from privet.errors import ArgumentError, DefenseError
from privet.outputs.part import Part, as_part, member

__all__ = ["kept_parts", "refuse_shared"]


def kept_parts(part: Part, keep: Sequence[Part | str | int]) -> tuple[Part, ...]:
    """``keep`` as parts, each of which is by its name or its slices another one than ``part``."""
    kept = tuple(as_part("keep", one) for one in keep)
    for one in kept:
        if one.name is None and part.name is not None:
            raise ArgumentError("keep", one, "parts with a name", "The whole output holds the defended part.")
        if one.name == part.name and not _apart(one.slices, part.slices):
            raise ArgumentError(
                "keep",
                one,
                f"parts that hold nothing of the defended one, {part}",
                "Slices of one tensor must be disjoint along one axis, counted alike in both, for every length of it, "
                "as are slice(0, 4) and slice(4, None).",
            )
    return kept


def refuse_shared(part: Part, keep: Sequence[Part], output: Any, in_graph: bool) -> None:
    """Raises DefenseError if a kept part is in the memory of the defended one; in a graph, if it is the same tensor."""
    for one in keep:
        if one.name == part.name:
            continue  # disjoint, as kept_parts found
        if member(one, output) is member(part, output):
            shared = not _apart(one.slices, part.slices)
        else:
            shared = not in_graph and _overlap(one.of(output), part.of(output))
        if shared:
            raise DefenseError(
                f"the kept {one} holds values of the defended {part} under another name; keep parts that hold none."
            )


def _apart(first: Mapping[int, slice], second: Mapping[int, slice]) -> bool:
    return any(
        _ends_before(first[axis], second[axis]) or _ends_before(second[axis], first[axis])
        for axis in first.keys() & second.keys()
    )


def _ends_before(first: slice, second: slice) -> bool:
    """Whether ``first`` stops at or before the start of ``second`` on an axis of any length."""
    stop, start = first.stop, second.start
    return stop is not None and start is not None and (stop < 0) == (start < 0) and stop <= start


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have an element in common memory; elements of different sizes: whether their ranges meet."""
    if not first.layout == second.layout == torch.strided:
        return True  # sparse tensors are not looked into
    if first.device != second.device or not first.numel() or not second.numel():
        return False
    size, (start, end), (other_start, other_end) = first.element_size(), _range(first), _range(second)
    if end <= other_start or other_end <= start:
        return False
    if size != second.element_size() or (start - other_start) % size:
        return True
    lowest = min(start, other_start)
    taken = torch.zeros((max(end, other_end) - lowest) // size, dtype=torch.bool)
    shape = [1 if stride == 0 else length for length, stride in zip(first.shape, first.stride(), strict=True)]
    taken.as_strided(shape, first.stride(), (start - lowest) // size).fill_(True)
    return bool(taken.as_strided(second.shape, second.stride(), (other_start - lowest) // size).any())


def _range(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the first byte and after the last."""
    steps = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()
