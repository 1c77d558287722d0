"""The privacy statement: what may be said about a trained model, what it rests on, and what it does not cover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privet.accounting.bound import Bound
from privet.atomic_file import replacing

__all__ = ["Statement"]

_COVERED = (
    "The released gradients of every step and all that is computed from them: the weights of every step, averages of "
    "them, the optimizer's state; the clip norms; this statement."
)
_NOT_COVERED = (
    "Whatever else looked at the private records: training losses, validation on them, the size of drawn batches, how "
    "long a step took; choices made after looking at them, such as of the model, the plan or which of several runs to "
    "keep; preprocessing fitted to them; the initial weights, if they were trained on them; records that were mixed "
    "from several; what the model or the loss keeps beside its parameters; sampler keys and process memory."
)
_CAVEAT = (
    "Gradients and noise are computed in floating point, where the theorem is about real numbers: the clip norm is "
    "held to rounding, and noise from floating-point arithmetic has gaps that an attacker with exact outputs might use "
    "(Mironov, 2012)."
)


@dataclass(frozen=True)
class Statement:
    """What a privacy officer needs to know about a run.

    Attributes:
        epsilon: the bracket at ``delta``; the upper end is the claim.
        delta: the delta of the claim.
        steps: taken.
        whole_plan: whether epsilon is that of the whole plan though fewer steps were taken.
        runs: in the ledger; all of them are in epsilon.
        test_run: whether the noise can be repeated from a seed.
        ledger_head: the ledger's digest when this was said.
        accountant: whose bracket it is.
        plan: what :meth:`privet.dp.Plan.describe` gives.
        groups: of parameters, each clipped on its own.
        counts: of examples, released with noise at every step for the clip norms.
    """

    epsilon: Bound
    delta: float
    steps: int
    whole_plan: bool
    runs: int
    test_run: bool
    ledger_head: str
    accountant: str
    plan: Mapping[str, Any]
    groups: int
    counts: int = 0

    def to_json(self) -> dict[str, Any]:
        """The statement as plain JSON data, texts included; no bound is ``null``."""
        return {
            "kind": "privacy statement",
            "version": 1,
            "private": not self.test_run,
            "epsilon": {"lower": _finite(self.epsilon.lower), "upper": _finite(self.epsilon.upper)},
            "delta": self.delta,
            "unit": self.plan["unit"],
            "relation": self.plan["relation"],
            "mechanism": self._mechanism(),
            "sampler": self._sampler(),
            "accountant": self.accountant,
            "steps": self.steps,
            "whole_plan": self.whole_plan,
            "runs": self.runs,
            "ledger_head": self.ledger_head,
            "plan": dict(self.plan),
            "covered": _COVERED,
            "not_covered": _NOT_COVERED,
            "caveat": _CAVEAT,
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON, in one step.

        Raises:
            FileWriteError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        with replacing(path) as file:
            file.write(text.encode())

    def __str__(self) -> str:
        steps = f"{self.steps:,} of {self.plan['steps']:,}"
        if self.whole_plan:
            steps += " (stopped early: epsilon is that of the whole plan)"
        lines = ["NOT PRIVATE: test run. The noise can be repeated from a seed; epsilon is what it would be."]
        lines = lines if self.test_run else []
        least, most = self.plan["noise_range"]
        rows = {
            "claim": f"epsilon {self.epsilon} at delta {self.delta:g}",
            "protects": f"one {self.plan['unit']}; data sets that differ by {_relation(str(self.plan['relation']))}",
            "mechanism": self._mechanism(),
            "noise": f"{most:.4g}" if least == most else f"{self.plan['noise']}, between {least:.4g} and {most:.4g}",
            "clipping": _clipping(self.plan["clipping"]),
            "sampling": self._sampler(),
            "steps": steps,
            "accountant": f"{self.accountant}; {self.runs} {'run' if self.runs == 1 else 'runs'} in the ledger",
            "plan, ledger": f"{str(self.plan['digest'])[:16]}, {self.ledger_head[:16]}",
            "covered": _COVERED,
            "not covered": _NOT_COVERED,
            "caveat": _CAVEAT,
        }
        return "\n".join(lines + [f"{name + ':':14}{text}" for name, text in rows.items()])

    def _mechanism(self) -> str:
        groups = "" if self.groups == 1 else f", {self.groups} groups of parameters clipped apart"
        counts = ""
        if self.counts:
            counts = ", and noisy counts of the examples below the clip norm"
        return f"Gaussian noise on sums of clipped per-example gradients{groups}{counts}, every step"

    def _sampler(self) -> str:
        sampling = self.plan["sampling"]
        match sampling["kind"]:
            case "none":
                return "every record in every step"
            case "truncated-poisson":
                return f"Poisson, rate {sampling['rate']:g}, cut at random to at most {sampling['cap']:,} records"
        return f"Poisson, rate {sampling['rate']:g}, a fresh sample for every step"


def _clipping(clipping: Mapping[str, Any]) -> str:
    match clipping["kind"]:
        case "fixed-norm":
            return f"every example's gradient to norm {clipping['max_grad_norm']:g}"
        case "adaptive-quantile":
            return (
                f"to a norm that starts at {clipping['initial_norm']:g} and follows the "
                f"{100 * clipping['target_quantile']:g}% quantile of the gradients' norms"
            )
        case "per-layer":
            return f"each layer on its own, {_clipping(clipping['strategy'])}"
        case "groups":
            return "; ".join(f"{', '.join(part['names'])}: {_clipping(part['strategy'])}" for part in clipping["parts"])
    return json.dumps(clipping, sort_keys=True)  # a strategy of the user's own


def _relation(relation: str) -> str:
    return "one record added or removed" if relation == "add-or-remove-one" else "one record replaced"


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
