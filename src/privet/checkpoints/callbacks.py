"""What the callbacks of every training have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from privet.errors import ArgumentError

__all__ = ["OnEnd", "check_callbacks"]


@runtime_checkable
class OnEnd(Protocol):
    """Called when training ends, however it ends, where ``on_start`` (if there is one) raised nothing."""

    def on_end(self) -> None:
        """Let go of what was taken hold of."""


def check_callbacks(callbacks: Iterable[object], kinds: Any) -> None:
    """Refuse what would never be called, or twice.

    Args:
        callbacks: as given.
        kinds: the protocols that a training calls.

    Raises:
        ArgumentError: one is a class, is of none of the kinds, or is given twice.
    """
    seen: list[object] = []
    for callback in callbacks:
        if isinstance(callback, type) or not isinstance(callback, kinds):
            raise ArgumentError("callbacks", callback, "objects with on_start, on_step, on_epoch or on_end")
        if any(callback is other for other in seen):
            raise ArgumentError("callbacks", callback, "each object once")
        seen.append(callback)
