"""Examples to train on, in whichever of the accepted forms, read and checked once."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from privet.errors import ArgumentError, DataError, LabelError

__all__ = ["AnyExamples", "Source", "TensorExamples", "check_labels", "read_examples"]

_CHUNK = 4096


@runtime_checkable
class TensorExamples(Protocol):
    """Examples in memory: ``inputs`` (N, ...) and ``labels`` (N,)."""

    @property
    def inputs(self) -> Tensor:
        """All inputs (N, ...)."""

    @property
    def labels(self) -> Tensor:
        """All labels (N,), integers."""


AnyExamples = (
    TensorExamples
    | tuple[Tensor, Tensor]
    | tuple[NDArray[Any], NDArray[Any]]
    | Sequence[tuple[Tensor, int]]
    | Dataset[Any]
)


@dataclass(frozen=True, eq=False)
class Source:
    """Checked examples.

    Args:
        labels: all labels (N,), int64.
        take: from indices (B,), or a slice, to inputs (B, ...).
        digest: says which examples these are.
    """

    labels: Tensor
    take: Callable[[Tensor | slice], Tensor]
    digest: Callable[[], str]

    def __len__(self) -> int:
        return len(self.labels)


def read_examples(name: str, examples: AnyExamples) -> Source:
    """Read examples of any accepted form and check all of them.

    Args:
        name: the argument, as the caller wrote it.
        examples: inputs (N, ...) and labels (N,), tensors or arrays, as a pair or as attributes, or a map-style
            data set of (input, label). A data set is read through once here, and anew in every epoch.

    Returns:
        The examples, checked.

    Raises:
        ArgumentError: the form is not accepted.
        DataError: there are none, the lengths or shapes differ, or an input holds NaN or infinity.
        LabelError: labels are not integers of at least 0.

    Example:
        >>> len(read_examples("examples", (torch.zeros(3, 2), torch.tensor([0, 1, 1]))))
        3
    """
    given: Any = examples
    pair = given.tensors if isinstance(given, TensorDataset) else given
    if isinstance(given, TensorExamples):
        pair = (given.inputs, given.labels)
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(one, Tensor | np.ndarray) for one in pair):
        return _in_memory(name, *(_as_tensor(name, one) for one in pair))
    if not isinstance(given, TensorExamples) and _is_map_style(given):
        return _indexed(name, given)
    shown = f"an object of type {type(examples).__name__}"
    allowed = "a pair of tensors or arrays (inputs, labels), an object with both, or a map-style data set"
    raise ArgumentError(name, shown, allowed, "A data set gives (tensor, int) for each index.")


def check_labels(name: str, labels: Tensor, classes: int) -> None:
    """Refuse labels that are not 0 ... classes - 1.

    Args:
        name: the argument they came in.
        labels: (N,), integers.
        classes: how many numbers the model answers.

    Raises:
        LabelError: names the first such label and its index.

    Example:
        >>> check_labels("examples", torch.tensor([0, 7]), 5)
        Traceback (most recent call last):
        privet.errors.LabelError: examples: label 7 at index 1 is not one of the model's 5 classes, 0 to 4.
    """
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        index = int(wrong[0])
        value = int(labels[index])
        raise LabelError(f"{name}: label {value} at index {index} is not one of the model's {classes} classes, "
                         f"0 to {classes - 1}.")  # fmt: skip


def _as_tensor(name: str, given: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        # torch takes neither backward strides nor, without a warning, arrays that cannot be written to
        return torch.from_numpy(np.require(given, requirements=["C", "W"]))
    except (TypeError, ValueError):
        allowed = "arrays of numbers that torch has, in the byte order of the machine"
        raise ArgumentError(name, f"an array of {given.dtype}", allowed) from None


def _is_map_style(examples: object) -> bool:
    mapped = hasattr(examples, "__len__") and hasattr(examples, "__getitem__")
    return mapped and not isinstance(examples, IterableDataset | Tensor | dict | str)


def _in_memory(name: str, inputs: Tensor, labels: Tensor) -> Source:
    if labels.dim() != 1:
        raise LabelError(f"{name}: labels have shape {tuple(labels.shape)}; they must be (N,), one integer an example.")
    if inputs.dim() < 1 or len(inputs) != len(labels):
        raise DataError(
            f"{name}: {len(labels)} labels but inputs of shape {tuple(inputs.shape)}; give as many of both."
        )
    if len(labels) == 0:
        raise DataError(f"{name}: there are no examples; give at least one.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise LabelError(f"{name}: label {labels[0].item()} at index 0 is of {labels.dtype}; labels must be integers.")
    for start in range(0, len(inputs), _CHUNK):
        part = inputs[start : start + _CHUNK]
        if not torch.isfinite(part).all():
            first = int((~torch.isfinite(part)).reshape(len(part), -1).any(1).nonzero()[0])
            _refuse_input(name, start + first)
    as_given, labels = labels, labels.to(torch.int64)
    _refuse_negative(name, labels, as_given)

    def digest() -> str:
        found = hashlib.sha256()
        for start in range(0, len(inputs), _CHUNK):
            found.update(_bytes(inputs[start : start + _CHUNK]))
        found.update(_bytes(labels))
        return _described(len(labels), inputs.shape[1:], inputs.dtype, found.hexdigest())

    return Source(labels, lambda indices: inputs[indices], digest)


def _indexed(name: str, examples: Any) -> Source:
    count = len(examples)
    if count == 0:
        raise DataError(f"{name}: there are no examples; give at least one.")
    found: list[int] = []
    first, _ = _one(name, examples, 0)
    for index in range(count):
        inputs, label = _one(name, examples, index)
        if inputs.shape != first.shape or inputs.dtype != first.dtype:
            raise DataError(f"{name}: input {index} is {tuple(inputs.shape)} of {inputs.dtype}, "
                            f"input 0 is {tuple(first.shape)} of {first.dtype}; they must agree.")  # fmt: skip
        if not torch.isfinite(inputs).all():
            _refuse_input(name, index)
        found.append(label)
    labels = torch.tensor(found, dtype=torch.int64)
    _refuse_negative(name, labels)

    def take(indices: Tensor | slice) -> Tensor:
        chosen = range(count)[indices] if isinstance(indices, slice) else indices.tolist()
        return torch.stack([examples[index][0] for index in chosen])

    def digest() -> str:  # inputs may be drawn anew at every look, so only the labels are hashed
        return _described(count, first.shape, first.dtype, hashlib.sha256(_bytes(labels)).hexdigest())

    return Source(labels, take, digest)


def _one(name: str, examples: Any, index: int) -> tuple[Tensor, int]:
    example = examples[index]
    if not isinstance(example, tuple | list) or len(example) != 2 or not isinstance(example[0], Tensor):
        raise DataError(f"{name}: example {index} is not a pair of a tensor and an integer label.")
    label = example[1]
    try:
        if isinstance(label, bool) or (isinstance(label, Tensor) and label.dtype == torch.bool):
            raise TypeError
        return example[0], operator.index(label)
    except TypeError:
        raise LabelError(f"{name}: label {label!r} at index {index} is not an integer.") from None


def _refuse_input(name: str, index: int) -> None:
    raise DataError(f"{name}: input {index} holds NaN or infinity; every number must be finite.")


def _refuse_negative(name: str, labels: Tensor, as_given: Tensor | None = None) -> None:
    wrong = (labels < 0).nonzero()
    if len(wrong):
        index = int(wrong[0])
        value = int(labels[index])
        if as_given is not None and as_given.dtype == torch.uint64:  # what int64 does not hold turned negative
            raise LabelError(
                f"{name}: label {value + 2**64} at index {index} is too large; labels are 0 ... classes - 1."
            )
        raise LabelError(f"{name}: label {value} at index {index} is negative; labels are 0 ... classes - 1.")


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _described(count: int, shape: Sequence[int], dtype: torch.dtype, digest: str) -> str:
    return f"{count} examples of {tuple(shape)} {str(dtype).removeprefix('torch.')}, sha256 {digest}"
