"""What shadow models said about the records, checked once, and what is left when one block of them is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from privet.errors import DataError

__all__ = ["Bools", "Floats", "Moments", "ShadowMatrix", "left_out"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_Part = TypeVar("_Part")
_DIFFERENT = 10  # values, from which on equal rows are no coincidence
_TELLING = 100  # records, from which on a variance is known to well within a factor of two


@dataclass(frozen=True, eq=False)
class ShadowMatrix:
    """Signals of K shadows about P records, and which shadow was trained on which record.

    Attributes:
        signals: (K, P, Q) of any float type or votes; Q queries a record.
        membership: (K, P); shadow k was trained on record p.
    """

    signals: NDArray[Any]
    membership: Bools

    @classmethod
    def checked(cls, signals: NDArray[Any], membership: Bools) -> ShadowMatrix:
        """Signals (K, P) or (K, P, Q), finite, beside a bool matrix (K, P); anything else is refused.

        Raises:
            DataError: if the shapes do not fit together, a signal is NaN or infinite, or a record has no IN or no OUT
                shadow.
        """
        signals, membership = np.asarray(signals), np.asarray(membership)
        if signals.ndim not in (2, 3) or 0 in signals.shape or signals.dtype.kind not in "fbiu":
            raise DataError(
                f"signals are {signals.dtype} of shape {signals.shape}; give numbers (shadows, records) or "
                "(shadows, records, queries), at least one of each."
            )
        if membership.dtype != np.bool_ or membership.shape != signals.shape[:2]:
            raise DataError(
                f"membership is {membership.dtype} of shape {membership.shape}; "
                f"give bool {signals.shape[:2]}, one for each shadow and record."
            )
        signals = signals.reshape(*membership.shape, -1)
        _refuse_non_finite("signals", signals, ("shadow", "record", "query"))
        return cls(signals, membership)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shadows K, records P, queries Q."""
        shadows, records, queries = self.signals.shape
        return shadows, records, queries

    def alike(self, signals: NDArray[Any]) -> ShadowMatrix:
        """Other signals of the same shadows, records and queries.

        Raises:
            DataError: if they are of another shape, or one is NaN or infinite.
        """
        signals = np.asarray(signals)
        if signals.shape != self.shape and (*signals.shape, 1) != self.shape:
            raise DataError(f"targets are of shape {signals.shape}; give {self.shape}, as the signals are.")
        return ShadowMatrix.checked(signals, self.membership)

    def without(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], Bools]:
        """Signals and membership of all shadows but these."""
        others = np.delete(np.arange(len(self.membership)), rows)
        return self.signals[others], self.membership[others]

    def query(self, query: int) -> Floats:
        """The signals of one query (K, P) in float64."""
        return self.signals[:, :, query].astype(np.float64)

    def target(self, target: NDArray[Any]) -> Floats:
        """The target's own signals as (P, Q) float64, if they fit to those of the shadows.

        Raises:
            DataError: if their shape is another, one is NaN or infinite, or they are those of one of the shadows.
        """
        target = np.asarray(target)
        _, records, queries = self.shape
        fits = target.shape == (records, queries) or (target.shape == (records,) and queries == 1)
        if not fits or target.dtype.kind not in "fbiu":
            raise DataError(
                f"target is {target.dtype} of shape {target.shape}; give numbers ({records}, {queries}), one for "
                "each record and query of the shadows."
            )
        target = target.reshape(records, queries)
        _refuse_non_finite("target", target, ("record", "query"))
        self._refuse_shadow(target)
        return target.astype(np.float64)

    def _refuse_shadow(self, target: NDArray[Any]) -> None:
        """A target among the shadows would be judged by a fit to its own signals, and seem a member by them alone."""
        if len(np.unique(target)) < _DIFFERENT:
            return  # votes, or answers that are all alike
        same = [np.array_equal(signals, target.astype(signals.dtype)) for signals in self.signals]
        if any(same) and not all(same):
            raise DataError(
                f"the target's signals are those of shadow {same.index(True)}, which would be judged by itself; leave "
                "that shadow out, or use the rotated form of the attack."
            )

    def blocks(self, blocks: NDArray[Any]) -> list[NDArray[np.intp]]:
        """The rows of each block, of at least two.

        How many of a block are trained on a record must say nothing of how many of the others are: else the number of
        IN shadows that are left would tell whether the left-out one is among them. Either blocks complete themselves,
        and all these numbers are the same, or blocks are independent, and over the records the variance of their sum is
        the sum of their variances.

        Raises:
            DataError: if there is not one whole number for each shadow, or fewer than two different ones; if blocks
                complete each other; or if, over at least 100 records, the variance of the sum is not between half of
                and twice what it is of independent blocks.
        """
        blocks = np.asarray(blocks)
        if blocks.shape != self.membership.shape[:1] or blocks.dtype.kind not in "iu":
            raise DataError(
                f"blocks are {blocks.dtype} of shape {blocks.shape}; give integers ({self.shape[0]},), one a shadow."
            )
        names = np.unique(blocks)
        if len(names) < 2:
            raise DataError("all shadows are of one block; rotating needs at least two, so that one can be left out.")
        rows = [np.flatnonzero(blocks == name) for name in names]
        inside = np.stack([self.membership[row].sum(0) for row in rows])  # (B, P)
        apart, together = float(inside.var(1).sum()), float(inside.sum(0).var())
        few = inside.shape[1] < _TELLING
        if apart > 0.0 and (together == 0.0 if few else not 0.5 <= together / apart <= 2.0):
            raise DataError(
                "how many shadows of one block are trained on a record tells how many of the others are, and so "
                "whether the left-out one was; put shadows that complete each other into one block, or train on "
                "independent draws."
            )
        return rows

    def need(self, inside: int, outside: int, rotated: Sequence[NDArray[np.intp]] = ()) -> None:
        """Refuse records with fewer shadows trained on them or not than this, also after any one block is left out.

        Raises:
            DataError: naming the first such record.
        """
        total = self.membership.sum(0)
        for without in rotated or [np.empty(0, np.intp)]:
            inside_left = total - self.membership[without].sum(0)
            outside_left = len(self.membership) - len(without) - inside_left
            for kind, left, least in (("IN", inside_left, inside), ("OUT", outside_left, outside)):
                if (left < least).any():
                    first = int(np.argmax(left < least))
                    block = ", its own block left out," if rotated else ""
                    raise DataError(
                        f"record {first} has {int(left[first])} {kind} shadows{block} and needs {least}; "
                        "give more shadows, or balanced ones."
                    )


