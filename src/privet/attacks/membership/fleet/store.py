"""Where the signals of finished shadows lie: on disk, a row each, none of them lost to a kill.

A store is a folder named after the key of what its rows were computed from:

* ``store.json``: the key, its parts, and the shape of what follows;
* ``signals.f32``: float32 in this machine's order of bytes, shadow k's P x Q signals at row k;
* ``membership.bits``: which records shadow k was trained on, eight a byte, at row k;
* ``journal.jsonl``: one line a finished shadow, written once its row is on the disk, with the digest of both rows.

A row without a line was being written when the process ended: it counts for nothing, and is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.atomic_file import replacing
from privet.attacks.membership.fleet.lock import locked
from privet.errors import CheckpointError, FileWriteError

__all__ = ["LAYOUT", "Store", "store_key"]

LAYOUT = 1
_JOURNAL, _SIGNALS, _MEMBERSHIP, _HEADER = "journal.jsonl", "signals.f32", "membership.bits", "store.json"
_FIELDS = {"shadow": int, "block": int, "seed": int, "sha256": str}


def store_key(parts: Mapping[str, Any]) -> str:
    """The digest of all that rows are computed from.

    Args:
        parts: plain values under their names.

    Example:
        >>> store_key({"seed": 1}) == store_key({"seed": 2})
        False
    """
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Store:
    """The rows of one key.

    Attributes:
        folder: its own, which is made when first written to.
        parts: what the rows are computed from, as plain values.
        records: P.
        queries: Q.
        done: the finished shadows and the digests of their rows; read from the journal by :meth:`open`.
    """

    folder: Path
    parts: Mapping[str, Any]
    records: int
    queries: int
    done: dict[int, str] = field(default_factory=dict)

    @classmethod
    def at(cls, above: Path, parts: Mapping[str, Any], records: int, queries: int) -> Store:
        """The store of these parts in the folder ``above``, read if it is there.

        Raises:
            CheckpointError: it holds something else, or a row does not agree with its digest.
        """
        store = cls(above / store_key(parts)[:16], parts, records, queries)
        store.read()
        return store

    def read(self) -> None:
        """Read the journal, and look at every row it names.

        Raises:
            CheckpointError: the store holds something else, or a row does not agree with its digest.
        """
        try:
            if not (self.folder / _HEADER).exists():
                return
            header = json.loads((self.folder / _HEADER).read_bytes())
            lines, _ = _whole_lines((self.folder / _JOURNAL).read_bytes())
        except FileNotFoundError:
            lines = []
        except (OSError, ValueError) as error:
            raise self._damaged(f"cannot be read: {error}") from error
        if header != self._header():
            raise self._damaged(f"does not hold what its name says ({_HEADER} differs)")
        done: dict[int, str] = {}
        for number, line in enumerate(lines, start=1):
            entry = _entry(line)
            if entry is None or entry["shadow"] in done:
                raise self._damaged(f"has a line {number} in {_JOURNAL} that cannot be read or stands twice")
            done[entry["shadow"]] = entry["sha256"]
        for shadow, digest in done.items():
            if self.done.get(shadow) != digest and self._digest_on_disk(shadow) != digest:
                raise self._damaged(f"has a row of shadow {shadow} that does not agree with its checksum")
        self.done.clear()
        self.done.update(done)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for adding rows; what another process has added in the meantime is read first.

        Raises:
            CheckpointError: another process adds rows to it now, or it cannot be used as it is.
            FileWriteError: the system refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(self.folder, error.strerror or str(error)) from error
        with locked(self.folder / "lock"):
            if not (self.folder / _HEADER).exists():
                with replacing(self.folder / _HEADER) as file:
                    file.write(json.dumps(self._header(), indent=1).encode())
            self.read()
            self._drop_torn_line()
            yield

    def add(self, shadow: int, block: int, seed: int, membership: NDArray[np.bool_], row: NDArray[np.float32]) -> None:
        """Put a finished shadow on the disk; on return it outlasts a kill. Only while :meth:`writing`.

        Args:
            shadow: its number, not in ``done``.
            block: the number of its block.
            seed: its training's.
            membership: (P,).
            row: (P, Q).

        Raises:
            FileWriteError: the system refuses; the shadow does not count.
        """
        bits, signals = np.packbits(membership).tobytes(), np.ascontiguousarray(row, dtype=np.float32).tobytes()
        digest = _digest(shadow, bits, signals)
        line = json.dumps({"shadow": shadow, "block": block, "seed": seed, "sha256": digest}) + "\n"
        try:
            _write_at(self.folder / _MEMBERSHIP, shadow * len(bits), bits)
            _write_at(self.folder / _SIGNALS, shadow * len(signals), signals)
            _write_at(self.folder / _JOURNAL, None, line.encode())
        except OSError as error:
            remains = "the rows that were finished before are kept"
            raise FileWriteError(self.folder, error.strerror or str(error), remains) from error
        self.done[shadow] = digest

    def signals(self, shadows: int) -> NDArray[np.float32]:
        """The rows of the first shadows (K, P, Q), mapped from the disk and read-only; all must be finished."""
        shape = (shadows, self.records, self.queries)
        if shadows == 0:
            return np.empty(shape, dtype=np.float32)
        return np.memmap(self.folder / _SIGNALS, dtype=np.float32, mode="r", shape=shape)

    def membership(self, shadows: int) -> NDArray[np.bool_]:
        """Which records the first shadows were trained on (K, P); all must be finished."""
        width = (self.records + 7) // 8
        if shadows == 0:
            return np.empty((0, self.records), dtype=np.bool_)
        bits = np.fromfile(self.folder / _MEMBERSHIP, dtype=np.uint8, count=shadows * width).reshape(shadows, width)
        return np.unpackbits(bits, axis=1, count=self.records).astype(np.bool_)

    def _header(self) -> dict[str, Any]:
        return {
            "key": store_key(self.parts),
            "parts": dict(self.parts),
            "records": self.records,
            "queries": self.queries,
            "order": sys.byteorder,
        }

    def _digest_on_disk(self, shadow: int) -> str:
        width, length = (self.records + 7) // 8, 4 * self.records * self.queries
        try:
            bits = _read_at(self.folder / _MEMBERSHIP, shadow * width, width)
            return _digest(shadow, bits, _read_at(self.folder / _SIGNALS, shadow * length, length))
        except OSError as error:
            raise self._damaged(f"cannot be read: {error}") from error

    def _drop_torn_line(self) -> None:
        path = self.folder / _JOURNAL
        if path.exists():
            _, whole = _whole_lines(path.read_bytes())
            if whole < path.stat().st_size:
                os.truncate(path, whole)

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: this store of shadow models' signals {what}. Nothing of it is used; "
            "remove the folder, and its shadows are trained again."
        )


def _whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """The lines that end, and how many bytes they take; what follows was being written."""
    whole = data.rfind(b"\n") + 1
    return data[:whole].splitlines(), whole


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(entry, dict) and {name: type(value) for name, value in entry.items()} == _FIELDS
    return entry if fits and entry["shadow"] >= 0 else None


def _digest(shadow: int, bits: bytes, signals: bytes) -> str:
    return hashlib.sha256(b"%d:" % shadow + bits + signals).hexdigest()


def _write_at(path: Path, offset: int | None, data: bytes) -> None:
    """Write at ``offset``, or at the end, and force it to the disk."""
    with path.open("ab" if offset is None else ("r+b" if path.exists() else "w+b")) as file:
        if offset is not None:
            file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
