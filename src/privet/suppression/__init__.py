"""Suppression while training: the weights that matter least are set to zero and kept there. No formal guarantee."""

from privet.suppression.evidence import PrivateSteps
from privet.suppression.layers import Layer
from privet.suppression.ramp import Ramp
from privet.suppression.report import LayerSparsity, SparsityReport
from privet.suppression.suppression import Suppression

__all__ = ["Layer", "LayerSparsity", "PrivateSteps", "Ramp", "SparsityReport", "Suppression"]
