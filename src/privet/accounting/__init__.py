"""What was spent, and how much that is. numpy and scipy; never torch.

Events describe, a ledger records them before they happen, accountants interpret. The headline is the upper end.
"""

from privet.accounting import calibration
from privet.accounting.bound import Bound
from privet.accounting.events import (
    Event,
    NeighbouringRelation,
    NoSampling,
    Poisson,
    Sampling,
    TruncatedPoisson,
    joint_noise,
)
from privet.accounting.history import LedgerContents, RunContents
from privet.accounting.ledger import Ledger, read_ledger
from privet.accounting.live import OpenRun
from privet.accounting.monitor import Monitor, suggest_epochs, suggest_steps
from privet.accounting.pld import PLD
from privet.accounting.rdp import RDP
from privet.accounting.reference import Reference
from privet.accounting.run import Run
from privet.accounting.trajectory import Trajectory
from privet.accounting.zcdp import ZCDP

__all__ = [
    "PLD",
    "RDP",
    "ZCDP",
    "Bound",
    "Event",
    "Ledger",
    "LedgerContents",
    "Monitor",
    "NeighbouringRelation",
    "NoSampling",
    "OpenRun",
    "Poisson",
    "Reference",
    "Run",
    "RunContents",
    "Sampling",
    "Trajectory",
    "TruncatedPoisson",
    "calibration",
    "joint_noise",
    "read_ledger",
    "suggest_epochs",
    "suggest_steps",
]
