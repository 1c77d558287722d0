"""Scores of few decimals."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from privet.outputs.defense import Defense
from privet.outputs.part import Part
from privet.outputs.steps import Round

__all__ = ["Rounding"]


class Rounding(Defense):
    """A network that answers its probabilities rounded.

    ``round(p * 10^decimals) / 10^decimals``, halves to even, where ``p`` is the softmax over the last axis. It is
    computed in float64 and then brought to the network's own type. Rounding minimises what is answered; it carries no
    formal guarantee, and an adaptive attacker loses little.

    Args:
        network: a trained network, or a defense around one.
        decimals: how many are kept, 0 to 15; what the network's type tells apart is the limit (float16 3, bfloat16 2,
            float32 6), found at the first call.
        softmax: the network answers logits, and their softmax is rounded; False: its answers are rounded as they are.
            Around another defense it has no effect, for the innermost one decides.
        part: what of the network's output to defend: a key, field or position, or a :class:`Part`; the rest is dropped.
        keep: parts that are answered as they are, next to the defended one, of which they must hold nothing.

    Raises:
        ArgumentError: an argument is outside of what is allowed.

    Example:
        >>> import torch
        >>> Rounding(torch.nn.Identity().eval(), 2)(torch.tensor([[0.0, 1.0, 2.0]]))
        tensor([[0.0900, 0.2400, 0.6700]])

    References:
        Fredrikson, Jha, Ristenpart (2015): rounded confidences against model inversion. Jia, Salem, Backes, Zhang, Gong
        (2019) and Choquette-Choo, Tramer, Carlini, Papernot (2021): why such masking alone does not hold.
    """

    def __init__(
        self,
        network: nn.Module,
        decimals: int,
        softmax: bool = True,
        *,
        part: Part | str | int | None = None,
        keep: Sequence[Part | str | int] = (),
    ) -> None:
        super().__init__(network, Round(decimals), softmax=softmax, part=part, keep=keep)
