"""An audit as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from privet.audit.result import RATES
from privet.audit.words import readable
from privet.statistics import Estimate, RateAtRate

if TYPE_CHECKING:
    from privet.audit.result import AttackResult, AuditResult
    from privet.audit.slices import Slice

__all__ = ["plain_of"]

_TOP = 100


def plain_of(result: AuditResult) -> dict[str, Any]:
    """The audit as numbers, texts, lists and dictionaries; rates that cannot be shown are None, as are infinities."""
    claimed = result.claimed if result.claim is None else result.claim.claim
    return {
        "verdict": result.verdict.value,
        "reason": result.reason,
        "readable": readable(result),
        "auc": _estimate(result.auc),
        "tpr": {f"{rate:g}": _shown(result, rate) for rate in RATES},
        "n": {"members": result.members, "non_members": result.non_members},
        "accuracy": None
        if result.accuracy is None
        else dict(zip(("members", "non_members"), map(_estimate, result.accuracy), strict=True)),
        "confidence": result.confidence,
        "tests": result.tests,
        "attacks": [_attack(attack) for attack in result.attacks],
        "headline": result.headline,
        "blind": None if result.blind is None else _plain(vars(result.blind)),
        "controls": {
            "null": {**_plain(vars(result.null)), "broken": result.null.broken},
            "planted": _plain(vars(result.planted)),
            "exchange": None if result.exchange is None else _plain(vars(result.exchange)),
        },
        "claim": None if claimed is None else _claim(result, claimed),
        "slices": [_slice(one) for one in result.slices],
        "records": [
            {"member": one.row, "score": _plain(one.score), "caught_at": _estimate(one.caught_at)}
            for one in result.records.top(_TOP)
        ],
        "procedure": _procedure(result),
        "shadows": result.shadows,
        "shadows_asked": result.shadows_asked,
        "form": _plain(vars(result.form)),
        "defense": result.defense or None,
        "warnings": list(result.warnings),
        "interrupted": result.interrupted,
        "provenance": dict(result.provenance),
    }


def _estimate(estimate: Estimate) -> dict[str, float]:
    return {"value": float(estimate.value), "low": float(estimate.low), "high": float(estimate.high)}


def _rate(rate: RateAtRate) -> dict[str, Any]:
    return {
        **_estimate(rate.tpr),
        "realised_fpr": float(rate.fpr.value),
        "realised_fpr_low": float(rate.fpr.low),
        "realised_fpr_high": float(rate.fpr.high),
        "coarse": bool(rate.coarse),
        "reached": bool(rate.reached),
    }


def _shown(result: AuditResult, asked: float) -> dict[str, Any] | None:
    return _rate(result.rate(asked)) if any(asked in attack.rates for attack in result.attacks) else None


def _attack(attack: AttackResult) -> dict[str, Any]:
    return {
        "name": attack.name,
        "tier": attack.tier,
        "auc": _estimate(attack.auc),
        "tpr": {f"{asked:g}": _rate(attack.rates[asked]) if asked in attack.rates else None for asked in RATES},
        "n": {"members": int(attack.scores.members.size), "non_members": int(attack.scores.non_members.size)},
        "leaks": bool(attack.leaks),
        "planted_found": bool(attack.planted_found),
        "required": bool(attack.required),
        "details": _plain(attack.details),
    }


def _claim(result: AuditResult, claimed: tuple[float, float]) -> dict[str, Any]:
    epsilon, delta = claimed
    claim: dict[str, Any] = {"epsilon": float(epsilon), "delta": float(delta), "tested": result.claim is not None}
    if result.claim is not None:
        bound = result.claim.bound
        claim["violated"] = bool(result.claim.violated)
        claim["bound"] = {
            name: _plain(getattr(bound, name))
            for name in ("epsilon_low", "delta", "confidence", "canaries", "guesses", "correct", "tests")
        }
    return claim


def _slice(one: Slice) -> dict[str, Any]:
    return {
        "column": one.column,
        "group": one.group,
        "n": {"members": int(one.members), "non_members": int(one.non_members)},
        "too_few": one.too_few,
        "auc": None if one.auc is None else _estimate(one.auc),
        "tpr": None if one.tpr is None else _estimate(one.tpr),
        "fpr": None if one.fpr is None else _estimate(one.fpr),
        "leaks": one.leaks,
    }


def _procedure(result: AuditResult) -> dict[str, Any] | None:
    procedure = result.procedure
    if procedure is None:
        return None
    return {
        "attack": procedure.attack,
        "shadows": procedure.shadows,
        "auc": _estimate(procedure.auc),
        "tpr": {f"{asked:g}": _rate(rate) for asked, rate in procedure.rates.items()},
        "confidence": procedure.auc.confidence,
    }


def _plain(value: Any) -> Any:
    """Whatever an attack says of itself, as values that JSON can hold."""
    match value:
        case Estimate():
            return {**_estimate(value), "confidence": value.confidence}
        case RateAtRate():
            return _rate(value)
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case bool() | str() | None:
            return value
        case np.ndarray():
            return [_plain(each) for each in value.tolist()]
        case list() | tuple() | set() | frozenset():
            return [_plain(each) for each in value]
        case np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
    return str(value)
