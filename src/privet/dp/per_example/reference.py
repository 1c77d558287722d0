"""The obviously right twin of the engine: a loop over single examples, in no hurry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from privet.dp.batches import slice_data
from privet.dp.clipping import ClippingState, ClippingStrategy
from privet.errors import PrivateTrainingError

__all__ = ["clipped_sum", "per_example_gradients"]


def per_example_gradients(
    model: nn.Module, per_example_loss: Callable[[Any], Tensor], data: Any, size: int
) -> dict[str, Tensor]:
    r"""Each example's gradient, from a forward and a backward pass of its own by ordinary autograd.

    .. math:: G_i = \nabla_\theta \, \ell(\theta; \{x_i\})

    Args:
        model: its trainable parameters are those with ``requires_grad``. Its mode and ``.grad`` stay as they are.
        per_example_loss: from data of B examples to their losses, (B,). It is called with one example at a time.
        data: B examples, as for :func:`privet.dp.batches.slice_data`.
        size: B.

    Returns:
        For each trainable parameter (B, \*shape), zeros where a loss does not depend on it. A parameter with several
        names is there once, under the first, with the gradient of all its uses.

    Raises:
        PrivateTrainingError: the loss of one example is not of shape (1,).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> found = per_example_gradients(model, lambda x: 3 * model(x)[:, 0], torch.tensor([[1.0], [2.0]]), 2)
        >>> found["weight"].flatten()
        tensor([3., 6.])
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for index in range(size):
        gradients = _gradients(parameters, per_example_loss, slice_data(data, index, index + 1))
        for name, gradient in gradients.items():
            rows[name].append(gradient)
    return {
        name: torch.stack(rows[name]) if size else parameter.detach().new_zeros(0, *parameter.shape)
        for name, parameter in parameters.items()
    }


def _gradients(
    parameters: Mapping[str, nn.Parameter], per_example_loss: Callable[[Any], Tensor], example: Any
) -> dict[str, Tensor]:
    with torch.enable_grad():
        losses = per_example_loss(example)
    if losses.shape != (1,):
        raise PrivateTrainingError(
            f"the per-example loss returned shape {tuple(losses.shape)} for a single example; shape (1,) is needed."
        )
    found: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if losses.requires_grad:
        found = torch.autograd.grad(losses[0], tuple(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient.detach()
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def clipped_sum(
    gradients: Mapping[str, Tensor], strategy: ClippingStrategy, state: ClippingState | None = None
) -> dict[str, Tensor]:
    r"""The sum of the clipped gradients, example after example in float64, before noise.

    .. math:: \sum_i f_{g,i} G_{g,i}

    with the factors f that the strategy gives to the norms of each group g. An example that is not finite in any
    group is left out of all of them.

    Args:
        gradients: of each parameter, (B, \*shape), as :func:`per_example_gradients` gives them.
        strategy: which parameters are clipped together, and how.
        state: the clip norms; None for those of the first step.

    Returns:
        For each parameter its shape, float64.

    Example:
        >>> from privet.dp.clipping import FixedNorm
        >>> clipped_sum({"w": torch.tensor([[3.0, 4.0], [0.0, 0.5]])}, FixedNorm(1.0))["w"]
        tensor([0.6000, 1.3000], dtype=torch.float64)
    """
    groups = strategy.groups(tuple(gradients))
    exact = {name: gradient.detach().double() for name, gradient in gradients.items()}
    norms = torch.stack([_norms([exact[name] for name in group]) for group in groups])  # (G, B)
    factors = strategy.clip(strategy.initial(len(groups)) if state is None else state, norms).factors
    total = {name: gradient.new_zeros(gradient.shape[1:]) for name, gradient in exact.items()}
    for index in norms.isfinite().all(dim=0).nonzero().flatten().tolist():
        for number, group in enumerate(groups):
            for name in group:
                total[name] += factors[number, index] * exact[name][index]
    return total


def _norms(gradients: list[Tensor]) -> Tensor:
    squares = [gradient.reshape(len(gradient), -1).square().sum(dim=1) for gradient in gradients]  # (B,) each
    return torch.stack(squares).sum(dim=0).sqrt()
