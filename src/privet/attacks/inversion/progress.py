"""A bar that shows how far a reconstruction is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from privet.errors import ArgumentError

__all__ = ["Show", "shown"]

Show = Callable[[int, int, float], None]


@contextmanager
def shown(progress: bool | Show, total: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar while inside, if it is asked for and the error output is a terminal.

    Args:
        progress: whether to show a bar, or what to call instead.
        total: how many steps in all.

    Yields:
        A function to call with steps done and the mean loss.

    Example:
        >>> with shown(lambda done, total, loss: print(done, total, loss), 2) as show:
        ...     show(1, 0.5)
        1 2 0.5
    """
    given: object = progress
    if not isinstance(given, bool) and not callable(given):
        raise ArgumentError("progress", given, "True, False, or a function of steps done, steps in all and mean loss")
    if not isinstance(progress, bool):
        yield lambda done, loss: progress(done, total, loss)
        return
    console = Console(stderr=True)
    if not progress or not (console.is_terminal or console.is_jupyter):
        yield lambda done, loss: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("loss", total=total)
        yield lambda done, loss: bar.update(task, completed=done, description=f"loss {loss:.4f}")
