"""The append-only record of what was spent: written before any noise is drawn, so that a crash cannot make it lie."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from privet.accounting.events import Event, NeighbouringRelation
from privet.accounting.history import LARGEST_FILE, History, LedgerContents, read_history, repair
from privet.accounting.ledger_file import DiskFile, LedgerFile, MemoryFile, read_bytes
from privet.accounting.lines import LONGEST_LINE, DamagedRecordError, seal, unseal
from privet.accounting.records import (
    Begin,
    Header,
    Record,
    Release,
    Resume,
    check_text,
    is_whole,
)
from privet.accounting.run import Run
from privet.errors import ArgumentError, LedgerCorruptError, LedgerError, LedgerMismatchError

__all__ = ["Ledger", "read_ledger"]

_LONGEST_RECORD = LONGEST_LINE - 16_384  # room on the same line for the records that cover torn writes


class Ledger:
    """What was spent on one data set, by any number of runs, hash-chained and held by one process at a time.

    Make one with :meth:`create`, :meth:`open` or :meth:`in_memory`; use it as a context manager, or :meth:`close` it.

    *Guarantees*: :meth:`Run.reserve` returns only once the reservation is on the disk, so noise drawn after it is in
    the ledger whatever happens next. Records are never changed or removed. After any failed write the ledger refuses
    further work until it is opened anew. Assumes that the disk keeps what ``fsync`` said it keeps. The chain shows
    every change to a record but not records cut off at the end; for that, keep :attr:`head` elsewhere (in the
    checkpoint) and give it to :meth:`open`. Ledger and checkpoint set back together cannot be noticed.

    Example:
        >>> from privet.accounting.events import Event, NeighbouringRelation, Poisson
        >>> ledger = Ledger.in_memory(NeighbouringRelation.ADD_OR_REMOVE_ONE, unit="example")
        >>> run = ledger.begin_run(plan_digest="9f86d081", description="first try")
        >>> steps = run.reserve(Event(1.1, Poisson(0.01), count=100))
        >>> run.confirm(60)
        >>> [event.count for event in ledger.events()], ledger.contents().unconfirmed
        ([100], 40)
    """

    def __init__(self, file: LedgerFile, history: History, size: int) -> None:
        """Use :meth:`create`, :meth:`open` or :meth:`in_memory`."""
        self._file, self._history, self._size = file, history, size
        self._broken = ""
        self._process = os.getpid()
        self._mutex = threading.RLock()
        self._events: tuple[Event, ...] | None = None

    @classmethod
    def create(cls, path: str | Path, relation: NeighbouringRelation, unit: str) -> Self:
        """Make a new ledger on disk and hold it.

        Args:
            path: the file; it must not be there yet.
            relation: which neighbours the noise multipliers of its events are about.
            unit: what one record of the data stands for, such as ``"example"`` or ``"patient"``.

        Raises:
            ArgumentError: the relation or the unit is not allowed.
            LedgerError: the file is there already, or cannot be made.
        """
        header = _header(relation, unit)
        file = DiskFile(path, create=True)
        try:
            return cls._start(file, header)
        except BaseException:
            file.remove()
            raise

    @classmethod
    def in_memory(cls, relation: NeighbouringRelation, unit: str) -> Self:
        """Make a ledger that ends with the process, for planning and tests.

        Args:
            relation: which neighbours the noise multipliers of its events are about.
            unit: what one record of the data stands for.

        Raises:
            ArgumentError: the relation or the unit is not allowed.
        """
        return cls._start(MemoryFile(), _header(relation, unit))

    @classmethod
    def open(cls, path: str | Path, *, expect_head: str | None = None, accept_torn_tail: bool = False) -> Self:
        """Hold a ledger that is on disk, and continue it.

        Args:
            path: the file.
            expect_head: a :attr:`head` this ledger once had, as kept in a checkpoint; it must still be in the chain.
            accept_torn_tail: whether a last line without an end may stay, covered by a record that says so. The events
                that stand whole in it then count as spent.

        Raises:
            LedgerBusyError: another process holds it.
            LedgerCorruptError: its records do not fit together, or its tail is torn and that was not accepted.
            LedgerMismatchError: ``expect_head`` is not in the chain: records were cut off, or it is another ledger.
            LedgerError: it cannot be opened, read or written.
        """
        if expect_head is not None:
            check_text("expect_head", expect_head, 64, 64)
        file = DiskFile(path, create=False)
        try:
            return cls.open_in(file, expect_head=expect_head, accept_torn_tail=accept_torn_tail)
        except BaseException:
            file.close()
            raise

    @classmethod
    def open_in(cls, file: LedgerFile, *, expect_head: str | None = None, accept_torn_tail: bool = False) -> Self:
        """Continue a ledger that lies in storage of your own; otherwise as :meth:`open`."""
        data = file.read()
        history, tail = read_history(data, file.name)
        if tail and not accept_torn_tail:
            raise _torn(file.name, data, tail)
        appended = repair(history, tail) if tail else b""
        _check_head(history, expect_head, file.name)
        ledger = cls(file, history, len(data))
        ledger._write(appended)  # its sync also covers what a killed process wrote and did not sync
        return ledger

    @classmethod
    def _start(cls, file: LedgerFile, header: Header) -> Self:
        ledger = cls(file, History(), 0)
        ledger._append(header)
        return ledger

    @property
    def name(self) -> str:
        """The file, or that it is in memory."""
        return self._file.name

    @property
    def relation(self) -> NeighbouringRelation:
        """Which neighbours the noise multipliers of its events are about."""
        return self.contents().relation

    @property
    def unit(self) -> str:
        """What one record of the data stands for."""
        return self.contents().unit

    @property
    def head(self) -> str:
        """The digest of the last record on the disk, 64 hexadecimal digits; a checkpoint keeps it."""
        return self._history.head

    def events(self) -> tuple[Event, ...]:
        """Everything that counts as spent: all that was reserved, in that order, equal neighbours made one."""
        with self._mutex:
            if self._events is None:
                self._events = self._history.events()
            return self._events

    def contents(self) -> LedgerContents:
        """What the ledger says, as plain data."""
        with self._mutex:
            return self._history.contents()

    def begin_run(self, plan_digest: str, description: str = "") -> Run:
        """Start a run; what it spends composes with what is there.

        Args:
            plan_digest: what identifies its plan, 1 to 200 characters.
            description: free text on one line, at most 2,000 characters.

        Raises:
            ArgumentError: a text is not allowed.
            LedgerError: the ledger cannot be written.
        """
        with self._mutex:
            number = len(self._history.runs) + 1
            self._append(Begin(number, plan_digest, description))
            return Run(self, number)

    def resume_run(self, plan_digest: str, run: int | None = None) -> Run:
        """Take up a run that another process began. What that process reserved is spent for good, drawn or not.

        Args:
            plan_digest: the plan it was begun with.
            run: its number in the ledger, from 1; the last one if not given.

        Raises:
            ArgumentError: there is no such run.
            LedgerMismatchError: it was begun with another plan.
            LedgerError: the ledger cannot be written.
        """
        with self._mutex:
            runs = self._history.runs
            if not runs:
                raise LedgerMismatchError(f"{self.name}: no run was begun in it; begin one.")
            number = len(runs) if run is None else run
            if not is_whole(number, 1, len(runs)):
                raise ArgumentError("run", run, f"a whole number from 1 to {len(runs)}")
            recorded = runs[number - 1].begin.plan
            if recorded != plan_digest:
                raise LedgerMismatchError(
                    f"{self.name}: run {number} was begun with plan {recorded}, not {plan_digest}. Resume it with its "
                    f"own plan, name another run, or begin a new one in this ledger.{self._runs_of(plan_digest)}"
                )
            self._append(Resume(number, runs[number - 1].reserved))
            return Run(self, number)

    def check_head(self, expected: str) -> None:
        """Refuse a ledger that never had this :attr:`head`, as :meth:`open` does.

        Raises:
            LedgerMismatchError: it is not in the chain: records were cut off, or it is another ledger.
        """
        with self._mutex:
            _check_head(self._history, expected, self.name)

    def close(self) -> None:
        """Let go of the file. What was spent can still be read from this object."""
        if os.getpid() == self._process:
            self._broken = self._broken or f"{self.name}: this ledger was closed; open it again."
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise LedgerError(f"{self.name}: a ledger cannot be copied or pickled; two copies would record apart.")

    def _runs_of(self, plan_digest: str) -> str:
        same = [str(index) for index, run in enumerate(self._history.runs, 1) if run.begin.plan == plan_digest]
        return f" Runs with the plan given: {', '.join(same)}." if same else ""

    def _append(self, record: Record) -> None:
        """Put one record on the disk; what it spends counts from before the write, what it releases from after."""
        self._check_usable()
        line, digest = seal(self._history.head, record)
        if len(line) > _LONGEST_RECORD:
            allowed = f"at most {_LONGEST_RECORD:,}"
            raise ArgumentError("events", f"{len(line):,} bytes", allowed, "Reserve fewer steps at once.")
        try:
            unseal(self._history.head, line[:-1])
        except DamagedRecordError as error:  # nothing is written that could not be read
            raise ArgumentError("record", record, "what a ledger can read back", str(error)) from error
        self._broken = f"{self.name}: an earlier write failed; open the ledger again, and draw no noise before."
        if isinstance(record, Release):
            self._write(line)
            self._history.apply(record)
        else:
            self._history.apply(record)
            self._events = None
            self._write(line)
        self._events = None
        self._history.follow(digest)
        self._broken = ""

    def _write(self, data: bytes) -> None:
        """Append and sync."""
        try:
            if self._file.size() != self._size:
                raise OSError(errno.ESTALE, "it was changed by another program")
            if self._size + len(data) > LARGEST_FILE:
                raise OSError(errno.EFBIG, f"a ledger has at most {LARGEST_FILE:,} bytes")
            rest = data
            while rest:
                taken = self._file.write(rest)
                if taken <= 0:
                    raise OSError(errno.EIO, "it takes no more bytes")
                rest = rest[taken:]
            self._file.sync()
        except (OSError, ValueError) as error:
            raise LedgerError(
                f"{self.name}: a record could not be written at byte {self._size:,}: {error}. Nothing recorded before "
                "is lost. Draw no noise for it; put the cause right and open the ledger again."
            ) from error
        self._size += len(data)

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise LedgerError(f"{self.name}: it was opened by process {self._process}, and a forked copy cannot write.")
        if self._broken:
            raise LedgerError(self._broken)


def read_ledger(path: str | Path, *, expect_head: str | None = None) -> LedgerContents:
    """Read a ledger without locking or changing it.

    Args:
        path: the file.
        expect_head: a head the ledger once had; it must still be in the chain.

    Returns:
        What it says.

    Raises:
        LedgerCorruptError: whatever the bytes are, if they are not a whole ledger.
        LedgerMismatchError: ``expect_head`` is not in the chain.
        LedgerError: the file cannot be read.
    """
    if expect_head is not None:
        check_text("expect_head", expect_head, 64, 64)
    data = read_bytes(path)
    history, tail = read_history(data, str(path))
    if tail:
        raise _torn(str(path), data, tail)
    _check_head(history, expect_head, str(path))
    return history.contents()


def _header(relation: NeighbouringRelation, unit: str) -> Header:
    return Header(relation, unit, secrets.token_hex(16))


def _torn(name: str, data: bytes, tail: bytes) -> LedgerCorruptError:
    line = data.count(b"\n") + 1
    return LedgerCorruptError(
        f"{name}: line {line:,} (byte {len(data) - len(tail):,}): it breaks off after {len(tail):,} bytes; everything "
        "before it is intact. If a process is writing to it, look again. If one was killed or the disk was full, run "
        f"`privet ledger repair {name}` or open it with accept_torn_tail=True: the bytes stay, and every event that "
        "stands whole in them counts as spent."
    )


def _check_head(history: History, expected: str | None, name: str) -> None:
    if expected is not None and expected not in history.digests:
        raise LedgerMismatchError(
            f"{name}: the head {expected} is not in it: records were cut off its end, or it is another ledger. Bring "
            "back the file that the checkpoint was written with."
        )
