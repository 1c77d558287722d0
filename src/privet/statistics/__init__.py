"""Statistics that hold: ROC curves with ties as blocks, intervals, estimates. numpy and scipy only."""

from privet.statistics.area import auc_interval
from privet.statistics.estimate import Estimate
from privet.statistics.intervals import RateAtRate, clopper_pearson, tpr_at_fpr
from privet.statistics.mean import mean_interval
from privet.statistics.one_run import OneRunBound, default_guesses, one_run_epsilon, one_run_p_value
from privet.statistics.paired import tpr_ratio
from privet.statistics.pooled import pooled_auc, pooled_tpr_at_fpr
from privet.statistics.roc import RocCurve, roc_curve
from privet.statistics.sample_size import power_to_find, records_needed, smallest_fpr

__all__ = [
    "Estimate",
    "OneRunBound",
    "RateAtRate",
    "RocCurve",
    "auc_interval",
    "clopper_pearson",
    "default_guesses",
    "mean_interval",
    "one_run_epsilon",
    "one_run_p_value",
    "pooled_auc",
    "pooled_tpr_at_fpr",
    "power_to_find",
    "records_needed",
    "roc_curve",
    "smallest_fpr",
    "tpr_at_fpr",
    "tpr_ratio",
]
