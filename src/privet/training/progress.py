"""A bar that shows how far training is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Show", "shown"]

Show = Callable[[int, float, float], None]


@contextmanager
def shown(progress: bool | Progress, *, epochs: int, steps: int) -> Iterator[Show]:
    """Show a bar while inside; silent where ``progress`` is false or the error output is no terminal.

    Args:
        progress: whether to show a bar, or a ``rich`` bar of one's own to which a line is added.
        epochs: how many in all.
        steps: optimizer steps an epoch.

    Yields:
        A function to call with steps done over all epochs, the mean loss and the accuracy so far in the epoch.

    Example:
        >>> with shown(False, epochs=2, steps=10) as show:
        ...     show(1, 0.7, 0.5)
    """
    if isinstance(progress, Progress):
        yield _on(progress, epochs, steps)
        return
    console = Console(stderr=True)
    if not progress or not (console.is_terminal or console.is_jupyter):
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield _on(bar, epochs, steps)


def _on(bar: Progress, epochs: int, steps: int) -> Show:
    task = bar.add_task(f"epoch 1/{epochs}", total=epochs * steps)

    def show(done: int, loss: float, accuracy: float) -> None:
        epoch = (done + steps - 1) // steps
        bar.update(task, completed=done, description=f"epoch {epoch}/{epochs} loss {loss:.4f} accuracy {accuracy:.3f}")

    return show


def _nothing(done: int, loss: float, accuracy: float) -> None:
    return None
