"""The page of an audit: the verdict and what it does not mean, then every number with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privet.audit.claim import UNTESTED
from privet.audit.page_attacks import found_section
from privet.audit.page_details import group_sections, procedure_sections, record_sections
from privet.audit.result import RATES
from privet.audit.verdict import Verdict
from privet.audit.words import Control, claim_control, controls, lets_out, percent, readable, verdict_words
from privet.report import Banner, Card, Cell, Check, Checks, Note, Page, Section, Text, write_estimate

if TYPE_CHECKING:
    from privet.audit.result import AuditResult
    from privet.report.page import Block

__all__ = ["page_of"]


def page_of(result: AuditResult) -> Page:
    """The page that an audit is read from.

    Args:
        result: of :func:`privet.audit_model` or :func:`privet.audit_scores`.

    Returns:
        A page for :func:`privet.report.write_html`.
    """
    words = verdict_words(result)
    findings = found_section(result)
    trust = Section("Can this audit be trusted?", (Checks(tuple(_check(one) for one in controls(result))),))
    unsure = not readable(result) or result.verdict is Verdict.UNDERPOWERED
    return Page(
        title=words.title,
        lead=result.reason,
        banner=Banner(_subject(result), result.verdict.value, words.tone, words.caveat),
        cards=_cards(result),
        sections=(
            *_warnings(result),
            *_claim(result),
            *((trust, findings) if unsure else (findings, trust)),
            *(_details(result) if readable(result) else ()),
            _tested(result),
            _how_to_read(result),
        ),
        provenance=result.provenance,
    )


def _details(result: AuditResult) -> tuple[Section, ...]:
    return (*procedure_sections(result), *group_sections(result), *record_sections(result))


def _subject(result: AuditResult) -> str:
    return (
        f"Membership audit: can an attacker tell {result.members:,} training records from {result.non_members:,} "
        "others by what the model answers?"
    )


def _check(control: Control, otherwise: str = "limit") -> Check:
    return Check(control.mark, "plain" if control.held else otherwise, control.title, control.body)


def _cards(result: AuditResult) -> tuple[Card, ...]:
    """The figures to remember; of an audit that cannot be read there is only the reason why."""
    cards = [] if result.claim is None else [_claim_card(result)]
    if not readable(result):
        if result.blind is not None and result.blind.differs:
            label = "ROC area of a classifier that never saw the model; 0.5 is guessing"
            cards.append(_card(Cell(result.blind.auc, chance=0.5), label, "limit"))
        return tuple(cards)
    if result.verdict is Verdict.UNDERPOWERED:
        return tuple(cards)
    leak = "leak" if result.auc.low > 0.5 else "plain"
    cards.append(_card(Cell(result.auc, chance=0.5), "ROC area of the strongest attack; 0.5 is guessing", leak))
    for asked in RATES[:2]:
        shown = [one.rates[asked] for one in result.attacks if asked in one.rates and one.rates[asked].reached]
        if shown:
            rate = result.rate(asked)
            tone = "leak" if any(one.tpr.low > one.fpr.high for one in shown) else "plain"
            label = f"of the training records found, at {percent(asked)} of the others wrongly accused"
            cards.append(_card(Cell(rate.tpr, percent=True, chance=rate.fpr.high), label, tone))
    return tuple(cards)


def _card(cell: Cell, label: str, tone: str) -> Card:
    return Card(cell.written.value, label, tone, f"{cell.written.low} – {cell.written.high}")


def _claim_card(result: AuditResult) -> Card:
    assert result.claim is not None
    bound = result.claim.bound
    epsilon, delta = result.claim.claim
    return Card(
        f"ε ≥ {int(100 * bound.epsilon_low) / 100:.2f}",
        f"proved by {bound.canaries:,} canaries; claimed is ε = {epsilon:g} at δ = {delta:g}",
        "leak" if result.claim.violated else "plain",
        f"with {percent(bound.confidence)} confidence",
    )


def _warnings(result: AuditResult) -> tuple[Section, ...]:
    warnings = [warning for warning in result.warnings if warning != UNTESTED]  # it has a section of its own
    if result.interrupted and not any(warning.startswith("Stopped") for warning in warnings):
        warnings.insert(0, "The audit was stopped before its end; this page holds what was computed until then.")
    if not warnings:
        return ()
    marks = tuple(Check("warning", "limit", "", warning) for warning in warnings)
    return (Section("What limits this audit", (Checks(marks),)),)


def _claim(result: AuditResult) -> tuple[Section, ...]:
    control = claim_control(result)
    if control is None:
        return ()
    return (Section("The claimed guarantee", (Checks((_check(control, "leak" if result.claim else "limit"),)),)),)


def _tested(result: AuditResult) -> Section:
    sets = (
        f"Members are {result.members:,} records that the model was trained on; {result.non_members:,} others were "
        "kept out of its training."
    )
    if result.accuracy is not None:
        ours, theirs = (write_estimate(one, percent=True) for one in result.accuracy)
        sets += f" It labels {ours} of the members right, and {theirs} of the others."
    blocks: list[Block] = [Text((f"{sets} {_attacker(result)}",))]
    if result.defense:
        blocks.append(
            Note(
                "No formal guarantee",
                f"The answers pass through a defense ({result.defense}), and every attack knew it"
                f"{'; shadow models answered through it too' if result.shadows else ''}. It bounds nothing: another "
                "attack may still find what these did not.",
            )
        )
    return Section("What was tested", tuple(blocks))


def _attacker(result: AuditResult) -> str:
    """What the attacker saw and did."""
    if result.blind is None:
        return "Only the scores of an attack were given. What it saw, and how it was made, is not known here."
    shadows = (
        f"{result.shadows} shadow models were trained to learn how the answer about a record changes when the record "
        "is in the training data."
        if result.shadows
        else "No shadow models were trained, so the attacks that find most could not be run."
    )
    count = "1 attack" if len(result.attacks) == 1 else f"{len(result.attacks)} attacks"
    return f"For each record the attacker sees {lets_out(result.form)}. {count} ran. {shadows}"


def _how_to_read(result: AuditResult) -> Section:
    return Section(
        "How to read this page",
        (
            Text(
                (
                    "A member is a record that the model was trained on. An attack gives every record a score, and "
                    "calls those above a threshold members. A lower threshold finds more members and wrongly accuses "
                    "more of the others.",
                    "The ROC area is the probability that a random member scores above a random other record: 0.5 is "
                    "guessing, 1 is certainty. It is an average, and averages hide the few who are exposed most; so "
                    "the share found at a small share of wrong accusations stands beside it.",
                    "An interval says where the true value lies, with the confidence stated. The intervals of all "
                    "attacks hold at once, so the strongest may be quoted although it was picked by its result.",
                    "What no audit can say is that a model gives nothing away. Attacks give lower limits of what "
                    f"leaks; this one had {result.members:,} members to find it in.",
                )
            ),
        ),
    )
