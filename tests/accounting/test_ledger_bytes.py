"""Laws of reading a ledger: any bytes are a ledger or one clear error, and no change to a byte goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privet.accounting import history
from privet.accounting.events import Event, NeighbouringRelation, Poisson, TruncatedPoisson
from privet.accounting.history import read_history
from privet.accounting.ledger import Ledger, read_ledger
from privet.accounting.ledger_file import MemoryFile
from privet.accounting.lines import FIRST_DIGEST, LONGEST_LINE, DamagedRecordError, salvage, unseal
from privet.errors import LedgerCorruptError

ADD_OR_REMOVE = NeighbouringRelation.ADD_OR_REMOVE_ONE


def sample() -> Ledger:
    """A ledger with every kind of record."""
    ledger = Ledger.in_memory(ADD_OR_REMOVE, "example")
    first = ledger.begin_run("plan", "first")
    first.reserve([Event(1.0, Poisson(0.01), 3), Event(0.5, TruncatedPoisson(0.5, 3, 10))])
    first.confirm(2)
    ledger = Ledger.open_in(MemoryFile(ledger._file.read() + b'{"digest":"torn'), accept_torn_tail=True)
    first = ledger.resume_run("plan")
    first.reserve(Event(1.5, Poisson(0.01), 5))
    first.release(6)
    ledger.begin_run("other").reserve([Event(2.5, Poisson(0.01)), Event(3.5, Poisson(0.02))])
    return ledger


SAMPLE = sample()
BYTES = SAMPLE._file.read()


def counted(events: tuple[Event, ...]) -> Counter[float]:
    total: Counter[float] = Counter()
    for event in events:
        total[event.noise_multiplier] += event.count
    return total


def read(data: bytes) -> None:
    """Read as both readers do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        problems = []
        for use in (lambda: read_ledger(path), lambda: Ledger.open_in(MemoryFile(data), accept_torn_tail=True)):
            try:
                use()
            except LedgerCorruptError as error:
                problems.append(str(error))
    assert not any("\n" in problem for problem in problems)


def chained(*bodies: bytes) -> bytes:
    """Lines whose digests fit, whatever is in them."""
    previous, lines = FIRST_DIGEST, []
    for body in bodies:
        previous = hashlib.sha256(previous.encode() + body).hexdigest()
        lines.append(b'{"digest":"' + previous.encode() + b'","record":' + body + b"}\n")
    return b"".join(lines)


def bodies() -> list[bytes]:
    """The records of the sample without its torn write."""
    return [line[86:-1] for line in BYTES.splitlines() if b"torn" not in line]


def test_the_sample_has_every_kind_of_record() -> None:
    for kind in ("header", "run", "reserve", "confirm", "torn", "resume", "release"):
        assert f'"kind":"{kind}"'.encode() in BYTES
    assert read_history(BYTES, "x")[0].contents() == SAMPLE.contents()


def test_cut_at_any_byte_it_opens_after_acceptance_with_every_whole_record_counted() -> None:
    lines = BYTES.splitlines(keepends=True)
    for end in range(len(lines[0]), len(BYTES)):
        whole = BYTES[: BYTES.rfind(b"\n", 0, end) + 1]
        before = counted(read_history(whole, "x")[0].events())
        torn = len(whole) != end
        file = MemoryFile(BYTES[:end])
        if torn:
            with pytest.raises(
                LedgerCorruptError, match=rf"line {whole.count(10) + 1} \(byte {len(whole):,}\): it breaks"
            ):
                Ledger.open_in(file)
            assert file.read() == BYTES[:end]
        ledger = Ledger.open_in(file, accept_torn_tail=True)
        assert before <= counted(ledger.events())
        assert file.read()[:end] == BYTES[:end]
        again = Ledger.open_in(file, expect_head=ledger.head)  # for good
        assert again.contents() == ledger.contents()


def test_cut_inside_the_header_nothing_was_reserved_and_nothing_opens() -> None:
    for end in range(BYTES.index(b"\n") + 1):
        with pytest.raises(LedgerCorruptError, match="remove it and create it again"):
            Ledger.open_in(MemoryFile(BYTES[:end]), accept_torn_tail=True)


def test_events_that_stand_whole_in_a_torn_reservation_count() -> None:
    end = BYTES.rindex(b'{"count":1')  # the second event of the last reservation begins here
    ledger = Ledger.open_in(MemoryFile(BYTES[: end + 20]), accept_torn_tail=True)
    assert counted(ledger.events())[2.5] == 1
    assert counted(ledger.events())[3.5] == 0
    assert ledger.contents().torn == 2


def test_a_line_that_lacks_its_newline_alone_is_a_record_again() -> None:
    ledger = Ledger.open_in(MemoryFile(BYTES[:-1]), accept_torn_tail=True, expect_head=SAMPLE.head)
    assert ledger.contents() == SAMPLE.contents()
    assert ledger._file.read() == BYTES


def flips() -> Iterator[bytes]:
    for place in range(len(BYTES)):
        for mask in (1, 0x20, 0x80):
            yield BYTES[:place] + bytes((BYTES[place] ^ mask,)) + BYTES[place + 1 :]


def test_no_flipped_bit_goes_unnoticed_and_none_is_accepted_as_torn() -> None:
    for data in flips():
        if data.endswith(b"\n"):
            with pytest.raises(LedgerCorruptError, match=r"line \d+ \(byte [\d,]+\)"):
                Ledger.open_in(MemoryFile(data), accept_torn_tail=True)


