"""What the attacks found: every number with its interval, and nothing drawn as a leak that chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from privet.audit.result import RATES
from privet.audit.words import attack_words, in_reading_order, percent, readable
from privet.report import Cell, Curve, Figure, Note, Section, Table, roc_figure, write_estimate
from privet.statistics import Estimate, RateAtRate, roc_curve

if TYPE_CHECKING:
    from privet.audit.result import AttackResult, AuditResult
    from privet.report.page import Block

__all__ = ["found_section"]

_CURVES = 5


def found_section(result: AuditResult) -> Section:
    """The attacks in a table, their curves, and what learned ones got right; only the table where none can be read."""
    rates = tuple(rate for rate in RATES if any(rate in attack.rates for attack in result.attacks))
    columns = (
        "Attack",
        "ROC area",
        *(f"Found at {percent(rate)} wrongly accused" for rate in rates),
        "It\N{NO-BREAK SPACE}finds",
    )
    scale = _area_scale([attack.auc for attack in result.attacks])
    read = readable(result)
    rows = tuple(
        (
            attack.name,
            Cell(attack.auc, scale, chance=0.5 if read else None),
            *(_rate_cell(attack.rates.get(rate), _rate_scale(result.attacks, rate), read) for rate in rates),
            attack_words(attack) if read else "cannot be read",
        )
        for attack in in_reading_order(result)
    )
    each = 1.0 - (1.0 - result.confidence) / max(result.tests, 1)
    caption = (
        f"All {result.tests} intervals together hold with {percent(result.confidence)} confidence (each one with "
        f"{100 * each:.4g}%). Found: the share of training records above a threshold; under it, the share of other "
        "records above the same threshold."
    )
    if not read:
        note = Note(
            "Quote none of these figures",
            "A check of the audit itself failed. They are shown so that the fault can be found, not as a finding.",
        )
        return Section("What the attacks scored", (note, Table(caption, columns, rows)))
    rule = (
        " An attack finds a leak where the interval of the area lies right of the dotted mark at 0.5, or the interval "
        "of a share right of the dotted mark, which is the upper end for the others."
    )
    table = Table(f"{caption}{rule}{_coarse(result)}", columns, rows)
    return Section("What the attacks found", (table, _curves(result), *_learned(result)))


def _coarse(result: AuditResult) -> str:
    coarse = [rate for rate in RATES if any(one.rates[rate].coarse for one in result.attacks if rate in one.rates)]
    if not coarse:
        return ""
    rates = " and ".join(percent(rate) for rate in coarse)
    return f" At {rates} fewer than ten other records lie above a threshold: read these with care."


def _rate_cell(rate: RateAtRate | None, scale: tuple[float, float], read: bool) -> str | Cell:
    if rate is None:
        return "too few records"
    if not rate.reached:
        return "no threshold: equal scores"
    others = _unbroken(f"others {write_estimate(rate.fpr, percent=True)}")
    return Cell(rate.tpr, scale, rate.fpr.high if read else None, True, others)


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
