"""Which part of a network's output is meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from privet.errors import ArgumentError, DefenseError

__all__ = ["Part", "as_part", "member"]


@dataclass(frozen=True)
class Part:
    """A part of a network's output: a named member, and of it a slice along some axes.

    Args:
        name: the key of a dict, the field of a dataclass or named tuple, or the position in a tuple or list;
            None: the output is a tensor itself.
        slices: from an axis to the slice taken along it (negative axes count from the end); none: all of it.

    Raises:
        ArgumentError: a name or slice is of the wrong type.

    Example:
        >>> import torch
        >>> boxes_and_logits = {"out": torch.arange(6.0).reshape(1, 6)}
        >>> Part("out", slices={-1: slice(4, None)}).of(boxes_and_logits)
        tensor([[4., 5.]])
    """

    name: str | int | None = None
    slices: Mapping[int, slice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name: object = self.name
        if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
            raise ArgumentError("name", name, "a key or field (str), a position (int) or None")
        if not isinstance(self.slices, Mapping):
            raise ArgumentError("slices", self.slices, "a mapping from an axis (int) to a slice")
        slices: dict[Any, Any] = {**self.slices}
        for axis, along in slices.items():
            if isinstance(axis, bool) or not isinstance(axis, int) or not isinstance(along, slice):
                raise ArgumentError("slices", self.slices, "a mapping from an axis (int) to a slice")
            if along.step is not None and along.step < 1:
                raise ArgumentError("slices", self.slices, "slices whose steps are at least 1")
        object.__setattr__(self, "slices", dict(self.slices))

    def of(self, output: Any) -> Tensor:
        """Takes this part of ``output``.

        Args:
            output: what a network answered.

        Returns:
            The part, a tensor.

        Raises:
            DefenseError: the output has no such part, or it is no tensor.
        """
        whole = member(self, output)
        index = [slice(None)] * whole.ndim
        taken = set()
        for axis, along in self.slices.items():
            if not -whole.ndim <= axis < whole.ndim or axis % whole.ndim in taken:
                raise DefenseError(
                    f"the part slices axis {axis} of an output of shape {tuple(whole.shape)}; "
                    f"give each axis from {-whole.ndim} to {whole.ndim - 1} once."
                )
            taken.add(axis % whole.ndim)
            index[axis] = along
        return whole[tuple(index)]


def as_part(argument: str, value: Part | str | int | None) -> Part:
    """``value`` as a part; ``argument`` is what the caller called it."""
    if isinstance(value, Part):
        return value
    try:
        return Part(value)
    except ArgumentError:
        raise ArgumentError(
            argument, value, "a Part, a key or field (str), a position (int) or None for the whole output"
        ) from None


def member(part: Part, output: Any) -> Tensor:
    """The tensor that ``part`` names, with nothing sliced."""
    found = output if part.name is None else _member(output, part.name)
    if not isinstance(found, Tensor):
        where = "the network's output" if part.name is None else f"its part {part.name!r}"
        raise DefenseError(
            f"{where} is {_describe(found)}, not a tensor; name the part to defend, as in part='logits' or part=0."
        )
    return found


def _member(output: Any, name: str | int) -> Any:
    if isinstance(output, Mapping):
        if name in output:
            return output[name]
    elif isinstance(name, str):
        if name in _fields(output):
            return getattr(output, name)
    elif isinstance(output, tuple | list) and -len(output) <= name < len(output):
        return output[name]
    raise DefenseError(f"the network's output has no part {name!r}; it is {_describe(output)}.")


def _fields(output: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(output):
        return tuple(one.name for one in dataclasses.fields(output))
    return tuple(getattr(output, "_fields", ()))


def _describe(output: Any) -> str:
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, output))}"
    if names := _fields(output):
        return f"a {kind} with the fields {', '.join(names)}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {len(output)}"
    return f"a {kind}"
