"""nn.Conv1d and nn.Conv2d: groups, stride, dilation, every padding mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Room, Use

__all__ = ["convolution"]

_GHOST = 0.5  # as for linear layers; what it saves here is less, since a grouped convolution is fast
_WIDE = 16  # channels from which a grouped convolution is faster than unfolding
_AT_ONCE = 8  # examples in one grouped convolution, so that what it reads stays in the cache
_BLOCK = 1 << 20  # numbers in a block of unfolded inputs or of gradients that are not kept

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Shape:
    """A convolution in two dimensions; in one, the height is 1."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(inputs, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def by_input(self, grad: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        return self._backward(grad, inputs, weight, self.groups, 0)

    def by_weight(self, grad: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """Summed over the examples."""
        return self._backward(grad, inputs, weight, self.groups, 1)

    def by_each_weight(self, grad: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """For each example: a convolution of one example in which each of them is a group of channels."""
        b = len(inputs)
        rows = weight.expand(b, *weight.shape).reshape(-1, *weight.shape[1:])
        together = (grad.reshape(1, -1, *grad.shape[2:]), inputs.reshape(1, -1, *inputs.shape[2:]), rows)
        return self._backward(*together, b * self.groups, 1).view(b, -1)

    def _backward(self, grad: Tensor, inputs: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        wanted = [which == 0, which == 1, False]
        found: Tensor = torch.ops.aten.convolution_backward(
            grad, inputs, weight, None, self.stride, self.padding, self.dilation, False, (0, 0), groups, wanted
        )[which]
        return found

    def unfolded(self, inputs: Tensor, places: int, room: Room) -> Tensor:
        """What each place sees, (b, C * kh * kw, L); good until the room's scratch is used again."""
        vertical, horizontal = self.padding
        if vertical or horizontal:
            inputs = F.pad(inputs, (horizontal, horizontal, vertical, vertical))
        out = room.scratch(len(inputs), inputs.shape[1] * self.kernel[0] * self.kernel[1], places)
        return kernels.unfold(inputs, self.kernel, self.stride, self.dilation, out)


class _ConvolutionUse:
    r"""Per example :math:`G_b = \sum_l g_{bl} u_{bl}^T`, u what place l sees; in each group of channels on its own."""

    def __init__(
        self, parts: tuple[Part | None, Part | None], weight: Tensor, shape: _Shape, inputs: Tensor, grad: Tensor
    ) -> None:
        """Take inputs (B, C, H, W) and output gradients (B, O, oh, ow), contiguous."""
        self.parts: Sequence[Part] = [part for part in parts if part is not None]
        self._trained, self._weight, self._shape = parts[0] is not None, weight, shape
        self._inputs: Tensor | None = inputs
        self._grad: Tensor | None = grad
        self._kept: Tensor | None = None
        self._bias_rows = grad.sum(dim=(2, 3)) if parts[1] is not None else None  # (B, O)

    def squared_norms(self, room: Room) -> list[Tensor]:
        found = [self._weight_norms(room)] if self._trained else []
        if self._bias_rows is not None:
            found.append(kernels.squared_norms(self._bias_rows))
        return found

    def _weight_norms(self, room: Room) -> Tensor:
        inputs, grad = self._pair()
        examples, p, numbers = len(inputs), grad.shape[1], self._weight.numel()
        places, q = grad.shape[2] * grad.shape[3], numbers // p
        if self._shape.groups == 1 and places * (p + q) < _GHOST * p * q:
            return self._ghost(inputs, grad, max(1, _BLOCK // (q * places)), room)
        self._kept = room.keep(examples, numbers)
        if self._kept is not None:
            self._make(inputs, grad, self._kept, room)
            self._inputs = self._grad = None
            return kernels.squared_norms(self._kept)
        block = max(_AT_ONCE, _BLOCK // numbers)
        norms = []
        for start in range(0, examples, block):
            stop = min(start + block, examples)
            made = inputs.new_empty(stop - start, numbers)
            self._make(inputs[start:stop], grad[start:stop], made, room)
            norms.append(kernels.squared_norms(made))
        return kernels.remade(torch.cat(norms), self.most_norms()[0], places, inputs.dtype)

    def most_norms(self) -> list[Tensor]:
        inputs, grad = self._pair()
        norms = torch.linalg.vector_norm(grad.flatten(2), dim=1, dtype=torch.float64)  # (B, L)
        found = []
        if self._trained:
            every = replace(self._shape, groups=1)
            ones = inputs.new_ones(1, 1, *self._shape.kernel, dtype=torch.float64)
            seen = every.forward(inputs.double().square().sum(dim=1, keepdim=True), ones, None).flatten(1).sqrt()
            found.append((norms * seen).sum(dim=1))
        return found if self._bias_rows is None else [*found, norms.sum(dim=1)]

    def _ghost(self, inputs: Tensor, grad: Tensor, block: int, room: Room) -> Tensor:
        places = grad.flatten(2).mT  # (B, L, O)
        norms = []
        for start in range(0, len(inputs), block):
            columns = self._shape.unfolded(inputs[start : start + block], places.shape[1], room)
            norms.append(kernels.ghost_squared_norms(places[start : start + block], columns.mT))
        return torch.cat(norms)

    def _make(self, inputs: Tensor, grad: Tensor, out: Tensor, room: Room) -> None:
        shape, places = self._shape, grad.shape[2] * grad.shape[3]
        if shape.groups > 1 or min(inputs.shape[1], grad.shape[1]) >= _WIDE:
            for start in range(0, len(inputs), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                out[some] = shape.by_each_weight(grad[some], inputs[some], self._weight)
            return
        q = self._weight.numel() // grad.shape[1]
        block = max(1, _BLOCK // (q * places))
        for start in range(0, len(inputs), block):
            some = slice(start, start + block)
            columns = shape.unfolded(inputs[some], places, room)
            kernels.outer(grad[some].flatten(2).mT, columns.mT, out[some].view(-1, grad.shape[1], q))

    def add_to(self, views: Sequence[Tensor], weights: Sequence[Tensor], room: Room) -> None:
        if self._kept is not None:
            kernels.add_weighted_rows(views[0], self._kept, weights[0])
        elif self._trained:
            inputs, grad = self._pair()
            if grad.numel() <= inputs.numel():
                grad = kernels.scaled(grad, weights[0])
            else:
                inputs = kernels.scaled(inputs, weights[0])
            views[0].add_(self._shape.by_weight(grad, inputs, self._weight).view_as(views[0]))
        if self._bias_rows is not None:
            kernels.add_weighted_rows(views[-1], self._bias_rows, weights[-1])

    def per_example(self, start: int, stop: int) -> list[Tensor]:
        found = []
        if self._trained:
            if self._kept is not None:
                made = self._kept[start:stop]
            else:
                inputs, grad = self._pair()
                made = self._shape.by_each_weight(grad[start:stop], inputs[start:stop], self._weight)
            found.append(made.view(stop - start, *self.parts[0].shape))
        if self._bias_rows is not None:
            found.append(self._bias_rows[start:stop])
        return found

    def clear(self, rows: Tensor) -> None:
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


class _ConvolutionRule:
    """A convolution of what is padded already, or padded with zeros alike on both sides."""

    def __init__(
        self, name: str, module: nn.Conv1d | nn.Conv2d, padding: Pair, parts: tuple[Part | None, Part | None]
    ) -> None:
        self.name = name
        self._module = module
        self._parts = parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]
        self._flat = isinstance(module, nn.Conv1d)
        self._shape = _Shape(
            _pair(module.kernel_size), _pair(module.stride, 1), padding, _pair(module.dilation, 1), module.groups
        )

    def _weight(self) -> Tensor:
        weight = self._module.weight.detach()
        return weight.unsqueeze(2) if self._flat else weight

    def _lifted(self, values: Tensor) -> Tensor:
        return values.unsqueeze(2) if self._flat else values

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        bias = self._module.bias
        output = self._shape.forward(self._lifted(inputs), self._weight(), None if bias is None else bias.detach())
        return (output.squeeze(2) if self._flat else output), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight, inputs, grad = self._weight(), self._lifted(inputs), self._lifted(grad)
        by_input = None
        if wants_input:
            by_input = self._shape.by_input(grad, inputs.to(grad.dtype), weight.to(grad.dtype))
            by_input = by_input.squeeze(2) if self._flat else by_input
        inputs, grad = inputs.to(weight.dtype).contiguous(), grad.to(weight.dtype).contiguous()
        return by_input, _ConvolutionUse(self._parts, weight, self._shape, inputs, grad)


def convolution(name: str, module: nn.Conv1d | nn.Conv2d, part: PartOf) -> Handler:
    """How an nn.Conv1d or nn.Conv2d is called. Other padding than zeros alike on both sides is done before it."""
    pads, mode = _pads(module), module.padding_mode
    before: Pair = (pads[2], pads[0]) if module.weight.dim() == 4 else (0, pads[0])
    even = mode == "zeros" and all(pads[i] == pads[i + 1] for i in range(0, len(pads), 2))
    rule = _ConvolutionRule(name, module, before if even else (0, 0), (part("weight"), part("bias")))

    def call(tape: Tape, input: Tensor) -> Tensor:
        if not even:
            input = F.pad(input, pads) if mode == "zeros" else F.pad(input, pads, mode)
        return tape.call(rule, input)

    return call


def _pads(module: nn.Conv1d | nn.Conv2d) -> list[int]:
    """(left, right) of the last dimension, then of the one before."""
    kernel, dilation, padding = module.kernel_size, module.dilation, module.padding
    found: list[int] = []
    for axis in reversed(range(len(kernel))):
        if padding == "same":
            total = dilation[axis] * (kernel[axis] - 1)
            found += [total // 2, total - total // 2]
        elif padding == "valid":
            found += [0, 0]
        else:
            found += [int(padding[axis])] * 2
    return found


def _pair(values: Sequence[int], before: int | None = None) -> Pair:
    """Two numbers; of one dimension, the first stands for a height of 1."""
    chosen = [int(value) for value in values]
    return (chosen[0], chosen[1]) if len(chosen) == 2 else (1 if before is None else before, chosen[0])
