"""Hold an audit to a bound: passed only if the whole interval lies within it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from privet.audit.result import RATES
from privet.audit.verdict import Verdict
from privet.errors import ArgumentError, SampleTooSmallError
from privet.statistics import Estimate

if TYPE_CHECKING:
    from privet.audit.result import AuditResult

__all__ = ["Bound", "Outcome", "assert_bounds", "bound_words", "check_bound", "parse_bound"]

_FORM = re.compile(r"\s*(auc|tpr\s*@\s*(?P<fpr>[0-9.eE+-]+\s*%?))\s*>\s*(?P<limit>[0-9.eE+-]+\s*%?)\s*", re.IGNORECASE)
_ALLOWED = "a bound such as 'tpr@1%>0.05' or 'auc>0.55': a measure, '>' and the largest value that is accepted"


class Outcome(Enum):
    """What an audit says about a bound."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Bound:
    """The largest area under the ROC, or true positive rate at a false positive rate, that is accepted.

    Args:
        fpr: the false positive rate, one of those that audits are judged at; None: the bound is on the area.
        limit: what is accepted at most: at least what guessing gives (1/2, or ``fpr``), and below 1.

    Raises:
        ArgumentError: a number is out of range; a limit below what guessing gives could never be kept.
    """

    fpr: float | None
    limit: float

    def __post_init__(self) -> None:
        if self.fpr is not None and self.fpr not in RATES:
            rates = ", ".join(f"{100 * rate:g}%" for rate in RATES)
            raise ArgumentError("bound", self.measure, f"a false positive rate at which audits are judged: {rates}")
        least = 0.5 if self.fpr is None else self.fpr
        if not least <= self.limit < 1.0:
            raise ArgumentError(
                f"limit of {self.measure}", self.limit, f"a number from {least:g}, which guessing gives, to below 1"
            )

    @property
    def measure(self) -> str:
        """What is bounded: ``auc`` or ``tpr@1%``."""
        return "auc" if self.fpr is None else f"tpr@{100 * self.fpr:g}%"

    def __str__(self) -> str:
        return f"{self.measure}>{self.limit:g}"


def parse_bound(text: str) -> Bound:
    """Read what must NOT be the case: ``tpr@1%>0.05`` fails where the rate is above 0.05.

    Rates are shares or, with a percent sign, percentages: ``tpr@0.1%>1%`` is ``tpr@0.001>0.01``.

    Raises:
        ArgumentError: the text has another form, or a number is out of range.

    Example:
        >>> parse_bound("tpr@0.1%>0.01")
        Bound(fpr=0.001, limit=0.01)
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ArgumentError("bound", text, _ALLOWED)
    fpr = found["fpr"]
    return Bound(None if fpr is None else _number(text, fpr), _number(text, found["limit"]))


def _number(text: str, written: str) -> float:
    digits = written.strip()
    try:
        # In decimals, so that 0.1% is the very 0.001 at which audits are judged.
        number = float(Decimal(digits.removesuffix("%").strip()) / (100 if digits.endswith("%") else 1))
    except ArithmeticError:
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentError("bound", text, _ALLOWED)
    return number


def check_bound(result: AuditResult, bound: Bound) -> Outcome:
    """Hold an audit to a bound.

    * FAILED: the lower end of the interval is above the limit, or the verdict is CLAIM VIOLATED, which no bound can
      excuse.
    * PASSED: the upper end is within the limit, and the verdict is LEAK (a small one was accepted beforehand) or
      NO LEAK FOUND.
    * INCONCLUSIVE: everything else: the interval reaches over the limit, the audit is INVALID or UNDERPOWERED, or would
      be were there no leak, no attack with shadow models was run although they were asked for, or it cannot show this
      rate, also because an attack that finds a leak has too many equal scores for it.
    """
    if result.verdict is Verdict.CLAIM_VIOLATED:
        return Outcome.FAILED
    measured = _measured(result, bound)
    if measured is None or result.verdict is Verdict.INVALID:
        return Outcome.INCONCLUSIVE
    if measured.low > bound.limit:
        return Outcome.FAILED
    trusted = not _overlooked(result) and _shown(result, bound)
    return Outcome.PASSED if trusted and measured.high <= bound.limit else Outcome.INCONCLUSIVE


def _measured(result: AuditResult, bound: Bound) -> Estimate | None:
    """The interval that the bound is held against; None where there are too few non-members for this rate."""
    if bound.fpr is None:
        return result.auc
    try:
        return result.tpr(bound.fpr)
    except SampleTooSmallError:
        return None


def _overlooked(result: AuditResult) -> str:
    """Why a larger leak than was measured could have been missed; "" for no reason."""
    if result.shadows_asked and not result.shadows:
        return "no attack with shadow models was run"
    if result.verdict is Verdict.UNDERPOWERED:
        return f"the verdict is {result.verdict.value}"
    if result.planted.missed:
        return f"the planted leak was missed by {', '.join(result.planted.missed)}"
    return ""


def _shown(result: AuditResult, bound: Bound) -> bool:
    """Whether attacks have a threshold at this rate: at least one, and each that finds a leak."""
    if bound.fpr is None:
        return True
    rates = [(one.leaks, one.rates[bound.fpr].reached) for one in result.attacks if bound.fpr in one.rates]
    return any(reached for _, reached in rates) and all(reached for leaks, reached in rates if leaks)


def bound_words(result: AuditResult, bound: Bound) -> str:
    """What came of a bound and why, in one sentence."""
    outcome = check_bound(result, bound)
    measured = _measured(result, bound)
    begun = f"{bound}: {outcome.value}"
    if result.verdict in (Verdict.CLAIM_VIOLATED, Verdict.INVALID):
        return f"{begun}; the verdict is {result.verdict.value}."
    if measured is None:
        return f"{begun}; {result.non_members:,} non-members cannot show so small a rate. Give more."
    held = f"{bound.measure} is {measured.value:.4g}, from {measured.low:.4g} to {measured.high:.4g}"
    if outcome is Outcome.FAILED:
        return f"{begun}; {held}: all of it above {bound.limit:g}."
    if outcome is Outcome.PASSED:
        return f"{begun}; {held}: all of it within {bound.limit:g}."
    if measured.high > bound.limit:
        return f"{begun}; {held}: it reaches over {bound.limit:g}. More records make it narrower."
    if not _shown(result, bound):
        return f"{begun}; too many records share the top score of an attack for a threshold at so small a rate."
    return f"{begun}; {held}, but {_overlooked(result)}: a larger leak could have been missed."


def assert_bounds(result: AuditResult, limits: Mapping[str, float]) -> None:
    """Hold an audit to several bounds at once.

    Args:
        result: the audit.
        limits: measure (``auc``, ``tpr@1%``, ...) -> the largest value that is accepted.

    Raises:
        AssertionError: one is failed or inconclusive; says which and why.
        ArgumentError: there is no bound, or one is out of range.
    """
    if not limits:
        raise ArgumentError("bounds", dict(limits), "at least one, such as tpr_at_1_percent=0.05")
    bounds = []
    for measure, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, (int, float)):
            raise ArgumentError(measure, limit, "a number, such as 0.05")
        bounds.append(Bound(parse_bound(f"{measure}>0.999999").fpr, float(limit)))
    broken = [bound_words(result, bound) for bound in bounds if check_bound(result, bound) is not Outcome.PASSED]
    if broken:
        raise AssertionError("\n".join(broken))
