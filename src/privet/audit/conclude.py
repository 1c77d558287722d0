"""From what was found, and what the controls say about it, to the verdict and its reason in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from privet.audit.assess import Assessment, finds
from privet.audit.findings import BlindCheck, ExchangeControl, NullControl, PlantedControl
from privet.audit.result import RATES, AttackResult, backwards
from privet.audit.runs import Run
from privet.audit.verdict import Verdict
from privet.statistics import RateAtRate
from privet.statistics.sample_size import records_needed

if TYPE_CHECKING:
    from privet.audit.claim import ClaimAudit

__all__ = ["attack_results", "conclude", "planted_control"]


_UNRUN = (
    "The attacks that need the model alone found no leak, but those with shadow models, which were asked for and find "
    "most, did not run: too few of these were trained. Give more time."
)


def attack_results(
    runs: Mapping[str, Run],
    judged: Mapping[str, Assessment],
    planted: Mapping[str, Assessment],
    required: frozenset[str],
) -> tuple[AttackResult, ...]:
    """Put together, for each attack, what it found on the target and whether it finds the planted leak."""
    return tuple(
        AttackResult(
            name=name,
            tier=run.tier,
            scores=run.scores,
            auc=judged[name].auc,
            rates=judged[name].rates,
            leaks=judged[name].leaks,
            planted_found=planted[name].leaks,
            required=name in required,
            details=run.details,
        )
        for name, run in runs.items()
    )


def planted_control(
    attacks: Sequence[AttackResult], *, share: float, count: int, members: int, non_members: int, confidence: float
) -> PlantedControl:
    """Which required attacks missed the planted leak, and how many records would help.

    Args:
        attacks: with what each found.
        share: of the members that were memorised.
        count: how many these are.
        members: M.
        non_members: N.
        confidence: of each interval.
    """
    missing = [one for one in attacks if one.required and not one.planted_found]
    needed = None
    if any(rate.reached for one in missing for rate in one.rates.values()) or min(members, non_members) < 1 / max(
        RATES
    ):
        needed = min(records_needed(share + rate, rate, confidence) for rate in RATES)
        needed = None if needed <= min(members, non_members) else needed
    return PlantedControl(share, count, tuple(one.name for one in missing), needed)


def conclude(
    attacks: Sequence[AttackResult],
    *,
    null: NullControl,
    planted: PlantedControl,
    exchange: ExchangeControl | None = None,
    blind: BlindCheck | None = None,
    claim: ClaimAudit | None = None,
    shadows: int = 0,
    unrun: bool = False,
    doubt: str = "",
    scores_only: bool = False,
) -> tuple[Verdict, str]:
    """The first verdict that applies, and why.

    Args:
        attacks: what each found.
        null: the control with nothing to find.
        planted: the control with a leak to find.
        exchange: the control that shadow models are kept apart; None without them.
        blind: the check of the two sets; None where only scores are known.
        claim: what canaries prove beside what is claimed; None without canaries.
        shadows: how many shadow models were evaluated.
        unrun: shadow models were asked for, and too few were trained for any attack.
        doubt: a sentence to be said where nothing was found; "" for none.
        scores_only: the attack itself could not be run again.
    """
    if claim is not None and claim.violated:
        return Verdict.CLAIM_VIOLATED, claim.words
    if invalid := _invalid(null, exchange, blind):
        return Verdict.INVALID, invalid
    leaking = [one for one in attacks if one.leaks]
    if leaking:
        return Verdict.LEAK, _leak(leaking)
    if backwards(attacks):
        return Verdict.INVALID, _backwards(attacks)
    if unrun:
        return Verdict.UNDERPOWERED, _UNRUN
    if planted.missed:
        return Verdict.UNDERPOWERED, _underpowered(planted, shadows, scores_only, doubt)
    return Verdict.NO_LEAK_FOUND, _nothing(attacks, planted) + (f" {doubt}" if doubt else "")


def _nothing(attacks: Sequence[AttackResult], planted: PlantedControl) -> str:
    found = [one.name for one in attacks if one.planted_found]
    many = len(attacks) > 1
    return (
        f"{f'None of the {len(attacks)} attacks' if many else 'The attack'} found {'anything' if many else 'nothing'} "
        f"that chance does not explain. A planted leak, {_size(planted)}, was found"
        f"{f' by {_listed(found)}' if many else ''}; weaker leaks and other attacks are not ruled out."
    )


def _invalid(null: NullControl, exchange: ExchangeControl | None, blind: BlindCheck | None) -> str:
    if blind is not None and blind.differs:
        return (
            "Members and non-members can be told apart without the model: a classifier that sees the records alone has "
            f"a ROC area of {blind.auc.value:.3f} (at least {blind.auc.low:.3f}, with {blind.auc.confidence:.0%} "
            f"confidence; {blind.limit:g} is allowed). Draw both sets from the same source, at random, and prepare "
            "them in the same way."
        )
    if exchange is not None and exchange.broken:
        return (
            f"{_listed(exchange.broken)}: the answers of shadow models that were trained on a record are mixed with "
            "those of others, so nothing this audit found can be read. This is a fault of the audit."
        )
    if null.found:
        return (
            f"With membership shuffled, where there is nothing to find, {_listed(null.found)} found something "
            f"nevertheless (at {null.confidence:.1%} confidence), so nothing this audit found can be read. This is a "
            "fault of the audit, or one audit in 1,000; run it again with another seed."
        )
    if null.broken:
        return (
            f"In {null.alarms} of {null.runs} runs with membership shuffled the test found a leak; at most "
            f"{null.alarms_allowed} are to be expected, so nothing this audit found can be read. This is a fault of "
            "the audit."
        )
    return ""


def _leak(leaking: Sequence[AttackResult]) -> str:
    """The finding that stands out most from chance, and how many attacks found one."""
    by_rate = [(rate, one) for one in leaking for rate in one.rates.values() if finds({rate.asked: rate})]
    also = f" In all, {len(leaking)} attacks found a leak." if len(leaking) > 1 else ""
    if not by_rate:
        best = max(leaking, key=lambda one: one.auc.low)
        return (
            f"{_named(best)}: members are told from others with an area of {best.auc.value:.3f} under the ROC (from "
            f"{best.auc.low:.3f} to {best.auc.high:.3f}), where 0.5 is chance.{also}"
        )
    rate, best = max(by_rate, key=lambda pair: pair[0].tpr.low / pair[0].fpr.high)
    return f"{_named(best)}: {_rate_in_words(rate)}{also}"


def _backwards(attacks: Sequence[AttackResult]) -> str:
    """Said instead of "nothing found": whoever turns such scores round finds members."""
    lowest = min(attacks, key=lambda one: one.auc.high)
    return (
        f"{_named(lowest)}: members score lower than others, with an area of {lowest.auc.value:.3f} under the ROC (at "
        f"most {lowest.auc.high:.3f}, where 0.5 is chance). The two sets are told apart, but the wrong way round: "
        "check that members and non-members are not exchanged, and that a higher score means member. A model that was "
        "made less sure of its members than of others gives them away, too."
    )


def _rate_in_words(rate: RateAtRate) -> str:
    return (
        f"{rate.tpr.value:.1%} of the members are found (from {rate.tpr.low:.1%} to {rate.tpr.high:.1%}) where "
        f"{rate.fpr.value:.2%} of the others are wrongly accused (at most {rate.fpr.high:.2%})."
    )


def _underpowered(planted: PlantedControl, shadows: int, scores_only: bool, doubt: str) -> str:
    if doubt:
        advice = doubt
    elif planted.records_needed is not None:
        advice = f"Give {planted.records_needed:,} members and as many non-members."
    elif scores_only:
        advice = "The scores tell too few records apart; give finer ones, or audit the model itself."
    elif shadows:
        advice = f"More shadow models than {shadows} may help; more records do not."
    else:
        advice = "More records do not help: give train_fn, so that shadow models show how each record is answered."
    return (
        "No leak was found, but this audit could not have found one of the size it is held to: a planted leak, "
        f"{_size(planted)}, was missed by {_listed(planted.missed)}. {advice}"
    )


def _size(planted: PlantedControl) -> str:
    members = "1 member" if planted.members == 1 else f"{planted.members:,} members"
    return f"{members} ({planted.share:.0%}) memorised outright"


def _named(attack: AttackResult) -> str:
    return f"{attack.name[0].upper()}{attack.name[1:]}"


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
