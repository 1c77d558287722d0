"""Examples: inputs, their labels, the names of the classes, and where they came from."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from privet.data.arguments import is_whole
from privet.data.labels import check_class_names, check_labels
from privet.errors import ArgumentError, DataError

__all__ = ["Examples"]

_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Dataset[tuple[torch.Tensor, int]]):
    """Labelled examples in memory; also a map-style PyTorch dataset of (input, label).

    What exists is valid: everything is checked once, when it is made.

    Args:
        inputs: (N, ...), floating and finite. Images are (N, C, H, W), float32 in [0, 1] from every
            reader of image files; tables are (N, F).
        labels: (N,), integers with 0 <= y < classes; kept as int64.
        class_names: one distinct name a class, by label.
        source: where the examples came from, for people to read.

    Raises:
        DataError: inputs that are not floating, hold NaN or infinity, are empty, or do not match the labels in
            number; class names that are empty or doubled.
        LabelError: labels that are not integers in 0 ... classes - 1.

    Example:
        >>> examples = Examples(torch.rand(3, 4), torch.tensor([0, 1, 1]), ("no", "yes"), "made here")
        >>> examples
        Examples(3 of shape (4,), 2 classes, from made here)
        >>> len(examples), examples[2][1], examples.classes
        (3, 1, 2)
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        source: object = self.source
        if not isinstance(source, str) or not source:
            raise DataError(
                f"source = {self.source!r} is not allowed; give text that says where the examples are from."
            )
        check_class_names(self.class_names, self.source)
        _check_inputs(self.inputs, self.source)
        if not isinstance(self.labels, torch.Tensor):
            raise DataError(
                f"{self.source}: labels are a {type(self.labels).__name__}; give a tensor (N,) of integers."
            )
        object.__setattr__(self, "labels", check_labels(self.labels, self.classes, self.source))
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"{self.source}: there are {len(self.inputs)} inputs and {len(self.labels)} labels; "
                "give one label for each input."
            )

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """The input and the label at ``index``.

        Args:
            index: an integer from -N to N - 1.

        Returns:
            The input, of shape ``inputs.shape[1:]``, and its label.

        Raises:
            IndexError: the index is out of range, as in a list.
            ArgumentError: the index is no integer.
        """
        try:
            index = operator.index(index)
        except TypeError:
            raise ArgumentError("index", index, "an integer", "take(indices) gives several examples.") from None
        if not -len(self) <= index < len(self):
            raise IndexError(f"index = {index} is not allowed; give an integer from {-len(self)} to {len(self) - 1}")
        return self.inputs[index], int(self.labels[index])

    def __repr__(self) -> str:
        shape = tuple(self.inputs.shape[1:])
        return f"Examples({len(self)} of shape {shape}, {self.classes} classes, from {self.source})"

    def take(self, indices: Sequence[int] | torch.Tensor | NDArray[np.integer]) -> Examples:
        """The examples at these indices, in this order, as a copy.

        Args:
            indices: integers from 0 to N - 1, at least one. An index given twice is taken twice.

        Returns:
            As many examples as there are indices.

        Raises:
            ArgumentError: no indices, or one that is no integer or out of range.

        Example:
            >>> examples = Examples(torch.rand(3, 4), torch.tensor([0, 1, 1]), ("no", "yes"), "made here")
            >>> examples.take([2, 0]).labels
            tensor([1, 0])
        """
        chosen = self._indices(indices)
        return self._part(chosen, f"{self.source} ({len(chosen)} of {len(self)})")

    def split(self, *sizes: int, seed: int) -> tuple[Examples, ...]:
        """Disjoint random parts of these sizes; what is left over is in none of them.

        Args:
            *sizes: how many examples each part has, at least 1 each, together at most N.
            seed: the same seed gives the same parts; an integer from 0 to 2**63 - 1.

        Returns:
            One Examples for each size.

        Raises:
            ArgumentError: no sizes, a size below 1, more than there are, or a seed that is none.

        Example:
            >>> examples = Examples(torch.rand(10, 4), torch.zeros(10, dtype=torch.int64), ("all",), "made here")
            >>> members, others = examples.split(6, 3, seed=1)
            >>> len(members), len(others)
            (6, 3)
        """
        if not sizes or any(not is_whole(size, 1) for size in sizes):
            raise ArgumentError("sizes", sizes, "one integer of 1 or more for each part")
        if sum(sizes) > len(self):
            raise ArgumentError("sizes", sizes, f"sizes of {len(self)} together at most, as many as there are examples")
        if not is_whole(seed, 0):
            raise ArgumentError("seed", seed, "an integer from 0 to 2**63 - 1")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(int(seed)))
        ends = torch.tensor(sizes).cumsum(0).tolist()
        return tuple(
            self._part(
                order[end - size : end],
                f"{self.source} (part {number} of {len(sizes)}: {size} of {len(self)}, seed {seed})",
            )
            for number, (size, end) in enumerate(zip(sizes, ends, strict=True), start=1)
        )

    def _part(self, chosen: torch.Tensor, source: str) -> Examples:
        inputs = self.inputs[chosen.to(self.inputs.device)]
        return Examples(inputs, self.labels[chosen.to(self.labels.device)], self.class_names, source)

    def _indices(self, indices: Sequence[int] | torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        allowed = f"a row of integers from 0 to {len(self) - 1}, at least one"
        try:
            chosen = torch.as_tensor(indices)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ArgumentError("indices", indices, allowed) from None
        if chosen.ndim != 1 or not len(chosen):
            raise ArgumentError("indices", indices, allowed)
        if chosen.dtype == torch.bool:
            raise ArgumentError("indices", indices, allowed, "mask.nonzero().flatten() turns a mask into indices.")
        if chosen.is_floating_point() or chosen.is_complex():
            raise ArgumentError("indices", indices, allowed)
        chosen = chosen.to(torch.int64)
        wrong = ((chosen < 0) | (chosen >= len(self))).nonzero()
        if len(wrong):
            position = int(wrong[0])
            raise ArgumentError(f"indices[{position}]", int(chosen[position]), f"an integer from 0 to {len(self) - 1}")
        return chosen


def _check_inputs(inputs: torch.Tensor, where: str) -> None:
    if not isinstance(inputs, torch.Tensor):
        raise DataError(f"{where}: inputs are a {type(inputs).__name__}; give a floating tensor (N, ...).")
    if inputs.dtype not in _FLOATING or inputs.layout != torch.strided:
        raise DataError(
            f"{where}: inputs are {inputs.dtype}, {inputs.layout}; give a dense floating tensor, as of torch.float32."
        )
    if inputs.ndim < 2 or not inputs.numel():
        raise DataError(
            f"{where}: inputs have shape {tuple(inputs.shape)}; "
            "give (N, F), (N, C, H, W) or the like, with at least one example and no empty side."
        )
    low, high = torch.aminmax(inputs.detach())  # NaN and infinity show in one pass, without a mask of N values
    if bool(torch.isfinite(low)) and bool(torch.isfinite(high)):
        return
    for index, row in enumerate(inputs.detach()):
        wrong = (~torch.isfinite(row)).nonzero()
        if len(wrong):
            place = tuple(wrong[0].tolist())
            position = ", ".join(str(number) for number in (index, *place))
            raise DataError(f"{where}: inputs[{position}] = {row[place].item()} is not allowed; give finite numbers.")
