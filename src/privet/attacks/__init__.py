"""Attacks: what an adversary learns about the training data from a model. They know what they may see by a ``Target``."""

from privet.attacks import membership
from privet.attacks.target import Answer, Target

__all__ = ["Answer", "Target", "membership"]
