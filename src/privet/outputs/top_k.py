"""The highest scores alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privet.outputs.defense import Defense
from privet.outputs.part import Part
from privet.outputs.steps import Top

__all__ = ["TopK"]


class TopK(Defense):
    """A network that answers the ``k`` highest probabilities and their classes.

    The answer is a :class:`TopKOutput` ``(values, indices)``, each ``(..., k)``, in descending order of what is
    answered; of equal values the lowest class comes first. It minimises what is answered; it carries no formal
    guarantee, and an adaptive attacker loses little.

    Args:
        network: a trained network, or a defense around one. ``TopK(Rounding(network, 2), 3)`` and
            ``Rounding(TopK(network, 3), 2)`` are the same: scores are rounded before they are ordered.
        k: how many are kept, from 1 to the number of classes (which is known at the first call).
        softmax: the network answers logits, and their softmax is answered; False: its answers are taken as they are.
            Around another defense it has no effect, for the innermost one decides.
        part: what of the network's output to defend: a key, field or position, or a :class:`Part`; the rest is dropped.
        keep: parts that are answered as they are, next to the defended one, of which they must hold nothing.

    Raises:
        ArgumentError: an argument is outside of what is allowed.

    Example:
        >>> import torch
        >>> from privet.outputs.rounding import Rounding
        >>> answer = TopK(Rounding(torch.nn.Identity().eval(), 2), 2)(torch.tensor([[0.0, 1.0, 2.0]]))
        >>> answer.values, answer.indices
        (tensor([[0.6700, 0.2400]]), tensor([[2, 1]]))
    """

    def __init__(
        self,
        network: nn.Module,
        k: int,
        softmax: bool = True,
        *,
        part: Part | str | int | None = None,
        keep: Sequence[Part | str | int] = (),
    ) -> None:
        super().__init__(network, Top(k), softmax=softmax, part=part, keep=keep)
