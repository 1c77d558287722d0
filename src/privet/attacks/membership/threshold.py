"""Attacks that need the model and two sets of records, and no training of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.attacks.target import Target
from privet.errors import DataError, LabelError

__all__ = ["MembershipScores", "loss_threshold"]


@dataclass(frozen=True)
class MembershipScores:
    """The evidence of a membership attack: one score a record, higher meaning "member".

    Attributes:
        attack: the attack's name.
        members: scores of records that were trained on (M,).
        non_members: scores of records that were not (N,).
    """

    attack: str
    members: NDArray[np.float64]
    non_members: NDArray[np.float64]


def loss_threshold(
    target: Target, members: tuple[Tensor, Tensor], non_members: tuple[Tensor, Tensor]
) -> MembershipScores:
    r"""Score each record by the log-probability of its own label, the negative of its cross-entropy loss.

    .. math:: s(x, y) = \log p_y(x)

    A network that over-fits gives its training records a smaller loss. What an output defense withholds is imputed
    (see :class:`~privet.attacks.target.Target`); behind labels alone the score says whether the label is right.

    This is the weakest attack worth running: one threshold for all records, however hard each of them is. What it finds
    is a leak; what it does not find may still be there.

    Args:
        target: the model as the attacker sees it.
        members: inputs (M, ...) and labels (M,) that were trained on.
        non_members: inputs (N, ...) and labels (N,) of the same distribution that were not.

    Returns:
        The scores of both sets.

    Raises:
        DataError: if a set is empty, or its inputs and labels differ in number.
        LabelError: if a label is not an integer in 0 ... classes - 1.

    References:
        Yeom et al., "Privacy risk in machine learning: analyzing the connection to overfitting", 2018, section 3.
    """
    for name, (inputs, labels) in (("members", members), ("non-members", non_members)):
        _check(name, inputs, labels, target.classes)
    return MembershipScores("loss threshold", _own_label(target, *members), _own_label(target, *non_members))


def _own_label(target: Target, inputs: Tensor, labels: Tensor) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = target.ask(inputs).gather(1, labels.cpu()[:, None])[:, 0].numpy()
    return scores


def _check(name: str, inputs: Tensor, labels: Tensor, classes: int) -> None:
    if len(inputs) != len(labels) or len(inputs) == 0:
        raise DataError(
            f"{name}: {len(inputs)} inputs and {len(labels)} labels; give as many of each, and at least one."
        )
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8) or labels.ndim != 1:
        raise LabelError(f"{name}: labels are {labels.dtype} of shape {tuple(labels.shape)}; give integers (N,).")
    wrong = torch.nonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise LabelError(f"{name}: label {first} is {int(labels[first])}; give integers in 0 ... {classes - 1}.")
