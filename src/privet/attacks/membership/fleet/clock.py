"""Whether there is time for another shadow."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """Knows how long shadows took, and so which cannot be finished in time.

    Args:
        deadline: on the clock ``now``; None: there is time for all.
        now: the clock, in seconds.

    Example:
        >>> Clock(deadline=5.0, now=lambda: 6.0).begins(0, left=2)
        False
    """

    def __init__(self, deadline: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._deadline, self._now = deadline, now
        self._begun: dict[int, float] = {}
        self._took: list[float] = []
        self._abreast = 1

    def begins(self, shadow: int, left: int) -> bool:
        """Begin a shadow, if it can be finished, and with it its block, at the pace of those that have ended.

        Args:
            shadow: its number.
            left: how many of its block are to be trained, itself included.

        Returns:
            Whether to begin it; with no shadow ended yet, whether the deadline is still ahead.
        """
        now = self._now()
        self._abreast = max(self._abreast, len(self._begun) + 1)
        if self._deadline is not None:
            pace = sum(self._took) / len(self._took) if self._took else 0.0
            if now + pace * -(-left // self._abreast) > self._deadline:
                return False
        self._begun[shadow] = now
        return True

    def ended(self, shadow: int) -> None:
        """A shadow's row has arrived."""
        self._took.append(self._now() - self._begun.pop(shadow))
