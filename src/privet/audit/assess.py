"""From scores to estimates that hold at once, and to the question whether any of them excludes chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privet.attacks.membership import MembershipScores
from privet.audit.result import RATES
from privet.statistics import Estimate, RateAtRate, auc_interval, tpr_at_fpr

__all__ = ["Assessment", "assess", "family_size", "finds", "rates_of", "shown_rates", "single_confidence"]


@dataclass(frozen=True)
class Assessment:
    """What the scores of one attack say.

    Attributes:
        auc: area under the ROC.
        rates: true positive rates at the false positive rates that the sample can show.
    """

    auc: Estimate
    rates: Mapping[float, RateAtRate]

    @property
    def leaks(self) -> bool:
        """An interval excludes chance.

        The lower end of a true positive rate lies above the upper end of its false positive rate; or the lower end of
        the area lies above 1/2, which no attack attains unless some rule of it accuses members more often than others.
        """
        return self.auc.low > 0.5 or finds(self.rates)


def finds(rates: Mapping[float, RateAtRate]) -> bool:
    """Whether the lower end of any true positive rate lies above the upper end of its false positive rate."""
    return any(one.tpr.low > one.fpr.high for one in rates.values())


def shown_rates(non_members: int) -> tuple[float, ...]:
    """The rates among :data:`RATES` that so many non-members can show: those of which one of them makes no more."""
    return tuple(rate for rate in RATES if rate * non_members >= 1.0 - 1e-9)


def family_size(scores: Mapping[str, MembershipScores]) -> int:
    """How many tests are made on these scores: the area, and each rate that can be shown, of each attack."""
    return sum(1 + len(shown_rates(one.non_members.size)) for one in scores.values())


def single_confidence(confidence: float, tests: int) -> float:
    r"""The confidence of each of so many intervals with which all of them hold at once, by Bonferroni.

    .. math:: 1 - (1 - c) / T
    """
    return 1.0 - (1.0 - confidence) / tests


def rates_of(scores: MembershipScores, confidence: float) -> dict[float, RateAtRate]:
    """The true positive rate at each rate that can be shown; each interval at ``confidence``."""
    return {
        rate: tpr_at_fpr(scores.members, scores.non_members, rate, confidence)
        for rate in shown_rates(scores.non_members.size)
    }


def assess(scores: Mapping[str, MembershipScores], *, confidence: float, seed: int) -> dict[str, Assessment]:
    """Judge every attack, so that with probability ``confidence`` every area and true positive rate is covered.

    What is judged is fixed beforehand: every attack, its area, and its true positive rate at each of :data:`RATES`. A
    leak is named where an interval excludes chance, so without one any leak is named with probability at most
    1 - ``confidence``.

    Args:
        scores: of each attack, by name.
        confidence: of all intervals together, in (0, 1).
        seed: of the resampling, >= 0.

    Returns:
        An assessment for each attack, by name.

    Raises:
        DataError: scores hold a NaN.
        SampleTooSmallError: there are fewer than ten members or non-members.
    """
    single = single_confidence(confidence, family_size(scores))
    return {
        name: Assessment(
            auc_interval(one.members, one.non_members, seed=seed, confidence=single), rates_of(one, single)
        )
        for name, one in scores.items()
    }
