"""Data sets in memory, as columns: tensors whose first dimension counts the records."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from privet.errors import ArgumentError

__all__ = ["as_columns", "refuse_ordered"]

_ALLOWED = "tensors, or a map-style data set with __getitem__ and __len__"
_COMPARED = 16


def refuse_ordered(dataset: object) -> None:
    """Refuse what chooses or orders records by itself, and what has no records to choose from.

    The guarantee holds for records drawn independently, by privet's own sampler, from all of the data set.

    Raises:
        ArgumentError: says what to give instead.
    """
    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader):
        remedy = "A loader chooses records its own way, which is not what is accounted for; give loader.dataset."
    elif isinstance(dataset, Sampler):
        remedy = "Records are drawn by privet, independently; no other sampler is accounted for. Give the data set."
    elif isinstance(dataset, IterableDataset | Iterator):
        remedy = "Records that come one after the other cannot be drawn independently; read them into memory or files."
    elif hasattr(dataset, "iloc"):
        remedy = "A table is indexed by its columns; give tensors or arrays, such as table.to_numpy()."
    elif isinstance(dataset, str | bytes) or not (hasattr(dataset, "__getitem__") or _has_fields(dataset)):
        remedy = "Records are drawn by their index."
    elif not (hasattr(dataset, "__len__") or _has_fields(dataset)):
        remedy = "The number of records must be known."
    else:
        return
    raise ArgumentError("dataset", kind, _ALLOWED, remedy)


def as_columns(dataset: Any) -> Any:
    """The data set as a tensor or a nested structure of tensors; None if it has to be read record by record."""
    if isinstance(dataset, Tensor | np.ndarray | tuple | Mapping):
        return _columns(dataset)
    if isinstance(dataset, list):
        whole = [isinstance(value, Tensor | np.ndarray) for value in dataset]
        return _columns(dataset) if whole and all(whole) else None
    if type(dataset) is TensorDataset:  # a subclass may read its records another way
        return _columns(dataset.tensors)
    if _has_fields(dataset) and _is_plain(dataset):
        return _columns((dataset.inputs, dataset.labels))
    return None


def _columns(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _columns(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        values = [_columns(value) for value in data]
        return type(data)(*values) if hasattr(data, "_fields") else type(data)(values)
    if isinstance(data, np.ndarray):
        data = _tensor(data)
    if not isinstance(data, Tensor) or data.layout is not torch.strided or not data.ndim:
        shown = data if not isinstance(data, Tensor) else f"{data.layout} of shape {tuple(data.shape)}"
        remedy = "A list of records is a map-style data set; a tuple or dict is one of columns."
        raise ArgumentError("dataset", shown, "dense tensors or NumPy arrays (N, ...)", remedy)
    if data.requires_grad:
        raise ArgumentError("dataset", "a tensor that requires grad", "data, which do not", "Use tensor.detach().")
    return data


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only ever read
            return torch.from_numpy(array)
    except (TypeError, ValueError):
        pass
    try:  # negative strides, foreign byte order
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise ArgumentError("dataset", f"an array of {array.dtype}", "arrays of numbers or truth values") from None


def _has_fields(dataset: Any) -> bool:
    fields = (getattr(dataset, "inputs", None), getattr(dataset, "labels", None))
    return all(isinstance(field, Tensor | np.ndarray) and field.ndim for field in fields)


def _is_plain(dataset: Any) -> bool:
    """Whether its records are just the rows of ``inputs`` and ``labels``, with nothing done to them on reading."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return True
    size = len(dataset)
    if not size == len(dataset.inputs) == len(dataset.labels):
        return False
    return all(_is_row(dataset, index) for index in range(0, size, -(-size // _COMPARED)))


def _is_row(dataset: Any, index: int) -> bool:
    record = dataset[index]
    if not isinstance(record, tuple | list) or len(record) != 2:
        return False
    for value, column in zip(record, (dataset.inputs, dataset.labels), strict=True):
        row = torch.as_tensor(column[index])
        try:
            given = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            return False
        if isinstance(value, Tensor) and given.dtype != row.dtype:
            return False
        if given.shape != row.shape or not torch.equal(given.to(row), row):
            return False
    return True
