"""Where shadows are trained: here, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.fleet.shadow import ShadowJob

__all__ = ["Executor", "Serial"]


@runtime_checkable
class Executor(Protocol):
    """Whatever runs jobs: this process, several, or a cluster."""

    def run(
        self, jobs: Iterable[ShadowJob], work: Callable[[ShadowJob], NDArray[np.float32]]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Do the work of every job and yield each shadow's number and row as it is finished, in any order.

        The next job is taken only when there is a place for it: the sequence ends when no more are to be begun.
        Whatever ends the iteration early ends the work that is under way, and leaves no process behind.

        Args:
            jobs: the shadows to train.
            work: returns the row (P, Q) of a shadow.

        Yields:
            The number of the shadow and its row.
        """


@dataclass(frozen=True)
class Serial:
    """One shadow after the other in this process, with as many threads as PyTorch is set to use."""

    def run(
        self, jobs: Iterable[ShadowJob], work: Callable[[ShadowJob], NDArray[np.float32]]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Do the work of every job, in order."""
        for job in jobs:
            yield job.shadow, work(job)
