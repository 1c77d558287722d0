"""The audited records, checked before anything is asked or trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.errors import ArgumentError, DataError, LabelError

__all__ = ["Pool"]

_LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MOST_ALIKE = 1.25  # by so much copies widen the variance of a mean at most
_MANY = 20  # records, below which no interval is made
_ROWS_AT_ONCE = 4_096  # of inputs that are looked at, so that a check copies little


@dataclass(frozen=True, eq=False)
class Pool:
    """The audited records: first those the target was trained on, then those it was not.

    :meth:`of` makes one of two sets, and checks everything that can be wrong with them.

    Attributes:
        inputs: the records (P, ...).
        labels: their labels (P,) int64, on the CPU.
        members: how many were trained on, M; records 0 ... M - 1 are members, M ... P - 1 are not; 0 < M < P.
        classes: the number of classes C >= 2.

    Raises:
        ArgumentError: if ``classes`` or ``members`` is not as above.
        DataError: if inputs and labels do not fit each other.

    Example:
        >>> members = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
        >>> non_members = torch.tensor([[2.0]]), torch.tensor([1])
        >>> len(Pool.of(members, non_members, classes=2))
        3
    """

    inputs: Tensor  # (P, ...)
    labels: Tensor  # (P,)
    members: int
    classes: int

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        if self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]:
            raise DataError(
                f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)} for inputs of shape "
                f"{tuple(self.inputs.shape)}; give int64, one a record."
            )
        if not 0 < self.members < len(self.labels):
            raise ArgumentError(
                "members",
                self.members,
                f"a whole number between 1 and {len(self.labels) - 1}, so that both kinds stand",
            )

    @classmethod
    def of(cls, members: tuple[Tensor, Tensor], non_members: tuple[Tensor, Tensor], classes: int) -> Pool:
        r"""Put both sets into one pool, after looking at all of both.

        A record in both sets would be member and non-member at once: inputs that are equal, value by value, are refused
        whether their labels agree or not. The same input twice within one set is allowed, as far as intervals that take
        records for independent still cover as they say: with :math:`n_i` copies of each of N records,
        :math:`\sum_i n_i^2 \le 1.25 N`, as where an eighth are second copies. By that the variance of a mean is larger,
        and of a one-sided 5% of false alarms there are at most 7.1%.

        Args:
            members: inputs (M, ...) and labels (M,) that were trained on.
            non_members: inputs (N, ...) and labels (N,) of the same distribution that were not.
            classes: the number of classes C >= 2.

        Returns:
            The pool of M + N records.

        Raises:
            ArgumentError: if ``classes`` is no whole number of at least 2.
            DataError: if a set is empty, its inputs and labels differ in number, an input is NaN or infinite, the sets
                differ in the shape, type or device of their inputs, have an input in common, or one of 20 or more holds
                too many copies.
            LabelError: if a label is not an integer in 0 ... classes - 1.
        """
        _check_classes(classes)
        for name, (inputs, labels) in (("members", members), ("non-members", non_members)):
            _check_set(name, inputs, labels, classes)
        for what in ("shape", "dtype", "device"):
            first, second = (
                tuple(inputs.shape[1:]) if what == "shape" else getattr(inputs, what)
                for inputs, _ in (members, non_members)
            )
            if first != second:
                raise DataError(
                    f"a member's input has {what} {first}, a non-member's {second}; "
                    "prepare both sets in the same way, or the difference will be taken for a leak."
                )
        digests = _digests(members[0]), _digests(non_members[0])
        _check_overlap(*digests)
        for name, found in zip(("members", "non-members"), digests, strict=True):
            _check_copies(name, found)
        labels = torch.cat([labels.detach().cpu().long() for _, labels in (members, non_members)])
        return cls(torch.cat([members[0].detach(), non_members[0].detach()]), labels, len(members[0]), int(classes))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """The number of records P."""
        return len(self.labels)

    @property
    def is_member(self) -> NDArray[np.bool_]:
        """Which records the target was trained on (P,)."""
        return np.arange(self.size) < self.members

    @property
    def copies(self) -> NDArray[np.intp]:
        """The first record (P,) whose input equals this one's value by value: its own number where none is before."""
        _, first, which = np.unique(_digests(self.inputs), return_index=True, return_inverse=True)
        return np.asarray(first[which], dtype=np.intp)


def _check_classes(classes: Any) -> None:
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise ArgumentError("classes", classes, "a whole number of at least 2")


def _check_set(name: str, inputs: Tensor, labels: Tensor, classes: int) -> None:
    for what, value in (("inputs", inputs), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise DataError(f"{name}: {what} are a {type(value).__name__}; give a tensor.")
    if inputs.ndim == 0 or labels.ndim == 0 or len(inputs) != len(labels) or len(inputs) == 0:
        raise DataError(
            f"{name}: inputs of shape {tuple(inputs.shape)} and labels of shape {tuple(labels.shape)}; "
            "give as many of each, and at least one."
        )
    if labels.dtype not in _LABEL_TYPES or labels.ndim != 1:
        raise LabelError(f"{name}: labels are {labels.dtype} of shape {tuple(labels.shape)}; give integers (N,).")
    wrong = torch.nonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise LabelError(f"{name}: label {first} is {int(labels[first])}; give integers in 0 ... {classes - 1}.")
    if inputs.is_complex():
        raise DataError(f"{name}: inputs are {inputs.dtype}; give real numbers.")
    if inputs.is_floating_point() and (values := inputs[0].numel()):
        for start in range(0, len(inputs), _ROWS_AT_ONCE):
            finite = torch.isfinite(inputs[start : start + _ROWS_AT_ONCE].reshape(-1, values)).all(1)
            if not bool(finite.all()):
                row = start + int(torch.nonzero(~finite)[0])
                raise DataError(f"{name}: input {row} holds NaN or infinity; leave such records out.")


def _check_overlap(members: list[bytes], non_members: list[bytes]) -> None:
    """Refuse an input that stands in both sets, by a 128-bit digest of its bytes."""
    where = {digest: row for row, digest in reversed(list(enumerate(members)))}
    pairs = [(where[digest], row) for row, digest in enumerate(non_members) if digest in where]
    if pairs:
        raise DataError(
            f"{len(pairs)} of {len(non_members)} non-members have the same input as a member, the first being member "
            f"{pairs[0][0]} and non-member {pairs[0][1]}; a record is one or the other: leave such records out of both."
        )


def _check_copies(name: str, digests: list[bytes]) -> None:
    """Refuse a set with so many copies that its records are far from independent."""
    counts = Counter(digests)
    if len(digests) >= _MANY and sum(count**2 for count in counts.values()) > _MOST_ALIKE * len(digests):
        digest, most = counts.most_common(1)[0]
        raise DataError(
            f"{name}: only {len(counts):,} of {len(digests):,} inputs are different ones (input {digests.index(digest)}"
            f" stands {most:,} times), and intervals would be too narrow; keep one of each."
        )


def _digests(inputs: Tensor) -> list[bytes]:
    found: list[bytes] = []
    for start in range(0, len(inputs), _ROWS_AT_ONCE):
        rows = inputs[start : start + _ROWS_AT_ONCE].detach().cpu()
        rows = rows.reshape(len(rows), rows[0].numel())
        if rows.is_floating_point():
            rows = rows + 0.0  # -0.0 equals 0.0, and is to have its bytes
        found.extend(blake2b(row, digest_size=16).digest() for row in rows.contiguous().view(torch.uint8).numpy())
    return found
