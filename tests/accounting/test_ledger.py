"""Laws of the ledger: what it counts, what it refuses, and that a refusal loses nothing."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, TruncatedPoisson
from privet.accounting.history import LARGEST_FILE
from privet.accounting.ledger import Ledger, read_ledger
from privet.accounting.records import merge_events
from privet.errors import (
    ArgumentError,
    LedgerBusyError,
    LedgerCorruptError,
    LedgerError,
    LedgerMismatchError,
    PrivetError,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a ledger on disk needs Linux or macOS")
ADD_OR_REMOVE = NeighbouringRelation.ADD_OR_REMOVE_ONE


def event(z: float = 1.0, count: int = 1) -> Event:
    return Event(z, Poisson(0.01), count)


def counts(ledger: Ledger) -> list[tuple[float, int]]:
    return [(one.noise_multiplier, one.count) for one in ledger.events()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.ledger"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger.create(path, ADD_OR_REMOVE, "example")


# What it counts


def test_what_was_reserved_is_spent_whether_confirmed_or_not(ledger: Ledger, path: Path) -> None:
    run = ledger.begin_run("plan", "first")
    assert run.reserve([event(2.0, 3), event(1.0)]) == range(4)
    assert run.reserve(event(1.0, 2)) == range(4, 6)
    run.confirm(4)
    contents = read_ledger(path)
    assert contents == ledger.contents()
    assert contents.events == (event(2.0, 3), event(1.0, 3)) == ledger.events()
    assert (contents.reserved, contents.unconfirmed, contents.records) == (6, 2, 5)
    assert (contents.relation, contents.unit) == (ADD_OR_REMOVE, "example") == (ledger.relation, ledger.unit)
    assert (contents.runs[0].plan_digest, contents.runs[0].description) == ("plan", "first")


def test_runs_on_one_data_set_compose(ledger: Ledger, path: Path) -> None:
    first, second = ledger.begin_run("a"), ledger.begin_run("b")
    first.reserve(event(1.0, 5))
    second.reserve(event(1.0, 7))
    first.reserve(event(2.0))
    assert counts(ledger) == [(1.0, 12), (2.0, 1)]
    assert [run.reserved for run in read_ledger(path).runs] == [6, 7]


def test_every_kind_of_event_comes_back_as_it_was(ledger: Ledger, path: Path) -> None:
    events = (Event(0.1 + 0.2, NoSampling()), Event(1e-9, Poisson(1.0)), Event(7.0, TruncatedPoisson(0.5, 3, 10), 9))
    ledger.begin_run("p").reserve(events)
    assert read_ledger(path).events == events


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0]), st.integers(1, 5)), max_size=12))
def test_merging_keeps_order_and_counts(pairs: list[tuple[float, int]]) -> None:
    merged = merge_events(event(z, count) for z, count in pairs)
    assert [one.noise_multiplier for one in merged for _ in range(one.count)] == [z for z, n in pairs for _ in range(n)]
    assert all(a.noise_multiplier != b.noise_multiplier for a, b in pairwise(merged))


@given(st.data())
def test_any_history_reads_back_as_the_writer_saw_it(data: st.DataObject) -> None:
    ledger = Ledger.in_memory(ADD_OR_REMOVE, "example")
    runs = [ledger.begin_run("a"), ledger.begin_run("b")]
    spent: list[list[float]] = [[], []]
    for _ in range(data.draw(st.integers(0, 12))):
        which = data.draw(st.integers(0, 1))
        run, mine = runs[which], spent[which]
        action = data.draw(st.sampled_from(["reserve", "reserve", "confirm", "release", "resume"]))
        if action == "reserve":
            events = data.draw(st.lists(st.builds(event, st.sampled_from([1.0, 2.0]), st.integers(1, 3)), min_size=1))
            run.reserve(events)
            mine += [one.noise_multiplier for one in events for _ in range(one.count)]
        elif action == "resume":
            runs[which] = ledger.resume_run("ab"[which], which + 1)
            assert runs[which].settled == runs[which].reserved
        else:
            step = data.draw(st.integers(run.settled, run.reserved))
            getattr(run, action)(step)
            if action == "release":
                del mine[step:]
    again = Ledger.open_in(ledger._file, expect_head=ledger.head)
    assert again.contents() == ledger.contents()
    assert [run.reserved for run in again.contents().runs] == [len(spent[0]), len(spent[1])]
    for z in (1.0, 2.0):
        total = sum(one.count for one in again.events() if one.noise_multiplier == z)
        assert total == spent[0].count(z) + spent[1].count(z)


def test_a_second_process_continues_where_the_ledger_is_and_gives_up_what_was_open(ledger: Ledger, path: Path) -> None:
    run = ledger.begin_run("plan")
    run.reserve(event(1.0, 8))
    run.confirm(5)
    ledger.close()
    with Ledger.open(path) as again:
        run = again.resume_run("plan")
        assert (run.reserved, run.settled) == (8, 8)
        assert run.reserve(event(1.0, 2)) == range(8, 10)
        run.confirm(10)
        assert (again.contents().reserved, again.contents().unconfirmed) == (10, 3)


# Release


def test_a_release_gives_back_what_this_process_reserved_and_nothing_else(ledger: Ledger, path: Path) -> None:
    run = ledger.begin_run("plan")
    run.reserve([event(1.0, 4), event(2.0, 4)])
    run.confirm(3)
    run.release(6)
    assert counts(ledger) == [(1.0, 4), (2.0, 2)]
    assert run.reserve(event(3.0)) == range(6, 7)
    assert read_ledger(path) == ledger.contents()
    with pytest.raises(ArgumentError, match="from 3 to 7"):
        run.release(2)
    ledger.close()
    with Ledger.open(path) as again:
        resumed = again.resume_run("plan")
        with pytest.raises(ArgumentError, match="step = 6"):
            resumed.release(6)
        resumed.reserve(event(1.0, 2))
        resumed.release(7)
        assert again.contents().reserved == 7


def test_a_forged_release_of_what_a_dead_process_reserved_is_refused_on_reading(ledger: Ledger, path: Path) -> None:
    ledger.begin_run("plan").reserve(event(1.0, 8))
    ledger.resume_run("plan")
    head = ledger.head
    ledger.close()
    body = b'{"kind":"release","run":1,"step":0}'
    digest = hashlib.sha256(head.encode() + body).hexdigest()
    with path.open("ab") as file:
        file.write(b'{"digest":"' + digest.encode() + b'","record":' + body + b"}\n")
    with pytest.raises(LedgerCorruptError, match="releases steps that were not open"):
        read_ledger(path)


# What it refuses


@pytest.mark.parametrize("plan", ["", "two\nlines", "\ud800", 7, "x" * 201])
def test_a_plan_digest_is_one_line_of_text(ledger: Ledger, plan: str) -> None:
    with pytest.raises(ArgumentError, match="plan_digest"):
        ledger.begin_run(plan)
    assert ledger.contents().runs == ()


@pytest.mark.parametrize("events", [[], "x", [1.0], None, [event(), None]])
def test_what_is_not_an_event_is_refused_before_anything_is_written(ledger: Ledger, path: Path, events: object) -> None:
    run = ledger.begin_run("plan")
    before = path.read_bytes()
    with pytest.raises((ArgumentError, TypeError)):
        run.reserve(events)  # type: ignore[arg-type]
    assert path.read_bytes() == before
    run.reserve(event())


@pytest.mark.parametrize(
    "events",
    [
        Event(1.0, TruncatedPoisson(0.5, 10**30, 10**40)),
        [event(1.0 + index / 1e6) for index in range(12_000)],
    ],
)
def test_what_could_not_be_read_back_is_not_written(ledger: Ledger, path: Path, events: Event) -> None:
    run = ledger.begin_run("plan")
    before = path.read_bytes()
    with pytest.raises(ArgumentError):
        run.reserve(events)
    assert path.read_bytes() == before
    assert run.reserve(event()) == range(1)


@pytest.mark.parametrize("step", [-1, 1, 6, True, 2.0, None])
def test_confirming_what_is_not_open_is_refused(ledger: Ledger, step: int) -> None:
    run = ledger.begin_run("plan")
    run.reserve(event(1.0, 5))
    run.confirm(2)
    with pytest.raises(ArgumentError, match="step"):
        run.confirm(step)
    run.confirm(2)
    assert ledger.contents().records == 4


def test_a_changed_plan_is_refused(ledger: Ledger, path: Path) -> None:
    ledger.begin_run("first")
    ledger.begin_run("second")
    ledger.close()
    before = path.read_bytes()
    with Ledger.open(path) as again:
        with pytest.raises(LedgerMismatchError, match=r"run 2 was begun with plan second, not first.*plan given: 1\."):
            again.resume_run("first")
        with pytest.raises(LedgerMismatchError, match="third"):
            again.resume_run("third", run=1)
        with pytest.raises(ArgumentError, match="from 1 to 2"):
            again.resume_run("first", run=3)
        assert path.read_bytes() == before
        assert again.resume_run("first", run=1).id == 1


def test_a_ledger_without_runs_cannot_resume(ledger: Ledger) -> None:
    with pytest.raises(LedgerMismatchError, match="no run was begun"):
        ledger.resume_run("plan")


def test_a_ledger_cut_at_a_records_end_is_refused_by_the_head_a_checkpoint_keeps(ledger: Ledger, path: Path) -> None:
    run = ledger.begin_run("plan")
    heads = [ledger.head]
    for _ in range(4):
        run.reserve(event())
        heads.append(ledger.head)
    ledger.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for head in heads:
        Ledger.open(path, expect_head=head).close()
    path.write_bytes(b"".join(lines[:-1]))
    Ledger.open(path, expect_head=heads[-2]).close()
    for call in (Ledger.open, read_ledger):
        with pytest.raises(LedgerMismatchError, match="cut off its end, or it is another ledger"):
            call(path, expect_head=heads[-1])  # type: ignore[operator]
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-5])  # nor does accepting a torn tail bring it back
    with pytest.raises(LedgerMismatchError, match="is not in it"):
        Ledger.open(path, expect_head=heads[-1], accept_torn_tail=True)
    assert path.read_bytes() == b"".join(lines[:-1]) + lines[-1][:-5]


def test_the_head_of_another_ledger_with_the_same_records_is_refused(ledger: Ledger, path: Path) -> None:
    with Ledger.create(path.with_name("other"), ADD_OR_REMOVE, "example") as other:
        head = other.head
    ledger.close()
    with pytest.raises(LedgerMismatchError):
        Ledger.open(path, expect_head=head)


@pytest.mark.parametrize("head", ["abc", "", 3])
def test_what_cannot_be_a_head_is_refused(ledger: Ledger, path: Path, head: str) -> None:
    ledger.close()
    with pytest.raises(ArgumentError, match="expect_head"):
        Ledger.open(path, expect_head=head)


def test_nothing_is_written_after_close(ledger: Ledger, path: Path) -> None:
    with ledger:
        run = ledger.begin_run("plan")
        run.reserve(event())
    before = path.read_bytes()
    for call in (lambda: run.reserve(event()), lambda: run.confirm(1), lambda: ledger.begin_run("b")):
        with pytest.raises(LedgerError, match="closed"):
            call()
    assert counts(ledger) == [(1.0, 1)]
    assert path.read_bytes() == before
    ledger.close()


def test_a_ledger_is_not_copied(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot be copied"):
        copy.copy(ledger)
    with pytest.raises(LedgerError, match="cannot be copied"):
        copy.deepcopy({"state": ledger.begin_run("plan")})


def test_a_relation_and_a_unit_are_asked_for(path: Path) -> None:
    with pytest.raises(ArgumentError, match="relation"):
        Ledger.create(path, "add-or-remove-one", "example")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="unit"):
        Ledger.create(path, ADD_OR_REMOVE, "")
    assert not path.exists()


# The file


def test_a_ledger_is_never_replaced(ledger: Ledger, path: Path) -> None:
    ledger.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="never replaced"):
        Ledger.create(path, ADD_OR_REMOVE, "example")
    assert path.read_bytes() == before


@pytest.mark.parametrize("use", [Ledger.open, read_ledger, lambda path: Ledger.create(path, ADD_OR_REMOVE, "e")])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "loop", "no folder", "nul"])
def test_only_a_regular_file_is_a_ledger(ledger: Ledger, path: Path, kind: str, use: object) -> None:
    ledger.close()
    target = path.with_name("target")
    if kind == "folder":
        target.mkdir()
    elif kind == "link":
        target.symlink_to(path)
    elif kind == "loop":
        target.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "nul":
        target = path.with_name("a\0b")
    else:
        target = path.with_name("missing") / "target"
    before = path.read_bytes()
    with pytest.raises(LedgerError):
        use(target)  # type: ignore[operator]
    assert path.read_bytes() == before


def test_a_file_larger_than_a_ledger_may_be_is_refused_unread(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    for use in (Ledger.open, read_ledger):
        with pytest.raises(LedgerCorruptError, match="at most"):
            use(path)


@pytest.mark.parametrize("fails", [stat.S_ISREG, stat.S_ISDIR])
def test_a_failed_creation_leaves_no_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]
) -> None:
    def full(descriptor: int) -> None:  # a creation syncs the file and its folder
        if fails(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left"):
        Ledger.create(path, ADD_OR_REMOVE, "example")
    assert not path.exists()


@pytest.mark.parametrize("what", ["removed", "replaced", "appended to"])
def test_a_file_changed_under_an_open_ledger_ends_the_work(ledger: Ledger, path: Path, what: str) -> None:
    run = ledger.begin_run("plan")
    content = path.read_bytes()
    if what == "appended to":
        path.write_bytes(content + b"x")
    else:
        path.unlink()
        if what == "replaced":
            path.write_bytes(content)
    with pytest.raises(LedgerError, match="Draw no noise"):
        run.reserve(event())


# One writer


def test_a_second_writer_in_this_process_is_refused(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerBusyError, match=r"run\.ledger: .*holds this ledger"):
        Ledger.open(path)
    assert read_ledger(path) == ledger.contents()  # reading needs no lock
    ledger.begin_run("plan").reserve(event())  # and does not give it away
    with pytest.raises(LedgerBusyError):
        Ledger.open(path)
    ledger.close()
    Ledger.open(path).close()


def test_a_second_process_is_refused_and_told_who_holds_it(ledger: Ledger, path: Path) -> None:
    code = "import sys; from privet.accounting.ledger import Ledger; Ledger.open(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "LedgerBusyError" in done.stderr
    assert str(path) in done.stderr
    if sys.platform == "linux":
        assert f"process {os.getpid()} " in done.stderr
    ledger.close()
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_a_forked_copy_writes_nothing_and_does_not_hold_the_lock(ledger: Ledger, path: Path) -> None:
    run = ledger.begin_run("plan")
    before = path.read_bytes()

    def child(answers: object, go_on: object) -> None:
        for call in (lambda: run.reserve(event()), lambda: run.confirm(0), lambda: ledger.begin_run("b")):
            try:
                call()
                answers.put("written")  # type: ignore[attr-defined]
            except LedgerError as error:
                answers.put(str(error))  # type: ignore[attr-defined]
        go_on.wait(60)  # type: ignore[attr-defined]

    context = multiprocessing.get_context("fork")
    answers, go_on = context.Queue(), context.Event()
    process = context.Process(target=child, args=(answers, go_on))
    process.start()
    try:
        assert all("forked copy" in answers.get(timeout=60) for _ in range(3))
        assert path.read_bytes() == before
        with pytest.raises(LedgerBusyError):  # the parent still holds it
            Ledger.open(path)
        run.reserve(event())
        ledger.close()
        Ledger.open(path).close()  # although the child lives
    finally:
        go_on.set()
        process.join()


def test_a_disk_that_is_really_full_is_a_clear_error(path: Path) -> None:
    code = """if True:
        import resource, sys
        from privet.accounting.events import Event, NeighbouringRelation, Poisson
        from privet.accounting.ledger import Ledger
        ledger = Ledger.create(sys.argv[1], NeighbouringRelation.ADD_OR_REMOVE_ONE, "example")
        run = ledger.begin_run("plan")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        while True:
            run.reserve(Event(1.0, Poisson(0.1)))
    """
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "LedgerError" in done.stderr
    assert "could not be written" in done.stderr
    assert path.stat().st_size == 1500
    with pytest.raises(LedgerCorruptError, match="breaks off"):
        Ledger.open(path)
    whole = path.read_bytes().count(b'"kind":"reserve"')
    with Ledger.open(path, accept_torn_tail=True) as ledger:
        assert ledger.contents().reserved >= whole
        ledger.resume_run("plan").reserve(event())
    assert read_ledger(path).torn == 1


# The form


def test_a_line_is_the_digest_of_the_line_before_and_its_own_canonical_json(ledger: Ledger, path: Path) -> None:
    ledger.begin_run("plan", "häuser").reserve(event(0.1))
    previous = "0" * 64
    for line in path.read_text("ascii").splitlines():
        data = json.loads(line)
        body = json.dumps(data["record"], sort_keys=True, separators=(",", ":"))
        assert data["digest"] == hashlib.sha256((previous + body).encode()).hexdigest()
        assert line == f'{{"digest":"{data["digest"]}","record":{body}}}'
        previous = data["digest"]
    assert previous == ledger.head


def test_every_refusal_is_one_line(ledger: Ledger, path: Path) -> None:
    ledger.begin_run("plan").reserve(event())
    ledger.close()
    whole = path.read_bytes()
    for broken in (b"", whole[:-3], whole[:50], b"\xff\n", whole.replace(b"plan", b"plam"), b"\n" + whole, whole * 2):
        path.write_bytes(broken)
        with pytest.raises(PrivetError) as caught:
            read_ledger(path)
        assert "\n" not in str(caught.value)
        assert "line " in str(caught.value)
        assert "byte " in str(caught.value)
