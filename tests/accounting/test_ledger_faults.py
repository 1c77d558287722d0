"""Laws of the ledger on a disk that fails: what was drawn is in it, and what it said was spent it never takes back.

The disk keeps what was synced; of the rest a loss of power keeps any part. Sabotage of each rule must break a law.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.accounting.events import Event, NeighbouringRelation, Poisson
from privet.accounting.history import read_history
from privet.accounting.ledger import Ledger
from privet.accounting.records import Header
from privet.accounting.run import Run
from privet.errors import LedgerCorruptError, LedgerError

ADD_OR_REMOVE = NeighbouringRelation.ADD_OR_REMOVE_ONE
STEPS, WINDOW = 10, 4  # the last window has 2 steps


class PowerLossError(BaseException):
    """Nothing handles it: the process is gone."""


@dataclass
class Disk:
    """Two copies of a file: what the processes see, and what a loss of power leaves."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    operations: int = 0
    lose_power_at: int = -1  # counted in operations
    survives: float = 0.0  # share of the bytes not yet synced that a loss of power leaves
    hole: bool = False  # whether the first half of them reads as zeros then
    room: int = 1 << 30
    longest_write: int = 1 << 30
    sync_fails_at: int = -1
    lying: bool = False  # sync reports success and does nothing

    @property
    def name(self) -> str:
        return "faulty.ledger"

    def read(self) -> bytes:
        return bytes(self.seen)

    def size(self) -> int:
        return len(self.seen)

    def close(self) -> None:
        pass

    def write(self, data: bytes) -> int:
        taken = data[: min(self.longest_write, self.room - len(self.seen))]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.seen += taken
        self._operate()
        return len(taken)

    def sync(self) -> None:
        self._operate()
        if self.operations == self.sync_fails_at:  # the pages are marked clean, and their bytes are lost
            self.durable += bytes(len(self.seen) - len(self.durable))
            raise OSError(errno.EIO, "Input/output error")
        if not self.lying:
            self.durable += self.seen[len(self.durable) :]

    def _operate(self) -> None:
        self.operations += 1
        if self.operations == self.lose_power_at:
            raise PowerLossError

    def after_power_loss(self) -> Disk:
        pending = self.seen[len(self.durable) :]
        pending = pending[: round(self.survives * len(pending))]
        if self.hole:
            pending[: len(pending) // 2] = bytes(len(pending) // 2)
        kept = self.durable + pending
        return Disk(bytearray(kept), bytearray(kept))


def new(disk: Disk) -> Ledger:
    return Ledger._start(disk, Header(ADD_OR_REMOVE, "example", "0" * 32))


def event(step: int) -> Event:
    return Event(1.0 + step / 8, Poisson(0.01))


def counted(events: tuple[Event, ...] | list[Event]) -> Counter[float]:
    total: Counter[float] = Counter()
    for one in events:
        total[one.noise_multiplier] += one.count
    return total


@dataclass
class World:
    """Where noise is drawn. Its laws are checked whenever a ledger is opened."""

    drawn: list[Event] = field(default_factory=list)
    said: Counter[float] = field(default_factory=Counter)
    opened: int = 0
    refused: bool = False
    head: str | None = None
    keep_head: bool = True

    def check(self, ledger: Ledger) -> None:
        spent = counted(ledger.events())
        assert counted(self.drawn) <= spent, "noise was drawn that the ledger does not count"
        assert self.said <= spent, "what was said to be spent was taken back"
        self.said, self.head = spent, ledger.head
        self.opened += 1

    def open(self, disk: Disk) -> Ledger | None:
        """Open the ledger, or make it where its creation was cut short; ``None`` where it is refused for good."""
        if not self.head and not disk.seen.count(b"\n"):
            disk.seen.clear()
            disk.durable.clear()
            return new(disk)
        try:
            ledger = Ledger.open_in(disk, expect_head=self.head if self.keep_head else None, accept_torn_tail=True)
        except LedgerCorruptError:
            self.refused = True
            return None
        self.check(ledger)
        return ledger


def train(world: World, ledger: Ledger, window: int = WINDOW) -> None:
    """Draw what is left of the steps, a window at a time."""
    run = ledger.resume_run("plan") if ledger.contents().runs else ledger.begin_run("plan")
    while len(world.drawn) < STEPS:
        step = len(world.drawn)
        events = [event(step + index) for index in range(min(window, STEPS - step))]
        reserved = run.reserve(events)
        for one in events:
            world.drawn.append(one)
        run.confirm(reserved.stop)
        world.check(ledger)


Train = Callable[[World, Ledger], None]


def live(disk: Disk, world: World, work: Train = train) -> bool:
    """One process, from opening to its end. Whether the training is finished, or the ledger refused for good."""
    with suppress(PowerLossError, LedgerError):
        ledger = world.open(disk)
        if ledger is None:
            return True
        work(world, ledger)
        return True
    return False


def length_of_a_life() -> int:
    disk = Disk()
    assert live(disk, World())
    return disk.operations


def test_a_run_without_faults_spends_exactly_what_it_drew() -> None:
    disk, world = Disk(), World()
    assert live(disk, world)
    assert world.said == counted([event(step) for step in range(STEPS)])
    assert disk.seen == disk.durable


def crash_everywhere(
    work: Train = train, *, lying: bool = False, keep_head: bool = True
) -> Iterator[tuple[Disk, World]]:
    """A loss of power at every operation, with none, some, or all of the bytes left that were not synced."""
    for at in range(1, length_of_a_life() + 1):
        for survives in (0.0, 0.3, 0.97, 1.0):
            world = World(keep_head=keep_head)
            disk = Disk(lose_power_at=at, survives=survives, lying=lying)
            done = live(disk, world, work)
            disk = disk.after_power_loss()
            if not done:
                assert live(disk, world, work), "the ledger is lost"
            else:
                world.open(disk)
            yield disk, world


def test_a_loss_of_power_anywhere_loses_nothing_that_was_drawn() -> None:
    worlds = [world for _, world in crash_everywhere()]
    assert not any(world.refused for world in worlds)  # a cut line can always be taken up again
    assert all(len(world.drawn) == STEPS for world in worlds)
    assert any(sum(world.said.values()) > STEPS for world in worlds)  # some windows were reserved and lost


crashes = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0, 1), st.booleans(), st.integers(1, 300), st.integers(0, 30)), max_size=6
)


