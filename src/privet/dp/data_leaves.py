"""The parts that collated data are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privet.errors import ArgumentError

__all__ = ["ALLOWED", "check_leaf", "is_row", "leaves_of"]

ALLOWED = "tensors, or tuples, lists or dicts of them, whose first dimension counts the examples"


def leaves_of(data: Any) -> list[Any]:
    """All parts, in order.

    Raises:
        ArgumentError: a part of another kind.
    """
    if isinstance(data, Mapping):
        return [leaf for value in data.values() for leaf in leaves_of(value)]
    if isinstance(data, list | tuple) and not is_row(data):
        return [leaf for value in data for leaf in leaves_of(value)]
    return [check_leaf(data)]


def is_row(data: Any) -> bool:
    """Whether a list or tuple is one sequence of B values rather than a container of parts."""
    return bool(data) and all(isinstance(value, str | bytes | int | float | complex | None) for value in data)


def check_leaf(leaf: Any) -> Any:
    """The part, if it can be one.

    Raises:
        ArgumentError: it cannot.
    """
    if isinstance(leaf, str | bytes) or not hasattr(leaf, "__getitem__") or getattr(leaf, "ndim", 1) == 0:
        raise ArgumentError("data", leaf, ALLOWED)
    return leaf
