"""What the records of a ledger add up to. The same fold serves the reader and the writer."""

from __future__ import annotations

from dataclasses import dataclass, field

from privet.accounting.events import Event, NeighbouringRelation
from privet.accounting.lines import FIRST_DIGEST, LONGEST_LINE, DamagedRecordError, salvage, seal, unseal
from privet.accounting.records import Begin, Confirm, Header, Record, Release, Reserve, Resume, Torn, merge_events
from privet.errors import LedgerCorruptError

__all__ = ["LARGEST_FILE", "History", "LedgerContents", "RunContents", "read_history", "repair"]

LARGEST_FILE = 1 << 30


@dataclass(frozen=True)
class RunContents:
    """One run of a ledger.

    Attributes:
        id: 1 for the first run of the ledger, 2 for the next.
        plan_digest: what identifies its plan.
        description: free text.
        reserved: how many steps were reserved and not released; all count as spent.
        unconfirmed: how many of them were never confirmed to have been drawn.
        resumed: how often it was taken up again.
    """

    id: int
    plan_digest: str
    description: str
    reserved: int
    unconfirmed: int
    resumed: int


@dataclass(frozen=True)
class LedgerContents:
    """What a ledger says.

    Attributes:
        relation: which neighbours its noise multipliers are about.
        unit: what one record of the data stands for, such as ``"example"``.
        runs: in the order they began.
        events: everything that counts as spent, in the order it was reserved, equal neighbours made one.
        records: how many records there are.
        torn: how many torn writes were accepted.
        head: the digest of the last record.
    """

    relation: NeighbouringRelation
    unit: str
    runs: tuple[RunContents, ...]
    events: tuple[Event, ...]
    records: int
    torn: int
    head: str

    @property
    def reserved(self) -> int:
        """How many releases count as spent, over all runs and torn writes."""
        return sum(event.count for event in self.events)

    @property
    def unconfirmed(self) -> int:
        """How many reserved steps were never confirmed, over all runs."""
        return sum(run.unconfirmed for run in self.runs)


@dataclass
class _Spent:
    """Equal events of one run in a row; ``count`` falls to 0 when they are released."""

    event: Event
    count: int


@dataclass
class _Run:
    begin: Begin
    reserved: int = 0
    settled: int = 0  # steps before it can never be released: they were confirmed, or the process that knew is gone
    lost: int = 0  # of those, the ones that nobody confirmed
    resumed: int = 0
    spent: list[_Spent] = field(default_factory=list)


