"""Logical batches: the records that a sampler chose, read and handed out in pieces that fit the memory."""

from __future__ import annotations

import hashlib
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from privet.dp.collating import RowByRow
from privet.dp.columns import as_columns, refuse_ordered
from privet.dp.data_leaves import ALLOWED, check_leaf, is_row, leaves_of
from privet.errors import ArgumentError, PrivateTrainingError

__all__ = ["Batch", "DataSource", "data_source", "digests_of", "length_of", "map_tensors", "slice_data"]

Data = Any
"""Nested tuples, lists and mappings of tensors whose first dimension counts the examples."""


class Batch:
    """The records of one logical batch, read when its parts are asked for.

    What is shown of it tells neither which records it holds nor how many: no guarantee covers either.

    Attributes:
        size: how many records there are; 0 is an ordinary batch, of which nothing is read.
        spent: True once a private step used it; its parts can then no longer be read.
    """

    __slots__ = ("_indices", "_most", "_read", "spent")

    def __init__(self, indices: Tensor, read: Callable[[Sequence[Tensor]], Iterator[Data]], most: int | None) -> None:
        self._indices = indices  # (size,)
        self._read = read
        self._most = most
        self.spent = False

    def __repr__(self) -> str:
        return f"Batch({'spent' if self.spent else 'not spent'})"

    def __iter__(self) -> NoReturn:
        raise PrivateTrainingError(
            "A batch is given to private.backward(per_example_loss, batch) as it is; the loss gets its records, as in "
            "def per_example_loss(data): inputs, labels = data."
        )

    def __getitem__(self, index: object) -> NoReturn:
        self.__iter__()

    @property
    def size(self) -> int:
        """How many records there are."""
        return len(self._indices)

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not self.size

    def parts(self, most: int | None = None) -> Iterator[tuple[Data, int]]:
        """The records in pieces, in order.

        Args:
            most: the largest number of records in a piece, at least 1; None for the number the batch was made with,
                which may be none: then everything is one piece.

        Returns:
            (collated data, how many records it holds) of each piece; nothing for an empty batch.

        Raises:
            ArgumentError: ``most`` is below 1.
            PrivateTrainingError: the batch is spent; or, while reading, the collated data hold another number of
                records than were asked for.
        """
        if self.spent:
            raise PrivateTrainingError(
                "This batch was already used by a private step, and the ledger holds it once; take the next batch."
            )
        most = self._most if most is None else _check_count("most", most, 1)
        return self._pieces(torch.split(self._indices, most or self.size) if self.size else ())

    def _pieces(self, pieces: Sequence[Tensor]) -> Iterator[tuple[Data, int]]:
        for indices, data in zip(pieces, self._read(pieces) if pieces else (), strict=True):
            found = length_of(data)
            if found != len(indices):
                raise PrivateTrainingError(
                    f"The collated data hold {found} records where {len(indices)} were asked for; a collate function "
                    "must keep every record, in order."
                )
            yield data, found


class DataSource:
    """Records that can be read by their index. Made by :func:`data_source`.

    Attributes:
        size: how many records there are.
    """

    __slots__ = ("_read", "size")

    def __init__(self, size: int, read: Callable[[Sequence[Tensor]], Iterator[Data]]) -> None:
        self.size = size
        self._read = read

    def __repr__(self) -> str:
        return f"DataSource(size={self.size})"

    def batch(self, indices: Tensor, most: int | None = None) -> Batch:
        """The logical batch of these records.

        Args:
            indices: (k,) int64, each from 0 to ``size`` - 1; k may be 0.
            most: the largest number of records in one of its parts, at least 1; None for no limit.

        Raises:
            ArgumentError: no such indices, or ``most`` is below 1.
        """
        if indices.dtype != torch.int64 or indices.ndim != 1:
            raise ArgumentError("indices", indices, "a tensor (k,) of int64")
        if len(indices):
            low, high = torch.aminmax(indices)
            if low < 0 or high >= self.size:
                found = f"from {int(low)} to {int(high)}"
                raise ArgumentError("indices", found, f"indices from 0 to {self.size - 1}")
        return Batch(indices, self._read, None if most is None else _check_count("most", most, 1))


