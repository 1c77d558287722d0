"""What attacks ask of their arguments."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import Generator

from privet.errors import ArgumentError

__all__ = ["generator_of", "image_shape_of", "whole_number"]


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


def generator_of(seed: object) -> Generator:
    """A generator, or one from a seed below 2^64.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(seed, Generator):
        return seed
    number = whole_number("seed", seed, 0)
    if number >= 2**64:
        raise ArgumentError("seed", seed, "a whole number from 0 to 2^64 - 1, or a torch.Generator")
    return Generator().manual_seed(number)
