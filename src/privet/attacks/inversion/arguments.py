"""What attacks ask of their arguments."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from privet.errors import ArgumentError

__all__ = ["image_shape_of", "whole_number"]


def image_shape_of(shape: object) -> tuple[int, int, int]:
    """Channels, height and width, each at least 1.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ArgumentError("image_shape", shape, "channels, height and width, such as (1, 28, 28)")
    channels, height, width = (whole_number("image_shape", size) for size in shape)
    return channels, height, width


def whole_number(name: str, value: object, least: int = 1) -> int:
    """``value`` as an integer of at least ``least``.

    Raises:
        ArgumentError: it is none.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
    return number
