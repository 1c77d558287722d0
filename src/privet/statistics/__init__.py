"""Statistics that hold: ROC curves with ties as blocks, intervals, estimates. numpy and scipy only."""

from privet.statistics.area import auc_interval
from privet.statistics.estimate import Estimate
from privet.statistics.intervals import RateAtRate, clopper_pearson, tpr_at_fpr
from privet.statistics.roc import RocCurve, roc_curve

__all__ = ["Estimate", "RateAtRate", "RocCurve", "auc_interval", "clopper_pearson", "roc_curve", "tpr_at_fpr"]
