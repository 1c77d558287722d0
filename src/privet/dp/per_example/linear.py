"""nn.Linear over any leading shape: y = x W^T + b."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Factors, Room, Use

__all__ = ["LinearRule", "LinearUse", "linear"]

_GHOST = 0.4  # arithmetic of the ghost norm relative to the gradient's, up to which it is the cheaper one
_GHOST_UNKEPT = 1.0  # the same where the gradient would have to be made again for the sum


class LinearUse:
    r"""Per example :math:`G_b = \sum_t g_{bt} x_{bt}^T` for the weight and :math:`\sum_t g_{bt}` for the bias."""

    def __init__(self, weight: Part | None, bias: Part | None, inputs: Tensor, grad: Tensor) -> None:
        """Take inputs (B, T, q) and output gradients (B, T, p), of the dtype that sums are made in."""
        self.parts: Sequence[Part] = [part for part in (weight, bias) if part is not None]
        self._weight, self._bias = weight, bias
        self._inputs: Tensor | None = inputs
        self._grad: Tensor | None = grad
        self._kept: Tensor | None = None
        self._bias_rows: Tensor | None = None  # (B, p)
        if bias is not None:
            self._bias_rows = grad[:, 0] if grad.shape[1] == 1 else grad.sum(dim=1)

    def squared_norms(self, room: Room) -> list[Tensor]:  # noqa: D102
        found = []
        if self._weight is not None:
            found.append(self._weight_norms(room))
        if self._bias_rows is not None:
            found.append(kernels.squared_norms(self._bias_rows))
        return found

    def _weight_norms(self, room: Room) -> Tensor:
        inputs, grad = self._pair()
        examples, positions, q = inputs.shape
        p = grad.shape[2]
        if positions == 1:
            return kernels.outer_squared_norms(grad[:, 0], inputs[:, 0])
        ghost = positions * (p + q) / (p * q)
        if ghost < _GHOST:
            return kernels.ghost_squared_norms(grad, inputs)
        kept = room.keep(examples, p, q)
        if kept is not None:
            self._kept = kernels.outer(grad, inputs, kept)
            self._inputs = self._grad = None
            return kernels.squared_norms(self._kept.flatten(1))
        if ghost < _GHOST_UNKEPT:
            return kernels.ghost_squared_norms(grad, inputs)
        block = max(1, (1 << 22) // (p * q))
        norms = []
        for start in range(0, examples, block):
            stop = min(start + block, examples)
            made = kernels.outer(grad[start:stop], inputs[start:stop], room.scratch(stop - start, p, q))
            norms.append(kernels.squared_norms(made.flatten(1)))
        return kernels.remade(torch.cat(norms), self.most_norms()[0], positions, inputs.dtype)

    def most_norms(self) -> list[Tensor]:  # noqa: D102
        inputs, grad = self._pair()
        norms = [torch.linalg.vector_norm(values, dim=2, dtype=torch.float64) for values in (inputs, grad)]  # (B, T)
        found = [] if self._weight is None else [(norms[0] * norms[1]).sum(dim=1)]
        return found if self._bias is None else [*found, norms[1].sum(dim=1)]

    def factors(self) -> list[Factors | None]:  # noqa: D102
        found: list[Factors | None] = []
        if self._weight is not None:
            inputs, grad = self._pair()
            found.append(Factors(grad, inputs))
        if self._bias_rows is not None:
            found.append(_one_factor(self._bias_rows))
        return found

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:  # noqa: D102
        if self._weight is not None:
            if self._kept is not None:
                kernels.add_weighted_rows(views[0], self._kept, weights[0])
            else:
                inputs, grad = self._pair()
                kernels.add_weighted_outer(views[0], grad, inputs, weights[0])
        if self._bias_rows is not None:
            kernels.add_weighted_rows(views[-1], self._bias_rows, weights[-1])

    def per_example(self, start: int, stop: int) -> list[Tensor]:  # noqa: D102
        found = []
        if self._weight is not None:
            if self._kept is not None:
                found.append(self._kept[start:stop])
            else:
                inputs, grad = self._pair()
                found.append(kernels.outer(grad[start:stop], inputs[start:stop]))
        if self._bias_rows is not None:
            found.append(self._bias_rows[start:stop])
        return found

    def clear(self, rows: Tensor) -> None:  # noqa: D102
        if self._kept is not None:
            self._kept = kernels.cleared(self._kept, rows)
        if self._inputs is not None and self._grad is not None:
            self._inputs, self._grad = kernels.cleared(self._inputs, rows), kernels.cleared(self._grad, rows)
        if self._bias_rows is not None:
            self._bias_rows = kernels.cleared(self._bias_rows, rows)

    def _pair(self) -> tuple[Tensor, Tensor]:
        assert self._inputs is not None
        assert self._grad is not None
        return self._inputs, self._grad


def _one_factor(rows: Tensor) -> Factors:
    return Factors(rows.unsqueeze(1), rows.new_ones(len(rows), 1, 1))


class LinearRule:
    """A linear map by (a part of) a weight."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor | None, parts: tuple[Part | None, Part | None]) -> None:
        """Take the weight (p, q) and the bias (p,) or None, and their trainable parts."""
        self.name = name
        self._values = (weight, bias)
        self._weight, self._bias = parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:  # noqa: D102
        weight, bias = self._values
        return F.linear(inputs, weight.detach(), None if bias is None else bias.detach()), ()

    def backward(  # noqa: D102
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight = self._values[0].detach()
        by_input = grad.matmul(weight.to(grad.dtype)) if wants_input else None
        rows, columns = len(inputs), weight.shape
        return by_input, LinearUse(
            self._weight,
            self._bias,
            inputs.to(weight.dtype).reshape(rows, -1, columns[1]),
            grad.to(weight.dtype).reshape(rows, -1, columns[0]),
        )


def linear(name: str, module: nn.Linear, part: PartOf) -> Handler:
    """How an nn.Linear is called."""
    rule = LinearRule(name, module.weight, module.bias, (part("weight"), part("bias")))

    def call(tape: Tape, input: Tensor) -> Tensor:
        return tape.call(rule, input)

    return call
