"""What an optimizer remembers of masked weights is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.optim import LBFGS, Optimizer, SparseAdam

from privet.errors import ArgumentError
from privet.suppression.layers import Chosen
from privet.suppression.mask import Mask

__all__ = ["check_optimizer", "forget"]


def check_optimizer(optimizer: object, chosen: Sequence[Chosen]) -> None:
    """Refuse an optimizer that cannot train the chosen weights.

    Raises:
        ArgumentError: it is none, is SparseAdam, or leaves a chosen parameter out.
    """
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError("optimizer", optimizer, "a torch.optim.Optimizer over the model's parameters")
    if isinstance(optimizer, SparseAdam):
        raise ArgumentError("optimizer", "SparseAdam", "an optimizer of dense gradients", "Masks need all of them.")
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for one in chosen:
        if id(one.parameter) not in trained:
            raise ArgumentError(
                "optimizer",
                type(optimizer).__name__,
                f"an optimizer that trains {one.name!r}",
                "Make it over the parameters of this very model, or add_param_group first; or leave the layer out.",
            )


def forget(optimizer: Optimizer, parameter: Tensor, mask: Mask) -> None:
    """Set to zero what ``optimizer`` keeps for the masked entries of a parameter: momenta, squares, averages.

    Everything it keeps in the parameter's shape, that is. LBFGS keeps a history of whole steps, which is about weights
    that are gone: it begins anew.

    Args:
        optimizer: any of torch.optim, or like those.
        parameter: one of its parameters.
        mask: of that parameter.
    """
    if isinstance(optimizer, LBFGS):
        optimizer.state.clear()
        return
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            mask.clear(value)
