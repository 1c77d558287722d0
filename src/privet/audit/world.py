"""What the attacks of an audit see, as a value: so that a control is another such value, seen by the same attacks."""

from __future__ import annotations

from collections.abc import Callable
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
        undefended: what the shadow models say without the target's defense (K, P, Q); None where there is none, or
            labels alone are let out.
    """

    signals: NDArray[Any]
    membership: NDArray[np.bool_]
    blocks: NDArray[np.intp]
    target: NDArray[Any]
    undefended: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        shadows, records = self.membership.shape
        if self.signals.shape[:2] != (shadows, records) or self.target.shape != self.signals.shape[1:]:
            raise DataError(
                f"signals of shape {self.signals.shape}, membership of shape {self.membership.shape} and a target of "
                f"shape {self.target.shape} do not fit each other; give (K, P, Q), (K, P) and (P, Q)."
            )

    @property
    def full(self) -> NDArray[Any]:
        """The fullest answers that the attacker has of its shadow models (K, P, Q): laws are fitted to these."""
        return self.signals if self.undefended is None else self.undefended

    def changed(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> ShadowEvidence:
        """The same change to all that the shadow models say, with the defense and without."""
        undefended = None if self.undefended is None else change(np.asarray(self.undefended))
        return replace(self, signals=change(np.asarray(self.signals)), undefended=undefended)


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
        moved = here.changed(lambda signals: signals[:, order])
        return World(answers, replace(moved, membership=here.membership[:, order], target=here.target[order]))

    def shuffled(self, seed: int) -> World:
        """The same records with membership shuffled: which come first says nothing any more."""
        return self.in_order(np.random.default_rng((seed, 2)).permutation(len(self.answers.labels)))