def _refuse_non_finite(name: str, values: NDArray[Any], axes: tuple[str, ...]) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    first = np.argwhere(~np.isfinite(values))[0]
    where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    raise DataError(f"{name}: {values[tuple(first)]} at {where}; leave such records or shadows out.")


@dataclass(frozen=True, eq=False)
class Moments:
    """How many values each record has, their mean, and the sum of their squared distances from it, each (P,)."""

    count: NDArray[np.intp]
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, values: Floats, chosen: Bools) -> Moments:
        """The moments over the chosen ones of (K, P), in two passes, so that large values cost no precision."""
        count = chosen.sum(0)
        mean, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
        for row, which in zip(values, chosen, strict=True):  # a row at a time stays in the cache
            mean += row * which
        mean /= np.maximum(count, 1)
        for row, which in zip(values, chosen, strict=True):
            distance = row - mean
            distance *= which
            distance *= distance
            squares += distance
        return cls(count, mean, squares)

    def merged(self, other: Moments) -> Moments:
        """The moments of both together; only positive terms are added, so that nothing cancels."""
        count = self.count + other.count
        distance, share = other.mean - self.mean, other.count / np.maximum(count, 1)
        squares = self.squares + other.squares + distance * distance * (share * self.count)
        return Moments(count, self.mean + distance * share, squares)


def left_out(parts: Sequence[_Part], merged: Callable[[_Part, _Part], _Part]) -> list[_Part]:
    """For each of at least two parts, all the others merged, in linear time and without any subtraction."""
    after = [parts[-1]]
    for part in reversed(parts[1:-1]):
        after.append(merged(part, after[-1]))
    after.reverse()  # after[i]: parts i + 1 and on
    found, before = [after[0]], parts[0]
    for index, part in enumerate(parts[1:], start=1):
        found.append(merged(before, after[index]) if index < len(after) else before)
        before = merged(before, part)
    return found
