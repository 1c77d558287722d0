"""Shadows as tasks of a Ray cluster."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privet.attacks.membership.fleet.inclusion import check_whole
from privet.attacks.membership.fleet.processes import opened, sent
from privet.attacks.membership.fleet.shadow import ShadowJob
from privet.errors import ArgumentError

__all__ = ["Ray"]

_Work = Callable[[ShadowJob], NDArray[np.float32]]
_RETRIES = 3


@dataclass(frozen=True)
class Ray:
    """Shadows on the machines of a Ray cluster: the one that ``ray.init()`` connected to before.

    The training function and the pool are put into the cluster's object store once; privet has to be installed on its
    machines. A shadow whose worker or machine is lost is trained again, three times at most; the finished ones are here
    already.

    Attributes:
        cpus: cores for one shadow, at least 1; it trains with as many threads.
        gpus: devices for one shadow, at least 0; half a one, say, lets two shadows share it.
        at_once: how many shadows at most, at least 1; None: as many as the cluster has cores for.

    Raises:
        ArgumentError: a number is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0
    at_once: int | None = None

    def __post_init__(self) -> None:
        check_whole("cpus", self.cpus, 1)
        gpus: object = self.gpus
        if isinstance(gpus, bool) or not isinstance(gpus, int | float) or not 0.0 <= gpus < float("inf"):
            raise ArgumentError("gpus", gpus, "a number of at least 0")
        if self.at_once is not None:
            check_whole("at_once", self.at_once, 1)

    def run(self, jobs: Iterable[ShadowJob], work: _Work) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Do the work of every job, as many at a time as there is room for.

        Raises:
            ArgumentError: Ray is not installed or not connected, has no room for one shadow, cannot be sent the work,
                or lost a worker again and again.
        """
        ray = _connected()
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(one.get("CPU", 0.0) >= self.cpus and one.get("GPU", 0.0) >= self.gpus for one in machines):
            raise ArgumentError("executor", self, "what one machine of the cluster has", "None has room for a shadow.")
        room = self.at_once or max(1, int(ray.cluster_resources()["CPU"] // self.cpus))
        waiting = iter(jobs)
        first = list(islice(waiting, room))
        if not first:
            return
        payload = ray.put(sent(work))
        train = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)(_work_on)
        running = {train.remote(payload, job, self.cpus): job for job in first}
        try:
            while running:
                for done in ray.wait(list(running))[0]:
                    yield running.pop(done).shadow, self._row(ray, done)
                    for job in islice(waiting, 1):
                        running[train.remote(payload, job, self.cpus)] = job
        finally:
            for one in running:
                ray.cancel(one, force=True)

    def _row(self, ray: Any, done: Any) -> NDArray[np.float32]:
        try:
            row: NDArray[np.float32] = np.array(ray.get(done))  # what Ray gives is read-only
        except ray.exceptions.RayTaskError as error:  # the user's error, as it is raised everywhere else
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            said = f"A worker was lost again and again. Finished shadows are kept. ({type(error).__name__}: {error})"
            raise ArgumentError("executor", self, "more memory for each shadow, or Serial()", said) from error
        return row


def _connected() -> Any:
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ArgumentError("executor", "Ray(...)", "Ray to be installed", "pip install 'privet[ray]'.") from error
    if not ray.is_initialized():
        raise ArgumentError("executor", "Ray(...)", "a connection to a cluster", "Call ray.init() before.")
    return ray


# What follows runs in the workers.

_known: tuple[bytes, Any] = (b"", None)


def _work_on(payload: bytes, job: ShadowJob, threads: int) -> NDArray[np.float32]:
    global _known
    torch.set_num_threads(threads)
    digest = hashlib.sha256(payload).digest()
    if _known[0] != digest:
        _known = (digest, opened(payload))
    row: NDArray[np.float32] = _known[1](job)
    return row
