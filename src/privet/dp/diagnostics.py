"""What a step saw of the data: for debugging, and covered by no epsilon."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Diagnostics"]


@dataclass
class Diagnostics:
    """The last step, as its private records made it. **Not covered by epsilon**: look, and do not publish.

    Attributes:
        examples: how many records the sample held.
        taken_out: how many of them had a gradient that is NaN or infinite.
        clipped: how many others had a gradient above the norm of some group.
        mean_loss: over the sample; NaN for an empty one.
        mean_norm: of the gradients that are finite, over all parameters; NaN where there is none.
    """

    examples: int = 0
    taken_out: int = 0
    clipped: int = 0
    mean_loss: float = float("nan")
    mean_norm: float = float("nan")

    _losses: float = 0.0
    _norms: float = 0.0

    def start(self, examples: int) -> None:
        """Begin a step."""
        self.__init__(examples)  # type: ignore[misc]

    def add(self, squared_norms: Tensor, factors: Tensor, losses: Tensor) -> None:
        """Count a part: squared norms and factors (G, b), losses (b,)."""
        finite = squared_norms.isfinite().all(dim=0)
        self.taken_out += int((~finite).sum())
        self.clipped += int(((factors < 1.0).any(dim=0) & finite).sum())
        self._losses += float(losses.double().sum())
        self._norms += float(squared_norms.sum(dim=0)[finite].sqrt().sum())
        self.mean_loss = self._losses / max(1, self.examples)
        usable = self.examples - self.taken_out
        self.mean_norm = self._norms / usable if usable else float("nan")

    def __str__(self) -> str:
        return (
            f"NOT COVERED BY EPSILON: {self.examples} examples, mean loss {self.mean_loss:.4g}, mean gradient norm "
            f"{self.mean_norm:.4g}, {self.clipped} clipped, {self.taken_out} taken out (NaN or infinite)"
        )
