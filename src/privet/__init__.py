"""privet: how much a trained model gives away about its training data, how to make it less, how to prove it.

Rooms are loaded when they are first used: ``import privet`` alone loads neither torch nor scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from privet import (
        accounting,
        attacks,
        audit,
        checkpoints,
        data,
        dp,
        errors,
        models,
        output_form,
        outputs,
        report,
        schedules,
        statistics,
        suppression,
        training,
    )
    from privet.audit import audit_model

__all__ = [
    "accounting",
    "attacks",
    "audit",
    "audit_model",
    "checkpoints",
    "data",
    "dp",
    "errors",
    "models",
    "output_form",
    "outputs",
    "report",
    "schedules",
    "statistics",
    "suppression",
    "training",
]


def __getattr__(name: str) -> Any:
    if name == "audit_model":
        return importlib.import_module("privet.audit").audit_model
    if name in __all__:
        return importlib.import_module(f"privet.{name}")
    raise AttributeError(f"module 'privet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
