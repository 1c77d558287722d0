"""The later sections of an audit's page: the training procedure, the groups, the records that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from privet.audit.records import Records
from privet.audit.slices import FEWEST, SLICE_RATE, Slice
from privet.audit.verdict import Verdict
from privet.audit.words import percent
from privet.report import Cell, Gallery, Picture, Section, Table, Text, picture

if TYPE_CHECKING:
    from privet.audit.result import AuditResult
    from privet.report.page import Block

__all__ = ["group_sections", "procedure_sections", "record_sections"]

_GROUPS = 24
_RECORDS = 10
_PICTURES = 20


def procedure_sections(result: AuditResult) -> tuple[Section, ...]:
    """What every model trained in this way gives away; empty without shadow models."""
    procedure = result.procedure
    if procedure is None:
        return ()
    rows: list[tuple[str | Cell, ...]] = [("ROC area", Cell(procedure.auc, (0.45, 1.0), chance=0.5), "–")]
    for asked, rate in procedure.rates.items():
        found: str | Cell = "no threshold: equal scores"
        if rate.reached:
            scale = (0.0, max(2.0 * asked, rate.tpr.high, rate.fpr.high))
            found = Cell(rate.tpr, scale, chance=rate.fpr.high, percent=True)
        rows.append(
            (
                f"Found at {percent(asked)} wrongly accused",
                found,
                Cell(rate.fpr, (0.0, max(2.0 * asked, rate.fpr.high)), percent=True),
            )
        )
    caption = (
        f"{procedure.attack}, {procedure.shadows} models. The intervals resample records and models together and "
        f"hold, each by itself, with {percent(procedure.auc.confidence)} confidence."
    )
    return (
        Section(
            "What this way of training gives away",
            (
                Text(
                    (
                        "Above, one model was attacked. Here each shadow model takes its turn as the target and the "
                        "others attack it. That is a statement about the training, on this kind of data, rather than "
                        "about the one model; it has no part in the verdict.",
                    )
                ),
                Table(caption, ("Measure", "Of the training records", "Of the others, realised"), tuple(rows)),
            ),
        ),
    )


def group_sections(result: AuditResult) -> tuple[Section, ...]:
    """The groups of each column; empty without columns."""
    if not result.columns:
        return ()
    slices = result.slices
    blocks: list[Block] = []
    for column in result.columns:
        blocks.extend(_column(column, [one for one in slices if one.column == column], result))
    return (Section("Group by group", tuple(blocks)),)


def _column(column: str, groups: Sequence[Slice], result: AuditResult) -> list[Block]:
    judged = [one for one in groups if one.auc is not None]
    few = [one.group for one in groups if one.auc is None]
    blocks: list[Block] = []
    if judged:
        shown = sorted(judged, key=_exposure, reverse=True)[:_GROUPS]
        if len(judged) <= _GROUPS:
            shown = judged
        blocks.append(_group_table(column, shown, len(judged) - len(shown), result))
    if few:
        listed = ", ".join(few[:_GROUPS]) + (f" and {len(few) - _GROUPS} more" if len(few) > _GROUPS else "")
        blocks.append(
            Text((f"Too few records of {column} {listed}: a group needs {FEWEST} members and {FEWEST} others.",))
        )
    return blocks


def _exposure(one: Slice) -> float:
    return 0.0 if one.auc is None else one.auc.low


def _group_table(column: str, groups: Sequence[Slice], left_out: int, result: AuditResult) -> Table:
    areas = [one.auc for one in groups if one.auc is not None]
    scale = (min(0.4, *(area.low for area in areas)), max(0.6, *(area.high for area in areas)))
    top = max(2 * SLICE_RATE, *(one.tpr.high for one in groups if one.tpr is not None), 0.0)
    rows = []
    for one in groups:
        rate: tuple[str | Cell, str | Cell] = ("no threshold", "–")
        if one.tpr is not None and one.fpr is not None:
            rate = (
                Cell(one.tpr, (0.0, top), chance=one.fpr.high, percent=True),
                Cell(one.fpr, (0.0, top), percent=True),
            )
        assert one.auc is not None
        sizes = f"{one.members:,} + {one.non_members:,}"
        finds = "a\N{NO-BREAK SPACE}leak" if one.leaks else "nothing"
        rows.append((f"{column} {one.group}", sizes, Cell(one.auc, scale, chance=0.5), *rate, finds))
    omitted = f" The {len(groups)} with the highest lower ends are shown; {left_out} more are not." if left_out else ""
    return Table(
        f"{result.headline}, within each group. One threshold for all, set at {percent(SLICE_RATE)} of all the others. "
        f"All intervals of all groups together hold with {percent(result.confidence)} confidence.{omitted}",
        ("Group", "Members + others", "ROC area", "Members found", "Others accused", "It\N{NO-BREAK SPACE}finds"),
        tuple(rows),
    )


def record_sections(result: AuditResult) -> tuple[Section, ...]:
    """The members that stand out most."""
    top = result.records.top(max(_RECORDS, _PICTURES))
    blocks: list[Block] = [Text((_stand_out(result, result.records),))]
    if result.inputs is not None and result.inputs.ndim in (3, 4):
        blocks.append(_gallery(result, top))
    blocks.append(_record_table(result, top))
    leaks = result.verdict in (Verdict.LEAK, Verdict.CLAIM_VIOLATED)
    return (Section("Who stands out most" if leaks else "Who scores highest", tuple(blocks)),)


def _stand_out(result: AuditResult, records: Records) -> str:
    alone = int(np.count_nonzero(records.is_member & (records.above == 0)))
    expected = records.members / (records.non_members + 1)
    sentence = (
        f"Ranked by {records.attack}. {alone:,} of {records.members:,} members score above every one of the "
        f"others; if members scored like them, {expected:.1f} would be expected to."
    )
    if any(attack.name == result.headline and attack.leaks for attack in result.attacks):
        return sentence
    return f"{sentence} Some record always scores highest. This attack found no leak, so the order may be chance alone."


def _gallery(result: AuditResult, top: Records) -> Gallery:
    assert result.inputs is not None
    pictures = tuple(
        Picture(picture(result.inputs[row]), f"member {row}", "member") for row in top.rows[:_PICTURES].tolist()
    )
    return Gallery(
        f"The {len(pictures)} members with the highest scores, the highest first. They are training records: show this "
        "page only to those who may see them.",
        pictures,
    )


def _record_table(result: AuditResult, top: Records) -> Table:
    chosen = [top[place] for place in range(min(_RECORDS, len(top)))]
    scale = (0.0, max(record.caught_at.high for record in chosen))
    rows = tuple(
        (
            f"member {record.row}",
            *(() if result.labels is None else (str(result.labels[record.row]),)),
            Cell(record.caught_at, scale, percent=True),
        )
        for record in chosen
    )
    columns = ("Record", *(() if result.labels is None else ("Class",)), "Others accused with it")
    return Table(
        "Records are numbered from 0 in the order in which the members were given; those of equal score stand in that "
        "order. To call the record a member, an "
        "attacker has to accuse at least this share of the others. Each interval holds by itself with "
        f"{percent(result.confidence)} confidence.",
        columns,
        rows,
    )
