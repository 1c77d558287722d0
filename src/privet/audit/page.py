"""The page of an audit: the verdict and what it does not mean, then every number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from privet.audit.claimed import UNTESTED
from privet.audit.result import RATES
from privet.audit.verdict import Verdict
from privet.audit.words import Control, attack_words, claim_control, controls, lets_out, percent, verdict_words
from privet.report import (
    Banner,
    Card,
    Cell,
    Check,
    Checks,
    Curve,
    Figure,
    Note,
    Page,
    Section,
    Table,
    Text,
    roc_figure,
    write_estimate,
)
from privet.statistics import Estimate, RateAtRate, roc_curve

if TYPE_CHECKING:
    from privet.audit.result import AttackResult, AuditResult
    from privet.report.page import Block

__all__ = ["page_of"]

_CURVES = 5


def page_of(result: AuditResult) -> Page:
    """The page that an audit is read from.

    Args:
        result: of :func:`privet.audit_model` or :func:`privet.audit_scores`.

    Returns:
        A page for :func:`privet.report.write_html`.
    """
    from privet.audit.page_details import group_sections, procedure_sections, record_sections

    words = verdict_words(result)
    findings = _found_section(result)
    trust = Section("Can this audit be trusted?", (Checks(tuple(_check(one) for one in controls(result))),))
    unsure = result.verdict in (Verdict.INVALID, Verdict.UNDERPOWERED)
    return Page(
        title=words.title,
        lead=result.reason,
        banner=Banner(_subject(result), result.verdict.value, words.tone, words.caveat),
        cards=_cards(result),
        sections=(
            *_warnings(result),
            *_claim(result),
            *((trust, findings) if unsure else (findings, trust)),
            *procedure_sections(result),
            *group_sections(result),
            *record_sections(result),
            _tested(result),
            _how_to_read(result),
        ),
        provenance=result.provenance,
    )


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
    if result.verdict is Verdict.INVALID:
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
    if result.interrupted and not any("interrupt" in warning or "stopped" in warning for warning in warnings):
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


def _found_section(result: AuditResult) -> Section:
    rates = tuple(rate for rate in RATES if any(rate in attack.rates for attack in result.attacks))
    columns = (
        "Attack",
        "ROC area",
        *(f"Found at {percent(rate)} wrongly accused" for rate in rates),
        "It\N{NO-BREAK SPACE}finds",
    )
    scale = _area_scale([attack.auc for attack in result.attacks])
    rows = tuple(
        (
            attack.name,
            Cell(attack.auc, scale, chance=0.5),
            *(_rate_cell(attack.rates.get(rate), _rate_scale(result.attacks, rate)) for rate in rates),
            attack_words(attack),
        )
        for attack in result.attacks
    )
    each = 1.0 - (1.0 - result.confidence) / max(result.tests, 1)
    caption = (
        f"All {result.tests} intervals together hold with {percent(result.confidence)} confidence (each one with "
        f"{100 * each:.4g}%). Found: the share of training records above a threshold; under it, the share of other "
        "records above the same threshold. An attack finds a leak where the interval of the area lies right of the "
        "dotted mark at 0.5, or the interval of a share right of the dotted mark, which is the upper end for the "
        f"others.{_coarse(result)}"
    )
    return Section("What the attacks found", (Table(caption, columns, rows), _curves(result), *_learned(result)))


def _coarse(result: AuditResult) -> str:
    coarse = [rate for rate in RATES if any(one.rates[rate].coarse for one in result.attacks if rate in one.rates)]
    if not coarse:
        return ""
    rates = " and ".join(percent(rate) for rate in coarse)
    return f" At {rates} fewer than ten other records lie above a threshold: read these with care."


def _rate_cell(rate: RateAtRate | None, scale: tuple[float, float]) -> str | Cell:
    if rate is None:
        return "too few records"
    if not rate.reached:
        return "no threshold: equal scores"
    return Cell(rate.tpr, scale, rate.fpr.high, True, _unbroken(f"others {write_estimate(rate.fpr, percent=True)}"))


def _unbroken(text: str) -> str:
    """Lines break at spaces only, not at the dash of an interval."""
    return text.replace("–", "\N{WORD JOINER}–\N{WORD JOINER}")


def _area_scale(areas: Sequence[Estimate]) -> tuple[float, float]:
    return min(0.45, *(area.low for area in areas)), max(0.6, *(area.high for area in areas))


def _rate_scale(attacks: Sequence[AttackResult], rate: float) -> tuple[float, float]:
    rates = [attack.rates[rate] for attack in attacks if rate in attack.rates]
    return 0.0, max(2.0 * rate, *(max(one.tpr.high, one.fpr.high) for one in rates))


def _curves(result: AuditResult) -> Figure:
    """The headline's curve, those with shadow models, one threshold and the learned ones first, as many as fit."""
    threshold = next((attack.name for attack in result.attacks if attack.tier == 0), "")
    order = sorted(
        result.attacks,
        key=lambda one: (
            one.name != result.headline,
            -one.tier,
            one.name != threshold,
            "parameters" not in one.details,
        ),
    )
    drawn = order[:_CURVES]
    curves = [Curve(attack.name, roc_curve(attack.scores.members, attack.scores.non_members)) for attack in drawn]
    left = [attack.name for attack in order[_CURVES:]]
    not_drawn = f" Not drawn: {', '.join(left)}." if left else ""
    smallest = 1.0 / max(2, *(attack.scores.non_members.size for attack in drawn))
    return Figure(
        roc_figure(curves, smallest),
        "Training records found against other records wrongly accused, for every threshold, as measured on these "
        "records; both axes are logarithmic. On the dotted line an attack does no better than a coin. The left edge "
        "matters most: there an accusation is credible. The intervals at single rates are in the table."
        f"{not_drawn}",
        "ROC curves; the area of each with its interval: "
        + "; ".join(f"{attack.name} {attack.auc}" for attack in drawn),
    )


def _learned(result: AuditResult) -> tuple[Block, ...]:
    """What learned attackers got right at their own threshold."""
    measures = ("precision", "accuracy", "recall")
    learned = [one for one in result.attacks if all(isinstance(one.details.get(name), Estimate) for name in measures)]
    if not learned:
        return ()
    rows: list[tuple[str | Cell, ...]] = []
    for attack in learned:
        found = (Cell(attack.details[name], percent=True) for name in measures)
        rows.append((attack.name, *found, _parameters(attack.details.get("parameters", {}))))
    caption = (
        "Learned attackers at a threshold of one half, on held-out records, as many members as others, so that "
        "guessing has a precision and an accuracy of 50%. Each interval holds by itself with "
        f"{percent(learned[0].details['accuracy'].confidence)} confidence."
    )
    return (Table(caption, ("Attacker", "Precision", "Accuracy", "Recall", "Chosen by cross-validation"), tuple(rows)),)


def _parameters(parameters: object) -> str:
    if not isinstance(parameters, dict) or not parameters:
        return "–"
    return ", ".join(f"{str(name).rpartition('__')[2]} = {value}" for name, value in parameters.items())


def _tested(result: AuditResult) -> Section:
    sets = (
        f"Members are {result.members:,} records that the model was trained on; {result.non_members:,} others were "
        "kept out of its training."
    )
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
