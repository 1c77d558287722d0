"""What an output defense lets out, as a value that attacks can adapt to.

A defense describes itself by an :class:`OutputForm`; whoever reads it needs neither the defense nor PyTorch.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from privet.errors import ArgumentError

__all__ = ["MOST_DECIMALS", "OutputForm"]

MOST_DECIMALS = 15
"""Every decimal number of so many significant digits is told apart by float64; with more, rounding rounds nothing."""

_WHOLE = {  # the least, the most and how they are called
    "decimals": (0, MOST_DECIMALS, f"an integer from 0 to {MOST_DECIMALS}"),
    "k": (1, math.inf, "an integer from 1 to the number of classes"),
}


@dataclass(frozen=True)
class OutputForm:
    """What a served network answers for each example.

    The default is everything: all classes, at full precision. No form carries a formal guarantee.

    Args:
        decimals: the scores are rounded to so many decimals (0 to 15); None: not rounded.
        k: only the ``k`` highest scores and their classes are answered (at least 1); None: all classes.
        labels_only: only the label is answered; then ``decimals`` and ``k`` are None.
        probabilities: the scores are probabilities, because a defense applied softmax; False: they are what the network
            itself answers, or labels.

    Raises:
        ArgumentError: a value is outside of what is allowed.

    Example:
        >>> OutputForm(decimals=2, probabilities=True).then(OutputForm(k=3))
        OutputForm(decimals=2, k=3, labels_only=False, probabilities=True)
    """

    decimals: int | None = None
    k: int | None = None
    labels_only: bool = False
    probabilities: bool = False

    def __post_init__(self) -> None:
        for name, (least, most, allowed) in _WHOLE.items():
            if (value := getattr(self, name)) is not None:
                whole = _whole(value)
                if whole is None or not least <= whole <= most:
                    raise ArgumentError(name, value, allowed)
                object.__setattr__(self, name, whole)
        for name in ("labels_only", "probabilities"):
            if not isinstance(value := getattr(self, name), bool):
                raise ArgumentError(name, value, "True or False")
        if self.labels_only and (self.decimals, self.k, self.probabilities) != (None, None, False):
            raise ArgumentError(
                "labels_only",
                True,
                "False, or decimals=None, k=None and probabilities=False",
                "A label alone has no scores to round or order.",
            )

    def then(self, outer: OutputForm) -> OutputForm:
        """The form of this one defended once more: the fewer decimals, the smaller ``k``, labels if either says so.

        Whether the scores are probabilities is what this one says, for softmax is applied once, by the innermost.

        Args:
            outer: what the defense around this one lets out.

        Returns:
            What both together let out.

        Raises:
            ArgumentError: nothing but labels is left, and ``outer`` needs scores.
        """
        if outer.labels_only:
            return outer
        if self.labels_only and outer != OutputForm():
            raise ArgumentError("outer", outer, "OutputForm() or labels only", "A label alone has no scores.")
        return OutputForm(
            _least(self.decimals, outer.decimals), _least(self.k, outer.k), self.labels_only, self.probabilities
        )


def _whole(value: Any) -> int | None:
    """``value`` as an int, if it is an integer of any library; a truth value is none."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "torch.bool":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _least(first: int | None, second: int | None) -> int | None:
    given = [value for value in (first, second) if value is not None]
    return min(given, default=None)
