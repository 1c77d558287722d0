"""Ctrl-C between two steps instead of inside one, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "interruptions_held"]


class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        asked: it was, once; the step under way is finished.
        forced: it was pressed again; a KeyboardInterrupt went through at once.
    """

    def __init__(self) -> None:
        """Not yet."""
        self.asked = self.forced = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if self.asked:
            self.forced = True
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interruptions_held() -> Iterator[Interruption]:
    """Inside, the first Ctrl-C is kept to be asked about, and the second goes through.

    Outside the main thread, or where the program handles Ctrl-C in its own way, nothing is changed.

    Yields:
        What says whether Ctrl-C was pressed.

    Example:
        >>> with interruptions_held() as interruption:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interruption.asked
        True
    """
    interruption = Interruption()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not usual:
        yield interruption
        return
    signal.signal(signal.SIGINT, interruption)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
