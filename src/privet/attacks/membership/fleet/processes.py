"""Shadows in processes of their own, one thread each, on one machine."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from privet.attacks.membership.fleet.inclusion import check_whole
from privet.attacks.membership.fleet.shadow import ShadowJob
from privet.errors import ArgumentError

__all__ = ["Processes", "opened", "refusal", "sent"]

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_Work = Callable[[ShadowJob], NDArray[np.float32]]


@dataclass(frozen=True)
class Processes:
    """Shadows side by side, each in a process with one thread; for networks too small to keep all cores busy alone.

    Each process gets the training function and the pool once, by value: with so many workers they are so many times in
    memory. No guard around the main script is needed. The processes end when the last shadow has, or when anything
    else, a ``KeyboardInterrupt`` say, ends the run; and by themselves when this process is killed.

    Attributes:
        workers: how many at most, at least 1; None: as many as there are cores.

    Raises:
        ArgumentError: ``workers`` is out of range.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_whole("workers", self.workers, 1)

    def run(self, jobs: Iterable[ShadowJob], work: _Work) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Do the work of every job, as many at a time as there are workers.

        Raises:
            ArgumentError: the work cannot be sent to another process, or the system ended a worker.
        """
        waiting = iter(jobs)
        first = list(islice(waiting, self.workers or joblib.cpu_count()))
        if not first:
            return
        loky = _part_of_joblib("loky")
        payload = sent(work)
        pool = loky.ProcessPoolExecutor(
            len(first), initializer=_begin, initargs=(payload, os.getpid()), env=_ONE_THREAD
        )
        try:
            running = {pool.submit(_work_on, job): job for job in first}
            while running:
                for future in loky.wait(running, return_when=loky.FIRST_COMPLETED).done:
                    yield running.pop(future).shadow, future.result()
                    for job in islice(waiting, 1):
                        running[pool.submit(_work_on, job)] = job
        except loky.BrokenProcessPool as error:
            raise ArgumentError(
                "executor",
                self,
                "fewer workers, or Serial()",
                f"A worker was ended, most often for lack of memory. Finished shadows are kept. ({error})",
            ) from error
        finally:
            pool.shutdown(wait=True, kill_workers=True)


def refusal(work: _Work) -> str | None:
    """Why ``work`` cannot be sent to another process; None if it can."""
    try:
        sent(work)
    except ArgumentError as error:
        return error.remedy
    return None


def sent(work: _Work) -> bytes:
    """The work as bytes; what another process could not import goes by value."""
    pickling = _part_of_joblib("cloudpickle")
    with ExitStack() as stack:
        for module in _own_modules(work):
            pickling.register_pickle_by_value(module)
            stack.callback(pickling.unregister_pickle_by_value, module)
        try:
            data: bytes = pickling.dumps(work)
        except Exception as error:
            raise ArgumentError(
                "executor",
                "Processes()",
                "Serial() for this train_fn",
                f"It cannot be sent to another process ({type(error).__name__}: {error}).",
            ) from error
    return data


def _own_modules(work: Any) -> set[ModuleType]:
    """The modules of the user's functions that a fresh process would not find."""
    question = getattr(work, "question", None)
    own = [getattr(work, "train_fn", work), getattr(question, "defend", None)]
    own += [query.transform for query in getattr(question, "queries", ())]
    names = {getattr(part, "__module__", None) or type(part).__module__ for value in own for part in _within(value)}
    found = (sys.modules.get(name) for name in names)
    return {module for module in found if module is not None and not _importable(module)}


def _within(value: Any) -> Iterator[Any]:
    """A function, and those that it wraps or is bound to."""
    for _ in range(20):
        yield value
        inner = next(
            (getattr(value, name) for name in ("func", "__func__", "__wrapped__") if hasattr(value, name)), None
        )
        if hasattr(value, "__self__"):
            yield type(value.__self__)
        if inner is None:
            return
        value = inner


def _importable(module: ModuleType) -> bool:
    """Whether a process with the same search path would import this very file by this name."""
    if module.__name__ == "__main__" or getattr(module, "__file__", None) is None:
        return True  # goes by value anyway, or is built in
    folders = None
    names = module.__name__.split(".")
    for depth in range(1, len(names) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(names[:depth]), folders)
        if spec is None:
            return False
        folders = spec.submodule_search_locations
    return spec is not None and spec.origin == module.__file__


def _part_of_joblib(name: str) -> Any:
    """Joblib brings it along, or needs it, depending on its version."""
    try:
        return importlib.import_module(f"joblib.externals.{name}")
    except ImportError:
        return importlib.import_module(name)


# What follows runs in the workers.

_payload: list[Any] = []


def _begin(payload: bytes, parent: int) -> None:
    """What a worker does first. The payload is opened with the first job, whose error reaches the caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    _payload[:] = [payload]


def _end_with(parent: int) -> None:
    """End this process soon after its parent has been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work_on(job: ShadowJob) -> NDArray[np.float32]:
    if isinstance(_payload[0], bytes):
        _payload[0] = opened(_payload[0])
    row: NDArray[np.float32] = _payload[0](job)
    return row


def opened(payload: bytes) -> Any:
    """The work that :func:`sent` made bytes of.

    Raises:
        ArgumentError: it cannot be used in this process.
    """
    try:
        return _part_of_joblib("cloudpickle").loads(payload)
    except Exception as error:
        raise ArgumentError(
            "executor",
            "other processes",
            "Serial() for this train_fn",
            f"It was sent to another process, but cannot be used there ({type(error).__name__}: {error}).",
        ) from error
