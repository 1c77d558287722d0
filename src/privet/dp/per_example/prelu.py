"""nn.PReLU: a slope for negative numbers, of each channel or of all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Given, Use

__all__ = ["prelu"]


class _PReLURule:
    r"""y = x where x > 0, else a x; :math:`G_b = \sum g \min(x, 0)`."""

    def __init__(self, name: str, module: nn.PReLU, part: Part) -> None:
        self.name = name
        self._module = module
        self.parts: Sequence[Part] = [part]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return F.prelu(inputs, self._module.weight.detach().to(inputs.dtype)), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        weight = self._module.weight.detach()
        channels = len(weight)
        above = inputs > 0
        by_input = None
        if wants_input:
            slope = weight.to(grad.dtype)
            slope = slope if channels == 1 else slope.view(-1, *(1,) * (inputs.dim() - 2))
            by_input = torch.where(above, grad, grad * slope)
        products = torch.where(above, 0.0, inputs.to(weight.dtype) * grad.to(weight.dtype))
        return by_input, Given(self.parts, [products.reshape(len(inputs), channels, -1).sum(dim=2)])


def prelu(name: str, module: nn.PReLU, part: PartOf) -> Handler:
    """How an nn.PReLU is called."""
    weight = part("weight")
    assert weight is not None  # a frozen slope is no business of the engine
    rule = _PReLURule(name, module, weight)

    def call(tape: Tape, input: Tensor) -> Tensor:
        return tape.call(rule, input)

    return call