def test_a_line_removed_doubled_or_moved_is_noticed() -> None:
    lines = BYTES.splitlines(keepends=True)
    for place in range(len(lines) - 1):
        changed = [
            [*lines[:place], *lines[place + 1 :]],
            [*lines[: place + 1], *lines[place:]],
            [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]],
        ]
        for version in changed:
            with pytest.raises(LedgerCorruptError):
                read_history(b"".join(version), "x")


def test_sabotage_a_chain_that_is_not_checked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(previous: str, line: bytes) -> object:
        body = line[86:-1]
        fitting = hashlib.sha256(previous.encode() + body).hexdigest()
        return unseal(previous, line[:11] + fitting.encode() + line[75:])

    monkeypatch.setattr(history, "unseal", unchecked)
    data = chained(*bodies()).replace(b'"noise_multiplier":2.5', b'"noise_multiplier":9.5')
    with pytest.raises(pytest.fail.Exception), pytest.raises(LedgerCorruptError):
        read_history(data, "x")


BAD_BODIES = [
    b'{"kind":"reserve","kind":"reserve"}',
    b'{"events":[],"kind":"reserve","run":1,"step":0}',
    b'{"events":[NaN],"kind":"reserve","run":1,"step":0}',
    b'{"events":[1e999],"kind":"reserve","run":1,"step":0}',
    b'{"kind":"confirm","run":1,"step":Infinity}',
    b'{"kind":"confirm","run":1,"step":true}',
    b'{"kind":"confirm","run":1,"step":' + b"9" * 5000 + b"}",
    b'{"kind":"confirm","run":9,"step":1}',
    b'{"kind":"confirm","run":0,"step":1}',
    b'{"kind":"run","run":7,"plan":"p","description":""}',
    b'{"kind":[],"run":1}',
    b'{"kind":"torn","length":1,"sha256":"' + b"0" * 64 + b'"}',
    b'{"description":"","kind": "run","plan":"p","run":2}',
    b'{"kind":"run","description":"","plan":"p","run":2}',
    b'{"description":"","kind":"run","plan":"p","plan":"p","run":2}',
    b'{"events":[{"count":1,"kind":"gaussian","noise_multiplier":1.0,"sampling":{"kind":"none"},"version":1}],'
    b'"kind":"reserve","run":1,"step":4}',
    b'{"kind":"unheard of"}',
    b"[" * 100_000,
    b'{"events":' + b"[" * 400 + b"]" * 400 + b',"kind":"reserve","run":1,"step":0}',
    b'{"events":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b',"kind":"reserve","run":1,"step":0}',
    b"null",
    b"",
    b'"\xff"',
    b'{"kind":"confirm","run":1,"step":1,"extra":1}',
    b'{"description":"\\ud800","kind":"run","plan":"p","run":3}',
    b'{"description":"","kind":"run","plan":"\\u001b[2J","run":3}',
]


def test_the_records_around_the_bad_ones_are_good() -> None:
    good = b'{"description":"","kind":"run","plan":"p","run":2}'
    assert len(read_history(chained(*bodies()[:2], good), "x")[0].runs) == 2


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_record_with_a_fitting_digest_still_has_to_make_sense(body: bytes) -> None:
    data = chained(*bodies()[:2], body)
    with pytest.raises(LedgerCorruptError, match="line 3"):
        read_history(data, "x")
    read(data)


def test_a_format_of_the_future_is_named() -> None:
    head = bodies()[0].replace(b'"version":1', b'"version":2')
    with pytest.raises(LedgerCorruptError, match="update privet"):
        read_history(chained(head), "x")


def test_lines_without_end_are_refused() -> None:
    for data in (BYTES + b"x" * LONGEST_LINE, BYTES + b"x" * LONGEST_LINE + b"\n", b"x" * 3 * LONGEST_LINE):
        with pytest.raises(LedgerCorruptError):
            Ledger.open_in(MemoryFile(data), accept_torn_tail=True)


@given(st.binary(max_size=300), st.integers(0, len(BYTES)), st.integers(0, len(BYTES)))
@settings(max_examples=300)
@example(b"\x00" * 200, len(BYTES), len(BYTES))
def test_any_bytes_anywhere_are_a_ledger_or_one_clear_error(junk: bytes, first: int, last: int) -> None:
    read(junk)
    read(BYTES[:first] + junk + BYTES[last:])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=300)
def test_any_field_of_any_record_may_hold_anything(data: st.DataObject) -> None:
    records = [json.loads(body) for body in bodies()]
    place = data.draw(st.integers(0, len(records) - 1))
    target = records[place]
    while True:
        key = data.draw(
            st.sampled_from(sorted(target)) if isinstance(target, dict) else st.integers(0, len(target) - 1)
        )
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(JSON)
    read(chained(*(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() for record in records)))


@given(st.binary(max_size=200))
def test_any_remains_may_be_searched_for_events(remains: bytes) -> None:
    whole = b'{"count":3,"kind":"gaussian","noise_multiplier":1.5,"sampling":{"kind":"none"},"version":1}'
    assert sum(event.count for event in salvage(remains + whole + remains)) >= 3
    with pytest.raises(DamagedRecordError):
        unseal(FIRST_DIGEST, remains)


@pytest.mark.skipif(sys.platform == "win32", reason="a ledger on disk needs Linux or macOS")
def test_a_repair_on_disk_keeps_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    with Ledger.create(path, ADD_OR_REMOVE, "example") as ledger:
        ledger.begin_run("plan").reserve(Event(1.0, Poisson(0.1), 5))
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    with Ledger.open(path, accept_torn_tail=True) as ledger:
        assert counted(ledger.events())[1.0] == 5
    assert path.read_bytes().startswith(torn)
    assert read_ledger(path).torn == 1
