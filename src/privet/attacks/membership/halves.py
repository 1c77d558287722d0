"""The split that keeps an attack's training records apart from those it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.scores import MembershipScores
from privet.errors import ArgumentError, DataError, SampleTooSmallError

__all__ = ["LEAST", "MOST", "Halves", "check_whole", "halves"]

LEAST = 20
"""Records a side, members and non-members each, below which no attack is trained."""
MOST = 5_000
"""Records a side that an attack is trained on at most: more of them cost time and teach it little."""


@dataclass(frozen=True, eq=False)
class Halves:
    """Row numbers of a pool, in two parts without a record in common.

    Attributes:
        training: what an attack may learn from, as many members as non-members, shuffled.
        held_members: members that it has not seen, rising.
        held_non_members: non-members that it has not seen, rising.
        is_member: who counts as a member (P,).
    """

    training: NDArray[np.intp]
    held_members: NDArray[np.intp]
    held_non_members: NDArray[np.intp]
    is_member: NDArray[np.bool_]

    @property
    def held(self) -> NDArray[np.intp]:
        """All records that the attack has not seen: members first."""
        return np.concatenate((self.held_members, self.held_non_members))

    def scores(self, attack: str, held: NDArray[np.float64]) -> MembershipScores:
        """The scores of the held-out records, in the order of :attr:`held`, with the rows they are about.

        Args:
            attack: the attack's name.
            held: a score for each (h,).
        """
        count = len(self.held_members)
        rank = np.where(self.is_member, np.cumsum(self.is_member), np.cumsum(~self.is_member)) - 1  # within its side
        return MembershipScores(
            attack, held[:count], held[count:], rank[self.held_members], rank[self.held_non_members]
        )


def halves(
    is_member: NDArray[np.bool_],
    *,
    seed: int,
    copies: NDArray[np.intp] | None = None,
    most_held: int | None = None,
) -> Halves:
    """Cut members and non-members each in two at random: one half to learn from, one half to be judged by.

    Copies of one record stay together: who has learned one would know the other. The half to learn from is then cut
    down to as many members as non-members, and to :data:`MOST` of each.

    Args:
        is_member: who counts as a member (P,).
        seed: of the split, a whole number of at least 0.
        copies: records of the same number are copies of each other (P,); None: there are none.
        most_held: so many held-out records a side at most; None: all.

    Returns:
        The two parts.

    Raises:
        ArgumentError: if the seed is no whole number of at least 0.
        DataError: if ``is_member`` is no vector of truth values.
        SampleTooSmallError: if there are fewer than :data:`LEAST` members or non-members, or so many copies that a part
            would have less than half of that.

    Example:
        >>> parts = halves(np.arange(100) < 60, seed=0)
        >>> len(parts.training), len(parts.held_members), len(parts.held_non_members)
        (40, 30, 20)
    """
    check_whole("seed", seed, 0)
    if is_member.ndim != 1 or is_member.dtype != np.bool_:
        raise DataError(f"is_member is {is_member.dtype} of shape {is_member.shape}; give truth values (P,).")
    sides = [np.flatnonzero(is_member), np.flatnonzero(~is_member)]
    if min(map(len, sides)) < LEAST:
        raise SampleTooSmallError(
            f"{len(sides[0])} members and {len(sides[1])} non-members are too few to learn an attack from; "
            f"give at least {LEAST} of each."
        )
    generator = np.random.default_rng(seed)
    numbers = np.arange(len(is_member))
    if copies is not None:  # the first row of each: what a copy is called must not move the split
        _, first, which = np.unique(copies, return_index=True, return_inverse=True)
        numbers = first[which]
    parts = [_cut(side, numbers, generator) for side in sides]
    size = min(MOST, *(len(learned) for learned, _ in parts))
    if min(size, *(len(held) for _, held in parts)) < LEAST // 2:
        raise SampleTooSmallError(
            "too many records are copies of one another to keep those an attack learns from apart from those it is "
            "judged by; give more different records."
        )
    training = generator.permutation(np.concatenate([learned[:size] for learned, _ in parts]))
    held = [np.sort(held[:most_held]) for _, held in parts]
    return Halves(training, held[0], held[1], is_member)


def _cut(
    side: NDArray[np.intp], copies: NDArray[np.intp], generator: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows of one side in two halves of random order, no number of ``copies`` (P,) in both."""
    place = generator.permutation(len(copies))[copies[side]]
    ordered, place = side[np.argsort(place, kind="stable")], np.sort(place)
    half = len(side) // 2
    first, last = int(place.searchsorted(place[half])), int(place.searchsorted(place[half], side="right"))
    middle = first if half - first <= last - half else last  # the nearer end of the copies that lie across
    return ordered[:middle], ordered[middle:]


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse a value that is no whole number of at least ``least``.

    Raises:
        ArgumentError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
