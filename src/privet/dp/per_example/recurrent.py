"""nn.RNN, nn.GRU and nn.LSTM: all layers, both directions, projections.

The recurrence is run by PyTorch. Its outputs are all that the gates depend on besides the inputs, so that the backward
pass makes the gates of all steps at once, walks back in time for the gradients of their sums alone, and leaves two
linear uses over all steps: of the inputs, and of the outputs one step earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from privet.dp.per_example import kernels
from privet.dp.per_example.linear import LinearUse
from privet.dp.per_example.slots import Part, PartOf
from privet.dp.per_example.tape import Handler, Tape
from privet.dp.per_example.use import Use
from privet.errors import UnsupportedLayerError

__all__ = ["recurrent"]

Recurrent = nn.RNN | nn.GRU | nn.LSTM
_KEYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class _Direction:
    """One layer of a network in one direction."""

    def __init__(self, name: str, module: Recurrent, suffix: str, part: PartOf) -> None:
        self.name, self.module, self._suffix = name, module, suffix
        self._inputs: int = getattr(module, f"weight_ih_{suffix}").shape[1]
        self._parts = {key: part(f"{key}_{suffix}") for key in _KEYS}
        self.parts: Sequence[Part] = [one for one in self._parts.values() if one is not None]

    def weights(self) -> list[Tensor]:
        """Those that there are, in the order that PyTorch takes them, cut off from the graph."""
        found = [getattr(self.module, f"{key}_{self._suffix}", None) for key in _KEYS]
        return [one.detach() for one in found if one is not None]

    def run(self, inputs: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Outputs (B, T, H) from inputs (B, T, I) and states (B, H); of an LSTM the last cell (B, H), too."""
        begun = tuple(state.unsqueeze(0).contiguous() for state in states)
        options = (self.module.bias, 1, 0.0, self.module.training, False, True)
        kind: Any = self.module.mode
        if kind == "LSTM":
            outputs, _, cell = torch._VF.lstm(inputs, begun, self.weights(), *options)
            return outputs, cell[0]
        run = {"GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}[kind]
        return (getattr(torch._VF, run)(inputs, begun[0], self.weights(), *options)[0],)

    def uses(self, both: Tensor, grad: Tensor) -> list[Use]:
        """Of what is summed up: weights on inputs and outputs one step earlier, ``both`` next to each other, biases."""
        columns = {"weight_ih": slice(None, self._inputs), "weight_hh": slice(self._inputs, None)}
        return self._use(columns, ("bias_ih", "bias_hh"), both, grad)

    def uses_apart(self, both: Tensor, by_input: Tensor, by_state: Tensor) -> list[Use]:
        """The same where the sum of the inputs has another gradient than that of the outputs one step earlier."""
        return [
            *self._use({"weight_ih": slice(None, self._inputs)}, ("bias_ih",), both, by_input),
            *self._use({"weight_hh": slice(self._inputs, None)}, ("bias_hh",), both, by_state),
        ]

    def projection_use(self, inputs: Tensor, grad: Tensor) -> list[Use]:
        """Of the projection from what an LSTM would answer to what it answers."""
        return self._use({"weight_hr": slice(None)}, (), inputs, grad)

    def _use(self, columns: dict[str, slice], biases: Sequence[str], inputs: Tensor, grad: Tensor) -> list[Use]:
        weights = [(part, some) for key, some in columns.items() if (part := self._parts[key]) is not None]
        moved = [part for key in biases if (part := self._parts[key]) is not None]
        if len(weights) == 1:  # nothing is made for one that is frozen
            part, some = weights[0]
            weights, inputs = [(part, slice(None))], inputs[..., some]
        return [LinearUse(weights, moved, inputs, grad)] if weights or moved else []


class _Call(torch.autograd.Function):
    """One direction of one layer over time."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, tape: Tape, direction: _Direction, inputs: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        outputs = tuple(one.contiguous() for one in direction.run(inputs, states))
        ctx.tape, ctx.direction = tape, direction
        ctx.save_for_backward(inputs, outputs[0], *states)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, outputs, *states = (one.detach() for one in ctx.saved_tensors)
        direction: _Direction = ctx.direction
        with torch.autocast(inputs.device.type, enabled=False):
            weights = direction.weights()
            dtype = weights[0].dtype
            values = [one.to(dtype) for one in (inputs, outputs, *states)]
            back = _BACK[direction.module.mode]
            by_input, by_states, uses = back(direction, weights, values, [one.to(dtype) for one in grads])
            for use in uses:
                ctx.tape.arrived(use)
            ctx.tape = None
        found = (
            by_input.to(inputs.dtype),
            *(one.to(state.dtype) for one, state in zip(by_states, states, strict=True)),
        )
        return None, None, None, *found


Back = Callable[[_Direction, list[Tensor], list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor], list[Use]]]


class _Times:
    """The inputs and outputs of a layer with time first, as the walk through time reads them."""

    def __init__(self, weights: list[Tensor], inputs: Tensor, outputs: Tensor, first: Tensor) -> None:
        before = torch.cat([first.unsqueeze(0), outputs.transpose(0, 1)[:-1]])  # (T, B, H), one step earlier
        self.both = torch.cat([inputs.transpose(0, 1), before], dim=2)  # (T, B, I + H)
        self.inputs, self.before = self.both[..., : inputs.shape[2]], self.both[..., inputs.shape[2] :]
        self._weights = weights

    def by_input(self, grad: Tensor) -> Tensor:
        """The inputs' gradient (B, T, I), from that of their sums (T, B, n H)."""
        found = kernels.product(grad.flatten(0, 1), self._weights[0].t())
        return found.view_as(self.inputs).transpose(0, 1)

    def sums(self) -> Tensor:
        """Of both with all biases, (T, B, n H)."""
        biases = self._weights[2:4]
        return _linear(self.both, torch.cat(self._weights[:2], dim=1), biases[0] + biases[1] if biases else None)

    def sums_apart(self) -> tuple[Tensor, Tensor]:
        """Of the inputs and of the outputs one step earlier, each with its bias, (T, B, n H)."""
        biases: Sequence[Tensor | None] = self._weights[2:4] or (None, None)
        return _linear(self.inputs, self._weights[0], biases[0]), _linear(self.before, self._weights[1], biases[1])


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return kernels.product(values.flatten(0, 1), weight, bias).view(*values.shape[:2], -1)


def _plain_back(
    direction: _Direction, weights: list[Tensor], values: list[Tensor], grads: list[Tensor]
) -> tuple[Tensor, list[Tensor], list[Use]]:
    r"""Of :math:`h_t = f(W x_t + b + U h_{t-1} + c)`: the gradient of the sum is :math:`f' \delta h_t`."""
    inputs, outputs, first = values
    times = _Times(weights, inputs, outputs, first)
    slope = 1.0 - outputs.square() if direction.module.mode == "RNN_TANH" else (outputs > 0.0).to(outputs.dtype)
    slope, grad = slope.transpose(0, 1), grads[0].transpose(0, 1)
    made = torch.empty_like(times.before)
    here: Tensor = grad[-1]
    for step in reversed(range(len(made))):
        torch.mul(here, slope[step], out=made[step])
        here = torch.addmm(grad[step - 1], made[step], weights[1]) if step else made[step] @ weights[1]
    return times.by_input(made), [here], direction.uses(times.both.transpose(0, 1), made.transpose(0, 1))


def _gated_back(
    direction: _Direction, weights: list[Tensor], values: list[Tensor], grads: list[Tensor]
) -> tuple[Tensor, list[Tensor], list[Use]]:
    r"""Of a GRU: :math:`h_t = (1 - z) n + z h_{t-1}`, :math:`n = \tanh(x_n + r h_n)`, r and z sigmoids of sums."""
    inputs, outputs, first = values
    times, size = _Times(weights, inputs, outputs, first), first.shape[1]
    by_x, by_h = times.sums_apart()
    gates = by_x[..., : 2 * size].add_(by_h[..., : 2 * size]).sigmoid_()
    reset, update = gates[..., :size], gates[..., size:]
    hidden = by_h[..., 2 * size :]
    new = by_x[..., 2 * size :].addcmul_(reset, hidden).tanh_()
    slopes = by_h.new_empty(*times.before.shape[:2], 3, size)  # of the sums with h, relative to the output's gradient
    by_new = (1.0 - update) * (1.0 - new.square())
    torch.mul(by_new, reset, out=slopes[..., 2, :])
    torch.mul(slopes[..., 2, :], hidden * (1.0 - reset), out=slopes[..., 0, :])
    torch.mul(times.before - new, update * (1.0 - update), out=slopes[..., 1, :])
    made, arrived = torch.empty_like(slopes), torch.empty_like(times.before)
    grad, flat = grads[0].transpose(0, 1), made.flatten(2)
    later: Tensor = torch.zeros_like(first)
    for step in reversed(range(len(made))):
        here = torch.add(grad[step], later, out=arrived[step])
        torch.mul(here.unsqueeze(1), slopes[step], out=made[step])
        later = torch.addmm(here * update[step], flat[step], weights[1])
    by_sum = torch.cat([flat[..., : 2 * size], arrived * by_new], dim=2)
    uses = direction.uses_apart(times.both.transpose(0, 1), by_sum.transpose(0, 1), flat.transpose(0, 1))
    return times.by_input(by_sum), [later], uses


def _lstm_back(
    direction: _Direction, weights: list[Tensor], values: list[Tensor], grads: list[Tensor]
) -> tuple[Tensor, list[Tensor], list[Use]]:
    r"""Of an LSTM: :math:`c_t = f c_{t-1} + i g`, :math:`h_t = o \tanh c_t`, perhaps projected."""
    inputs, outputs, first, cell = values
    projection = weights[-1] if direction.module.proj_size else None
    times, size = _Times(weights if projection is None else weights[:-1], inputs, outputs, first), cell.shape[1]
    gates = times.sums().view(*times.before.shape[:2], 4, size)
    into, forget, new, out = gates.unbind(2)
    new.mul_(2.0)
    gates.sigmoid_()
    new.mul_(2.0).sub_(1.0)  # tanh by way of the sigmoid function, which takes a fifth of its time
    keep, added = forget.contiguous(), into * new
    cells = torch.cat([cell.unsqueeze(0), torch.empty_like(added)])
    walk = list(cells.unbind())
    for step, (more, kept) in enumerate(zip(added.unbind(), keep.unbind(), strict=True)):
        torch.addcmul(more, kept, walk[step], out=walk[step + 1])
    last = (2.0 * cells[1:]).sigmoid_().mul_(2.0).sub_(1.0)  # tanh
    hidden = out * last
    through = torch.addcmul(out, hidden, last, value=-1.0)
    # In the gates' place their sums' slopes: three relative to the cell's gradient, the fourth to the output's.
    torch.addcmul(into, added, new, value=-1.0, out=new)
    torch.addcmul(added, added, into, value=-1.0, out=into)
    torch.mul(cells[:-1], torch.addcmul(keep, keep, keep, value=-1.0), out=forget)
    torch.addcmul(hidden, hidden, out, value=-1.0, out=out)
    arrived, flat = torch.empty_like(times.before), gates.flatten(2)
    later, by_cell = torch.zeros_like(first), grads[1]
    walks = [one.unbind() for one in (grads[0].transpose(0, 1), arrived, through, keep, gates[:, :, :3], out, flat)]
    for grad, here, by_last, kept, inner, outer, sums in reversed(list(zip(*walks, strict=True))):
        torch.add(grad, later, out=here)
        by_output = here if projection is None else here @ projection
        by_cell = torch.addcmul(by_cell, by_output, by_last)
        inner.mul_(by_cell.unsqueeze(1))  # in the slopes' place the gradients of the sums
        outer.mul_(by_output)
        by_cell = by_cell * kept
        later = sums @ weights[1]
    uses = direction.uses(times.both.transpose(0, 1), flat.transpose(0, 1))
    uses += direction.projection_use(hidden.transpose(0, 1), arrived.transpose(0, 1))
    return times.by_input(flat), [later, by_cell], uses


_BACK: dict[str, Back] = {"RNN_TANH": _plain_back, "RNN_RELU": _plain_back, "GRU": _gated_back, "LSTM": _lstm_back}


class _Network:
    """One nn.RNN, nn.GRU or nn.LSTM."""

    def __init__(self, name: str, module: Recurrent, part: PartOf) -> None:
        self._name, self._module = name, module
        self._ways = 2 if module.bidirectional else 1
        self._layers = [
            [_Direction(name, module, f"l{layer}{end}", part) for end in ("", "_reverse")[: self._ways]]
            for layer in range(module.num_layers)
        ]

    def __call__(self, tape: Tape, input: Any, hx: Any = None) -> Any:
        module = self._module
        if not torch.is_grad_enabled():
            plain: Any = type(module).forward
            return plain(module, input, hx)
        inputs = self._examples_first(tape, input)
        states = self._states(tape, inputs, hx)
        last: list[tuple[Tensor, ...]] = []
        for number, directions in enumerate(self._layers):
            if number:
                inputs = F.dropout(inputs, module.dropout, module.training)
            outputs = []
            for way, direction in enumerate(directions):
                begun = [state[number * self._ways + way] for state in states]
                seen = inputs.flip(1) if way else inputs
                tape.announce(direction.parts, seen)
                found: tuple[Tensor, ...] = _Call.apply(  # type: ignore[no-untyped-call]
                    tape.anchor, tape, direction, seen, *begun
                )
                last.append((found[0][:, -1], *found[1:]))
                outputs.append(found[0].flip(1) if way else found[0])
            inputs = outputs[0] if self._ways == 1 else torch.cat(outputs, dim=2)
        ended = tuple(torch.stack(one) for one in zip(*last, strict=True))
        output = inputs if module.batch_first else inputs.transpose(0, 1)
        return output, (ended if module.mode == "LSTM" else ended[0])

    def _examples_first(self, tape: Tape, input: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise self._refusal(
                f"got a {type(input).__name__}",
                "Give padded tensors, of one length that is fixed beforehand, and leave padded positions out of the "
                "loss.",
            )
        axis = 0 if self._module.batch_first else 1
        if input.dim() != 3 or input.shape[axis] != tape.size:
            kind = "(B, T, I)" if axis == 0 else "(T, B, I), since batch_first is False,"
            raise self._refusal(
                f"got an input of shape {tuple(input.shape)} in a batch of {tape.size}; it has to be {kind} with "
                f"B = {tape.size}",
                "Keep an axis of examples all the way"
                + ("." if self._module.batch_first else ", and make the layer with batch_first=True."),
            )
        inputs = input if axis == 0 else input.transpose(0, 1)
        tape.check_call(self._name, inputs)
        if inputs.shape[1] == 0:
            raise self._refusal("got sequences of no positions", "Give at least one.")
        return inputs

    def _states(self, tape: Tape, inputs: Tensor, hx: Any) -> list[Tensor]:
        """First states, each (layers, B, H): zeros where none are given."""
        module, count = self._module, len(self._layers) * self._ways
        sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 2 if module.mode == "LSTM" else 1]
        if hx is None:
            return [inputs.new_zeros(count, tape.size, size) for size in sizes]
        given = list(hx) if module.mode == "LSTM" else [hx]
        if len(given) != len(sizes):
            raise self._refusal(f"got {len(given)} first states", "Give (h, c).")
        for state, size in zip(given, sizes, strict=True):
            if not isinstance(state, Tensor) or tuple(state.shape) != (count, tape.size, size):
                shape = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
                raise self._refusal(f"got a state of shape {shape}", f"Give {(count, tape.size, size)}.")
        return given

    def _refusal(self, what: str, remedy: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"layer {self._name!r} ({type(self._module).__name__}) {what}. {remedy}")


def recurrent(name: str, module: Recurrent, part: PartOf) -> Handler:
    """How an nn.RNN, nn.GRU or nn.LSTM is called, on (B, T, I), or (T, B, I) without ``batch_first``."""
    return _Network(name, module, part)
