"""What the target said about the pool: asked once, read by every attack that needs no training of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.pool import Pool
from privet.attacks.target import Target
from privet.errors import ArgumentError, DataError, LabelError
from privet.output_form import OutputForm

__all__ = ["Answers", "answers_of", "scaled_confidence"]

_EVERYTHING = OutputForm()
_TOLD_APART = 6  # decimals; with more, float32 has no finer steps near 1 than the rounding


@dataclass(frozen=True, eq=False)
class Answers:
    """The target's answers about every record of a pool.

    Attributes:
        log_probabilities: (P, C), with what a defense withheld imputed (see
            :class:`~privet.attacks.target.Target`).
        labels: the records' own labels (P,).
        members: how many were trained on, M; records 0 ... M - 1 are members.
        form: what the target lets out.
        copies: records of the same number have the same input (P,); None: all differ.

    Raises:
        DataError: if the shapes do not fit each other, or a log-probability is no finite number.
        LabelError: if a label is no integer in 0 ... C - 1.

    Example:
        >>> answers = Answers(np.log([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]), members=1)
        >>> answers.scaled_confidence().round(3)
        array([1.386, 0.   ])
    """

    log_probabilities: NDArray[np.float64]  # (P, C)
    labels: NDArray[np.int64]  # (P,)
    members: int
    form: OutputForm = _EVERYTHING
    copies: NDArray[np.intp] | None = None  # (P,)

    def __post_init__(self) -> None:
        shape = self.log_probabilities.shape
        if len(shape) != 2 or self.labels.shape != shape[:1] or not 0 < self.members < shape[0]:
            raise DataError(
                f"log-probabilities of shape {shape}, labels of shape {self.labels.shape} and {self.members} members; "
                "give (P, C), (P,) and between 1 and P - 1."
            )
        if not np.isfinite(self.log_probabilities).all():
            raise DataError("a log-probability is NaN or infinite; leave such records out.")
        if self.labels.dtype.kind not in "iu" or self.labels.min() < 0 or self.labels.max() >= shape[1]:
            raise LabelError(f"labels are {self.labels.dtype}, or not all in 0 ... {shape[1] - 1}; give such integers.")

    @property
    def is_member(self) -> NDArray[np.bool_]:
        """Which records the target was trained on (P,)."""
        return np.arange(len(self.labels)) < self.members

    def scaled_confidence(self) -> NDArray[np.float64]:
        """Each record's confidence in its own label, as log-odds (P,): see :func:`scaled_confidence`."""
        return scaled_confidence(self.log_probabilities, self.labels, self.form)


def scaled_confidence(
    log_probabilities: NDArray[np.float64], labels: NDArray[np.int64], form: OutputForm = _EVERYTHING
) -> NDArray[np.float64]:
    r"""The confidence in a record's own label as log-odds, which is close to normal over retrained networks.

    .. math:: \phi(x, y) = \log p_y(x) - \log \sum_{c \ne y} p_c(x)

    The sum is taken over the other classes, not as 1 - p_y, so that confidences that float32 would call 1 are told
    apart. Where a defense rounds probabilities, p_y is all there is to know: the other classes' imputed remainders must
    not move it out of its own cell, and it is :math:`\log p_y - \log(1 - p_y)` with p_y at least a quarter of a unit
    away from 0 and 1; rounding :math:`1 / (1 + e^{-\phi})` gives back what was answered. (With more than six decimals
    float32 rounds no less than the defense does, and the sum is taken.)

    Args:
        log_probabilities: (n, C), finite.
        labels: the class y of each record (n,), in 0 ... C - 1.
        form: what the target lets out; the default is everything.

    Returns:
        (n,) float64.

    Example:
        >>> scaled_confidence(np.log([[0.9, 0.05, 0.05]]), np.array([0])).round(3)
        array([2.197])

    References:
        Carlini et al., "Membership inference attacks from first principles", 2022, section V-C.
    """
    rows = np.arange(len(labels))
    own = log_probabilities[rows, labels].astype(np.float64)  # (n,)
    if form.probabilities and form.decimals is not None and form.decimals <= _TOLD_APART:
        edge = 10.0**-form.decimals / 4.0
        share = np.clip(np.exp(own), edge, 1.0 - edge)
        odds: NDArray[np.float64] = np.log(share) - np.log1p(-share)
        return odds
    others = np.array(log_probabilities, dtype=np.float64)  # (n, C)
    others[rows, labels] = -np.inf
    largest = others.max(1)  # (n,)
    return np.asarray(own - largest - np.log(np.exp(others - largest[:, None]).sum(1)))


def answers_of(target: Target, pool: Pool) -> Answers:
    """Ask the target about every record of the pool, once.

    Args:
        target: the model as the attacker sees it.
        pool: the records.

    Returns:
        Its answers.

    Raises:
        ArgumentError: if target and pool differ in the number of classes.
        DataError: if an answer is not what the target's form says.

    Example:
        >>> import torch
        >>> pool = Pool.of((torch.eye(3), torch.arange(3)), (-torch.eye(3), torch.arange(3)), classes=3)
        >>> answers_of(Target(torch.nn.Identity(), classes=3), pool).log_probabilities.shape
        (6, 3)
    """
    if target.classes != pool.classes:
        raise ArgumentError("target", f"of {target.classes} classes", f"one of {pool.classes} classes, as the pool has")
    return Answers(target.ask(pool.inputs).numpy(), pool.labels.numpy(), pool.members, target.form, pool.copies)
