"""nn.Linear over any leading shape: y = x W^T + b."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Factors, Room, Use

__all__ = ["LinearRule", "LinearUse", "linear"]

_GHOST = 0.4  # arithmetic of the ghost norm relative to the gradient's, up to which it is the cheaper one
_GHOST_UNKEPT = 1.0  # the same where the gradient would have to be made again for the sum


class LinearUse:
    r"""Of :math:`y = \sum_i W_i x_i + \sum_j b_j`: per example :math:`G_b = \sum_t g_{bt} x_{bt}^T` for each weight.

    And :math:`\sum_t g_{bt}` for each bias. What is not trained is left out.
    """

    def __init__(
        self, weights: Sequence[tuple[Part, slice]], biases: Sequence[Part], inputs: Tensor, grad: Tensor
    ) -> None:
        """Take weights, each with the columns that it has of the inputs (B, T, q), and output gradients (B, T, p)."""
        self.parts: Sequence[Part] = [*(part for part, _ in weights), *biases]
        self._columns = [columns for _, columns in weights]
        self._biases = len(biases)
        self._inputs: Tensor | None = inputs
        self._grad: Tensor | None = grad
        self._kept: Tensor | None = None  # (B, p, q)
        self._bias_rows: Tensor | None = None  # (B, p)
        if biases:
            self._bias_rows = grad[:, 0] if grad.shape[1] == 1 else grad.sum(dim=1)

    def squared_norms(self, room: Room) -> list[Tensor]:  # noqa: D102
        found = self._weight_norms(room) if self._columns else []
        if self._bias_rows is not None:
            found += [kernels.squared_norms(self._bias_rows)] * self._biases
        return found

    def _weight_norms(self, room: Room) -> list[Tensor]:
        inputs, grad = self._pair()
        examples, positions, q = inputs.shape
        p = grad.shape[2]
        if positions == 1:
            return [kernels.outer_squared_norms(grad[:, 0], one[:, 0]) for one in self._each(inputs)]
        ghost = positions * (p + q) / (p * q)
        if ghost < _GHOST:
            return kernels.ghost_squared_norms(grad, self._each(inputs))
        kept = room.keep(examples, p, q)
        if kept is not None:
            self._kept = kernels.outer(grad, inputs, kept)
            self._inputs = self._grad = None
            return self._norms_of(self._kept)
        if ghost < _GHOST_UNKEPT:
            return kernels.ghost_squared_norms(grad, self._each(inputs))
        block = max(1, (1 << 22) // (p * q))
        blocks = []
        for start in range(0, examples, block):
            stop = min(start + block, examples)
            made = kernels.outer(grad[start:stop], inputs[start:stop], room.scratch(stop - start, p, q))
            blocks.append(self._norms_of(made))
        norms = [torch.cat(one) for one in zip(*blocks, strict=True)]
        most = self.most_norms()[: len(norms)]
        return [kernels.remade(one, top, positions, inputs.dtype) for one, top in zip(norms, most, strict=True)]

    def _each(self, values: Tensor) -> list[Tensor]:
        """The last axis in the columns of each weight."""
        return [values[..., columns] for columns in self._columns]

    def _norms_of(self, made: Tensor) -> list[Tensor]:
        return [kernels.squared_norms(one.flatten(1)) for one in self._each(made)]

    def most_norms(self) -> list[Tensor]:  # noqa: D102
        inputs, grad = self._pair()
        top: Tensor = torch.linalg.vector_norm(grad, dim=2, dtype=torch.float64)  # (B, T)
        found = [
            (torch.linalg.vector_norm(one, dim=2, dtype=torch.float64) * top).sum(dim=1) for one in self._each(inputs)
        ]
        return found + [top.sum(dim=1)] * self._biases

    def factors(self) -> list[Factors | None]:  # noqa: D102
        found: list[Factors | None] = []
        if self._columns:
            inputs, grad = self._pair()
            found += [Factors(grad, one) for one in self._each(inputs)]
        if self._bias_rows is not None:
            found += [_one_factor(self._bias_rows)] * self._biases
        return found

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:  # noqa: D102
        count = len(self._columns)
        if self._kept is not None:
            for one, view, clip in zip(self._each(self._kept), views[:count], weights[:count], strict=True):
                kernels.add_weighted_rows(view, one, clip)
        elif len({part.slot.group for part in self.parts[:count]}) == 1 < count:  # one product for all
            inputs, grad = self._pair()
            together = grad.new_zeros(grad.shape[2], inputs.shape[2])
            kernels.add_weighted_outer(together, grad, inputs, weights[0])
            for one, view in zip(self._each(together), views[:count], strict=True):
                view.add_(one)
        elif count:
            inputs, grad = self._pair()
            for one, view, clip in zip(self._each(inputs), views[:count], weights[:count], strict=True):
                kernels.add_weighted_outer(view, grad, one, clip)
        if self._bias_rows is not None:
            for view, clip in zip(views[count:], weights[count:], strict=True):
                kernels.add_weighted_rows(view, self._bias_rows, clip)

    def per_example(self, start: int, stop: int) -> list[Tensor]:  # noqa: D102
        found = []
        if self._kept is not None:
            found = self._each(self._kept[start:stop])
        elif self._columns:
            inputs, grad = self._pair()
            found = self._each(kernels.outer(grad[start:stop], inputs[start:stop]))
        if self._bias_rows is not None:
            found += [self._bias_rows[start:stop]] * self._biases
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
        weight, bias = (None if value is None else value.detach() for value in self._values)
        assert weight is not None
        flat = kernels.product(inputs.reshape(-1, inputs.shape[-1]), weight, bias)
        return flat.view(*inputs.shape[:-1], len(weight)), ()

    def backward(  # noqa: D102
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight = self._values[0].detach()
        rows, columns = len(inputs), weight.shape
        by_input = None
        if wants_input:
            flat = grad.reshape(-1, columns[0])
            by_input = kernels.product(flat, weight.to(grad.dtype).t()).view(*grad.shape[:-1], columns[1])
        return by_input, LinearUse(
            [] if self._weight is None else [(self._weight, slice(None))],
            [] if self._bias is None else [self._bias],
            inputs.to(weight.dtype).reshape(rows, -1, columns[1]),
            grad.to(weight.dtype).reshape(rows, -1, columns[0]),
        )


def linear(name: str, module: nn.Linear, part: PartOf) -> Handler:
    """How an nn.Linear is called."""
    rule = LinearRule(name, module.weight, module.bias, (part("weight"), part("bias")))

    def call(tape: Tape, input: Tensor) -> Tensor:
        return tape.call(rule, input)

    return call
