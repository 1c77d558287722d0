"""The lines of a ledger: each record's canonical JSON, and the chain of digests.

A line is ``{"digest":"<64 hex>","record":<canonical JSON>}`` and a newline. Canonical JSON has its keys sorted, no
white space and only ASCII; the digest is the SHA-256 over the digest of the line before (64 zeros for the first) and
the record's canonical JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from privet.accounting.events import Event, NeighbouringRelation, TruncatedPoisson
from privet.accounting.records import (
    Begin,
    Confirm,
    Header,
    Record,
    Release,
    Reserve,
    Resume,
    Torn,
    check_count,
    merge_events,
)
from privet.errors import PrivetError

__all__ = ["FIRST_DIGEST", "LONGEST_LINE", "DamagedRecordError", "canonical", "salvage", "seal", "unseal"]

FIRST_DIGEST = "0" * 64
LONGEST_LINE = 1 << 20
_FORMAT, _VERSION = "privet-ledger", 1
_OPENING, _MIDDLE = b'{"digest":"', b'","record":'
_BODY = len(_OPENING) + 64 + len(_MIDDLE)
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_WHOLE_EVENT = re.compile(
    rb'\{"count":[0-9]{1,19},"kind":"[a-z-]{1,40}","noise_multiplier":[-+.e0-9]{1,40},'
    rb'"sampling":\{[^{}]{1,200}\},"version":[0-9]{1,9}\}'
)
_STEP_RECORDS: Mapping[str, type[Resume] | type[Confirm] | type[Release]] = {
    "resume": Resume,
    "confirm": Confirm,
    "release": Release,
}


class DamagedRecordError(ValueError):
    """A line is not a record, or not one that can stand where it stands. Its reader adds the place."""


def canonical(data: object) -> bytes:
    """Return ``data`` as JSON with sorted keys, no white space and only ASCII."""
    return _ENCODE(data).encode("ascii")


def seal(previous: str, record: Record) -> tuple[bytes, str]:
    """Return the line (newline included) that follows the digest ``previous``, and its own digest."""
    body = canonical(_to_json(record))
    digest = _chain(previous, body)
    return b"".join((_OPENING, digest.encode("ascii"), _MIDDLE, body, b"}\n")), digest


def unseal(previous: str, line: bytes) -> tuple[Record, str, bytes]:
    """Read a line that follows the digest ``previous``; what :func:`seal` wrote comes back unchanged.

    Args:
        previous: the digest of the line before.
        line: the line, without its newline.

    Returns:
        The record, its digest, and the remains of a torn write in front of it (only ever before a :class:`Torn`).

    Raises:
        DamagedRecordError: whatever the bytes are, if they are not such a line.
    """
    if len(line) >= LONGEST_LINE:
        raise DamagedRecordError(f"it has more than {LONGEST_LINE:,} bytes")
    try:
        record, digest = _open(previous, line)
        if not isinstance(record, Torn):
            return record, digest, b""
        raise DamagedRecordError("it covers a torn write that is not there")
    except DamagedRecordError:
        start = line.rfind(_OPENING)
        if start <= 0:
            raise
    remains = line[:start]
    record, digest = _open(previous, line[start:])
    if record != Torn.over(remains):
        raise DamagedRecordError("it holds two records")
    return record, digest, remains


def salvage(remains: bytes) -> tuple[Event, ...]:
    """Return the events that stand whole in what a torn write left; they count as spent."""
    found = []
    for text in _WHOLE_EVENT.findall(remains):
        try:
            found.append(_event(json.loads(text)))
        except (PrivetError, ValueError):
            continue
    return merge_events(found)


def _chain(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode("ascii") + body).hexdigest()


def _open(previous: str, line: bytes) -> tuple[Record, str]:
    if not (line.startswith(_OPENING) and line[_BODY - len(_MIDDLE) : _BODY] == _MIDDLE and line.endswith(b"}")):
        raise DamagedRecordError("it is not a record of a ledger")
    body = line[_BODY:-1]
    digest = _chain(previous, body)
    if line[len(_OPENING) : len(_OPENING) + 64] != digest.encode("ascii"):
        raise DamagedRecordError("its digest does not follow from the lines before: the file was altered")
    try:
        data = json.loads(body.decode("ascii"))
        if canonical(data) != body:
            raise DamagedRecordError("it is not canonical JSON")
        return _from_json(data), digest
    except (PrivetError, ValueError, RecursionError) as error:
        raise DamagedRecordError(f"its record cannot be used: {_short(error)}") from error


def _short(error: Exception) -> str:
    try:
        text = str(error)
    except RecursionError:
        text = "it is nested too deeply"
    return text if len(text) <= 300 else text[:297] + "..."


def _to_json(record: Record) -> dict[str, Any]:
    match record:
        case Header(relation, unit, identity):
            rest = {"format": _FORMAT, "version": _VERSION, "relation": relation.value, "unit": unit}
            return {"kind": "header", "identity": identity, **rest}
        case Begin(run, plan, description):
            return {"kind": "run", "run": run, "plan": plan, "description": description}
        case Reserve(run, step, events):
            return {"kind": "reserve", "run": run, "step": step, "events": [event.to_json() for event in events]}
        case Torn(length, sha256):
            return {"kind": "torn", "length": length, "sha256": sha256}
    kind = next(name for name, form in _STEP_RECORDS.items() if form is type(record))
    return {"kind": kind, "run": record.run, "step": record.step}


def _from_json(data: object) -> Record:
    if not isinstance(data, dict):
        raise DamagedRecordError("it is not an object")
    match data.get("kind"):
        case "header":
            if data.get("format") != _FORMAT or repr(data.get("version")) != repr(_VERSION):
                raise DamagedRecordError(f"it is not in version {_VERSION} of the format {_FORMAT}; update privet")
            _check_fields(data, "kind", "format", "version", "relation", "unit", "identity")
            return Header(NeighbouringRelation(data["relation"]), data["unit"], data["identity"])
        case "run":
            _check_fields(data, "kind", "run", "plan", "description")
            return Begin(data["run"], data["plan"], data["description"])
        case "reserve":
            _check_fields(data, "kind", "run", "step", "events")
            if not isinstance(data["events"], list):
                raise DamagedRecordError("its events are not a list")
            return Reserve(data["run"], data["step"], tuple(_event(event) for event in data["events"]))
        case "torn":
            _check_fields(data, "kind", "length", "sha256")
            return Torn(data["length"], data["sha256"])
        case "resume" | "confirm" | "release" as kind:
            _check_fields(data, "kind", "run", "step")
            return _STEP_RECORDS[kind](data["run"], data["step"])
    raise DamagedRecordError("its kind is not known; update privet")


def _event(data: object) -> Event:
    if isinstance(data, dict) and not isinstance(data.get("noise_multiplier"), float):
        raise DamagedRecordError("its noise multiplier is not a float")
    event = Event.from_json(data)  # type: ignore[arg-type]  # it refuses what is not an object
    check_count("count", event.count, 1)
    if isinstance(event.sampling, TruncatedPoisson):
        check_count("cap", event.sampling.cap, 1)
        check_count("population", event.sampling.population, 1)
    return event


def _check_fields(data: Mapping[str, Any], *fields: str) -> None:
    if set(data) != set(fields):
        raise DamagedRecordError(f"its fields are not {', '.join(sorted(fields))}")