@given(crashes)
@settings(max_examples=300)
def test_any_row_of_crashes_loses_nothing_that_was_drawn(row: list[tuple[int, float, bool, int, int]]) -> None:
    disk, world = Disk(), World()
    for at, survives, hole, longest_write, sync_fails_at in row:
        disk.lose_power_at, disk.operations = at, 0
        disk.survives, disk.hole, disk.longest_write, disk.sync_fails_at = survives, hole, longest_write, sync_fails_at
        if live(disk, world):
            break
        if disk.operations == at:  # the power went; otherwise the process saw an error and ended
            disk = disk.after_power_loss()
    disk = disk.after_power_loss()
    if not world.refused and live(disk, world) and not world.refused:
        assert len(world.drawn) == STEPS


def test_a_full_disk_at_any_byte_is_an_error_and_loses_nothing() -> None:
    whole = Disk()
    live(whole, World())
    for room in range(len(whole.seen)):
        disk, world = Disk(room=room), World()
        with pytest.raises(LedgerError, match="No space left"):
            train(world, new(disk))
        disk.room = 1 << 30
        assert live(disk, world)
        assert not world.refused
        assert len(world.drawn) == STEPS


@pytest.mark.parametrize("call", ["reserve", "confirm", "begin_run"])
def test_after_a_failed_write_nothing_more_is_written(call: str) -> None:
    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    run.reserve(event(0))
    disk.sync_fails_at = disk.operations + 2
    attempts = {
        "reserve": lambda: run.reserve(event(1)),
        "confirm": lambda: run.confirm(1),
        "begin_run": lambda: ledger.begin_run("other"),
    }
    with pytest.raises(LedgerError, match="Input/output error"):
        attempts[call]()
    size = disk.size()
    for attempt in attempts.values():
        with pytest.raises(LedgerError, match="earlier write failed"):
            attempt()
    assert disk.size() == size


def test_a_reservation_that_may_or_may_not_be_on_the_disk_counts() -> None:
    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    run.reserve(Event(1.0, Poisson(0.1), count=9))
    disk.sync_fails_at = disk.operations + 2
    with pytest.raises(LedgerError):
        run.reserve(event(0))
    assert counted(ledger.events())[1.0] == 10 == counted(Ledger.open_in(disk).events())[1.0]


def test_a_release_that_may_or_may_not_be_on_the_disk_does_not_count() -> None:
    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    run.reserve(Event(1.0, Poisson(0.1), count=9))
    disk.room = disk.size() + 10
    with pytest.raises(LedgerError):
        run.release(4)
    disk.room = 1 << 30
    assert counted(ledger.events())[1.0] == 9 == counted(Ledger.open_in(disk, accept_torn_tail=True).events())[1.0]


