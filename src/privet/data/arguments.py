"""What callers may pass to the readers, checked before any work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from privet.errors import ArgumentError

__all__ = ["AnyPath", "as_path", "check_flag", "is_whole"]

AnyPath = str | os.PathLike[str]


def as_path(name: str, value: object) -> Path:
    """``value`` as a path, or an ArgumentError that names the argument."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and text:
            return Path(text)
    raise ArgumentError(name, value, "a path, as text or pathlib.Path")


def check_flag(name: str, value: object) -> None:
    """An ArgumentError if ``value`` is neither True nor False."""
    if not isinstance(value, bool):
        raise ArgumentError(name, value, "True or False")


def is_whole(value: object, low: int, high: int = 2**63 - 1) -> bool:
    """Whether ``value`` is an integer, no truth value, with low <= value <= high."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= int(value) <= high
