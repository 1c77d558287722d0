"""What the defenses do to a row of scores, as pure steps that follow one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree

from privet.errors import ArgumentError
from privet.output_form import OutputForm
from privet.outputs import numerics

__all__ = ["Label", "Round", "Scores", "Step", "Top", "TopKOutput"]


class TopKOutput(NamedTuple):
    """The highest scores of each row, in descending order; of equal scores the lower class comes first.

    Attributes:
        values: the scores, ``(..., k)``.
        indices: their classes, int64, ``(..., k)``.
    """

    values: Tensor
    indices: Tensor


# So that torch.export.save can write an exported top-k; torch has no public name for this.
_pytree._register_namedtuple(TopKOutput, serialized_type_name="privet.outputs.TopKOutput")


@dataclass(frozen=True)
class Scores:
    """What a step is given and gives.

    Attributes:
        values: the scores, ``(..., n)``; the labels ``(...)`` after :class:`Label`.
        indices: the class of each score, ``(..., n)``; None: they are 0 ... n - 1.
        softmax_due: the values are logits whose softmax is meant.
        labels: the values are labels.
    """

    values: Tensor
    indices: Tensor | None = None
    softmax_due: bool = False
    labels: bool = False

    def answer(self, finite: Tensor | None) -> Tensor | TopKOutput:
        """What the caller gets; rows that are not ``finite`` ``(..., 1)`` become NaN, their classes -1."""
        values, indices = self.values, self.indices
        if finite is not None:
            values = (
                torch.where(finite.squeeze(-1), values, -1) if self.labels else torch.where(finite, values, torch.nan)
            )
            indices = None if indices is None else torch.where(finite, indices, -1)
        return values if indices is None else TopKOutput(values, indices)


class Step(Protocol):
    """One transformation of scores, row by row."""

    @property
    def place(self) -> int:
        """Steps of a lower place come first, whatever the nesting."""

    @property
    def form(self) -> OutputForm:
        """What the step lets out."""

    def __call__(self, scores: Scores, *, in_graph: bool) -> Scores:
        """The scores after the step; ``in_graph``: they are traced, not computed."""


@dataclass(frozen=True)
class Round:
    """Rounds scores to ``decimals``, halves to even."""

    decimals: int
    place: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.decimals is None:
            raise ArgumentError("decimals", None, "an integer")
        object.__setattr__(self, "decimals", self.form.decimals)  # validated

    @property
    def form(self) -> OutputForm:
        """What the step lets out."""
        return OutputForm(decimals=self.decimals)

    def __call__(self, scores: Scores, *, in_graph: bool) -> Scores:
        """The scores, rounded."""
        most = numerics.digits(scores.values.dtype)
        if self.decimals > most:
            raise ArgumentError(
                "decimals",
                self.decimals,
                f"at most {most} for a network that answers {scores.values.dtype}",
                "That type tells no more decimals apart.",
            )
        values = numerics.rounded(scores.values, self.decimals, softmax=scores.softmax_due, whole=in_graph)
        return Scores(values, scores.indices)


@dataclass(frozen=True)
class Top:
    """Keeps the ``k`` highest scores of each row and their classes."""

    k: int
    place: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.k is None:
            raise ArgumentError("k", None, "an integer from 1 to the number of classes")
        object.__setattr__(self, "k", self.form.k)  # validated

    @property
    def form(self) -> OutputForm:
        """What the step lets out."""
        return OutputForm(k=self.k)

    def __call__(self, scores: Scores, *, in_graph: bool) -> Scores:
        """The highest scores, in descending order."""
        classes = scores.values.shape[-1]
        if self.k > classes:
            raise ArgumentError("k", self.k, f"an integer from 1 to {classes}, the number of classes")
        values = numerics.probabilities(scores.values) if scores.softmax_due else scores.values
        values, indices = numerics.largest(values, self.k)
        return Scores(values, indices if scores.indices is None else torch.gather(scores.indices, -1, indices))


@dataclass(frozen=True)
class Label:
    """Keeps the class of the highest score of each row alone."""

    place: ClassVar[int] = 2

    @property
    def form(self) -> OutputForm:
        """What the step lets out."""
        return OutputForm(labels_only=True)

    def __call__(self, scores: Scores, *, in_graph: bool) -> Scores:
        """The labels: softmax never changes which score is the highest, so it is not computed."""
        places = numerics.first_largest(scores.values)  # (...)
        if scores.indices is not None:
            places = torch.gather(scores.indices, -1, places.unsqueeze(-1)).squeeze(-1)
        return Scores(places, labels=True)