def data_source(
    dataset: object,
    *,
    device: torch.device | str | None = None,
    workers: int = 0,
    collate: Callable[[list[Any]], Data] | None = None,
) -> DataSource:
    """Any data set whose records can be read by their index.

    Data in memory are read by direct indexing: a tensor or NumPy array (N, ...); a tuple, list, dict or named tuple of
    them with equal N; a ``TensorDataset``; an object with ``inputs`` and ``labels``, given as the tuple of the two.
    Any other map-style data set is read record by record.

    Args:
        dataset: the data set. None that chooses or orders by itself: the sampler does that.
        device: where the data are moved to, piece by piece; None to leave them where they are.
        workers: processes that read a map-style data set; 0 to read in this one.
        collate: makes one piece of a list of records of a map-style data set; None for PyTorch's ``default_collate``.
            Row i may depend on record i alone: pad to one length that is fixed beforehand, never to the longest.

    Returns:
        The source, of which ``batch(indices)`` gives batches.

    Raises:
        ArgumentError: ``dataset`` is a DataLoader, an iterable data set, a sampler, a generator, empty, or of unequal
            lengths; ``workers`` is below 0; ``collate`` is given for data in memory.

    Example:
        >>> source = data_source((torch.arange(10.0), torch.arange(10)))
        >>> [data for data, size in source.batch(torch.tensor([3, 5, 8])).parts(most=2)]
        [(tensor([3., 5.]), tensor([3, 5])), (tensor([8.]), tensor([8]))]
    """
    _check_count("workers", workers, 0)
    refuse_ordered(dataset)
    target = None if device is None else torch.device(device)
    columns = as_columns(dataset)
    if columns is not None:
        size = _size(length_of(columns))
        if collate is not None:
            raise ArgumentError("collate", collate, "None for data in memory", "Give the data as a map-style data set.")
        return DataSource(size, partial(_select, columns, target))
    size = _size(len(dataset))  # type: ignore[arg-type]
    join = default_collate if collate is None else RowByRow(collate)
    if workers:
        return DataSource(size, _Workers(dataset, join, workers, target))
    return DataSource(size, partial(_fetch, dataset, join, target))


def length_of(data: Data) -> int:
    """How many examples ``data`` holds.

    Args:
        data: tensors or arrays (B, ...), sequences of B texts or numbers, or nested tuples, lists and mappings of
            these. A list or tuple that holds no tensor, list or mapping is one sequence, not B of them.

    Returns:
        B.

    Raises:
        ArgumentError: a part of another kind, parts of different lengths, or no part at all.

    Example:
        >>> length_of({"x": torch.zeros(4, 2), "name": ["a", "b", "c", "d"]})
        4
    """
    lengths = {len(leaf) for leaf in leaves_of(data)}
    if len(lengths) != 1:
        found = f"parts of lengths {sorted(lengths)}" if lengths else data
        raise ArgumentError("data", found, f"{ALLOWED}, the same number everywhere")
    return lengths.pop()


def slice_data(data: Data, start: int, stop: int) -> Data:
    """The examples ``start`` to ``stop`` - 1 of ``data``, in the same structure; tensors are views.

    Args:
        data: as for :func:`length_of`.
        start: the first example.
        stop: one past the last example.

    Raises:
        ArgumentError: ``data`` as for :func:`length_of`, or not 0 <= start <= stop <= B.

    Example:
        >>> slice_data((torch.arange(4), ["a", "b", "c", "d"]), 1, 3)
        (tensor([1, 2]), ['b', 'c'])
    """
    size = length_of(data)
    if not 0 <= start <= stop <= size:
        raise ArgumentError("start, stop", (start, stop), f"0 <= start <= stop <= {size}, the number of examples")
    return _map(data, lambda leaf: leaf[start:stop])


