"""One run's way to spend: reserve, draw, confirm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from privet.accounting.events import Event
from privet.accounting.records import Confirm, Release, Reserve, is_whole, merge_events
from privet.errors import ArgumentError

if TYPE_CHECKING:
    from privet.accounting.ledger import Ledger

__all__ = ["Run"]


class Run:
    """One run's way to spend: reserve, draw, confirm. From :meth:`Ledger.begin_run` or :meth:`Ledger.resume_run`.

    Steps count what this run reserved, 0, 1, ... A training step done again after a crash is a new one, since its
    noise is drawn anew.

    Attributes:
        id: the run's number in its ledger, from 1.
    """

    def __init__(self, ledger: Ledger, number: int) -> None:
        """Use :meth:`Ledger.begin_run` or :meth:`Ledger.resume_run`."""
        self._ledger, self.id = ledger, number

    @property
    def plan_digest(self) -> str:
        """What identifies the run's plan."""
        return self._ledger._history.runs[self.id - 1].begin.plan

    @property
    def reserved(self) -> int:
        """How many steps were reserved: the number of the next one."""
        return self._ledger._history.runs[self.id - 1].reserved

    @property
    def settled(self) -> int:
        """How many of them were confirmed or, before a resume, given up."""
        return self._ledger._history.runs[self.id - 1].settled

    def reserve(self, events: Event | Sequence[Event]) -> range:
        """Record what is about to be released; when it returns, that is on the disk and the noise may be drawn.

        Args:
            events: what the next steps release, in order; an event with count n stands for n steps. Make it many
                steps at once (each call waits for the disk), and no more than the run will take.

        Returns:
            The numbers of the steps reserved.

        Raises:
            ArgumentError: there is no event, or there are too many different ones for one record (about 7,000).
            LedgerError: it could not be recorded. **No noise may be drawn for these steps.**
        """
        chosen = (events,) if isinstance(events, Event) else tuple(events)
        if not all(isinstance(event, Event) for event in chosen):
            raise ArgumentError("events", events, "an Event or a sequence of them")
        with self._ledger._mutex:
            start = self.reserved
            try:
                self._ledger._append(Reserve(self.id, start, merge_events(chosen)))
            except OverflowError as error:  # an int beyond every float
                raise ArgumentError("events", events, "noise multipliers that are floats") from error
            return range(start, self.reserved)

    def confirm(self, step: int) -> None:
        """Record that the noise of all steps before ``step`` was drawn. Spent they are from :meth:`reserve` on.

        Args:
            step: at least :attr:`settled` (where nothing is left to record) and at most :attr:`reserved`.

        Raises:
            ArgumentError: it is outside.
            LedgerError: the ledger cannot be written.
        """
        with self._ledger._mutex:
            self._check_step(step)
            if step > self.settled:
                self._ledger._append(Confirm(self.id, step))

    def release(self, step: int) -> None:
        """State that no noise was drawn, and none will be, for steps ``step``, ``step + 1``, ...; they are not spent.

        Only for a run that ends early in good order, by the process that reserved the steps. Whether the call returns
        or raises, no noise may be drawn for them afterwards. After a crash nobody can say this, so a resumed run
        cannot release what was reserved before.

        Args:
            step: at least :attr:`settled` and at most :attr:`reserved` (where nothing is left to record).

        Raises:
            ArgumentError: it is outside.
            LedgerError: the ledger cannot be written; the steps stay spent.
        """
        with self._ledger._mutex:
            self._check_step(step)
            if step < self.reserved:
                self._ledger._append(Release(self.id, step))

    def _check_step(self, step: int) -> None:
        self._ledger._check_usable()
        if not is_whole(step, self.settled, self.reserved):
            raise ArgumentError("step", step, f"a whole number from {self.settled} to {self.reserved} (run {self.id})")
