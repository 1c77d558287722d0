"""What a stop of the tour gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from privet.cli.tour.scene import Row, Scene
from privet.report import Section

__all__ = ["Stop", "StopResult"]


@dataclass(frozen=True)
class StopResult:
    """Lines for the one table, and sections for the page in reading order."""

    rows: tuple[Row, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Stop:
    """A stop: what it does, in the words shown while it runs, and how."""

    title: str
    visit: Callable[[Scene], StopResult]