def map_tensors(data: Data, function: Callable[[Tensor], Tensor]) -> Data:
    """``data`` with ``function`` done to every tensor in it; all else as it is.

    Args:
        data: as for :func:`length_of`.
        function: is given each tensor.

    Raises:
        ArgumentError: a part is of another kind.

    Example:
        >>> map_tensors({"x": torch.ones(2)}, lambda tensor: tensor * 3)
        {'x': tensor([3., 3.])}
    """
    return _map(data, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def digests_of(data: Data) -> list[bytes]:
    """A digest of each part of ``data``, in order: tensors and arrays by their bytes, texts and numbers as written.

    Raises:
        ArgumentError: a part is of another kind.
    """

    def digest(leaf: Any) -> bytes:
        if isinstance(leaf, Tensor):
            leaf = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        elif isinstance(leaf, np.ndarray) and leaf.dtype != object:
            leaf = np.ascontiguousarray(leaf)
        elif isinstance(leaf, list | tuple | str | bytes) or (isinstance(leaf, np.ndarray) and leaf.dtype == object):
            leaf = repr(list(leaf)).encode()
        else:
            raise ArgumentError("data", type(leaf).__name__, "tensors, arrays, texts or numbers, which can be compared")
        return hashlib.sha256(leaf).digest()

    return [digest(leaf) for leaf in leaves_of(data)]


class _Workers:
    """Pieces read by worker processes that live as long as the source."""

    def __init__(
        self, dataset: Any, collate: Callable[[list[Any]], Data], workers: int, device: torch.device | None
    ) -> None:
        self._order = _Order()
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._order,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=True,
            pin_memory=device is not None and device.type == "cuda",
        )
        self._device = device
        self._reading = 0

    def __call__(self, pieces: Sequence[Tensor]) -> Iterator[Data]:
        self._reading += 1
        ticket = self._reading
        self._order.pieces = [piece.tolist() for piece in pieces]
        for data in self._loader:
            yield _moved(data, self._device)
            if ticket != self._reading:
                raise PrivateTrainingError(
                    "Another batch was read before all parts of this one were; read one batch at a time."
                )


class _Order(Sampler[list[int]]):
    """The lists of indices to read next."""

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


def _select(columns: Data, device: torch.device | None, pieces: Sequence[Tensor]) -> Iterator[Data]:
    def selected(tensor: Tensor, indices: Tensor) -> Tensor:
        rows = tensor.index_select(0, indices.to(tensor.device))
        return rows if device is None else rows.to(device)

    for piece in pieces:
        yield map_tensors(columns, partial(selected, indices=piece))


def _fetch(
    dataset: Any, collate: Callable[[list[Any]], Data], device: torch.device | None, pieces: Sequence[Tensor]
) -> Iterator[Data]:
    several = getattr(dataset, "__getitems__", None)
    for piece in pieces:
        indices = piece.tolist()
        records = several(indices) if several else [dataset[index] for index in indices]
        yield _moved(collate(records), device)


def _moved(data: Data, device: torch.device | None) -> Data:
    return data if device is None else map_tensors(data, lambda tensor: tensor.to(device))


def _size(size: int) -> int:
    if size < 1:
        raise ArgumentError("dataset", f"{size} records", "at least one record")
    return size


def _check_count(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
    return value


def _map(data: Data, function: Callable[[Any], Any]) -> Data:
    if isinstance(data, dict | UserDict):
        changed = copy(data)  # keeps the type, and what it holds beside its items
        changed.update({key: _map(value, function) for key, value in data.items()})
        return changed
    if isinstance(data, Mapping):
        return {key: _map(value, function) for key, value in data.items()}
    if isinstance(data, list | tuple) and not is_row(data):
        values = [_map(value, function) for value in data]
        if isinstance(data, list):
            return values
        return type(data)(*values) if hasattr(data, "_fields") else tuple(values)
    return function(check_leaf(data))
