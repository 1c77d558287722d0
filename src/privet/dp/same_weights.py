"""Whether the ranks go on with the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from privet.dp.ranks import Ranks

__all__ = ["warn_of_other_weights"]

_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def warn_of_other_weights(ranks: Ranks, weights: Iterable[Tensor], step: int) -> None:
    """Say that ranks have other weights; no guarantee is at stake, since what each of them does is post-processing."""
    if ranks.size == 1:
        return
    others = ranks.others(f"the weights after step {step}", repr([_digest(one) for one in weights]))
    if others:
        warnings.warn(
            f"after step {step} rank {', '.join(map(str, others))} has other weights than rank 0, though all had the "
            "same gradients: another optimizer, learning rate or state of them? Of machines of two kinds the last bits "
            "may differ, too. The guarantee holds; the ranks train several models.",
            stacklevel=4,  # the user's loop
        )


def _digest(values: Tensor) -> int:
    """A sum of whole numbers, which is the same in any order, with as many threads as one likes."""
    return int(values.detach().view(_WHOLE[values.element_size()]).sum(dtype=torch.int64))
