"""Labels alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privet.outputs.defense import Defense
from privet.outputs.part import Part
from privet.outputs.steps import Label

__all__ = ["Labeling"]


class Labeling(Defense):
    """A network that answers the label of each row and nothing else.

    ``argmax`` over the last axis, int64 of shape ``(...)``; of equal scores the lowest class. Labels minimise what is
    answered; they carry no formal guarantee, and label-only attacks remain.

    Args:
        network: a trained network, or a defense around one that still answers scores.
        part: what of the network's output to defend: a key, field or position, or a :class:`Part`; the rest is dropped.
        keep: parts that are answered as they are, next to the defended one, of which they must hold nothing.

    Raises:
        ArgumentError: an argument is outside of what is allowed.

    Example:
        >>> import torch
        >>> Labeling(torch.nn.Identity().eval())(torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]]))
        tensor([1, 0])

    References:
        Choquette-Choo, Tramer, Carlini, Papernot (2021): membership inference from labels alone.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        part: Part | str | int | None = None,
        keep: Sequence[Part | str | int] = (),
    ) -> None:
        super().__init__(network, Label(), softmax=False, part=part, keep=keep)
