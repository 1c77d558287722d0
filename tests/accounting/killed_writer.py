"""Run by test_ledger_kills.py in a fresh interpreter: fork writers, kill each at a random time, report what is left.

A writer reserves a window, draws noise for each of its steps (one byte in the witness file, in place of noise that
leaves the process) and confirms. Prints one JSON object: a row for every kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from privet.accounting.events import Event, NeighbouringRelation, Poisson
from privet.accounting.ledger import Ledger
from privet.accounting.ledger_file import DiskFile
from privet.accounting.run import Run

KINDS = 7


def event(kind: int) -> Event:
    return Event(1.0 + kind / 8, Poisson(0.01))


def write_in_pieces(file: DiskFile, data: bytes) -> int:
    """Take few bytes at a time, as a file may, so that kills fall between them."""
    time.sleep(1e-5)
    return write_whole(file, data[:200])


write_whole = DiskFile.write


def write(path: Path, witness: int, ready: int, seed: int, fault: str) -> None:
    """Train until killed."""
    source = random.Random(seed)
    if seed % 2:
        DiskFile.write = write_in_pieces  # type: ignore[method-assign]
    ledger = Ledger.open(path, accept_torn_tail=True)
    run: Run = ledger.resume_run("plan")
    os.write(ready, b"!")
    while True:
        window = [source.randrange(KINDS) for _ in range(source.choice((1, 2, 5, 40)))]
        if fault != "reserves after the noise":
            run.reserve([event(kind) for kind in window])
        for kind in window:
            os.write(witness, bytes((kind,)))
        if fault == "reserves after the noise":
            run.reserve([event(kind) for kind in window])
        if source.random() < 0.7:
            run.confirm(run.reserved)


def main(folder: Path, kills: int, fault: str) -> None:
    path, source = folder / "run.ledger", random.Random(kills)
    with Ledger.create(path, NeighbouringRelation.ADD_OR_REMOVE_ONE, "example") as ledger:
        ledger.begin_run("plan")
        head = ledger.head
    witness = os.open(folder / "witness", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    rows = []
    for seed in range(kills):
        heard, ready = os.pipe()
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                write(path, witness, ready, seed, fault)
            os._exit(9)  # a writer ends by being killed alone
        if seed % 5:  # most are killed at work, some while they open the ledger
            os.read(heard, 1)
        time.sleep(source.uniform(0.0, 0.008))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(heard)
        os.close(ready)
        torn = not path.read_bytes().endswith(b"\n")
        with Ledger.open(path, expect_head=head, accept_torn_tail=True) as ledger:
            spent: Counter[float] = Counter()
            for one in ledger.events():
                spent[one.noise_multiplier] += one.count
            head, unconfirmed = ledger.head, ledger.contents().unconfirmed
        drawn = Counter(1.0 + kind / 8 for kind in (folder / "witness").read_bytes())
        rows.append(
            {
                "killed": os.WIFSIGNALED(status),
                "torn": torn,
                "counted": drawn <= spent,
                "spent": [spent[1.0 + kind / 8] for kind in range(KINDS)],
                "drawn": sum(drawn.values()),
                "unconfirmed": unconfirmed,
            }
        )
        if path.stat().st_size > 1 << 16:  # a new one, or reading would outweigh writing
            path.rename(folder / f"run{seed}.ledger")
            (folder / "witness").rename(folder / f"witness{seed}")
            os.close(witness)
            witness = os.open(folder / "witness", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with Ledger.create(path, NeighbouringRelation.ADD_OR_REMOVE_ONE, "example") as ledger:
                ledger.begin_run("plan")
                head = ledger.head
            rows[-1]["last"] = True
    print(json.dumps({"rows": rows, "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
