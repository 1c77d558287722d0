"""Attacks that need the model and two sets of records, and no training of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from privet.attacks.membership.answers import Answers, answers_of, scaled_confidence
from privet.attacks.membership.pool import Pool
from privet.attacks.membership.scores import MembershipScores
from privet.attacks.target import Target

__all__ = ["confidence", "entropy", "loss", "loss_threshold", "modified_entropy", "threshold_attacks"]

Floats = NDArray[np.float64]


def loss(answers: Answers) -> Floats:
    r"""Score each record by the negative of its cross-entropy loss.

    .. math:: s(x, y) = \log p_y(x) = -\log(1 + e^{-\phi(x, y)})

    Taken from the log-odds :math:`\phi`, losses far below the spacing of float64 numbers near 1 are still told apart.

    Args:
        answers: what the target said about P records.

    Returns:
        (P,), at most 0.

    References:
        Yeom et al., "Privacy risk in machine learning: analyzing the connection to overfitting", 2018, section 3.
    """
    return -np.logaddexp(0.0, -answers.scaled_confidence())


def confidence(answers: Answers) -> Floats:
    r"""Score each record by the largest probability, whichever class it is for: no label is needed.

    .. math:: s(x) = \log \max_c p_c(x)

    Args:
        answers: what the target said about P records.

    Returns:
        (P,), at most 0.

    References:
        Salem et al., "ML-Leaks: model and data independent membership inference attacks", 2019, section V.
    """
    likeliest = answers.log_probabilities.argmax(1)
    return -np.logaddexp(0.0, -scaled_confidence(answers.log_probabilities, likeliest, answers.form))


def entropy(answers: Answers) -> Floats:
    r"""Score each record by how little the answer is spread over the classes: no label is needed.

    .. math:: s(x) = \sum_c p_c(x) \log p_c(x)

    Args:
        answers: what the target said about P records.

    Returns:
        (P,), the negative of the entropy in nats.

    References:
        Salem et al., "ML-Leaks: model and data independent membership inference attacks", 2019, section V.
    """
    scores: Floats = (np.exp(answers.log_probabilities) * answers.log_probabilities).sum(1)
    return scores


def modified_entropy(answers: Answers) -> Floats:
    r"""Score each record by the entropy that knows the label: sure and right is best, sure and wrong is worst.

    .. math:: s(x, y) = (1 - p_y) \log p_y + \sum_{c \ne y} p_c \log(1 - p_c)

    Args:
        answers: what the target said about P records.

    Returns:
        (P,), the negative of the modified entropy.

    References:
        Song and Mittal, "Systematic evaluation of privacy risks of machine learning models", 2021, section 4.2.
    """
    logs, rows = answers.log_probabilities, np.arange(len(answers.labels))
    likeliest = logs.argmax(1)
    # log(1 - p) = log p - logit p, where it matters: of a probability near 1. Only one a row is above 1/2.
    without = np.log1p(-np.minimum(np.exp(logs), 0.5))  # (P, C)
    own = logs[rows, likeliest]
    without[rows, likeliest] = np.minimum(own - scaled_confidence(logs, likeliest, answers.form), 0.0)
    terms = np.exp(logs) * without
    terms[rows, answers.labels] = np.exp(without[rows, answers.labels]) * logs[rows, answers.labels]
    scores: Floats = terms.sum(1)
    return scores


_ATTACKS: dict[str, Callable[[Answers], Floats]] = {
    "loss threshold": loss,
    "confidence": confidence,
    "entropy": entropy,
    "modified entropy": modified_entropy,
}


def threshold_attacks(answers: Answers) -> tuple[MembershipScores, ...]:
    """Run every attack that is one threshold for all records.

    Args:
        answers: what the target said about the pool.

    Returns:
        The scores of "loss threshold", "confidence", "entropy" and "modified entropy". Behind labels alone all of them
        say the same, and there is one: "label is right", with 1.0 where it is and 0.0 where it is not.

    Example:
        >>> answers = Answers(np.log([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]), members=1)
        >>> [scores.attack for scores in threshold_attacks(answers)]
        ['loss threshold', 'confidence', 'entropy', 'modified entropy']
    """
    if answers.form.labels_only:
        right = (answers.log_probabilities.argmax(1) == answers.labels).astype(np.float64)
        return (_split("label is right", right, answers.members),)
    return tuple(_split(name, score(answers), answers.members) for name, score in _ATTACKS.items())


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
        DataError: if the sets cannot be used, or have an input in common (see
            :meth:`~privet.attacks.membership.Pool.of`).
        LabelError: if a label is not an integer in 0 ... classes - 1.

    References:
        Yeom et al., "Privacy risk in machine learning: analyzing the connection to overfitting", 2018, section 3.
    """
    pool = Pool.of(members, non_members, target.classes)
    return _split("loss threshold", loss(answers_of(target, pool)), pool.members)


def _split(attack: str, scores: Floats, members: int) -> MembershipScores:
    return MembershipScores(attack, scores[:members], scores[members:])
