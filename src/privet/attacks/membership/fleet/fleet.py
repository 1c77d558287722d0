"""A fleet of shadow models: trained as the target was, on parts of the pool, and asked like it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.membership.fleet.clock import Clock
from privet.attacks.membership.fleet.executors import Executor, Serial
from privet.attacks.membership.fleet.identity import identity_of
from privet.attacks.membership.fleet.inclusion import block_size, check_whole, inclusion, shadow_seed
from privet.attacks.membership.fleet.processes import Processes, refusal
from privet.attacks.membership.fleet.queries import ONE_QUERY, Queries
from privet.attacks.membership.fleet.shadow import (
    Question,
    ShadowJob,
    TrainAndAsk,
    TrainFn,
    TrainsMany,
    refuse_again,
    seeded,
)
from privet.attacks.membership.fleet.signal_row import signal_row
from privet.attacks.membership.fleet.store import Store
from privet.attacks.membership.pool import Pool
from privet.attacks.target import Target
from privet.errors import ArgumentError, CheckpointError
from privet.output_form import OutputForm

__all__ = ["Fleet", "Shadows"]

_EVERYTHING = OutputForm()
_TOGETHER = 16  # models that are trained at once, where training can do that; whole blocks
_Row = tuple[int, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Shadows:
    """Finished shadow models, whole blocks of them.

    Attributes:
        signals: what each says about each record in each way of asking (K, P, Q) float32, mapped from the disk.
        membership: which records each was trained on (K, P).
        blocks: the block of each (K,); within a block every record was trained on equally often.
        undefended: what each says without the defense (K, P, Q); None where it was not asked so.
    """

    signals: NDArray[np.float32]  # (K, P, Q)
    membership: NDArray[np.bool_]  # (K, P)
    blocks: NDArray[np.intp]  # (K,)
    undefended: NDArray[np.float32] | None = None  # (K, P, Q)

    def __len__(self) -> int:
        return len(self.blocks)


class Fleet:
    """Shadow models of one training procedure, of which only the signals are kept.

    Each shadow is trained on a random part of the pool, asked about every record, and forgotten; its row goes to the
    disk at once. With a ``store`` the rows outlast the process, and are used again by whoever asks for the same: the
    same pool, training code and its values, version, defense, queries, form, seed and library versions. What training
    reads by itself (files, the environment) is not seen: give ``version``.

    Example:
        >>> def fit(indices, seed):
        ...     return nn.Linear(2, 2)
        >>> pool = Pool.of((torch.eye(2), torch.arange(2)), (-torch.eye(2), torch.arange(2)), classes=2)
        >>> shadows = Fleet(fit, pool, seed=1, executor=Serial()).grow(4)
        >>> shadows.signals.shape, shadows.membership.sum(0)
        ((4, 4, 1), array([2, 2, 2, 2]))
    """

    def __init__(
        self,
        train_fn: TrainFn,
        pool: Pool,
        *,
        form: OutputForm = _EVERYTHING,
        defend: Callable[[nn.Module], Callable[[Tensor], Any]] | None = None,
        undefended: OutputForm | None = None,
        queries: Queries = ONE_QUERY,
        seed: int,
        executor: Executor | None = None,
        store: Path | str | None = None,
        version: str = "",
    ) -> None:
        """Check everything, and read what the store holds.

        Args:
            train_fn: trains a new model on the given records of the pool.
            pool: the P records.
            form: what is let out of the answers that are asked, after ``defend``.
            defend: puts the target's defense around a shadow; None: shadows are asked as they are.
            undefended: what a shadow answers without ``defend``; it is asked so as well, for the attacker owns it.
                None: it is not.
            queries: the Q ways to ask about each record.
            seed: of the memberships and of every training, not negative.
            executor: where shadows are trained; None: many at once if ``train_fn`` can, else in one process a core, one
                thread each, if it can be sent there and there is no GPU, else one after the other (:attr:`how` says).
            store: a folder for the rows of this and other fleets; None: they end with this object.
            version: of what ``train_fn`` does, where its code and values do not tell.

        Raises:
            ArgumentError: an argument is not as above, or there is a store and ``train_fn`` or ``defend`` cannot be
                told apart from another.
            CheckpointError: the store was damaged.
            DataError: a query cannot be made of the inputs, or the members are too few for the pool.
        """
        _check(train_fn=train_fn, pool=pool, defend=defend, executor=executor, version=version)
        self._train_fn, self._pool, self._seed, self._executor = train_fn, pool, check_whole("seed", seed, 0), executor
        if undefended is not None and defend is None:
            raise ArgumentError("undefended", undefended, "None, or a defend that puts a defense around shadows")
        self._question = Question(pool, form, defend, queries, undefended)
        self._block = block_size(pool.size, pool.members)
        Target(len, pool.classes, form)  # refuses a form that does not fit
        for query in queries:
            query.of(pool.inputs[:1])
        if store is None:
            above = Path(tempfile.mkdtemp(prefix="privet-shadows-"))
            weakref.finalize(self, shutil.rmtree, above, ignore_errors=True)
            parts: dict[str, Any] = {"seed": self._seed}
        else:
            above = _folder(store)
            parts = identity_of(train_fn, self._question, self._seed, version)
        self._store = Store.at(above, parts, pool.size, self._question.width)
        self._how = ""
        self._took, self._at_once = list[float](), 1

    @property
    def block(self) -> int:
        """The number B of shadows in a block."""
        return self._block

    @property
    def folder(self) -> Path:
        """Where the rows lie."""
        return self._store.folder

    @property
    def how(self) -> str:
        """Where the last shadows were trained, in words; empty before."""
        return self._how

    @property
    def shadows(self) -> Shadows:
        """All finished shadows of whole blocks, as far as no block before them is unfinished.

        Raises:
            CheckpointError: the store was damaged.
        """
        return self._first(None)

    def row(self, query: Callable[[Tensor], Any]) -> NDArray[np.float32]:
        """The target's own row, by the code that asked the shadows; it is asked anew on every call.

        Args:
            query: the target as it serves, its defense included.

        Returns:
            (P, Q) float32.

        Raises:
            DataError: as :func:`signal_row`.
        """
        return signal_row(query, self._pool, self._question.form, self._question.queries)

    def grow(
        self,
        shadows: int,
        *,
        progress: Callable[[int, int], None] | None = None,
        deadline: float | None = None,
    ) -> Shadows:
        """Train shadows until there are so many, those in the store included.

        Whatever ends this early, a ``KeyboardInterrupt`` or an error of ``train_fn``, goes through once every finished
        shadow is on the disk; :attr:`shadows` has the whole blocks of them, and the next call goes on from there.

        Args:
            shadows: how many in all, at least 1; rounded up to whole blocks.
            progress: called with the number of finished shadows and of all, first at once and then after each.
            deadline: on the clock of ``time.monotonic``; no shadow is begun after it, nor one that would not be
                finished by then, as long as those before took.

        Returns:
            The first so many shadows, or the whole blocks of them that were finished by the deadline, perhaps none.

        Raises:
            ArgumentError: ``shadows`` is not as above, or ``train_fn`` does not return a new model.
            CheckpointError: another process adds to the store, or it was damaged.
            DataError: a shadow's answers cannot be used.
            FileWriteError: a row cannot be written.
        """
        wanted = -(-check_whole("shadows", shadows, 1) // self._block) * self._block
        with self._store.writing():
            missing = [shadow for shadow in range(wanted) if shadow not in self._store.done]
            told = progress or (lambda done, of: None)
            told(wanted - len(missing), wanted)
            if missing:
                self._train(missing, wanted, told, deadline)
        return self._first(wanted)

    def _train(
        self, missing: Sequence[int], wanted: int, told: Callable[[int, int], None], deadline: float | None
    ) -> None:
        clock = Clock(deadline, took=self._took)
        finished = wanted - len(missing)
        rows = self._rows(self._jobs(missing, clock), clock)
        with ExitStack() as stack:
            if isinstance(rows, Generator):
                stack.callback(rows.close)  # ends what is under way, before anything goes through
            for shadow, row in rows:
                clock.ended(shadow, self._at_once)
                block = shadow // self._block
                membership = self._membership(block)[shadow % self._block]
                self._store.add(shadow, block, shadow_seed(self._seed, shadow), membership, self._checked(row))
                finished += 1
                told(finished, wanted)

    def _jobs(self, missing: Sequence[int], clock: Clock) -> Iterator[ShadowJob]:
        """The jobs, for as long as the clock allows to begin one."""
        for shadow in missing:
            block = shadow // self._block
            left = sum(other // self._block == block and other >= shadow for other in missing)
            if not clock.begins(shadow, left):
                return
            indices = np.flatnonzero(self._membership(block)[shadow % self._block])
            yield ShadowJob(shadow, block, indices.astype(np.int64), shadow_seed(self._seed, shadow))

    def _rows(self, jobs: Iterator[ShadowJob], clock: Clock) -> Iterator[_Row]:
        train_fn, self._at_once = self._train_fn, 1
        if self._executor is None and isinstance(train_fn, TrainsMany) and getattr(train_fn, "stackable", True):
            self._how = f"up to {_TOGETHER} at once, in this process"
            return self._together(train_fn, jobs, clock)
        work = TrainAndAsk(train_fn, self._question)
        executor, self._how = (self._executor, repr(self._executor)) if self._executor else _executor_for(work)
        return executor.run(jobs, work)

    def _together(self, train_fn: TrainsMany, jobs: Iterator[ShadowJob], clock: Clock) -> Iterator[_Row]:
        """Blocks of shadows at once, those with as many records together."""
        while group := list(islice(jobs, clock.together(_TOGETHER, self._block))):
            self._at_once = len(group)
            yield from self._trained(train_fn, group)

    def _trained(self, train_fn: TrainsMany, group: Sequence[ShadowJob]) -> Iterator[_Row]:
        for size in sorted({len(job.indices) for job in group}):
            equal = [job for job in group if len(job.indices) == size]
            with seeded(equal[0].seed):
                models = list(train_fn.train_many([job.indices for job in equal], [job.seed for job in equal]))
            if len(models) != len(equal):
                raise ArgumentError(
                    "train_fn", f"{len(models)} models from train_many", f"one for each of {len(equal)} seeds"
                )
            for job in equal:
                model = models.pop(0)
                refuse_again(model)
                with seeded(job.seed):
                    yield job.shadow, self._question.row(model, job.shadow)

    def _membership(self, block: int) -> NDArray[np.bool_]:
        return inclusion(self._pool.size, self._pool.members, block, self._seed)

    def _checked(self, row: Any) -> NDArray[np.float32]:
        shape = (self._pool.size, self._question.width)
        if not isinstance(row, np.ndarray) or row.shape != shape or row.dtype != np.float32:
            raise ArgumentError("executor", self._executor, f"one that yields what the work returns, float32 {shape}")
        return row

    def _first(self, most: int | None) -> Shadows:
        """The first shadows, whole blocks alone."""
        count = 0
        while count in self._store.done and count != most:
            count += 1
        count -= count % self._block
        membership = self._store.membership(count)
        blocks = np.arange(count, dtype=np.intp) // self._block
        for block in range(count // self._block):
            if not np.array_equal(membership[blocks == block], self._membership(block)):
                raise CheckpointError(
                    f"{self.folder}: block {block} was trained on other records than this version of NumPy draws. "
                    "Remove the folder, and its shadows are trained again."
                )
        signals, queries = self._store.signals(count), len(self._question.queries)
        undefended = None if self._question.undefended is None else signals[:, :, queries:]
        return Shadows(signals[:, :, :queries], membership, blocks, undefended)


def _check(*, train_fn: Any, pool: Any, defend: Any, executor: Any, version: Any) -> None:
    if not callable(train_fn) or isinstance(train_fn, nn.Module):
        raise ArgumentError("train_fn", train_fn, "a function from indices and a seed to a new model")
    if not isinstance(pool, Pool):
        raise ArgumentError("pool", pool, "a Pool, as Pool.of makes it")
    if defend is not None and not callable(defend):
        raise ArgumentError("defend", defend, "a function from a network to the defended network, or None")
    if executor is not None and (isinstance(executor, type) or not isinstance(executor, Executor)):
        raise ArgumentError("executor", executor, "Serial(), Processes(), another Executor, or None")
    if not isinstance(version, str):
        raise ArgumentError("version", version, "a text")


def _executor_for(work: TrainAndAsk) -> tuple[Executor, str]:
    """Where to train what says nothing about it, and why there."""
    if joblib.cpu_count() == 1:
        return Serial(), "one after the other: there is one core"
    if torch.cuda.is_available():
        return Serial(), "one after the other: there is a GPU, which they would share"
    if (why := refusal(work)) is not None:
        return Serial(), f"one after the other: {why}"
    return Processes(), f"{joblib.cpu_count()} processes, one thread each"


def _folder(store: Any) -> Path:
    try:
        folder = Path(store)
        usable = not folder.exists() or folder.is_dir()
    except (TypeError, ValueError, OSError):
        usable = False
    if not usable:
        raise ArgumentError("store", store, "a folder, there or not yet")
    return folder