@dataclass
class History:
    """The fold over a ledger's records; :meth:`apply` refuses a record that does not fit and then changes nothing."""

    header: Header | None = None
    head: str = FIRST_DIGEST
    digests: set[str] = field(default_factory=set)
    runs: list[_Run] = field(default_factory=list)
    spent: list[_Spent] = field(default_factory=list)
    torn: int = 0

    def apply(self, record: Record, remains: bytes = b"") -> None:
        """Add one record.

        Args:
            record: it.
            remains: the bytes that a :class:`Torn` record covers.

        Raises:
            DamagedRecordError: it cannot stand here.
        """
        if (self.header is None) != isinstance(record, Header):
            raise DamagedRecordError("a ledger has one header, as its first record")
        match record:
            case Header():
                self.header = record
            case Begin():
                _require(record.run == len(self.runs) + 1, "its run is not the next one")
                self.runs.append(_Run(record))
            case Torn():
                self.torn += 1
                self.spent.extend(_Spent(event, event.count) for event in salvage(remains))
            case _:
                _require(record.run <= len(self.runs), "its run never began")
                self._apply_step(self.runs[record.run - 1], record)

    def _apply_step(self, run: _Run, record: Resume | Reserve | Confirm | Release) -> None:
        match record:
            case Resume():
                _require(record.step == run.reserved, "it resumes at another step than was reserved")
                run.lost += run.reserved - run.settled
                run.settled = run.reserved
                run.resumed += 1
            case Reserve():
                _require(record.step == run.reserved, "it reserves from another step than the next")
                for event in record.events:
                    self._spend(run, event)
                run.reserved += record.steps
            case Confirm():
                _require(run.settled < record.step <= run.reserved, "it confirms steps that were not open")
                run.settled = record.step
            case Release():
                _require(run.settled <= record.step < run.reserved, "it releases steps that were not open")
                self._release(run, run.reserved - record.step)
                run.reserved = record.step

    def _spend(self, run: _Run, event: Event) -> None:
        if run.spent and self.spent[-1] is run.spent[-1]:
            last = run.spent[-1]
            if last.event.noise_multiplier == event.noise_multiplier and last.event.sampling == event.sampling:
                last.count += event.count
                return
        run.spent.append(_Spent(event, event.count))
        self.spent.append(run.spent[-1])

    @staticmethod
    def _release(run: _Run, steps: int) -> None:
        while steps:
            last = run.spent[-1]
            taken = min(steps, last.count)
            last.count -= taken
            steps -= taken
            if not last.count:
                run.spent.pop()

    def follow(self, digest: str) -> None:
        """Make ``digest`` the head."""
        self.head = digest
        self.digests.add(digest)

    def events(self) -> tuple[Event, ...]:
        """Everything that counts as spent, equal neighbours made one."""
        return merge_events(
            spent.event
            if spent.count == spent.event.count
            else Event(spent.event.noise_multiplier, spent.event.sampling, spent.count)
            for spent in self.spent
            if spent.count
        )

    def run(self, run: int) -> RunContents:
        """What the ledger says of one run."""
        state = self.runs[run - 1]
        return RunContents(
            run,
            state.begin.plan,
            state.begin.description,
            state.reserved,
            state.lost + state.reserved - state.settled,
            state.resumed,
        )

    def contents(self) -> LedgerContents:
        """What the ledger says; there is a header."""
        assert self.header is not None
        runs = tuple(self.run(index + 1) for index in range(len(self.runs)))
        header = self.header
        return LedgerContents(
            header.relation, header.unit, runs, self.events(), len(self.digests), self.torn, self.head
        )


def read_history(data: bytes, name: str) -> tuple[History, bytes]:
    """Read the bytes of a ledger.

    Args:
        data: all of them.
        name: the file, for messages.

    Returns:
        The history of every line that ends in a newline, and the bytes after the last newline.

    Raises:
        LedgerCorruptError: whatever the bytes are, if those lines are not a ledger.
    """
    history = History()
    if len(data) > LARGEST_FILE:
        raise LedgerCorruptError(f"{name}: it has {len(data):,} bytes; a ledger has at most {LARGEST_FILE:,}.")
    start = number = 0
    while (end := data.find(b"\n", start)) >= 0:
        number += 1
        try:
            record, digest, remains = unseal(history.head, data[start:end])
            history.apply(record, remains)
        except DamagedRecordError as error:
            raise LedgerCorruptError(f"{name}: line {number:,} (byte {start:,}): {error}.") from error
        history.follow(digest)
        start = end + 1
    tail = data[start:]
    if history.header is None:
        raise LedgerCorruptError(
            f"{name}: line 1 (byte 0): its first record is {'incomplete' if data else 'missing'}. If that is because "
            "its creation was interrupted, nothing was ever reserved in it: remove it and create it again."
        )
    if len(tail) >= LONGEST_LINE - 1024:
        raise LedgerCorruptError(f"{name}: line {number + 1:,} (byte {start:,}): it is too long and does not end.")
    return history, tail


def repair(history: History, tail: bytes) -> bytes:
    """Return what makes a ledger whole again when it is appended to a torn tail, and apply it to the history.

    A tail that lacks its newline alone gets it, and is a record like any other, unless it would lower what is spent.
    Any other tail stays and gets, on the same line, a :class:`Torn` record that covers it; the events that stand
    whole in it count as spent. Should this append be torn in its turn, the file again has one line without an end,
    and the same repair.
    """
    try:
        record, digest, remains = unseal(history.head, tail)
        _require(not isinstance(record, Release), "a release that was not written whole does not count")
        history.apply(record, remains)
        appended = b"\n"
    except DamagedRecordError:
        torn = Torn.over(tail)
        appended, digest = seal(history.head, torn)
        history.apply(torn, tail)
    history.follow(digest)
    return appended


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DamagedRecordError(otherwise)
