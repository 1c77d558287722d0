"""The audit: what attacks found becomes estimates with intervals, and estimates become a verdict."""

from privet.audit.bounds import Bound, Outcome, bound_words, check_bound, parse_bound
from privet.audit.claim import ClaimAudit, audit_claim
from privet.audit.findings import BlindCheck, ExchangeControl, NullControl, PlantedControl, Procedure
from privet.audit.model import audit_model
from privet.audit.records import Record, Records
from privet.audit.result import RATES, AttackResult, AuditResult
from privet.audit.scores import audit_scores
from privet.audit.slices import Slice
from privet.audit.verdict import Verdict

__all__ = [
    "RATES",
    "AttackResult",
    "AuditResult",
    "BlindCheck",
    "Bound",
    "ClaimAudit",
    "ExchangeControl",
    "NullControl",
    "Outcome",
    "PlantedControl",
    "Procedure",
    "Record",
    "Records",
    "Slice",
    "Verdict",
    "audit_claim",
    "audit_model",
    "audit_scores",
    "bound_words",
    "check_bound",
    "parse_bound",
]
