"""The verdict in plain words, and what it does not mean; one place for the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from privet.audit.result import backwards
from privet.audit.verdict import Verdict

if TYPE_CHECKING:
    from privet.audit.result import AttackResult, AuditResult
    from privet.output_form import OutputForm

__all__ = [
    "Control",
    "VerdictWords",
    "attack_words",
    "claim_control",
    "controls",
    "in_reading_order",
    "lets_out",
    "percent",
    "verdict_words",
]


@dataclass(frozen=True)
class VerdictWords:
    """A verdict for people who do not know the word.

    Attributes:
        title: the finding as a short sentence.
        caveat: what it does not mean, after those words.
        tone: "leak", "limit" or "plain"; no verdict has a colour that says all is well.
    """

    title: str
    caveat: str
    tone: str


@dataclass(frozen=True)
class Control:
    """A control of the audit itself: what was done, and what came of it.

    Attributes:
        title: its name.
        held: True if it came out as it must.
        mark: the same in a word or two.
        body: what was done and what came of it.
    """

    title: str
    held: bool
    mark: str
    body: str


def percent(share: float) -> str:
    """A share that is exact, such as one that was asked for."""
    return f"{100.0 * share:g}%"


def readable(result: AuditResult) -> bool:
    """Whether what the attacks found may be read, also where a violated claim is the verdict and hides it."""
    blind, exchange = result.blind, result.exchange
    broken = result.null.broken or (blind is not None and blind.differs) or (exchange is not None and exchange.broken)
    return result.verdict is not Verdict.INVALID and not broken and not backwards(result.attacks)


def in_reading_order(result: AuditResult) -> list[AttackResult]:
    """The attacks that know most come first; which of them found most has no say."""
    return sorted(result.attacks, key=lambda attack: -attack.tier)


def verdict_words(result: AuditResult) -> VerdictWords:
    """What the verdict means, and what it does not."""
    planted = f"{percent(result.planted.share)} of the members ({result.planted.members:,}) memorised outright"
    match result.verdict:
        case Verdict.LEAK:
            return VerdictWords(
                "An attack can tell training records from others",
                "that every training record can be found: how many can, and how many other records are wrongly accused "
                "for it, stands below. Nor that this is all there is to find: a stronger attack may find more.",
                "leak",
            )
        case Verdict.CLAIM_VIOLATED:
            return VerdictWords(
                "More is given away than the claim allows",
                "that the true epsilon is known: it is at least the bound below, and may be larger. Nor that no doubt "
                "is left: the bound holds with the confidence stated, so audit once more with canaries drawn anew "
                "before you act on it.",
                "leak",
            )
        case Verdict.INVALID:
            return VerdictWords(
                "This audit cannot be read",
                "that the model leaks, nor that it does not: nothing follows about it. Quote no figure of this "
                "audit; mend what the failed check names, and audit again.",
                "limit",
            )
        case Verdict.UNDERPOWERED:
            return VerdictWords(
                "This audit was too weak to find a leak",
                f"that nothing leaks: a leak planted as a test, with {planted}, was missed as well."
                if result.planted.missed
                else "that nothing leaks: the attacks that find most did not run.",
                "limit",
            )
        case Verdict.NO_LEAK_FOUND:
            return VerdictWords(
                "No attack that ran found a leak",
                f"that nothing leaks. The required attacks find a leak with {planted}; smaller leaks, "
                "and attacks that were not run, remain open.",
                "plain",
            )


def attack_words(attack: AttackResult) -> str:
    """What one attack found, of the model and of the planted leak."""
    if attack.leaks:
        return "a\N{NO-BREAK SPACE}leak"
    if attack.planted_found:
        return "nothing; it found the planted leak"
    return "nothing; it missed the planted leak" + ("" if attack.required else ", as it may")


def lets_out(form: OutputForm) -> str:
    """What the target answers, in words."""
    if form.labels_only:
        return "its label alone"
    scores = "probabilities" if form.probabilities else "scores"
    if form.decimals is not None:
        scores += f" rounded to {form.decimals} decimal{'' if form.decimals == 1 else 's'}"
    return f"the {form.k} highest {scores} and their classes" if form.k is not None else f"{scores} of all classes"


def controls(result: AuditResult) -> tuple[Control, ...]:
    """The controls that the audit carried."""
    every = (_blind(result), _direction(result), _null(result), _exchange(result), _planted(result))
    return tuple(one for one in every if one is not None)


def _direction(result: AuditResult) -> Control | None:
    """Told only where it fails: members that score higher are what is looked for, and no control."""
    found = backwards(result.attacks)
    if not found:
        return None
    return Control(
        "Members do not score lower than others",
        False,
        "failed",
        f"They do by: {', '.join(found)}. Either the two sets are exchanged, or a higher score does not mean member, "
        "or the model was made less sure of its members.",
    )


def _blind(result: AuditResult) -> Control:
    if result.blind is None:
        return Control(
            "Members and others are alike in themselves",
            False,
            "not checked",
            "Only scores were given. If the two sets come from different sources, an attack may find that instead of "
            "what the model remembers.",
        )
    blind = result.blind
    held = not blind.differs
    area = f"{blind.auc.value:.3f}, from {blind.auc.low:.3f} to {blind.auc.high:.3f} ({percent(blind.auc.confidence)})"
    return Control(
        "Members and others are alike in themselves",
        held,
        "passed" if held else "failed",
        "A classifier that sees the records and never the model tried to tell the two sets apart. Its ROC area on "
        f"held-out records: {area}. "
        + (
            f"The lower end may be at most {blind.limit:g}, and is."
            if held
            else f"The lower end may be at most {blind.limit:g}, and is above: the two sets differ without any model."
        ),
    )


def _null(result: AuditResult) -> Control:
    null = result.null
    held = not null.broken
    alarms = (
        f"The same test on {null.runs} further shufflings raised {null.alarms} false alarm"
        f"{'' if null.alarms == 1 else 's'}; {null.alarms_allowed} are allowed."
    )
    came = "Nothing was found, as it must be." if not null.found else f"Found all the same by: {', '.join(null.found)}."
    return Control(
        "Where membership is shuffled, nothing is found",
        held,
        "passed" if held else "failed",
        f"Membership was shuffled and every attack run again ({percent(null.confidence)} confidence). {came} {alarms}",
    )


def _exchange(result: AuditResult) -> Control | None:
    if result.exchange is None:
        return None
    broken = result.exchange.broken
    return Control(
        "Shadow models with and without a record are kept apart",
        not broken,
        "failed" if broken else "passed",
        "The two kinds were exchanged, which must turn an attack's answer around in a known way. "
        + (f"It did not for: {', '.join(broken)}." if broken else "It did, for every attack that uses them."),
    )


def _planted(result: AuditResult) -> Control:
    planted = result.planted
    held = not planted.missed
    leak = f"{planted.members:,} members ({percent(planted.share)}) were made to look memorised outright"
    if held:
        came = "Every required attack found it."
    else:
        came = f"Missed by: {', '.join(planted.missed)}."
        if planted.records_needed is not None:
            came += (
                f" About {planted.records_needed:,} members and as many non-members would find a leak of this size "
                "four times in five."
            )
    return Control(
        "A planted leak is found",
        held,
        "passed" if held else "failed",
        f"{leak[0].upper()}{leak[1:]}, and the attacks run again. {came}",
    )


def claim_control(result: AuditResult) -> Control | None:
    """The claimed guarantee beside what canaries prove; None where nothing was claimed or tested."""
    if result.claim is not None:
        epsilon, delta = result.claim.claim
        held = not result.claim.violated
        return Control(
            f"Claimed: epsilon {epsilon:g} at delta {delta:g}",
            held,
            "not refuted" if held else "violated",
            f"Canaries were included by fair coins. {result.claim.words}",
        )
    if result.claimed is not None:
        epsilon, delta = result.claimed
        return Control(
            f"Claimed: epsilon {epsilon:g} at delta {delta:g}",
            False,
            "not tested",
            "Membership was not randomised, so nothing here can confirm or refute the claim. Insert canaries at "
            "random to test it.",
        )
    return None
