"""Convolutions in one to three dimensions, and transposed ones: groups, stride, dilation, every padding mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example import kernels
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Factors, Room, Use

__all__ = ["convolution", "transposed_convolution"]

_GHOST = 0.5  # as for linear layers; what it saves here is less, since a grouped convolution is fast
_WIDE = 16  # channels from which a grouped convolution is faster than unfolding
_AT_ONCE = 8  # examples in one grouped convolution, so that what it reads stays in the cache
_BLOCK = 1 << 20  # numbers in a block of unfolded inputs or of gradients that are not kept

Sizes = tuple[int, ...]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


@dataclass(frozen=True)
class _Shape:
    """A convolution in two or three dimensions; of one, the height is 1."""

    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = F.conv2d if len(self.kernel) == 2 else F.conv3d
        return convolve(inputs, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, rest: Sizes) -> Tensor:
        """From what :meth:`forward` gives back to its inputs' shape, which has ``rest`` places that none sees."""
        convolve = F.conv_transpose2d if len(self.kernel) == 2 else F.conv_transpose3d
        return convolve(inputs, weight, bias, self.stride, self.padding, rest, self.groups, self.dilation)

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
            grad,
            inputs,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0,) * len(self.kernel),
            groups,
            wanted,
        )[which]
        return found

    def unfolded(self, inputs: Tensor, places: int, room: Room) -> Tensor:
        """What each place sees, (b, C * kernel, L); good until the room's scratch is used again."""
        if any(self.padding):
            inputs = F.pad(inputs, [size for size in reversed(self.padding) for _ in range(2)])
        out = room.scratch(len(inputs), inputs.shape[1] * math.prod(self.kernel), places)
        return kernels.unfold(inputs, self.kernel, self.stride, self.dilation, out)


class _ConvolutionUse:
    r"""Per example :math:`G_b = \sum_l g_{bl} u_{bl}^T`, u what place l sees; in each group of channels on its own."""

    def __init__(
        self,
        parts: tuple[Part | None, Part | None],
        weight: Tensor,
        shape: _Shape,
        inputs: Tensor,
        grad: Tensor,
        output_grad: Tensor | None = None,
    ) -> None:
        """Take inputs (B, C, *size) and output gradients (B, O, *places), contiguous.

        A transposed convolution has them the other way round, and the bias is of ``output_grad``.
        """
        self.parts: Sequence[Part] = [part for part in parts if part is not None]
        self._trained, self._weight, self._shape = parts[0] is not None, weight, shape
        self._inputs: Tensor | None = inputs
        self._grad: Tensor | None = grad
        self._kept: Tensor | None = None
        self._bias_rows: Tensor | None = None  # (B, O)
        self._biased: Tensor | None = None  # what they are sums of
        if parts[1] is not None:
            self._biased = (grad if output_grad is None else output_grad).flatten(2)
            self._bias_rows = self._biased.sum(dim=2)

    def squared_norms(self, room: Room) -> list[Tensor]:
        found = [self._weight_norms(room)] if self._trained else []
        self._biased = None
        if self._bias_rows is not None:
            found.append(kernels.squared_norms(self._bias_rows))
        return found

    def _weight_norms(self, room: Room) -> Tensor:
        inputs, grad = self._pair()
        examples, p, numbers = len(inputs), grad.shape[1], self._weight.numel()
        places, q = math.prod(grad.shape[2:]), numbers // p
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
        found = []
        if self._trained:
            inputs, grad = self._pair()
            norms = torch.linalg.vector_norm(grad.flatten(2), dim=1, dtype=torch.float64)  # (B, L)
            every = replace(self._shape, groups=1)
            ones = inputs.new_ones(1, 1, *self._shape.kernel, dtype=torch.float64)
            seen = every.forward(inputs.double().square().sum(dim=1, keepdim=True), ones, None).flatten(1).sqrt()
            found.append((norms * seen).sum(dim=1))
        if self._biased is not None:
            found.append(torch.linalg.vector_norm(self._biased, dim=1, dtype=torch.float64).sum(dim=1))
        return found

    def factors(self) -> list[Factors | None]:
        return [None] * len(self.parts)

    def _ghost(self, inputs: Tensor, grad: Tensor, block: int, room: Room) -> Tensor:
        places = grad.flatten(2).mT  # (B, L, O)
        norms = []
        for start in range(0, len(inputs), block):
            columns = self._shape.unfolded(inputs[start : start + block], places.shape[1], room)
            norms += kernels.ghost_squared_norms(places[start : start + block], [columns.mT])
        return torch.cat(norms)

    def _make(self, inputs: Tensor, grad: Tensor, out: Tensor, room: Room) -> None:
        shape, places = self._shape, math.prod(grad.shape[2:])
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

    def __init__(self, name: str, module: Convolution, padding: Sizes, parts: tuple[Part | None, Part | None]) -> None:
        self.name = name
        self._module = module
        self._parts = parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]
        self._lift = _Lift(module)
        self._shape = _shape(module, padding)

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        bias = self._module.bias
        up = self._lift.up
        output = self._shape.forward(up(inputs), up(self._module.weight.detach()), _detached(bias))
        return self._lift.down(output), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight, inputs, grad = map(self._lift.up, (self._module.weight.detach(), inputs, grad))
        by_input = None
        if wants_input:
            by_input = self._lift.down(self._shape.by_input(grad, inputs.to(grad.dtype), weight.to(grad.dtype)))
        inputs, grad = inputs.to(weight.dtype).contiguous(), grad.to(weight.dtype).contiguous()
        return by_input, _ConvolutionUse(self._parts, weight, self._shape, inputs, grad)


