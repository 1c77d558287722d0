"""An audit in a terminal: the verdict, the numbers with their intervals, the controls; at most 80 columns."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from privet.audit.claim import UNTESTED
from privet.audit.result import RATES
from privet.audit.words import claim_control, controls, in_reading_order, percent, readable, verdict_words
from privet.report.numbers import Written, write_estimate
from privet.statistics import RateAtRate

if TYPE_CHECKING:
    from privet.audit.result import AuditResult
    from privet.audit.slices import Slice

__all__ = ["WIDTH", "summary", "text_of"]

WIDTH = 80
_STYLES = {"leak": "bold red", "limit": "bold yellow", "plain": "bold"}
_GROUPS = 8


def text_of(result: AuditResult) -> str:
    """The summary as plain text, no line longer than 80 columns."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(summary(result))
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def summary(result: AuditResult) -> RenderableType:
    """The summary for a rich console: ``console.print(summary(result), width=80)``."""
    words = verdict_words(result)
    parts: list[RenderableType] = [
        Text(result.verdict.value, style=_STYLES[words.tone]),
        Text(f"{words.title}. {result.reason}"),
        Text(f"It does not mean {words.caveat}", style="italic"),
        Text(),
        _attacks(result),
        _attacks_caption(result),
        Text(),
    ]
    claim = claim_control(result)
    for control in (*(() if claim is None else (claim,)), *controls(result)):
        body = control.title if control.held and control is not claim else f"{control.title}. {control.body}"
        parts.append(_line(control.mark, body))
    if result.accuracy is not None:
        ours, theirs = (write_estimate(one, percent=True) for one in result.accuracy)
        parts.append(_line("right labels", f"{ours} of the members, {theirs} of the others"))
    if readable(result):
        parts.extend(_procedure(result))
        parts.extend(_groups(result.slices if result.columns else ()))
    if result.interrupted:
        parts.append(_line("stopped", "Before its end; this is what was computed until then."))
    parts.extend(_line("warning", warning) for warning in result.warnings if warning != UNTESTED)
    return Group(*parts)


def _line(mark: str, body: str) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=16, no_wrap=True)
    line.add_column(ratio=1)
    line.add_row(Text(mark), Text(body))
    return line


def _attacks(result: AuditResult) -> Table:
    rates = [rate for rate in RATES if any(rate in attack.rates for attack in result.attacks)][:2]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Attack", max_width=19)
    for name in ("ROC area", *(f"found at {percent(rate)}" for rate in rates), "leak"):
        table.add_column(name, no_wrap=True)
    for attack in in_reading_order(result):
        table.add_row(
            Text(attack.name),
            _short(write_estimate(attack.auc, chance=0.5)),
            *(_rate(attack.rates.get(rate)) for rate in rates),
            Text("–" if not readable(result) else "yes" if attack.leaks else "no"),
        )
    return table


def _rate(rate: RateAtRate | None) -> str:
    if rate is None:
        return "too few records"
    return _short(write_estimate(rate.tpr, percent=True, chance=rate.fpr.high)) if rate.reached else "no threshold"


def _short(written: Written) -> str:
    return f"{written.value} ({written.low}–{written.high.removesuffix('%')})"


def _attacks_caption(result: AuditResult) -> Text:
    return Text(
        f"{result.members:,} members, {result.non_members:,} others; all {result.tests} intervals of the audit hold at "
        f"once with {percent(result.confidence)} confidence. Found at 1%: the share of members found where at most 1% "
        "of the others are wrongly accused; guessing finds 1% there, and has a ROC area of 0.5.",
        style="dim",
    )


def _procedure(result: AuditResult) -> list[RenderableType]:
    if result.procedure is None:
        return []
    found = "".join(
        f"; found at {percent(asked)}: {write_estimate(rate.tpr, percent=True, chance=rate.fpr.high)}"
        for asked, rate in result.procedure.rates.items()
        if rate.reached
    )
    area = write_estimate(result.procedure.auc, chance=0.5)
    return [_line("training", f"{result.procedure.shadows} shadow models in turn: ROC area {area}{found}")]


def _groups(slices: tuple[Slice, ...]) -> list[RenderableType]:
    """The groups that are exposed most, as far as chance does not explain it."""
    leaking = sorted((one for one in slices if one.leaks), key=lambda one: -one.auc.low if one.auc else 0.0)
    if not slices:
        return []
    judged = sum(not one.too_few for one in slices)
    lines: list[RenderableType] = [_line("groups", f"A leak in {len(leaking)} of the {judged} large enough to judge.")]
    for one in leaking[:_GROUPS]:
        assert one.auc is not None
        found = "" if one.tpr is None else f", found {write_estimate(one.tpr, percent=True)}"
        area = write_estimate(one.auc, chance=0.5)
        lines.append(_line("", f"{one.column} {one.group}: ROC area {area}{found}"))
    return lines
