"""What each kind of record in a ledger holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from privet.accounting.events import Event, NeighbouringRelation
from privet.errors import ArgumentError

__all__ = [
    "Begin",
    "Confirm",
    "Header",
    "Record",
    "Release",
    "Reserve",
    "Resume",
    "Torn",
    "check_count",
    "check_text",
    "is_whole",
    "merge_events",
]

_LARGEST_COUNT = (1 << 63) - 1


@dataclass(frozen=True)
class Header:
    """The first record. ``identity`` is random, so that no two ledgers share a digest."""

    relation: NeighbouringRelation
    unit: str
    identity: str

    def __post_init__(self) -> None:
        relation: object = self.relation
        if not isinstance(relation, NeighbouringRelation):
            raise ArgumentError("relation", relation, "a NeighbouringRelation")
        check_text("unit", self.unit, 1, 200)
        check_text("identity", self.identity, 1, 200)


@dataclass(frozen=True)
class Begin:
    """Run ``run`` (1, 2, ...) starts, under the plan with this digest."""

    run: int
    plan: str
    description: str

    def __post_init__(self) -> None:
        check_count("run", self.run, 1)
        check_text("plan_digest", self.plan, 1, 200)
        check_text("description", self.description, 0, 2000)


@dataclass(frozen=True)
class Resume:
    """A run goes on in another process: the first ``step`` steps, all that were reserved, are spent for good."""

    run: int
    step: int

    def __post_init__(self) -> None:
        check_count("run", self.run, 1)
        check_count("step", self.step, 0)


@dataclass(frozen=True)
class Reserve:
    """From step ``step`` of the run on, these events may be released; a step is one of an event's ``count``."""

    run: int
    step: int
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        check_count("run", self.run, 1)
        check_count("step", self.step, 0)
        if not self.events:
            raise ArgumentError("events", self.events, "at least one Event")
        check_count("events", self.step + self.steps, 1)

    @property
    def steps(self) -> int:
        """How many steps are reserved."""
        return sum(event.count for event in self.events)


@dataclass(frozen=True)
class Confirm:
    """The noise of the run's steps before ``step`` was drawn."""

    run: int
    step: int

    def __post_init__(self) -> None:
        check_count("run", self.run, 1)
        check_count("step", self.step, 1)


@dataclass(frozen=True)
class Release:
    """The process that reserved the run's steps from ``step`` on states that it drew no noise for them."""

    run: int
    step: int

    def __post_init__(self) -> None:
        check_count("run", self.run, 1)
        check_count("step", self.step, 0)


@dataclass(frozen=True)
class Torn:
    """The ``length`` bytes before this record on its own line are what a write left that never ended."""

    length: int
    sha256: str

    def __post_init__(self) -> None:
        check_count("length", self.length, 1)
        check_text("sha256", self.sha256, 64, 64)

    @classmethod
    def over(cls, remains: bytes) -> Torn:
        """The record that covers ``remains``."""
        return cls(len(remains), hashlib.sha256(remains).hexdigest())


Record = Header | Begin | Resume | Reserve | Confirm | Release | Torn


def merge_events(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events with equal neighbours made one, in the same order.

    Example:
        >>> from privet.accounting.events import Poisson
        >>> [event.count for event in merge_events([Event(1.0, Poisson(0.1), 2), Event(1.0, Poisson(0.1), 3)])]
        [5]
    """
    merged: list[Event] = []
    run_length = 0
    for event in events:
        if merged and merged[-1].noise_multiplier == event.noise_multiplier and merged[-1].sampling == event.sampling:
            run_length += event.count
            continue
        _lengthen(merged, run_length)
        merged.append(event)
        run_length = event.count
    _lengthen(merged, run_length)
    return tuple(merged)


def check_text(name: str, value: object, shortest: int, longest: int) -> None:
    """Refuse what is not one line of printable text.

    Raises:
        ArgumentError: it is not.
    """
    if not isinstance(value, str) or not shortest <= len(value) <= longest or not (value.isprintable() or not value):
        raise ArgumentError(name, value, f"one line of printable text, {shortest} to {longest:,} characters")


def check_count(name: str, value: object, smallest: int) -> None:
    """Refuse what is not a whole number of at least ``smallest`` that fits 64 bits.

    Raises:
        ArgumentError: it is not.
    """
    if not is_whole(value, smallest, _LARGEST_COUNT):
        raise ArgumentError(name, value, f"a whole number from {smallest} to 2^63 - 1")


def is_whole(value: object, smallest: int, largest: int) -> bool:
    """Return whether ``value`` is a whole number from ``smallest`` to ``largest``."""
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= largest


def _lengthen(merged: list[Event], run_length: int) -> None:
    if merged and merged[-1].count != run_length:
        merged[-1] = Event(merged[-1].noise_multiplier, merged[-1].sampling, run_length)
