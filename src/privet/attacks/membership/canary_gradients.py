"""White-box scores of canaries: which of them the released gradients point along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privet.attacks.membership.canaries import check_canaries
from privet.attacks.target import evaluating
from privet.errors import ArgumentError, DataError, LabelError

__all__ = ["GradientScores"]

_RIDGE = 0.3  # of a canary's mean squared norm: about the noise of a step against what it clips to


class GradientScores:
    r"""White-box scores: how far each released gradient points along each canary's own.

    .. math:: s_i = \sum_t \langle h_i, r_t \rangle, \qquad
        h_i = \min\big(1, C / \lVert g_i \rVert\big)\, g_i, \qquad g_i = \nabla_\theta\, \ell(\theta_t; x_i, y_i)

    with :math:`r_t` the gradient that step t released, at weights :math:`\theta_t`. Most of it comes from the other
    records. Whoever knows them (differential privacy is to hold even then) takes out what is expected of them, each
    canary counting half:

    .. math:: r_t - \frac{1}{n + m/2} \Big( \sum_{j \le n} h_j + \frac12 \sum_{i \le m} h_i \Big)

    Canaries whose gradients overlap are mistaken for one another; ``whiten`` solves for all of them at once,
    :math:`s = \sum_t (H H^\top + \lambda I)^{-1} H r_t` with the canaries' gradients the rows of H.

    Call :meth:`observe` at every step, after the gradient is there and before ``optimizer.step()``. Gradients are taken
    with dropout off. The model is left as it was: no ``.grad`` and no mode changes.

    Args:
        inputs: of the canaries (m, ...), trained on or not, on the model's device.
        labels: their classes (m,).
        others: inputs (n, ...) and labels (n,) of the other training records; None where they are not known. Without
            them a score is mostly about how typical a canary is.
        whiten: solve for all canaries at once. It holds m gradients of the whole model and inverts an (m, m) matrix at
            every step: for small models and a few thousand canaries.
        max_grad_norm: C > 0, what training clips each gradient to.
        chunk: records whose gradients are taken at a time.

    Raises:
        ArgumentError: if a number is out of range.
        DataError: if inputs and labels do not fit each other.
        LabelError: if the labels are no integers of at least 0.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> seen = GradientScores(torch.eye(2), torch.tensor([0, 1]))
        >>> nn.functional.cross_entropy(model(torch.eye(2)[:1]), torch.tensor([0])).backward()  # the first is in
        >>> seen.observe(model)
        >>> bool(seen.scores[0] > seen.scores[1]), seen.steps
        (True, 1)

    References:
        Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", 2023, section 6.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        others: tuple[Tensor, Tensor] | None = None,
        whiten: bool = False,
        max_grad_norm: float = 1.0,
        chunk: int = 256,
    ) -> None:
        """See the class."""
        check_canaries(inputs, labels)
        if others is not None:
            check_canaries(*others)
            if others[0].shape[1:] != inputs.shape[1:]:
                raise DataError(
                    f"the other records have shape {tuple(others[0].shape[1:])}, the canaries "
                    f"{tuple(inputs.shape[1:])}; give records of one shape."
                )
        if not 0.0 < max_grad_norm < float("inf"):
            raise ArgumentError("max_grad_norm", max_grad_norm, "a finite number above 0")
        if chunk < 1:
            raise ArgumentError("chunk", chunk, "a whole number of at least 1")
        self.steps = 0
        self._canaries, self._others, self._whiten = (inputs, labels), others, whiten
        self._max_grad_norm, self._chunk = max_grad_norm, chunk
        self._scores = np.zeros(len(labels))

    @property
    def scores(self) -> NDArray[np.float64]:
        """The sum over the steps so far (m,); higher means "in"."""
        return self._scores.copy()

    def observe(self, model: nn.Module, released: Sequence[Tensor] | Tensor | None = None) -> None:
        """Add one step's scores.

        Args:
            model: with the weights at which the gradient was taken; it answers logits (B, C).
            released: the released gradient, a mean over the batch: one tensor for each trainable parameter in the order
                of ``model.parameters()``, or all of them in one flat tensor. None for the parameters' ``.grad``.

        Raises:
            ArgumentError: if the gradient does not fit the trainable parameters.
            DataError: if a score is not finite.
            LabelError: if the model has no such class as a label says.
        """
        direction = _flat(model, released)  # (p,)
        with evaluating(model):
            kept = list(self._gradients(model, self._canaries)) if self._whiten else None  # rows (b, p)
            if self._others is not None:
                known = _sum(self._gradients(model, self._others))
                known += 0.5 * _sum(kept or self._gradients(model, self._canaries))
                direction = direction - known / (len(self._others[1]) + 0.5 * len(self._canaries[1]))
            if kept is None:
                along = torch.cat([rows @ direction for rows in self._gradients(model, self._canaries)])
            else:
                along = _solved(torch.cat(kept), direction)
        scores = along.double().cpu().numpy()
        if not np.isfinite(scores).all():
            raise DataError(
                f"the score of canary {int(np.flatnonzero(~np.isfinite(scores))[0])} at step {self.steps} is not finite"
                ", and the step is not counted. Look whether training diverged, or a record holds NaN."
            )
        self._scores += scores
        self.steps += 1

    def _gradients(self, model: nn.Module, records: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
        """Each record's clipped gradient by the trainable parameters, in rows (b, p)."""
        trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = functional_call(model, parameters, (x[None],))
            if logits.ndim != 2 or logits.shape[1] <= largest:
                raise LabelError(f"label {largest} and logits of shape {tuple(logits.shape[1:])}; give labels below C.")
            return nn.functional.cross_entropy(logits, y[None])

        largest = int(records[1].max())
        per_record = vmap(grad(loss), in_dims=(None, 0, 0))
        inputs, labels = records[0].detach(), records[1].to(records[0].device).long()
        for some, theirs in zip(inputs.split(self._chunk), labels.split(self._chunk), strict=True):  # type: ignore[no-untyped-call]
            rows = torch.cat([part.flatten(1) for part in per_record(trained, some, theirs).values()], dim=1)  # (b, p)
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            yield rows.mul_((self._max_grad_norm / norms).clamp_max(1.0))


def _sum(gradients: Iterable[Tensor]) -> Tensor:
    return torch.stack([rows.sum(0) for rows in gradients]).sum(0)  # (p,)


def _solved(rows: Tensor, direction: Tensor) -> Tensor:
    """The ridge regression of the direction on the rows (m,)."""
    gram = rows @ rows.T  # (m, m)
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny)
    found: Tensor = torch.linalg.solve(gram, rows @ direction)
    return found


def _flat(model: nn.Module, released: Sequence[Tensor] | Tensor | None) -> Tensor:
    """The released gradient by all trainable parameters (p,)."""
    trained = [value for value in model.parameters() if value.requires_grad]
    size, shapes = sum(value.numel() for value in trained), [tuple(value.shape) for value in trained]
    if isinstance(released, Tensor):
        if released.shape != (size,):
            raise ArgumentError("released", f"of shape {tuple(released.shape)}", f"a flat tensor of {size:,} values")
        return released.detach()
    parts = [value.grad for value in trained] if released is None else list(released)
    given = [None if part is None else tuple(part.shape) for part in parts]
    if given != shapes:
        raise ArgumentError("released", f"of shapes {given}", f"a gradient for each trainable parameter, {shapes}")
    return torch.cat([part.detach().flatten() for part in parts if part is not None])
