"""One shadow model: trained, asked, forgotten."""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.membership.fleet.queries import Queries
from privet.attacks.membership.fleet.signal_row import answering, signal_row
from privet.attacks.membership.pool import Pool
from privet.errors import ArgumentError, DataError, NonFiniteOutputError
from privet.output_form import OutputForm

__all__ = ["Question", "ShadowJob", "TrainAndAsk", "TrainFn", "TrainsMany", "refuse_again", "seeded"]

_ANSWERS = "a torch.nn.Module, or a function from inputs to answers"


class TrainFn(Protocol):
    """The training procedure that is audited, as a function."""

    def __call__(self, indices: NDArray[np.int64], seed: int, /) -> nn.Module:
        """Train a new model.

        Args:
            indices: which records of the pool to train on (n,), ascending; members stand first in the pool, in order,
                then the non-members.
            seed: for whatever is random. PyTorch's, NumPy's and Python's global generators are seeded with it already.

        Returns:
            The model, a new object on every call.
        """


@runtime_checkable
class TrainsMany(Protocol):
    """A training procedure that trains several models at once faster than one after the other."""

    def train_many(self, indices: Sequence[NDArray[np.int64]], seeds: Sequence[int]) -> Sequence[nn.Module]:
        """Train as many models as there are seeds, each on its own records, equal in number.

        Args:
            indices: for each model, as :meth:`TrainFn.__call__`.
            seeds: for each model.

        Returns:
            The models, in order.
        """


@dataclass(frozen=True, eq=False)
class ShadowJob:
    """A shadow to train.

    Attributes:
        shadow: its number in the fleet, from 0.
        block: the number of its block.
        indices: the records of the pool it is trained on (n,), ascending.
        seed: of its training.
    """

    shadow: int
    block: int
    indices: NDArray[np.int64]
    seed: int


@dataclass(frozen=True, eq=False)
class Question:
    """What every shadow is asked, what its answers pass through, and whether it is asked without that as well."""

    pool: Pool
    form: OutputForm
    defend: Callable[[nn.Module], Callable[[Tensor], Any]] | None
    queries: Queries
    undefended: OutputForm | None = None

    @property
    def width(self) -> int:
        """The signals of a record: one a query, twice as many if shadows are asked without the defense as well."""
        return len(self.queries) * (1 if self.undefended is None else 2)

    def row(self, model: Any, shadow: int) -> NDArray[np.float32]:
        """A trained shadow's signals (P, Q); (P, 2Q) if it is asked without the defense as well, those last.

        Raises:
            ArgumentError: ``model`` cannot be asked.
            DataError: its answers cannot be used; the message names the shadow.
        """
        if not callable(model) or isinstance(model, type):
            raise ArgumentError("train_fn", f"a function that returned {_shown(model)}", f"one that returns {_ANSWERS}")
        try:
            with answering(model) as asked:
                if self.defend is None:
                    return signal_row(asked, self.pool, self.form, self.queries)
                defended = signal_row(self.defend(model), self.pool, self.form, self.queries)
                if self.undefended is None:
                    return defended
                return np.concatenate((defended, signal_row(asked, self.pool, self.undefended, self.queries)), axis=1)
        except (DataError, NonFiniteOutputError) as error:
            raise DataError(f"shadow model {shadow}: {error}") from error


@dataclass(frozen=True, eq=False)
class TrainAndAsk:
    """All the work of one shadow, as an executor gets it; no model outlives the call."""

    train_fn: TrainFn
    question: Question

    def __call__(self, job: ShadowJob) -> NDArray[np.float32]:
        """Train the shadow of ``job`` and return its signals (P, Q).

        Raises:
            ArgumentError: ``train_fn`` does not return a new model.
            DataError: the model's answers cannot be used.
        """
        with seeded(job.seed):
            try:
                model = self.train_fn(job.indices, job.seed)
            except Exception as error:
                error.add_note(f"This was train_fn, for shadow model {job.shadow} with seed {job.seed}.")
                raise
            refuse_again(model)
            return self.question.row(model, job.shadow)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, for a training that draws from them, and put them back.

    Args:
        seed: in 0 ... 2^31 - 1.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the user's training may draw from it
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


_last: list[weakref.ReferenceType[Any]] = []


def refuse_again(model: Any) -> None:
    """Refuse the very object that was returned for the shadow before: it would answer for both.

    Raises:
        ArgumentError: it is the same object.
    """
    if _last and _last[0]() is model and model is not None:
        raise ArgumentError(
            "train_fn",
            "a function that returned the same model twice",
            "one that builds a new model on every call",
            "Make the model inside of it, or return a deep copy.",
        )
    _last.clear()
    try:
        _last.append(weakref.ref(model))
    except TypeError:  # a few kinds of callables cannot be watched
        return


def _shown(value: Any) -> str:
    return repr(value) if value is None else f"a {type(value).__name__}"
