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
        took: how long shadows took that were trained before; those of this clock are added.

    Example:
        >>> Clock(deadline=5.0, now=lambda: 6.0).begins(0, left=2)
        False
    """

    def __init__(
        self, deadline: float | None, now: Callable[[], float] = time.monotonic, took: list[float] | None = None
    ) -> None:
        self._deadline, self._now = deadline, now
        self._begun: dict[int, float] = {}
        self._took = [] if took is None else took
        self._abreast = 1

    def together(self, most: int, block: int) -> int:
        """How many shadows to train at once, whole blocks: one block first, then as many as can be finished in time.

        Where they are trained at once, all of them take as long as the last; so each counts its share alone.

        Args:
            most: not more, where time allows.
            block: the number in a block, which may be more than ``most``.
        """
        most = max(most // block, 1) * block
        if self._deadline is None:
            return most
        if not self._took:
            return block
        left = (self._deadline - self._now()) / max(sum(self._took) / len(self._took), 1e-9)
        return min(max(int(left) // block, 1) * block, most)

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

    def ended(self, shadow: int, together: int = 1) -> None:
        """A shadow's row has arrived; it was trained at once with others, so many in all."""
        self._took.append((self._now() - self._begun.pop(shadow)) / together)
