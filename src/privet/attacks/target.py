"""What the attacker may ask, and how much of the answer comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

__all__ = ["Target", "evaluating"]


@dataclass(frozen=True)
class Target:
    """A model as the attacker sees it: a function from inputs to answers, and what an answer holds.

    Attributes:
        query: maps inputs (N, ...) to an answer for each: scores (N, C), labels (N,), or a named tuple of the k largest
            ``values`` and their ``indices``, each (N, k). Scores and labels may be arrays of numpy. An answer must not
            depend on the other inputs of the batch. A module is asked in evaluation mode, which is put back.
        classes: the number of classes C >= 2, which the attacker is taken to know.
        form: what is let out of the network's output, and whether it is probabilities; empty for all of its logits. A
            defense tells its own: ``defended.output_form``.
        batch_size: inputs per query.

    Raises:
        ArgumentError: if ``classes`` or ``batch_size`` is no whole number or too small, or the form shows more classes
            than there are.

    Example:
        >>> network = torch.nn.Linear(4, 3)
        >>> Target(network, classes=3).ask(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    query: Callable[[Tensor], Any]
    classes: int
    form: OutputForm = field(default_factory=OutputForm)
    batch_size: int = 1_024

    def __post_init__(self) -> None:
        given: tuple[tuple[str, Any, int], ...] = (("classes", self.classes, 2), ("batch_size", self.batch_size, 1))
        for name, value, least in given:
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ArgumentError(name, value, f"a whole number of at least {least}")
        if self.form.k is not None and self.form.k > self.classes:
            raise ArgumentError("form", self.form, f"k of at most {self.classes}, the number of classes")

    def ask(self, inputs: Tensor) -> Tensor:
        """Query in batches and return one row per input, in the widest form the answer allows.

        Args:
            inputs: (N, ...), N >= 1.

        Returns:
            (N, C) float64: log-probabilities, with what the defense withheld filled in by :meth:`_log_probabilities`.

        Raises:
            DataError: if there are no inputs, or an answer is not what the form says: its shape, its type, NaN, classes
                that do not exist, scores that are no probabilities, or probabilities given as logits.
        """
        if inputs.shape[0] == 0:
            raise DataError("no inputs to ask about; give at least one record.")
        rows, distributions = [], not self.form.probabilities and not self.form.labels_only
        with torch.no_grad(), evaluating(self.query):
            for start in range(0, inputs.shape[0], self.batch_size):
                batch = inputs[start : start + self.batch_size]
                answer = self.query(batch)
                if isinstance(answer, np.ndarray):
                    answer = torch.from_numpy(np.ascontiguousarray(answer))
                rows.append(self._log_probabilities(answer, batch.shape[0]).cpu())
                distributions = distributions and self._are_distributions(answer)
                if distributions and start + batch.shape[0] > 1:  # a single row may look like one by chance
                    raise DataError(
                        "every row the target answered is a probability distribution; give "
                        "form=OutputForm(probabilities=True), for the softmax of probabilities is no probability."
                    )
        return torch.cat(rows)

    def _log_probabilities(self, answer: Any, size: int) -> Tensor:
        """The answer as log-probabilities (N, C); what is withheld is imputed by what the form still tells.

        * Labels only: the label has probability 1, every other class 0 (as a quarter of the smallest unit).
        * Top-k: each class not shown shares what the shown ones leave over, and is at most the smallest one shown. Of
          the k largest *logits* nothing follows for the rest: they are normalised among themselves.
        * Rounding: a value that was rounded to zero lies between zero and half a unit; it is taken as a quarter unit.
        * Floating point rounds, too: a probability of zero is a quarter of the type's smallest number, and what
          shown ones leave over is at least a quarter of that type's step at 1, or of the smallest one shown. A smaller
          stand-in would make outliers of the surest answers, and those would rule every mean and variance.
        """
        form = self.form
        if form.labels_only:
            labels = self._classes_in(answer, (size,))
            probabilities = torch.nn.functional.one_hot(labels, self.classes).double()
        elif form.k is not None:
            if not isinstance(answer, tuple) or not hasattr(answer, "indices"):
                raise DataError(
                    f"the target answered {_shown(answer)} where values and indices of k classes were expected."
                )
            values = self._scores_in(answer[0], (size, form.k))
            if not form.probabilities:
                values = torch.softmax(values, -1)
            smallest = values.min(-1, keepdim=True).values
            least = smallest.clamp_max(torch.finfo(answer[0].dtype).eps) / 4.0
            left = torch.maximum(1.0 - values.sum(-1, keepdim=True), least) / max(self.classes - form.k, 1)
            hidden = torch.minimum(left, smallest).expand(size, self.classes)
            probabilities = hidden.scatter(-1, self._classes_in(answer[1], (size, form.k)), values)
        else:
            values = self._scores_in(answer, (size, self.classes))
            if not form.probabilities:
                return torch.log_softmax(values, -1)
            probabilities = values
        unit = _smallest(answer) if form.decimals is None else 10.0**-form.decimals
        return probabilities.clamp_min(unit / 4.0).log()

    def _scores_in(self, answer: Any, shape: tuple[int, ...]) -> Tensor:
        """Scores (N, ...) as float64, refused where they are not what the form says."""
        if not isinstance(answer, Tensor) or tuple(answer.shape) != shape or not answer.is_floating_point():
            raise DataError(f"the target answered {_shown(answer)} where scores of shape {shape} were expected.")
        values = answer.double()
        if not bool(torch.isfinite(values).all()):
            raise DataError("the target answered NaN or infinity; leave such records out.")
        if self.form.probabilities and not self._are_probabilities(values):
            raise DataError("the target answered scores that are no probabilities; give form=OutputForm() for logits.")
        return values

    def _are_probabilities(self, values: Tensor) -> bool:
        return bool((values >= 0.0).all()) and bool((values.sum(-1) <= 1.0 + self._slack(values)).all())

    def _are_distributions(self, answer: Any) -> bool:
        values = (answer[0] if isinstance(answer, tuple) else answer).double()
        return self._are_probabilities(values) and bool((values.sum(-1) >= 1.0 - self._slack(values)).all())

    def _slack(self, values: Tensor) -> float:
        """Rounding moves each value by at most half a unit, and half types by 2^-8 of it."""
        return 0.02 + (0.0 if self.form.decimals is None else 0.5 * values.shape[-1] * 10.0**-self.form.decimals)

    def _classes_in(self, answer: Any, shape: tuple[int, ...]) -> Tensor:
        """Classes (N, ...) as int64, refused where they are none."""
        if not isinstance(answer, Tensor) or tuple(answer.shape) != shape or answer.is_floating_point():
            raise DataError(f"the target answered {_shown(answer)} where classes of shape {shape} were expected.")
        if bool(((answer < 0) | (answer >= self.classes)).any()):
            raise DataError(
                f"the target answered a class outside 0 ... {self.classes - 1} (-1 stands for a row of NaN); "
                "give the number of classes as it is, and leave such records out."
            )
        return answer.long()


@contextmanager
def evaluating(query: Callable[[Tensor], Any]) -> Iterator[None]:
    """Hold a module and all of its parts in evaluation mode; anything else that is called is left as it is.

    Args:
        query: a module, or anything else.
    """
    modes = {module: module.training for module in query.modules()} if isinstance(query, nn.Module) else {}
    try:
        if any(modes.values()):
            query.eval()  # type: ignore[attr-defined]
        yield
    finally:
        for module, training in modes.items():
            module.training = training


_SMALLEST = 1e-45  # as float32 has it; float64 could say less, but softmax of float32 is often passed on as float64


def _smallest(answer: Any) -> float:
    """The smallest number above zero that the scores of an answer could be."""
    scores = answer[0] if isinstance(answer, tuple) else answer
    if not scores.is_floating_point():
        return _SMALLEST
    kind = torch.finfo(scores.dtype)
    return max(kind.tiny * kind.eps, _SMALLEST)


def _shown(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor of {answer.dtype} and shape {tuple(answer.shape)}"
    return f"a {type(answer).__name__}"
