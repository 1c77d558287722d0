"""Any map-style PyTorch dataset, read once into memory and checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from privet.data.arguments import is_whole
from privet.data.examples import Examples
from privet.data.labels import check_class_names, numbered_names
from privet.data.reading import LARGEST
from privet.errors import ArgumentError, DataError, LabelError

__all__ = ["from_dataset"]


def from_dataset(
    dataset: Dataset[Any], limit: int | None = None, class_names: tuple[str, ...] | None = None
) -> Examples:
    """The items of a map-style PyTorch dataset, in its order, as Examples.

    Args:
        dataset: has a length and gives (input, label) at each index: the input a tensor or array, floating, or an image
            of uint8 ((H, W) or (C, H, W), divided by 255), all of one shape; the label an integer.
        limit: how many items to take at most, from the first; None for all.
        class_names: one name a class. None for what ``dataset.class_names`` or ``dataset.classes`` names, or else for
            numbers up to the largest label.

    Returns:
        As many examples as items were taken.

    Raises:
        ArgumentError: ``dataset`` is an iterable one, which has no members to name; ``limit`` is below 1; or the items
            are too many to hold in memory.
        DataError: an item is no such pair, or differs from the first in shape or dtype.
        LabelError: a label is not an integer in 0 ... classes - 1.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.rand(5, 3), torch.tensor([0, 1, 1, 0, 2]))
        >>> from_dataset(pairs, limit=4)
        Examples(4 of shape (3,), 2 classes, from TensorDataset, the first 4 of 5)
    """
    total = _length(dataset)
    if limit is not None and not is_whole(limit, 1):
        raise ArgumentError("limit", limit, "an integer of 1 or more, or None")
    count = total if limit is None else min(limit, total)
    where = type(dataset).__name__
    if not count:
        raise DataError(f"{where}: there are no examples; give at least one.")
    first, _ = _item(dataset, 0, where)
    if count * math.prod(first.shape) > LARGEST:
        shown = f"{count:,} items of shape {tuple(first.shape)}"
        raise ArgumentError("dataset", shown, f"at most {LARGEST:,} values together", "Pass limit=.")
    inputs = torch.empty((count, *first.shape), dtype=first.dtype)
    labels = torch.empty(count, dtype=torch.int64)
    for index in range(count):
        value, label = _item(dataset, index, where)
        if value.shape != first.shape or value.dtype != first.dtype:
            raise DataError(
                f"{where}[{index}]: the input is {value.dtype} of shape {tuple(value.shape)}; "
                f"give {first.dtype} of shape {tuple(first.shape)}, as the first."
            )
        inputs[index], labels[index] = value, label
    names = class_names if class_names is not None else _names(dataset, labels, where)
    check_class_names(names, where)
    source = where if count == total else f"{where}, the first {count:,} of {total:,}"
    return Examples(inputs, labels, names, source)


def _length(dataset: Dataset[Any]) -> int:
    allowed = "a map-style dataset, with __len__ and __getitem__"
    if isinstance(dataset, IterableDataset):
        raise ArgumentError(
            "dataset",
            type(dataset).__name__,
            allowed,
            "An iterable dataset may give other items each time, so it has no members and non-members to tell apart.",
        )
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ArgumentError("dataset", type(dataset).__name__, allowed)
    return len(dataset)


def _item(dataset: Dataset[Any], index: int, where: str) -> tuple[torch.Tensor, int]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}[{index}] is {_kind(item)}; give a pair (input, label).")
    value, label = item
    if isinstance(value, np.ndarray):
        try:
            value = torch.tensor(value)
        except (TypeError, ValueError):
            raise DataError(f"{where}[{index}]: the input is an array of {value.dtype}; give float32.") from None
    if not isinstance(value, torch.Tensor):
        raise DataError(
            f"{where}[{index}]: the input is {_kind(value)}; give a tensor. A transform such as ToTensor() makes one."
        )
    value = value.detach().cpu()
    if value.dtype == torch.uint8 and value.ndim in (2, 3):
        value = (value if value.ndim == 3 else value.unsqueeze(0)).to(torch.float32).div_(255)  # (C, H, W)
    if not value.is_floating_point():
        raise DataError(
            f"{where}[{index}]: the input is {value.dtype} of shape {tuple(value.shape)}; "
            "give floating values, or an image of uint8."
        )
    return value, _label(label, f"{where}[{index}]")


def _label(label: object, where: str) -> int:
    if isinstance(label, torch.Tensor | np.ndarray) and label.ndim == 0:
        label = label.item()
    if isinstance(label, bool | np.bool_) or not isinstance(label, int | np.integer):
        raise LabelError(f"{where}: the label is {_kind(label)}, {str(label)[:100]}; give an integer from 0.")
    if not 0 <= label < 2**63:
        raise LabelError(f"{where}: the label is {label}; give an integer from 0.")
    return int(label)


def _names(dataset: Dataset[Any], labels: torch.Tensor, where: str) -> tuple[str, ...]:
    for attribute in ("class_names", "classes"):
        names = getattr(dataset, attribute, None)
        if isinstance(names, tuple | list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return numbered_names(labels, where)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
