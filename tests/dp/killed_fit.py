"""Run by test_fit.py in a fresh interpreter: train in forked processes, kill each at a random time, say what is left.

Each gradient's noise leaves one byte in the witness file before it is drawn. Prints one JSON object: a row for every
process, the last of which is not killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from privet.accounting import read_ledger
from privet.dp import Plan
from privet.dp.books import Books
from privet.dp.fitting import fit
from privet.dp.noise import Noise

KILLS = 5
PLAN = Plan(dataset_size=100, expected_batch_size=20, steps=160, delta=1e-3, noise=2.0)


def train(folder: Path, witness: int, fault: str) -> None:
    """Train until killed, or done."""
    draw, reserve = Noise.normal_, Books.before_noise

    def normal_(self: Noise, out: Tensor, std: float) -> None:
        os.write(witness, b"!")
        time.sleep(1e-3)
        draw(self, out, std)

    def too_late(self: Books, step: int) -> None:
        os.write(witness, b"!" * 20)
        reserve(self, step)

    Noise.normal_ = normal_  # type: ignore[method-assign]
    if fault == "drawn before it is on the ledger":
        Books.before_noise = too_late  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 4, generator=generator)
    fit(
        nn.Linear(4, 2),
        (inputs, (inputs[:, 0] > 0).long()),
        PLAN,
        ledger=folder / "run.ledger",
        checkpoint=folder / "run.safetensors",
        checkpoint_every=7,
        resume=True,
        weights=folder / "net.safetensors",
        progress=False,
    )


def wait(child: int, file: Path, more: int) -> None:
    """Until a process drew so many times more, or ended; some time more where that is few."""
    before, patience = file.stat().st_size, time.monotonic() + 30.0
    while file.stat().st_size < before + more and time.monotonic() < patience:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(5e-4)


def main(folder: Path, seed: int, fault: str) -> None:
    source = random.Random(seed)
    witness = os.open(folder / "witness", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    rows = []
    kills = 1 if fault else KILLS
    for turn in range(kills + 1):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(folder, witness, fault)
                code = 0
            except Exception as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(code)
        if turn < kills:
            wait(child, folder / "witness", source.randrange(40))
            time.sleep(source.uniform(0.0, 4e-3))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        reserved = read_ledger(folder / "run.ledger").reserved if (folder / "run.ledger").exists() else 0
        rows.append({"exit": status, "reserved": reserved, "drawn": (folder / "witness").stat().st_size})
        if status >= 0:
            break
    print(json.dumps(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