def test_what_a_killed_process_wrote_and_did_not_sync_is_on_the_disk_once_the_ledger_is_open() -> None:
    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    disk.lose_power_at = disk.operations + 1  # here the process alone is lost, between write and sync
    with pytest.raises(PowerLossError):
        run.reserve(event(0))
    assert disk.durable != disk.seen
    head = Ledger.open_in(disk).head
    assert Ledger.open_in(disk.after_power_loss(), expect_head=head).contents().reserved == 1


def test_an_interrupt_inside_a_write_leaves_a_ledger_that_refuses_and_a_file_that_opens() -> None:
    class Interrupted(Disk):
        def sync(self) -> None:
            raise KeyboardInterrupt

    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    disk.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        run.reserve(event(0))
    disk.__class__ = Disk
    with pytest.raises(LedgerError, match="earlier write failed"):
        run.reserve(event(0))
    assert Ledger.open_in(disk).resume_run("plan").reserve(event(1)) == range(1, 2)


def test_a_change_behind_its_back_is_noticed() -> None:
    disk = Disk()
    run = new(disk).begin_run("p")
    del disk.seen[-1:]
    with pytest.raises(LedgerError, match="changed by another program"):
        run.reserve(event(0))


def test_a_torn_release_does_not_lower_what_is_spent() -> None:
    disk = Disk()
    ledger = new(disk)
    run = ledger.begin_run("plan")
    run.reserve(Event(1.0, Poisson(0.1), count=9))
    before = disk.size()
    run.release(4)
    assert counted(ledger.events())[1.0] == 4
    for end in range(before + 1, disk.size()):
        cut = Disk(disk.seen[:end])
        assert counted(Ledger.open_in(cut, accept_torn_tail=True).events())[1.0] == 9
        history, tail = read_history(bytes(cut.seen), "cut")
        assert not tail
        assert counted(history.events())[1.0] == 9


def test_a_repair_that_is_torn_at_any_byte_is_repaired_again() -> None:
    disk, world = Disk(), World()
    live(disk, world)
    torn = Disk(disk.seen[:-40])
    spent = counted(Ledger.open_in(torn, accept_torn_tail=True).events())
    for end in range(len(disk.seen) - 40, len(torn.seen)):
        again = Disk(torn.seen[:end])
        assert spent <= counted(Ledger.open_in(again, accept_torn_tail=True).events())
        assert again.seen[:end] == torn.seen[:end]
        Ledger.open_in(again).resume_run("plan")


# Sabotage: each planted fault must break a law, or the laws prove nothing.


def reserves_after_the_noise(world: World, ledger: Ledger) -> None:
    run = ledger.resume_run("plan") if ledger.contents().runs else ledger.begin_run("plan")
    while len(world.drawn) < STEPS:
        world.drawn.append(event(len(world.drawn)))
        run.reserve(world.drawn[-1])


def forgets_the_last_window(world: World, ledger: Ledger) -> None:
    run = ledger.resume_run("plan") if ledger.contents().runs else ledger.begin_run("plan")
    while len(world.drawn) < STEPS:
        window = [event(step) for step in range(len(world.drawn), min(STEPS, len(world.drawn) + WINDOW))]
        if len(window) == WINDOW:
            run.reserve(window)
        world.drawn += window
    world.check(ledger)


def test_sabotage_reservation_after_the_noise_is_caught() -> None:
    with pytest.raises(AssertionError, match="noise was drawn"):
        list(crash_everywhere(reserves_after_the_noise))


def test_sabotage_a_last_window_not_counted_is_caught() -> None:
    with pytest.raises(AssertionError, match="noise was drawn"):
        live(Disk(), World(), forgets_the_last_window)


def test_sabotage_a_sync_that_does_nothing_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"noise was drawn|ledger is lost"):
        list(crash_everywhere(lying=True))
    with pytest.raises(AssertionError, match="noise was drawn"):
        list(crash_everywhere(lying=True, keep_head=False))


def test_sabotage_a_torn_tail_silently_cut_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(file: Disk, **options: object) -> Ledger:
        del file.seen[file.seen.rfind(b"\n") + 1 :]
        del file.durable[len(file.seen) :]
        return original(file)

    original = Ledger.open_in
    disk = Disk()
    ledger = new(disk)
    world = World()
    run: Run = ledger.begin_run("plan")
    run.reserve([event(0), event(1)])
    world.drawn = [event(0)]
    torn = Disk(disk.seen[:-1])
    world.check(Ledger.open_in(Disk(disk.seen[:-1]), accept_torn_tail=True))
    monkeypatch.setattr(Ledger, "open_in", cut)
    with pytest.raises(AssertionError, match="noise was drawn"):
        world.check(Ledger.open_in(torn, accept_torn_tail=True))
