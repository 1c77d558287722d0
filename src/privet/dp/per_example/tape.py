"""What one forward and backward pass leaves behind: each layer's use of its parameters, and the norms so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from privet.dp.per_example import kernels
from privet.dp.per_example.precision import full_precision
from privet.dp.per_example.slots import Part, Slot
from privet.dp.per_example.use import Room, Use
from privet.errors import PrivateTrainingError, UnsupportedLayerError

__all__ = ["Handler", "Rule", "Tape"]

_KEPT = 0.6  # of the memory that the layers' inputs take, for per-example gradients that are kept for the sum
_LEAST = 16 << 20  # bytes that no machine misses, and that let small networks keep all of them


class Rule(Protocol):
    """The equations of one layer."""

    name: str

    @property
    def parts(self) -> Sequence[Part]:
        """The trainable parts of parameters that it uses."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and what the backward pass needs besides the input."""

    def backward(
        self, inputs: Tensor, extras: tuple[Tensor, ...], grad: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Use]:
        """The gradient by the input, if wanted, and what the parameters' per-example gradients are made of."""


class Tape:
    """One pass over one batch.

    Attributes:
        size: examples in the batch, B.
        squares: (G, B) float64, the squared norms of what has arrived.
        uses: what has arrived and is needed for the sum.
    """

    def __init__(self, size: int, groups: int, anchor: Tensor, room: Room) -> None:
        """Use :meth:`Engine.take`."""
        self.size = size
        self.anchor = anchor
        self.squares = torch.zeros(groups, size, dtype=torch.float64, device=anchor.device)
        self.uses: list[Use] = []
        self.saved_bytes = 0
        self._room = room
        self._parts: defaultdict[int, list[Part]] = defaultdict(list)  # by slot
        self._shared: set[int] = set()
        self._terms: dict[int, int] = {}  # of the sum that each slot's gradient is, or more
        self._waiting: list[Use] = []
        self._backward = False

    def call(self, rule: Rule, inputs: Tensor) -> Tensor:
        """Run a layer forward, and note what its backward pass brings."""
        if not torch.is_grad_enabled():
            return rule.forward(inputs)[0]
        self.check_call(rule.name, inputs)
        self.announce(rule.parts, inputs)
        output: Tensor = _Call.apply(self.anchor, self, rule, inputs)  # type: ignore[no-untyped-call]
        return output

    def check_call(self, name: str, inputs: Tensor) -> None:
        """Refuse a call whose examples cannot be told apart."""
        if self._backward:
            raise UnsupportedLayerError(
                f"layer {name!r} was called again during the backward pass (activation checkpointing?), where its "
                "gradients would be counted twice. Switch checkpointing off; use a smaller max_physical_batch."
            )
        if inputs.dim() < 1 or inputs.shape[0] != self.size:
            raise UnsupportedLayerError(
                f"layer {name!r} got an input of shape {tuple(inputs.shape)} in a batch of {self.size} (a check takes "
                "a few records of yours); its first dimension has to be the examples, one row each. Keep (batch, ...) "
                "all the way: do not flatten positions into the batch; give constants a batch axis, as in "
                "positions.expand(batch, -1)."
            )

    def check_dims(self, kind: str, name: str, inputs: Tensor, dims: int) -> None:
        """Refuse what a layer would take for one example, whose first axis may be as long as that of the examples."""
        if inputs.dim() != dims:
            raise UnsupportedLayerError(
                f"layer {name!r} ({kind}) got an input of shape {tuple(inputs.shape)}; it has to have {dims} "
                "dimensions, the examples first. Keep an axis of examples all the way."
            )

    def announce(self, parts: Sequence[Part], inputs: Tensor) -> None:
        """Note which parts a call uses, before any gradient arrives."""
        self.saved_bytes += inputs.numel() * self._room.dtype.itemsize
        for part in parts:
            before = self._parts[id(part.slot)]
            if any(part.overlaps(other) for other in before):
                self._shared.add(id(part.slot))
            self._terms[id(part.slot)] = self._terms.get(id(part.slot), 0) + inputs[0].numel()
            before.append(part)

    def start_backward(self) -> None:
        """From now on layers may only bring gradients, which may be kept in a share of the inputs' memory."""
        self._backward = True
        self._room.start(max(_LEAST, int(_KEPT * self.saved_bytes)))

    def arrived(self, use: Use) -> None:
        """Measure a use; those of shared parameters wait for all of them."""
        if not self._backward:
            raise PrivateTrainingError(
                "a backward pass went through the model outside the engine's own: the loss called .backward() or "
                "torch.autograd.grad (a gradient penalty?), or losses were kept and used again. Per-example gradients "
                "of that are not known; leave it out."
            )
        self.uses.append(use)
        if any(id(part.slot) in self._shared for part in use.parts):
            self._waiting.append(use)
            return
        with full_precision(self.anchor.device.type):
            found = use.squared_norms(self._room)
        for part, squares in zip(use.parts, found, strict=True):
            self.squares[part.slot.group] += squares

    def finish(self) -> None:
        """Measure what is used more than once: the norm of the sum, cross terms and all."""
        self._backward = False
        entries: dict[int, list[tuple[Use, int]]] = {}
        slots: dict[int, Slot] = {}
        for use in self._waiting:
            for place, part in enumerate(use.parts):
                slots[id(part.slot)] = part.slot
                entries.setdefault(id(part.slot), []).append((use, place))
        made: list[Slot] = []
        for key, uses in entries.items():
            factors = [use.factors()[place] for use, place in uses]
            positions = [factor.right.shape[1] for factor in factors if factor is not None]
            if len(positions) == len(uses):
                self._terms[key] = sum(positions)
            found = _crossed(uses)
            if found is None:
                made.append(slots[key])
                continue
            squares, doubtful = found
            if bool(doubtful.any()):
                squares = torch.where(doubtful, 0.0, squares)
                for row in doubtful.nonzero().flatten().tolist():
                    self._make([slots[key]], row, row + 1)
            self.squares[slots[key].group] += squares
        if made:
            block = max(1, (1 << 24) // max(1, sum(slot.parameter.numel() for slot in made)))
            for start in range(0, self.size, block):
                self._make(made, start, min(start + block, self.size))
        self._waiting = []

    def _make(self, slots: Sequence[Slot], start: int, stop: int) -> None:
        """Make the gradients of a few examples by the parameters that are used more than once, and measure them."""
        wanted = {id(slot): slot for slot in slots}
        totals = {
            id(slot): self.squares.new_zeros(stop - start, *slot.parameter.shape, dtype=slot.parameter.dtype)
            for slot in slots
        }
        most: dict[int, Tensor] = {}
        for use in self._waiting:
            if not any(id(part.slot) in wanted for part in use.parts):
                continue
            for part, gradient, norms in zip(use.parts, use.per_example(start, stop), use.most_norms(), strict=True):
                key = id(part.slot)
                if key in wanted:
                    (totals[key] if part.stop is None else totals[key][:, part.start : part.stop]).add_(gradient)
                    most[key] = most.get(key, 0.0) + norms[start:stop]
        for key, total in totals.items():
            squares = kernels.squared_norms(total.reshape(stop - start, -1))
            squares = kernels.remade(squares, most[key], self._terms[key], total.dtype)
            self.squares[wanted[key].group, start:stop] += squares


def _crossed(uses: Sequence[tuple[Use, int]]) -> tuple[Tensor, Tensor] | None:
    """From the factors of all uses of one parameter, where that takes less than making its gradients."""
    factors = []
    for use, place in uses:
        factor = use.factors()[place]
        if factor is None or use.parts[place].stop is not None:
            return None
        factors.append(factor)
    positions = sum(factor.right.shape[1] for factor in factors)
    numbers = uses[0][0].parts[uses[0][1]].slot.parameter.numel()
    q = factors[0].right.shape[2]
    biases = all(factor.right.shape[1:] == (1, 1) for factor in factors)  # one row each
    if not biases and positions * (numbers // q + q) > numbers:
        return None
    return kernels.crossed_squared_norms([one.left for one in factors], [one.right for one in factors])


Handler = Callable[Concatenate[Tape, ...], Any]
"""How a module is called while a tape runs: the tape, then the arguments of its ``forward``."""


class _Call(torch.autograd.Function):
    """A layer that computes no gradient of its weights in the backward pass but notes what they are made of."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, tape: Tape, rule: Rule, inputs: Tensor) -> Tensor:
        output, extras = rule.forward(inputs)
        if output._is_view():  # of nothing that anybody else has; a view could not be changed in place
            output = torch.ops.aten._unsafe_view(output, output.shape)
        ctx.tape, ctx.rule = tape, rule
        ctx.save_for_backward(inputs, *extras)  # notices changes in place
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *extras = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            # detached: what the tape keeps of a graph would keep the graph, and so the tape, alive
            by_input, use = ctx.rule.backward(inputs.detach(), tuple(extras), grad, ctx.needs_input_grad[3])
            ctx.tape.arrived(use)
            ctx.tape = None
        return None, None, None, by_input
