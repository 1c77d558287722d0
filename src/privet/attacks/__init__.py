"""Attacks: what an adversary learns about the training data; a ``Target`` says what it may see."""

from privet.attacks import inversion, membership
from privet.attacks.target import Target

__all__ = ["Target", "inversion", "membership"]
