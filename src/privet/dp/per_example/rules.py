"""A handler for each module that owns trainable parameters, or one clear refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from privet.dp.per_example.fallback import fallback
from privet.dp.per_example.ownership import RULES, owners
from privet.dp.per_example.refusals import Refusal, keeps_statistics, refusals
from privet.dp.per_example.slots import Part, Slot
from privet.dp.per_example.tape import Handler, Tape
from privet.errors import UnsupportedLayerError

__all__ = ["RULES", "handlers", "refuse"]


def handlers(model: nn.Module, slots: Sequence[Slot]) -> dict[nn.Module, Handler]:
    """A handler for each module that owns trainable parameters: the rule of its exact type, or the fallback.

    Modules that are allowed in eval mode only are watched for it.

    Raises:
        UnsupportedLayerError: for the first module that is refused, by name, with what to do.
    """
    refuse(model)
    by_parameter = {id(slot.parameter): slot for slot in slots}
    found: dict[nn.Module, Handler] = {}
    for owner in owners(model):
        own = {
            key: Part(by_parameter[id(value)]) for key, value in owner.parameters().items() if id(value) in by_parameter
        }
        found[owner.module] = (owner.rule or fallback)(owner.name, owner.module, own.get)
    for name, module in model.named_modules():
        if keeps_statistics(module):
            found[module] = _watched(name, module, found.get(module))
    return found


def refuse(model: nn.Module) -> None:
    """Raise for the first module that is refused; say how many more there are.

    Raises:
        UnsupportedLayerError: with the module's name, the reason and the edit.
    """
    found = refusals(model)
    if found:
        more = ", ".join(repr(refusal.name) for refusal in found[1:4])
        rest = f" Refused as well: {more}{' and more' if len(found) > 4 else ''}." if more else ""
        raise UnsupportedLayerError(f"{found[0]}{rest}")


def _watched(name: str, module: nn.Module, handler: Handler | None) -> Handler:
    def call(tape: Tape, *arguments: Any, **named: Any) -> Any:
        if module.training:
            row: Refusal = next(refusal for refusal in refusals(module))
            raise UnsupportedLayerError(f"layer {name!r} was put into train mode: {row.reason}. {row.edit}")
        if handler is not None:
            return handler(tape, *arguments, **named)
        forward: Any = type(module).forward
        return forward(module, *arguments, **named)

    return call
