"""Canaries: records that are trained on or not by the flip of a coin, and scores that tell which.

The coins make the evidence: see :func:`privet.statistics.one_run.one_run_epsilon`.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privet.attacks.target import Target
from privet.errors import ArgumentError, DataError, LabelError

__all__ = ["CanaryDesign", "black_box", "check_canaries"]

_COINS = 0x636F_696E  # sets these draws apart from others of the same seed
_LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class CanaryDesign:
    """Which canaries are trained on: an independent fair coin for each.

    It is plain data: ``CanaryDesign(**design.to_json())`` is the same design. Who knows it before the audit can fake
    scores; who trains needs it. Keep it from whoever scores.

    Attributes:
        count: of canaries, m >= 1.
        coins: a hexadecimal digit for every four canaries, first canary first; 1 is in.
        seed: what the coins were drawn from; None for the system's randomness.

    Example:
        >>> design = CanaryDesign.draw(6, seed=0)
        >>> design
        CanaryDesign(count=6, coins='78', seed=0)
        >>> design.included
        array([False,  True,  True,  True,  True, False])
    """

    count: int
    coins: str
    seed: int | None = None

    def __post_init__(self) -> None:
        _whole("count", self.count, 1)
        digits = -(-self.count // 4)
        if len(self.coins) != digits or any(digit not in "0123456789abcdef" for digit in self.coins):
            raise ArgumentError("coins", self.coins, f"{digits} hexadecimal digits, one for every four of the canaries")
        if any(_bits(self.coins)[self.count :]):
            raise ArgumentError("coins", self.coins, f"zeros after the first {self.count} coins")

    @classmethod
    def draw(cls, count: int, seed: int | None = None) -> CanaryDesign:
        """Flip the coins.

        Args:
            count: m >= 1.
            seed: makes the coins repeatable, and known to whoever knows the seed: for tests. None draws them from the
                system's randomness.

        Raises:
            ArgumentError: if a number is out of range.
        """
        _whole("count", count, 1)
        if seed is None:
            bits = [secrets.randbits(1) for _ in range(count)]
        else:
            _whole("seed", seed, 0)
            bits = np.random.default_rng([_COINS, seed]).integers(0, 2, count).tolist()
        bits += [0] * (-count % 4)
        fours = zip(*[iter(bits)] * 4, strict=True)
        return cls(count, "".join(f"{8 * a + 4 * b + 2 * c + d:x}" for a, b, c, d in fours), seed)

    @property
    def included(self) -> NDArray[np.bool_]:
        """Which canaries are trained on (m,)."""
        return np.array(_bits(self.coins)[: self.count], dtype=bool)

    def to_json(self) -> dict[str, Any]:
        """The design as plain data."""
        return asdict(self)


def black_box(target: Target, canaries: tuple[Tensor, Tensor], before: Target | None = None) -> NDArray[np.float64]:
    r"""Score each canary by how sure the trained network is of its label.

    .. math:: s(x, y) = \log p_y(x) - \log p^{(0)}_y(x)

    with the second term from the network before it was trained, where that is given: it takes out how hard a canary is.

    Args:
        target: the trained network as the attacker sees it.
        canaries: inputs (m, ...) and labels (m,), trained on or not.
        before: the network with the weights that training began with.

    Returns:
        Scores (m,); higher means "in".

    Raises:
        ArgumentError: if the two networks differ in the number of classes.
        DataError: if inputs and labels do not fit each other, or an answer is not what the target's form says.
        LabelError: if a label is not an integer in 0 ... classes - 1.

    Example:
        >>> target = Target(torch.nn.Identity(), classes=2)
        >>> black_box(target, (torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0]))).round(2)
        array([-0.05, -3.05])
    """
    inputs, labels = canaries
    check_canaries(inputs, labels, target.classes)
    if before is not None and before.classes != target.classes:
        raise ArgumentError("before", f"of {before.classes} classes", f"one of {target.classes}, as the target has")
    scores = _own_label(target, inputs, labels)
    return scores if before is None else scores - _own_label(before, inputs, labels)


def check_canaries(inputs: Tensor, labels: Tensor, classes: int | None = None) -> None:
    """Refuse what are no labelled canaries.

    Raises:
        DataError: if inputs and labels differ in number, or there are none.
        LabelError: if a label is not an integer in 0 ... classes - 1 (of at least 0, where classes are not known).
    """
    if len(inputs) != len(labels) or len(inputs) == 0:
        raise DataError(
            f"canaries: {len(inputs)} inputs and {len(labels)} labels; give as many of each, and at least one."
        )
    if labels.dtype not in _LABEL_TYPES or labels.ndim != 1:
        raise LabelError(f"canaries: labels are {labels.dtype} of shape {tuple(labels.shape)}; give integers (m,).")
    wrong = torch.nonzero((labels < 0) | (labels >= classes) if classes is not None else labels < 0)
    if len(wrong):
        allowed = "of at least 0" if classes is None else f"in 0 ... {classes - 1}"
        first = int(wrong[0])
        raise LabelError(f"canaries: label {first} is {int(labels[first])}; give integers {allowed}.")


def _own_label(target: Target, inputs: Tensor, labels: Tensor) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = target.ask(inputs).gather(1, labels.cpu().long()[:, None])[:, 0].numpy()
    return scores


def _bits(coins: str) -> list[int]:
    return [int(digit, 16) >> place & 1 for digit in coins for place in (3, 2, 1, 0)]


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(name, value, f"a whole number of at least {least}")
