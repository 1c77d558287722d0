"""How a benchmark is measured.

Time: the methods of one work run in one process, warmed up, then interleaved round by round in a rotating order, so
that a slow moment of the machine meets all of them; the median over the rounds is kept. Memory: each method is set up
in a fresh process, and the growth of that process's peak resident memory over its first call is kept (over its first
few, where what a call leaves behind is part of it). Where the system cannot set the peak back, a set-up that took more
memory than the call hides it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import torch

__all__ = ["Row", "Work", "all_benchmarks", "find", "load", "measure", "peak_mb_of_calls"]

Call = Callable[[], object]
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Work:
    """One piece of work and the methods that do it.

    Args:
        name: what is done, with its size.
        methods: from a method's name to its set-up, which is not timed and gives the call that is.
        baseline: the method that the others are divided by.
        rounds: how often each method is called for time.
        missing: methods that cannot run here, and why.
        memory_calls: over how many calls the peak of memory is taken.
    """

    name: str
    methods: dict[str, Callable[[], Call]]
    baseline: str
    rounds: int = 15
    missing: dict[str, str] = field(default_factory=dict)
    memory_calls: int = 1

    def __post_init__(self) -> None:
        if self.baseline not in self.methods:
            raise ValueError(f"{self.name}: the baseline {self.baseline!r} is not one of {', '.join(self.methods)}")


@dataclass(frozen=True)
class Row:
    """One measurement: median seconds of a call, its extra peak memory, and seconds / seconds of the baseline."""

    name: str
    work: str
    method: str
    seconds: float
    peak_mb: float
    ratio: float

    def as_dict(self) -> dict[str, str | float]:
        """The row as plain data."""
        return asdict(self)


def all_benchmarks() -> dict[str, str]:
    """From each benchmark's name to the module it is in, found without importing any."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        names = [line.partition("=")[2].strip(" \"'\n") for line in path.open() if line.startswith("NAME = ")]
        found.update(dict.fromkeys(names, f"benchmarks.{path.stem}"))
    return found


def load(name: str) -> ModuleType:
    """Imports the benchmark of this name."""
    return importlib.import_module(all_benchmarks()[name])


def find(name: str, work: str) -> Work:
    """The work of this name in the benchmark of that one."""
    works: list[Work] = load(name).works()
    return next(one for one in works if one.name == work)


def measure(name: str, work: Work) -> list[Row]:
    """Measures all methods of one work.

    Args:
        name: the benchmark that the work belongs to.
        work: what to measure.

    Returns:
        One row a method, in the order of the work.
    """
    seconds = _seconds(work)
    peaks = {method: _peak_in_fresh_process(name, work.name, method) for method in work.methods}
    base = seconds[work.baseline]
    return [
        Row(name, work.name, method, seconds[method], peaks[method], seconds[method] / base) for method in work.methods
    ]


def _seconds(work: Work) -> dict[str, float]:
    calls = {method: set_up() for method, set_up in work.methods.items()}
    for call in calls.values():
        call()
        call()
    taken: dict[str, list[float]] = {method: [] for method in calls}
    order: Sequence[str] = list(calls)
    for _ in range(work.rounds):
        for method in order:
            start = time.perf_counter()
            calls[method]()
            taken[method].append(time.perf_counter() - start)
        order = [*order[1:], order[0]]
    return {method: statistics.median(times) for method, times in taken.items()}


def peak_mb_of_calls(work: Work, method: str) -> float:
    """The growth of this process's peak resident memory over the first calls of a method, in MB of 10^6 bytes."""
    call = work.methods[method]()
    _set_peak_back()
    before = _peak_bytes()
    for _ in range(work.memory_calls):
        call()
    return (_peak_bytes() - before) / 1e6


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage starts from the peak of the parent process there
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _set_peak_back() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_in_fresh_process(name: str, work: str, method: str) -> float:
    command = [sys.executable, "-m", "benchmarks.peak", name, work, method, str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the memory of {name} / {work} / {method} could not be measured:\n{done.stderr}")
    peak = json.loads(done.stdout.splitlines()[-1])
    return float(peak)
