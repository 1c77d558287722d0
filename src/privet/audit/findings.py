"""What an audit holds beside its attacks: the blind check, its controls, and what is true of the training procedure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privet.statistics import Estimate, RateAtRate

__all__ = ["BlindCheck", "ExchangeControl", "NullControl", "PlantedControl", "Procedure"]


@dataclass(frozen=True)
class BlindCheck:
    """A classifier that sees the records and never the model.

    Attributes:
        auc: area under its ROC on held-out records, with its interval at 99%.
        limit: the lower end may not lie above this.
        differs: True where it does: members and non-members differ in distribution, and no attack can be read.
    """

    auc: Estimate
    limit: float
    differs: bool


@dataclass(frozen=True)
class NullControl:
    """Every attack once more, in full, with membership shuffled: nothing is left to find.

    Attributes:
        confidence: with which all attacks together find nothing, if the audit is right.
        found: the attacks that found something nevertheless; the audit cannot be read if there is one.
        runs: how often membership was shuffled once more, and the same test as the audit's own made on the headline's
            scores and on two tied values of them.
        alarms: in how many of these runs the test found something.
        alarms_allowed: more alarms than this come from a wrong test: a right one has more once in 1,000 audits at most.
    """

    confidence: float
    found: tuple[str, ...]
    runs: int
    alarms: int
    alarms_allowed: int

    @property
    def broken(self) -> bool:
        """Whether something was found where nothing is."""
        return bool(self.found) or self.alarms > self.alarms_allowed


@dataclass(frozen=True)
class ExchangeControl:
    """Shadow models trained on a record and those that were not, exchanged: what an attack must do then is known.

    A likelihood ratio changes its sign, a mean over both kinds stays as it is, and what is fitted to one kind alone
    does not move with the other. An attack that fits one kind to answers of the other breaks this, however well it
    does.

    Attributes:
        broken: the attacks that do; the audit cannot be read if there is one.
    """

    broken: tuple[str, ...]


@dataclass(frozen=True)
class PlantedControl:
    """Every attack once more, with a share of the members made to look memorised outright: there is a leak to find.

    Attributes:
        share: of the members, from 0 to 1.
        members: how many of them.
        missed: the required attacks that did not find it; the audit could not have found such a leak.
        records_needed: so many members and as many non-members find a leak of this size four times in five; None where
            more records do not help.
    """

    share: float
    members: int
    missed: tuple[str, ...]
    records_needed: int | None = None


@dataclass(frozen=True)
class Procedure:
    """What the training procedure gives away: each shadow model in turn is the target, attacked by the others.

    Attributes:
        attack: how.
        shadows: how many models took their turn.
        auc: area under the ROC, all of them pooled; the interval resamples records and models.
        rates: true positive rate at a false positive rate, pooled in the same way, for each rate that was asked for.
    """

    attack: str
    shadows: int
    auc: Estimate
    rates: Mapping[float, RateAtRate]
