"""Output defenses: a trained network, served with less in its answers.

They minimise what is answered. They carry no formal guarantee: an adaptive attacker loses little.

Example:
    >>> import torch
    >>> network = torch.nn.Linear(4, 10).eval()
    >>> defended = TopK(Rounding(network, decimals=2), k=3)
    >>> defended.output_form
    OutputForm(decimals=2, k=3, labels_only=False, probabilities=True)
    >>> defended.origin_network() is network
    True
"""

from __future__ import annotations

from privet.outputs.defense import Defense
from privet.outputs.export import export_onnx
from privet.outputs.labeling import Labeling
from privet.outputs.part import Part
from privet.outputs.rounding import Rounding
from privet.outputs.steps import TopKOutput
from privet.outputs.top_k import TopK

__all__ = ["Defense", "Labeling", "Part", "Rounding", "TopK", "TopKOutput", "export_onnx"]