class _TransposedRule:
    """The map by which a convolution's output gradients give its inputs'; inputs and outputs change their places."""

    def __init__(self, name: str, module: Transposed, rest: Sizes, parts: tuple[Part | None, Part | None]) -> None:
        self.name = name
        self._module = module
        self._parts = parts
        self.parts: Sequence[Part] = [part for part in parts if part is not None]
        self._lift = _Lift(module)
        self._rest = _lifted(rest, 0)
        self._shape = _shape(module, _lifted(tuple(map(int, module.padding)), 0))

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        bias, up = self._module.bias, self._lift.up
        output = self._shape.transposed(up(inputs), up(self._module.weight.detach()), _detached(bias), self._rest)
        return self._lift.down(output), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight, inputs, grad = map(self._lift.up, (self._module.weight.detach(), inputs, grad))
        seen, shape = grad, self._shape
        if any(self._rest):  # the last places are beyond what the convolution back may look at
            pads = [pad for size, rest in zip(shape.padding, self._rest, strict=True) for pad in (size - rest, size)]
            seen, shape = F.pad(grad, pads[::-1]), replace(shape, padding=(0,) * len(shape.padding))
        by_input = self._lift.down(shape.forward(seen, weight.to(grad.dtype), None)) if wants_input else None
        inputs, seen = inputs.to(weight.dtype).contiguous(), seen.to(weight.dtype).contiguous()
        return by_input, _ConvolutionUse(self._parts, weight, shape, seen, inputs, grad.to(weight.dtype))


def convolution(name: str, module: Convolution, part: PartOf) -> Handler:
    """How a convolution is called. Other padding than zeros alike on both sides is done before it."""
    pads, mode = _pads(module), module.padding_mode
    even = mode == "zeros" and all(pads[i] == pads[i + 1] for i in range(0, len(pads), 2))
    before = tuple(pads[::-2]) if even else (0,) * len(module.kernel_size)
    rule = _ConvolutionRule(name, module, _lifted(before, 0), (part("weight"), part("bias")))

    def call(tape: Tape, input: Tensor) -> Tensor:
        tape.check_dims(type(module).__name__, name, input, len(module.kernel_size) + 2)
        if not even:
            input = F.pad(input, pads) if mode == "zeros" else F.pad(input, pads, mode)
        return tape.call(rule, input)

    return call


def transposed_convolution(name: str, module: Transposed, part: PartOf) -> Handler:
    """How a transposed convolution is called."""
    parts = part("weight"), part("bias")

    def call(tape: Tape, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        tape.check_dims(type(module).__name__, name, input, len(module.kernel_size) + 2)
        sizes: Any = (module.stride, module.padding, module.kernel_size, len(module.kernel_size), module.dilation)
        rest = module._output_padding(input, output_size, *sizes)
        return tape.call(_TransposedRule(name, module, tuple(map(int, rest)), parts), input)

    return call


class _Lift:
    """One dimension as two, the first of which is 1."""

    def __init__(self, module: Convolution | Transposed) -> None:
        self._flat = len(module.kernel_size) == 1

    def up(self, values: Tensor) -> Tensor:
        return values.unsqueeze(2) if self._flat else values

    def down(self, values: Tensor) -> Tensor:
        return values.squeeze(2) if self._flat else values


def _shape(module: Convolution | Transposed, padding: Sizes) -> _Shape:
    kernel, stride, dilation = (
        _lifted(tuple(map(int, sizes)), 1) for sizes in (module.kernel_size, module.stride, module.dilation)
    )
    return _Shape(kernel, stride, padding, dilation, module.groups)


def _lifted(sizes: Sizes, before: int) -> Sizes:
    return sizes if len(sizes) > 1 else (before, *sizes)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _pads(module: Convolution) -> list[int]:
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
