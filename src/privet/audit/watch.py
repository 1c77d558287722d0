"""How far an audit is, on standard error while somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Watch", "watched"]


@dataclass(frozen=True)
class Watch:
    """A line that says what is being done; nothing is drawn where nobody looks."""

    progress: Progress
    task: TaskID

    def say(self, doing: str) -> None:
        """What begins now."""
        self.progress.reset(self.task, description=doing, total=None)

    def count(self, done: int, of: int) -> None:
        """How many shadow models are finished."""
        self.progress.update(self.task, description=f"shadow models {done}/{of}", completed=done, total=of)


@contextmanager
def watched(shown: bool) -> Iterator[Watch]:
    """Draw the line on standard error, if that is a terminal and ``shown``; take it away at the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))
    with progress:
        yield Watch(progress, progress.add_task("reading", total=None))
