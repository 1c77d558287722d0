"""Rows on the disk: whole ones are kept, torn ones dropped, altered ones refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privet.attacks.membership.fleet.store import Store, store_key
from privet.errors import CheckpointError

PARTS = {"seed": 1, "pool": "abc", "form": {"k": None}}
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(4, 11, 2)).astype(np.float32)
MEMBERSHIP = RANDOM.random((4, 11)) < 0.5


def filled(folder: Path, shadows: tuple[int, ...] = (0, 1, 3)) -> Store:
    store = Store.at(folder, PARTS, 11, 2)
    with store.writing():
        for shadow in shadows:
            store.add(shadow, shadow // 2, 100 + shadow, MEMBERSHIP[shadow], ROWS[shadow])
    return store


def test_rows_come_back_as_they_were_in_any_order_of_finishing(tmp_path: Path) -> None:
    filled(tmp_path, (3, 0))
    store = filled(tmp_path, (2, 1))
    again = Store.at(tmp_path, PARTS, 11, 2)
    assert set(store.done) == set(again.done) == {0, 1, 2, 3}
    assert np.array_equal(again.signals(4), ROWS)
    assert np.array_equal(again.membership(4), MEMBERSHIP)
    assert np.array_equal(again.signals(1), ROWS[:1])


def test_signals_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    signals = filled(tmp_path).signals(2)
    assert isinstance(signals, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        signals[0] = 1.0


def test_another_key_is_another_folder(tmp_path: Path) -> None:
    filled(tmp_path)
    assert Store.at(tmp_path, {**PARTS, "seed": 2}, 11, 2).done == {}
    assert len({store_key({**PARTS, name: 5}) for name in PARTS}) == len(PARTS)


@pytest.mark.parametrize("keep", [0, 1, 30])
def test_a_torn_line_is_dropped_and_its_shadow_is_not_done(tmp_path: Path, keep: int) -> None:
    journal = filled(tmp_path).folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    assert set(Store.at(tmp_path, PARTS, 11, 2).done) == {0, 1}
    again = filled(tmp_path, (3, 2))
    assert set(Store.at(tmp_path, PARTS, 11, 2).done) == {0, 1, 2, 3}
    assert len((again.folder / "journal.jsonl").read_bytes().splitlines()) == 4


@pytest.mark.parametrize("length", [0, 50])
def test_a_torn_row_without_a_line_is_written_again(tmp_path: Path, length: int) -> None:
    store = filled(tmp_path, (0, 1))
    with (store.folder / "signals.f32").open("ab") as file:
        file.write(b"x" * length)
    assert np.array_equal(filled(tmp_path, (2, 3)).signals(4), ROWS)


@pytest.mark.parametrize("name", ["signals.f32", "membership.bits"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_altered_bit_is_found_and_nothing_is_used(tmp_path: Path, name: str, place: int) -> None:
    path = filled(tmp_path, (0, 1)).folder / name
    data = bytearray(path.read_bytes())
    data[place] ^= 0x80 if place == 0 else 0x20  # the lowest bits of the last byte of memberships are not used
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"shadow [01] that does not agree.*remove the folder"):
        Store.at(tmp_path, PARTS, 11, 2)


def test_a_shortened_file_is_found(tmp_path: Path) -> None:
    store = filled(tmp_path)
    os.truncate(store.folder / "signals.f32", 100)
    with pytest.raises(CheckpointError, match="shadow 1"):
        Store.at(tmp_path, PARTS, 11, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], b"nonsense\n", lines[1]],
        lambda lines: [lines[0], lines[0]],
        lambda lines: [lines[0].replace(b'"shadow": 0', b'"shadow": 2')],
        lambda lines: [lines[0].replace(b'"shadow": 0', b'"shadow": -1')],
        lambda lines: [b"{}\n"],
        lambda lines: [b"[1]\n"],
    ],
)
def test_an_altered_journal_is_found(tmp_path: Path, change: Any) -> None:
    journal = filled(tmp_path).folder / "journal.jsonl"
    journal.write_bytes(b"".join(change(journal.read_bytes().splitlines(keepends=True))))
    with pytest.raises(CheckpointError, match="remove the folder"):
        Store.at(tmp_path, PARTS, 11, 2)


def test_a_folder_that_holds_another_key_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    header = json.loads((store.folder / "store.json").read_text())
    header["parts"]["seed"] = 2
    (store.folder / "store.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match=r"store\.json differs"):
        Store.at(tmp_path, PARTS, 11, 2)


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with store.writing():
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} is adding"), store.writing():
            pass
        assert set(Store.at(tmp_path, PARTS, 11, 2).done) == {0, 1, 3}
    with store.writing():
        pass


def test_what_another_run_added_is_read_before_writing(tmp_path: Path) -> None:
    early = Store.at(tmp_path, PARTS, 11, 2)
    filled(tmp_path)
    with early.writing():
        assert set(early.done) == {0, 1, 3}
