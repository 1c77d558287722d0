"""How far an answer is from the one that was observed, whatever a defense let out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

__all__ = ["Distance", "distance_to"]

Distance = Callable[[Tensor], Tensor]
_MARGIN = 1.0  # in logits: e times as likely
_LEAST, _FURTHEST = 1e-12, 100.0


def distance_to(observed: Any, form: OutputForm, device: torch.device) -> tuple[Distance, int]:
    r"""The distance of answers (N, ...) of the network to what was observed of N images, a number an image.

    * Everything: :math:`\|\Phi(x) - \Phi_0\|^2 / \|\Phi_0\|^2`.
    * Probabilities, rounded or not, all or the k largest: the divergence
      :math:`\sum_c p_c \log (p_c / \hat p_c)` of what was shown from what softmax answers, the classes that were not
      shown taken as one. Squared differences of probabilities have no gradient where softmax is sure and wrong.
    * The k largest logits: their squared differences relative to their squares, and those of any other that lies
      above the smallest one shown.
    * A label: :math:`\max(0, 1 + \max_{j \ne y} z_j - z_y)^2`, so that the label wins by a margin.

    Args:
        observed: a tensor (N, ...); labels (N,); or a named tuple of ``values`` and ``indices`` (N, k).
        form: what was let out.
        device: where images are reconstructed.

    Returns:
        The distance, and N.

    Raises:
        ArgumentError: what was observed is not what the form says.
        DataError: it is not finite, or all zero, so that nothing can be compared with it.
    """
    if form.labels_only:
        labels = _tensor(observed, device)
        if labels.dim() != 1 or labels.is_floating_point():
            raise ArgumentError("targets", _shown(labels), "labels (N,), as labels-only answers are")
        return _to_label(labels.long()), len(labels)
    if form.k is not None:
        if not isinstance(observed, tuple) or len(observed) != 2:
            raise ArgumentError("targets", type(observed).__name__, "values and indices (N, k), as top-k answers are")
        values, indices = (_tensor(part, device) for part in observed)
        if values.dim() != 2 or values.shape != indices.shape or values.shape[1] != form.k:
            raise ArgumentError("targets", _shown(values), f"values and indices (N, {form.k})")
        _check_finite(values)
        chosen = indices.long()
        if form.probabilities:
            return _to_probabilities(values, chosen, all_shown=False), len(values)
        return _to_top(values, chosen), len(values)
    values = _tensor(observed, device)
    if values.dim() < 2 or not values.is_floating_point():
        raise ArgumentError("targets", _shown(values), "answers (N, ...) of floating-point numbers")
    _check_finite(values)
    if form.probabilities:
        if values.dim() != 2:
            raise ArgumentError("targets", _shown(values), "probabilities (N, classes)")
        return _to_probabilities(values, torch.empty(0, dtype=torch.int64), all_shown=True), len(values)
    return _to_all(values), len(values)


def _to_all(values: Tensor) -> Distance:
    squares = values.square().flatten(1).sum(1)
    if not bool((squares > 0).all()):
        nothing = int((squares == 0).int().argmax())
        raise DataError(f"answer {nothing} is zero everywhere: there is nothing to compare with.")

    def distance(answers: Tensor) -> Tensor:
        _check_shape(answers, values)
        apart: Tensor = (answers - values).square().flatten(1).sum(1) / squares
        return apart

    return distance


def _to_top(values: Tensor, indices: Tensor) -> Distance:
    squares = values.square().sum(1).clamp_min(_LEAST)

    def distance(answers: Tensor) -> Tensor:
        _check_classes(indices, answers)
        shown = (answers.gather(1, indices) - values).square().sum(1)
        hidden = (answers - values[:, -1:]).clamp_min(0.0).scatter(1, indices, 0.0).square().sum(1)
        return (shown + hidden) / squares

    return distance


def _to_probabilities(values: Tensor, indices: Tensor, *, all_shown: bool) -> Distance:
    """Of the classes shown (N, k), and all others as one."""
    if not bool(((values >= 0.0) & (values <= 1.0)).all()):
        raise DataError("the answers are no probabilities; give those that the defense let out.")
    rest = (1.0 - values.sum(1, keepdim=True)).clamp_min(0.0)
    shown = values if all_shown else torch.cat((values, rest), 1)
    sums = shown.sum(1, keepdim=True)
    shown = shown / sums.clamp_min(_LEAST)  # rounding leaves sums near 1; where all was rounded away nothing is known

    def distance(answers: Tensor) -> Tensor:
        log = answers.log_softmax(1)
        if all_shown:
            _check_shape(answers, values)
            given = log
        else:
            _check_classes(indices, answers)
            others = log.scatter(1, indices, -torch.inf).logsumexp(1, keepdim=True).clamp_min(-_FURTHEST)
            given = torch.cat((log.gather(1, indices), others), 1)
        apart: Tensor = (torch.special.xlogy(shown, shown) - shown * given).sum(1)
        return apart

    return distance


def _to_label(labels: Tensor) -> Distance:
    def distance(answers: Tensor) -> Tensor:
        _check_classes(labels, answers)
        own = answers.gather(1, labels[:, None])
        others = answers.scatter(1, labels[:, None], -torch.inf).max(1, keepdim=True).values
        apart: Tensor = (others - own + _MARGIN).clamp_min(0.0).square().squeeze(1)
        return apart

    return distance


def _tensor(given: Any, device: torch.device) -> Tensor:
    if not isinstance(given, Tensor):
        try:
            given = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError("targets", type(given).__name__, "a tensor or an array of answers") from None
    held: Tensor = given.detach().to(device)
    return held.clone() if held.is_inference() else held


def _check_finite(values: Tensor) -> None:
    wrong = ~values.flatten(1).isfinite().all(1)
    if bool(wrong.any()):
        raise DataError(f"answer {int(wrong.int().argmax())} holds NaN or infinity; leave it out.")


def _check_classes(classes: Tensor, answers: Tensor) -> None:
    if answers.dim() != 2 or int(classes.min()) < 0 or int(classes.max()) >= answers.shape[1]:
        found = f"classes {int(classes.min())} to {int(classes.max())}"
        raise ArgumentError("targets", found, f"classes of the network, whose answers are {tuple(answers.shape)}")


def _check_shape(answers: Tensor, values: Tensor) -> None:
    if answers.shape != values.shape:
        raise ArgumentError(
            "targets",
            tuple(values.shape),
            f"answers of the shape that this part of the network gives, {tuple(answers.shape)}",
        )


def _shown(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
