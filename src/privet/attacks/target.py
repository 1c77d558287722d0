"""What the attacker may ask, and how much of the answer comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

__all__ = ["Answer", "Target"]


class RankedAnswer(Protocol):
    """A top-k answer: the k largest probabilities and their classes, each (N, k)."""

    values: Tensor
    indices: Tensor


Answer = Tensor | RankedAnswer
"""What a target gives back for N inputs: (N, C) logits or probabilities, (N,) labels, or k ranked values."""


@dataclass(frozen=True)
class Target:
    """A model as the attacker sees it: a function from inputs to answers, and what an answer holds.

    Attributes:
        query: maps inputs (N, ...) to an answer for each; must not depend on the other inputs of the batch.
        classes: the number of classes C >= 2, which the attacker is taken to know.
        form: what of the network's output is let out; empty for all of it.
        probabilities: True if values are probabilities, False if they are logits.
        batch_size: inputs per query.

    Raises:
        ArgumentError: if ``classes`` or ``batch_size`` is too small.

    Example:
        >>> network = torch.nn.Linear(4, 3)
        >>> Target(network, classes=3).ask(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    query: Callable[[Tensor], Any]
    classes: int
    form: OutputForm = field(default_factory=OutputForm)
    probabilities: bool = False
    batch_size: int = 1_024

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ArgumentError("classes", self.classes, "at least 2")
        if self.batch_size < 1:
            raise ArgumentError("batch_size", self.batch_size, "at least 1")

    def ask(self, inputs: Tensor) -> Tensor:
        """Query in batches and return one row per input, in the widest form the answer allows.

        Args:
            inputs: (N, ...), N >= 1.

        Returns:
            (N, C) float64: log-probabilities, with what the defense withheld filled in by :meth:`_log_probabilities`.

        Raises:
            DataError: if there are no inputs, or an answer has another shape than (N, C), (N, k) or (N,).
        """
        if inputs.shape[0] == 0:
            raise DataError("no inputs to ask about; give at least one record.")
        rows = []
        with torch.no_grad():
            for start in range(0, inputs.shape[0], self.batch_size):
                batch = inputs[start : start + self.batch_size]
                rows.append(self._log_probabilities(self.query(batch), batch.shape[0]).cpu())
        return torch.cat(rows)

    def _log_probabilities(self, answer: Any, size: int) -> Tensor:
        """The answer as log-probabilities (N, C); what is withheld is imputed by what the form still tells.

        * Labels only: the label has probability 1, every other class 0 (logarithms -0 and the floor).
        * Top-k: each class not shown shares what the shown ones leave over, and is at most the smallest one shown.
        * Rounding: a value that was rounded to zero lies between zero and half a unit; it is taken as a quarter unit.
        """
        if self.form.labels_only:
            probabilities = torch.nn.functional.one_hot(self._shaped(answer, (size,)), self.classes).double()
        elif self.form.k is not None:
            values = self._shaped(answer.values, (size, self.form.k)).double()
            indices = self._shaped(answer.indices, (size, self.form.k))
            if not self.probabilities:
                values = torch.softmax(values, -1)
            left = (1.0 - values.sum(-1, keepdim=True)).clamp_min(0.0) / max(self.classes - self.form.k, 1)
            hidden = torch.minimum(left, values.min(-1, keepdim=True).values).expand(size, self.classes)
            probabilities = hidden.scatter(-1, indices, values)
        else:
            values = self._shaped(answer, (size, self.classes)).double()
            if not self.probabilities:
                return torch.log_softmax(values, -1)
            probabilities = values
        unit = 10.0**-self.form.decimals if self.form.decimals is not None else _TINY
        return probabilities.clamp_min(unit / 4.0).log()

    def _shaped(self, answer: Any, shape: tuple[int, ...]) -> Tensor:
        if not isinstance(answer, Tensor) or tuple(answer.shape) != shape:
            found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise DataError(
                f"the target answered {found} where {shape} was expected; give its form and classes as they are."
            )
        return answer


_TINY = 1e-300
