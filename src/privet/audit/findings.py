"""What an audit holds beside its attacks: the blind check, its controls, and what is true of the training procedure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privet.statistics import Estimate, RateAtRate

__all__ = ["BlindCheck", "NullControl", "PlantedControl", "Procedure"]


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
    """Every attack once more, with membership shuffled: nothing is left to find.

    Attributes:
        confidence: with which all attacks together find nothing, if the audit is right.
        found: the attacks that found something nevertheless.
    """

    confidence: float
    found: tuple[str, ...]


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
