"""The null control: with membership shuffled there is nothing to find, and a right audit finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from privet.attacks.membership import MembershipScores
from privet.audit.assess import assess, finds, rates_of, shown_rates, single_confidence
from privet.audit.findings import NullControl
from privet.statistics import Estimate, clopper_pearson

__all__ = ["NULL_CONFIDENCE", "null_control"]

NULL_CONFIDENCE = 0.999
"""One right audit in 1,000 is called invalid by chance."""

_RUNS = 200
_MOST = 10_000  # of each side that are shuffled again: whether the test keeps what it says is seen with these
_TIED = "tied scores"


def null_control(
    shuffled: Mapping[str, MembershipScores],
    *,
    accuracies: Mapping[str, Estimate] = MappingProxyType({}),
    headline: str,
    confidence: float,
    seed: int,
) -> NullControl:
    """Judge attacks that were run on shuffled membership, and the test itself, two hundred times.

    Three kinds of faults come to light. An attack that is judged on records that it learned from finds them. A curve
    that sorts ties in favour of members finds the scores of the headline cut to two values. And a test
    that raises more false alarms than it says, as by a threshold chosen on the records it is judged by, raises them
    in more of the shufflings than it may.

    Args:
        shuffled: what every attack scored where membership was shuffled before it began.
        accuracies: what learned attacks say of their right answers there, where guessing has 1/2.
        headline: the attack whose scores are shuffled again.
        confidence: of the audit, which its test claims.
        seed: of the shuffling and resampling.

    Returns:
        What was found.
    """
    scores = shuffled[headline]
    tied = _cut(scores)
    judged = assess({**shuffled, _TIED: tied}, confidence=NULL_CONFIDENCE, seed=seed)
    found = [name for name, one in judged.items() if one.leaks]
    found += [f"{name} (accuracy)" for name, one in accuracies.items() if _beats_guessing(one, len(accuracies))]
    alarms = _alarms((scores, tied), confidence=confidence, seed=seed)
    allowed = int(binom.ppf(NULL_CONFIDENCE, _RUNS, 1.0 - confidence))
    return NullControl(NULL_CONFIDENCE, tuple(found), _RUNS, alarms, allowed)


def _beats_guessing(accuracy: Estimate, tests: int) -> bool:
    right, single = round(accuracy.value * accuracy.n), single_confidence(NULL_CONFIDENCE, tests)
    return clopper_pearson(right, accuracy.n, single).low > 0.5


def _cut(scores: MembershipScores) -> MembershipScores:
    """The same with two values only: the higher half of all records, and the lower."""
    order = np.argsort(np.concatenate((scores.members, scores.non_members)), kind="stable")
    upper = np.zeros(order.size)
    upper[order[order.size // 2 :]] = 1.0
    return MembershipScores(_TIED, upper[: scores.members.size], upper[scores.members.size :])


def _alarms(both: tuple[MembershipScores, ...], *, confidence: float, seed: int) -> int:
    """In how many shufflings the rates of any of them seem to exclude chance."""
    generator = np.random.default_rng((seed, 1))
    members, non_members = (min(side.size, _MOST) for side in (both[0].members, both[0].non_members))
    pools = [np.concatenate((one.members, one.non_members)) for one in both]
    single = single_confidence(confidence, max(len(both) * len(shown_rates(non_members)), 1))
    alarms = 0
    for _ in range(_RUNS):
        order = generator.permutation(pools[0].size)[: members + non_members]
        alarms += any(finds(rates_of(_split(pool[order], members), single)) for pool in pools)
    return alarms


def _split(pool: NDArray[np.float64], members: int) -> MembershipScores:
    return MembershipScores("shuffled", pool[:members], pool[members:])
