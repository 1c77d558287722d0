"""A collate function of the user's: what it makes of a record must not depend on the others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privet.checkpoints.random_states import global_states, set_global_states
from privet.dp.data_leaves import leaves_of
from privet.errors import PrivateTrainingError

__all__ = ["RowByRow", "untouched_generators"]

_LOOKED_AT = 8  # records of the first piece, one at a time


@contextmanager
def untouched_generators(device: torch.device) -> Iterator[None]:
    """Afterwards torch's, Python's and NumPy's global generators are where they were."""
    states = global_states(device)
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # a data set may draw from it
    try:
        yield
    finally:
        set_global_states(states, device)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


class RowByRow:
    """Calls a collate function, and refuses where a row depends on other records.

    Padding to the longest of a batch does: one long record would change how far each of the others is padded, and so
    their gradients, which no clipping bounds. Some records of the first piece are collated alone and compared; of each
    other piece two, and its shape with that of the pieces before.

    Args:
        collate: from a list of records to collated data.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate
        self._shapes: list[tuple[int, ...] | None] | None = None

    def __call__(self, records: list[Any]) -> Any:
        """The collated data.

        Raises:
            PrivateTrainingError: a row depends on other records; says how, and what to do.
        """
        data = self._collate(records)
        leaves = leaves_of(data)
        if any(len(leaf) != len(records) for leaf in leaves):
            return data  # refused where it is read
        with untouched_generators(torch.device("cpu")):
            self._check(records, leaves)
        return data

    def _check(self, records: list[Any], leaves: list[Any]) -> None:
        shapes = [_shape(leaf) for leaf in leaves]
        chosen = {0, len(records) - 1}
        again: list[Any] | None = None
        if self._shapes is None:
            chosen |= set(range(min(len(records), _LOOKED_AT)))
            again = leaves_of(self._collate(records))  # what is drawn at random cannot be compared
        elif shapes != self._shapes:
            raise _refusal(self._shapes, shapes, "in one part of a batch", "in another")
        self._shapes = shapes
        for index in sorted(chosen):
            alone = leaves_of(self._collate([records[index]]))
            found = [_shape(leaf) for leaf in alone]
            if found != shapes:
                raise _refusal(shapes, found, "together", "alone")
            for leaf, other, one in zip(leaves, again or [], alone, strict=again is not None):
                if _same(leaf, other) and not _same(leaf[index : index + 1], one):
                    raise PrivateTrainingError(
                        "collate makes other numbers of a record alone than of the same record together with others "
                        "(a statistic over the batch?), so that no clipping would bound what one record does. Let row "
                        "i depend on record i alone."
                    )


def _refusal(first: object, second: object, there: str, here: str) -> PrivateTrainingError:
    return PrivateTrainingError(
        f"collate gives records of shape {first} {there} and {second} {here}: how far a record is padded would depend "
        "on the others that were drawn, and no clipping would bound what one long record does to them. Pad each to one "
        "length that is fixed beforehand, and cut what is longer."
    )


def _shape(leaf: Any) -> tuple[int, ...] | None:
    return tuple(leaf.shape[1:]) if isinstance(leaf, Tensor | np.ndarray) else None


def _same(one: Any, other: Any) -> bool:
    """Up to rounding, which may differ with how many records are computed at once."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype.is_floating_point or one.dtype.is_complex:
            return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True)
        return torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype != object:
        return _same(torch.from_numpy(np.ascontiguousarray(one)), torch.from_numpy(np.ascontiguousarray(other)))
    return list(one) == list(other)
