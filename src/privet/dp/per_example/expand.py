"""A bare parameter, once for each example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Given, Use
from privet.errors import ArgumentError

__all__ = ["Expand", "expand"]


class Expand(nn.Module):
    """A parameter that no layer knows of (a class token, positions, a scale), given once for each example.

    In private training the gradient of each example's copy is that example's gradient: nothing is run twice, as a bare
    parameter in a module of one's own would be. Elsewhere it is ``value.expand(B, ...)`` and no more.

    Args:
        value: the first numbers, of any shape; they become the parameter ``value``.

    Raises:
        ArgumentError: ``value`` is no tensor of floating-point numbers.

    Example:
        >>> import torch
        >>> positions = Expand(torch.zeros(6, 4))
        >>> hidden = torch.randn(8, 6, 4)
        >>> (hidden + positions(hidden)).shape
        torch.Size([8, 6, 4])
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        given: object = value
        if not isinstance(given, Tensor) or not given.is_floating_point():
            found = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise ArgumentError("value", found, "a tensor of floating-point numbers")
        self.value = nn.Parameter(given.detach().clone())

    def forward(self, batch: Tensor) -> Tensor:
        """The parameter (B, *shape), for any tensor of B examples."""
        return self.value.expand(len(batch), *self.value.shape)


class _ExpandRule:
    """Each example's gradient is the output's."""

    def __init__(self, name: str, module: Expand, part: Part) -> None:
        self.name = name
        self._module = module
        self.parts: Sequence[Part] = [part]

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        value = self._module.value.detach()
        # A copy also of one example, so that what is changed in place is not the parameter.
        return value.expand(len(inputs), *value.shape).clone(memory_format=torch.contiguous_format), ()

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        return None, Given(self.parts, [grad.to(self._module.value.dtype)])


def expand(name: str, module: Expand, part: PartOf) -> Handler:
    """How an Expand is called."""
    value = part("value")
    assert value is not None  # a frozen one is no business of the engine
    rule = _ExpandRule(name, module, value)

    def call(tape: Tape, batch: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            tape.check_call(name, batch)
        return tape.call(rule, batch.new_empty(len(batch), 1))  # no more of it is needed, and it may change in place

    return call
