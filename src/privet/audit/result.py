"""What an audit found, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privet.audit.findings import BlindCheck, ExchangeControl, NullControl, PlantedControl, Procedure
from privet.audit.verdict import Verdict
from privet.errors import ArgumentError, SampleTooSmallError
from privet.output_form import OutputForm
from privet.statistics import Estimate, RateAtRate

if TYPE_CHECKING:
    from privet.attacks.membership import MembershipScores
    from privet.audit.claim import ClaimAudit
    from privet.audit.records import Records
    from privet.audit.slices import Slice

__all__ = ["RATES", "AttackResult", "AuditResult", "backwards"]

RATES = (0.001, 0.01, 0.1)
"""The false positive rates at which every attack is judged, fixed before anything is seen."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack found on the target.

    Attributes:
        name: the attack.
        tier: 0 for what needs the model alone, 1 for what needs shadow models.
        scores: higher means member.
        auc: area under the ROC; its interval holds together with all others of the audit.
        rates: the true positive rate at each false positive rate of :data:`RATES` that the sample can show.
        leaks: an interval excludes chance.
        planted_found: the attack finds the planted leak.
        required: an audit in which this attack misses the planted leak is underpowered.
        details: what else the attack says of itself: chosen parameters, precision, accuracy and recall.
    """

    name: str
    tier: int
    scores: MembershipScores
    auc: Estimate
    rates: Mapping[float, RateAtRate]
    leaks: bool
    planted_found: bool
    required: bool
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AuditResult:
    """Evidence, estimates and the verdict.

    Attributes:
        verdict: what the audit concludes.
        reason: why, in a sentence or two.
        attacks: every attack that was run, in the order in which they ran.
        headline: the name of the attack, fixed beforehand, by which single records are ranked.
        members: how many members were audited (M).
        non_members: how many records that the model was not trained on (N).
        confidence: with which all intervals of all attacks hold at once.
        tests: over how many intervals that is corrected.
        null: the control with nothing to find.
        planted: the control with a leak to find.
        exchange: the control that shadow models trained on a record are kept apart from others; None without them.
        blind: the check of the two sets; None where only scores were given.
        claim: the claimed (epsilon, delta) beside what canaries prove; None without canaries.
        claimed: the claimed (epsilon, delta), tested or not.
        procedure: what the training procedure gives away; None without shadow models.
        shadows: how many shadow models were evaluated.
        shadows_asked: how many were asked for; 0 without ``train_fn``.
        accuracy: the share of members, and of others, that the target labels right; None where only scores were given.
        form: what the target lets out.
        defense: the name of the defense, or "".
        labels: of the records, members first (M + N,); None where only scores were given.
        columns: by which records are sliced, members first, (M + N,) each.
        inputs: the records where they can be shown as images (M + N, C, H, W) with values in [0, 1]; else None.
        warnings: what limits the audit, a sentence each.
        interrupted: the audit was stopped and holds what was computed until then.
        provenance: (name, value) pairs: what this was made from and how to make it again.
    """

    verdict: Verdict
    reason: str
    attacks: tuple[AttackResult, ...]
    headline: str
    members: int
    non_members: int
    confidence: float
    tests: int
    null: NullControl
    planted: PlantedControl
    exchange: ExchangeControl | None = None
    blind: BlindCheck | None = None
    claim: ClaimAudit | None = None
    claimed: tuple[float, float] | None = None
    procedure: Procedure | None = None
    shadows: int = 0
    shadows_asked: int = 0
    accuracy: tuple[Estimate, Estimate] | None = None
    form: OutputForm = field(default_factory=OutputForm)
    defense: str = ""
    labels: NDArray[np.int64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    inputs: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()
    interrupted: bool = False
    provenance: tuple[tuple[str, str], ...] = ()

    def attack(self, name: str) -> AttackResult:
        """The attack of this name.

        Raises:
            ArgumentError: there is none.
        """
        for one in self.attacks:
            if one.name == name:
                return one
        raise ArgumentError("name", name, "one of " + ", ".join(one.name for one in self.attacks))

    @property
    def auc(self) -> Estimate:
        """The area under the ROC of the strongest attack.

        Value, low and high are each the largest over the attacks, whose intervals hold at once: so this one covers the
        largest true area, whichever attack it belongs to.
        """
        return _largest([one.auc for one in self.attacks], self.confidence)

    def tpr(self, fpr: float) -> Estimate:
        """The true positive rate of the strongest attack at a false positive rate, as :attr:`auc` is.

        Args:
            fpr: one of :data:`RATES`.

        Raises:
            SampleTooSmallError: the audit has too few non-members to show so small a rate.
            ArgumentError: no attack was judged at this rate.
        """
        return self.rate(fpr).tpr

    def rate(self, fpr: float) -> RateAtRate:
        """As :meth:`tpr`, with the realised false positive rate and the threshold of the attack with the highest rate.

        Args:
            fpr: one of :data:`RATES`.

        Raises:
            SampleTooSmallError: the audit has too few non-members to show so small a rate.
            ArgumentError: no attack was judged at this rate.
        """
        if fpr not in RATES:
            raise ArgumentError("fpr", fpr, f"one of {RATES}, at which every attack is judged")
        shown = [one.rates[fpr] for one in self.attacks if fpr in one.rates]
        if not shown:
            raise SampleTooSmallError(
                f"{self.non_members:,} non-members cannot show a false positive rate of {fpr:g}; give at least "
                f"{round(1 / fpr):,}, or ask for a larger rate."
            )
        best = max(shown, key=lambda one: one.tpr.value)
        tpr = _largest([one.tpr for one in shown], self.confidence)
        return RateAtRate(fpr, tpr, best.fpr, best.threshold, best.coarse, best.reached)

    @property
    def records(self) -> Records:
        """The audited records, ranked by the headline attack."""
        from privet.audit.records import records_of

        return records_of(self)

    @property
    def slices(self) -> tuple[Slice, ...]:
        """What the headline attack finds in each group of each column."""
        from privet.audit.slices import slices_of

        return slices_of(self)

    def report(self, path: str | Path) -> Path:
        """Write the audit as one HTML page.

        Args:
            path: written over where it exists; its folder is made if need be.

        Returns:
            The path that was written.
        """
        from privet.audit.page import page_of
        from privet.report import write_html

        return write_html(page_of(self), path)

    def to_json(self) -> dict[str, Any]:
        """The audit as plain values that JSON can hold: numbers, texts, lists and dictionaries."""
        from privet.audit.plain import plain_of

        return plain_of(self)

    def __str__(self) -> str:
        from privet.audit.text import text_of

        return text_of(self)

    def assert_below(
        self,
        *,
        auc: float | None = None,
        tpr_at_0_1_percent: float | None = None,
        tpr_at_1_percent: float | None = None,
        tpr_at_10_percent: float | None = None,
    ) -> None:
        """Hold the audit to bounds; each holds only if the whole interval lies within it.

        Args:
            auc: the largest area under the ROC that is accepted.
            tpr_at_0_1_percent: the largest true positive rate accepted at a false positive rate of 0.1%.
            tpr_at_1_percent: the same at 1%.
            tpr_at_10_percent: the same at 10%.

        Raises:
            AssertionError: a bound does not hold, or the audit cannot show that it does; says which.
            ArgumentError: no bound was given, or one is not a number from 0 to 1.
        """
        from privet.audit.bounds import assert_bounds

        bounds = {
            "auc": auc,
            "tpr@0.1%": tpr_at_0_1_percent,
            "tpr@1%": tpr_at_1_percent,
            "tpr@10%": tpr_at_10_percent,
        }
        assert_bounds(self, {name: limit for name, limit in bounds.items() if limit is not None})


def backwards(attacks: Sequence[AttackResult]) -> tuple[str, ...]:
    """The attacks by which members score *lower* than others, beyond what chance explains; none where one finds a leak.

    Their intervals hold at once, so without any difference there is one with probability at most 1 - confidence.
    """
    return () if any(one.leaks for one in attacks) else tuple(one.name for one in attacks if one.auc.high < 0.5)


def _largest(estimates: list[Estimate], confidence: float) -> Estimate:
    return Estimate(
        max(one.value for one in estimates),
        max(one.low for one in estimates),
        max(one.high for one in estimates),
        confidence,
        min(one.n for one in estimates),
    )
