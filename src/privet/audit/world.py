"""What the attacks of an audit see, as a value: so that a control is another such value, seen by the same attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership import Answers
from privet.errors import DataError

__all__ = ["ShadowEvidence", "World"]


@dataclass(frozen=True, eq=False)
class ShadowEvidence:
    """What shadow models and the target say about every record.

    Attributes:
        signals: of K shadows about P records, by Q queries (K, P, Q): scaled confidences, or votes behind labels.
        membership: shadow k was trained on record p (K, P).
        blocks: shadows of one block have memberships that depend on one another (K,).
        target: of the target itself (P, Q).
    """

    signals: NDArray[Any]
    membership: NDArray[np.bool_]
    blocks: NDArray[np.intp]
    target: NDArray[Any]

    def __post_init__(self) -> None:
        shadows, records = self.membership.shape
        if self.signals.shape[:2] != (shadows, records) or self.target.shape != self.signals.shape[1:]:
            raise DataError(
                f"signals of shape {self.signals.shape}, membership of shape {self.membership.shape} and a target of "
                f"shape {self.target.shape} do not fit each other; give (K, P, Q), (K, P) and (P, Q)."
            )


@dataclass(frozen=True, eq=False)
class World:
    """What the attacker sees of P records, members first.

    Attributes:
        answers: what the target says about them.
        shadows: what shadow models say; None without them.
    """

    answers: Answers
    shadows: ShadowEvidence | None = None

    def in_order(self, order: NDArray[np.intp]) -> World:
        """The same records in another order (P,): the first of them are then taken to be the members."""
        answers = replace(
            self.answers,
            log_probabilities=self.answers.log_probabilities[order],
            labels=self.answers.labels[order],
        )
        here = self.shadows
        if here is None:
            return World(answers)
        moved = ShadowEvidence(here.signals[:, order], here.membership[:, order], here.blocks, here.target[order])
        return World(answers, moved)

    def shuffled(self, seed: int) -> World:
        """The same records with membership shuffled: which come first says nothing any more."""
        return self.in_order(np.random.default_rng((seed, 2)).permutation(len(self.answers.labels)))
