"""An epsilon as it is known: not above one number, not below another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from privet.errors import ArgumentError

__all__ = ["Bound"]


@dataclass(frozen=True)
class Bound:
    """A bracket around the true epsilon (or delta) of a composition.

    The upper end is what a guarantee rests on: what is shown first, and what stops a run.

    Attributes:
        lower: the truth is not below this, >= 0; 0 where an accountant gives no lower end.
        upper: the truth is not above this; infinity where no guarantee exists.

    Raises:
        ArgumentError: if not ``0 <= lower <= upper``.

    Example:
        >>> print(Bound(2.38158, 2.38164))
        <= 2.382 (not below 2.381)
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.lower <= self.upper:
            raise ArgumentError("bound", (self.lower, self.upper), "ends with 0 <= lower <= upper")

    @property
    def width(self) -> float:
        """How far the ends are apart."""
        return self.upper - self.lower

    def __str__(self) -> str:
        if math.isinf(self.upper):
            return "unbounded"
        upper = math.ceil(self.upper * 1e3) / 1e3
        return f"<= {upper:.3f} (not below {math.floor(self.lower * 1e3) / 1e3:.3f})"
