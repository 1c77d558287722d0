"""Is a model ready for private training? Every layer and parameter that is not, why, and the edit that mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from privet.dp.batches import length_of, slice_data
from privet.dp.diagnosis import Diagnosis, Layer, Path, Problem
from privet.dp.mending import mending, mending_of_rule, place_of
from privet.dp.per_example.engine import Engine, PerExampleLoss, check_losses
from privet.dp.per_example.fallback import fallback
from privet.dp.per_example.ownership import Owner, owners
from privet.dp.per_example.refusals import Refusal, refusals
from privet.dp.per_example.slots import Part, Slot, lay_out
from privet.dp.probe import probe
from privet.errors import ArgumentError, PrivateTrainingError, UnsupportedLayerError
from privet.schedules.checks import check_count

__all__ = ["Diagnosis", "Layer", "Path", "Problem", "examine"]


def examine(model: nn.Module, per_example_loss: PerExampleLoss, data: Any, size: int) -> Diagnosis:
    """Look at a model before private training, and report everything that stands in the way.

    What can be seen in the model itself comes first, all of it. If there is nothing, a few examples go through it, and
    their gradients are compared with those of a loop over single examples. Nothing is released, and parameters,
    buffers, gradients and PyTorch's random state are afterwards as they were before.

    Args:
        model: as it is to be trained; its modes (``train()``, ``eval()``) and ``requires_grad`` count.
        per_example_loss: from data to losses (B,).
        data: a batch of examples, where the model is.
        size: how many examples there are, at least 1; a few suffice.

    Returns:
        What was found.

    Raises:
        ArgumentError: an argument is of another kind, or ``data`` has another size.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        >>> diagnosis = examine(model, lambda data: model(data)[:, 0], torch.randn(4, 4), 4)
        >>> diagnosis.ready, diagnosis.problems[0].name, diagnosis.problems[0].code
        (False, '1', 'model[1] = nn.GroupNorm(1, 8)')
        >>> exec(diagnosis.problems[0].code)
        >>> examine(model, lambda data: model(data)[:, 0], torch.randn(4, 4), 4).ready
        True
    """
    _check(model, per_example_loss, data, size)
    refused = refusals(model)
    problems = [_refused(model, refusal) for refusal in refused]
    problems += _of_parameters(model)
    problems += _of_rules(model, {refusal.name for refusal in refused})
    layers = tuple(_layers(model, {_layer_of(problem) for problem in problems}))
    with _left_as_it_is(model):
        if problems:
            loss = _asked(per_example_loss, data, size) if _may_be_called(model, refused) else None
            if loss is not None and not loss.edit:  # what it raises may well be the refused layers' doing
                problems.append(loss)
            return Diagnosis(layers, tuple(problems))
        loss = _asked(per_example_loss, data, size)
        if loss is not None:
            return Diagnosis(layers, (loss,))
        try:
            found = probe(Engine(model), per_example_loss, data, size)
        except PrivateTrainingError as error:
            return Diagnosis(layers, (_of_probe(model, str(error)),))
        except Exception as error:
            reason = f"the loss alone can be computed, but taking per-example gradients of it raised {_named(error)}"
            return Diagnosis(layers, (Problem("", type(model).__name__, reason),))
    return Diagnosis(layers, (), found.examples, found.worst)


def _check(model: object, per_example_loss: object, data: Any, size: int) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", model, "a torch.nn.Module")
    if not callable(per_example_loss):
        raise ArgumentError("per_example_loss", per_example_loss, "a function from data to losses (B,)")
    check_count("size", size)
    found = length_of(data)
    if found != size:
        raise ArgumentError("size", size, f"{found}, the number of examples in the data")


def _refused(model: nn.Module, refusal: Refusal) -> Problem:
    code = mending(model, refusal)
    return Problem(refusal.name, refusal.kind, refusal.reason, refusal.edit, code)


def _of_parameters(model: nn.Module) -> Iterator[Problem]:
    """Nothing to train; or a parameter that does not fit the others, by the engine's own judgement."""
    trainable = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not isinstance(parameter, UninitializedParameter)
    ]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        edit = "Unfreeze what is to be trained."
        own = any(True for _ in model.parameters())
        code = "model.requires_grad_(True)" if own else ""
        yield Problem("", type(model).__name__, "no parameter has requires_grad=True", edit, code)
        return
    usable = [(name, parameter) for name, parameter in trainable if _fit(parameter)]
    for name, parameter in trainable:
        if not _fit(parameter):
            reason = f"it is {parameter.dtype}, which norms, sums and noise are too fine for"
            edit = "Keep the parameters in float32 and run the forward pass under torch.autocast."
            code = f"{place_of(model, name)}.data = {place_of(model, name)}.data.float()"
            yield Problem(name, "Parameter", reason, edit, code)
        elif not _fit(usable[0][1], parameter):
            first_name, first = usable[0]
            reason = f"it is {parameter.dtype} on {parameter.device}; {first_name} is {first.dtype} on {first.device}"
            edit = "Give all trainable parameters one dtype and one device."
            to = f".to({str(first.device)!r}, {first.dtype})"
            code = f"{place_of(model, name)}.data = {place_of(model, name)}.data{to}"
            yield Problem(name, "Parameter", reason, edit, code)


def _fit(*parameters: nn.Parameter) -> bool:
    try:
        lay_out(nn.ParameterList(parameters), None)
    except PrivateTrainingError:
        return False
    return True


def _of_rules(model: nn.Module, refused: set[str]) -> Iterator[Problem]:
    """What a layer's own rule refuses, of every layer that is not refused anyway."""
    for owner in owners(model):
        parents = {owner.name[:end] for end, letter in enumerate(owner.name) if letter == "."}
        if refused & {owner.name, *parents}:
            continue
        parts = {key: Part(Slot(key, value, 0, 0)) for key, value in owner.parameters().items()}
        try:
            (owner.rule or fallback)(owner.name, owner.module, parts.get)
        except UnsupportedLayerError as error:
            kind, reason = type(owner.module).__name__, str(error).removeprefix(f"layer {owner.name!r}: ")
            yield Problem(owner.name, kind, reason.removesuffix("."), code=mending_of_rule(model, owner))


def _layer_of(problem: Problem) -> str:
    return problem.name.rpartition(".")[0] if problem.kind == "Parameter" else problem.name


def _layers(model: nn.Module, refused: set[str]) -> Iterator[Layer]:
    held: dict[str, Owner] = {owner.name: owner for owner in owners(model)}
    inside = {module for owner in held.values() if owner.whole for _, module in owner.modules()}
    for name, module in model.named_modules():
        owner = held.get(name)
        whole = owner is not None and owner.whole
        sizes: Mapping[bool, list[int]] = {True: [], False: []}
        for parameter in module.parameters(recurse=whole):
            known = 0 if isinstance(parameter, UninitializedParameter) else parameter.numel()
            sizes[parameter.requires_grad].append(known)
        if name in refused:
            path = Path.REFUSED
        elif owner is not None:
            path = Path.FALLBACK if owner.rule is None else Path.RULE
        elif module not in inside and sizes[False]:
            path = Path.FROZEN
        else:
            continue
        yield Layer(name, type(module).__name__, path, sum(sizes[True]), sum(sizes[False]))


def _may_be_called(model: nn.Module, refused: Sequence[Refusal]) -> bool:
    """Whether a forward pass is harmless: nothing would be initialised, compiled or sent to other processes."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if any(isinstance(module, LazyModuleMixin) for module in modules.values()):
        return False
    kinds = [modules[refusal.name] for refusal in refused if refusal.name in modules]
    return all(type(one).__module__.startswith("torch.nn.modules.") and not one._compiled_call_impl for one in kinds)


def _asked(per_example_loss: PerExampleLoss, data: Any, size: int) -> Problem | None:
    """The loss alone, without any engine: what is wrong with it, if anything. A mean comes with code."""
    for part, count, on in ((data, size, ""), (slice_data(data, 0, 1), 1, " on an example alone")):
        try:
            with torch.no_grad():
                losses: object = per_example_loss(part)
        except Exception as error:
            edit = "Mend it first: it was called as it is, without anything of private training."
            return Problem("", "Loss", f"it raised {_named(error)}{on}", edit)
        try:
            check_losses(losses, count, differentiable=False)
        except PrivateTrainingError as error:
            mean = isinstance(losses, Tensor) and losses.dim() == 0
            code = 'losses = F.cross_entropy(outputs, labels, reduction="none")' if mean else ""
            return Problem("", "Loss", _of_loss(str(error)), code=code)
    return None


def _of_probe(model: nn.Module, message: str) -> Problem:
    """Its text names what it is about first."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    kinds |= {name: "Parameter" for name, _ in model.named_parameters()}
    places = {name: message.find(repr(name)) for name in kinds if name}
    name = min((name for name in places if places[name] >= 0), key=places.__getitem__, default="")
    if "per-example loss" in message[:40]:
        return Problem("", "Loss", _of_loss(message))
    return Problem(name, kinds[name], message.removesuffix("."))


def _of_loss(message: str) -> str:
    subject = "the per-example loss "
    return message.removesuffix(".").replace(subject, "it ", int(message.startswith(subject)))


def _named(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first.rstrip('.')}" if first else type(error).__name__


@contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Buffers and the random state come back, whatever the user's code does to them."""
    kept = [(module, key, value, _copy(value)) for module in model.modules() for key, value in module._buffers.items()]
    devices = {parameter.device.index for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        with torch.no_grad():
            for module, key, value, before in kept:
                module._buffers[key] = value
                if value is not None and before is not None:
                    value.copy_(before)


def _copy(value: Tensor | None) -> Tensor | None:
    return None if value is None or isinstance(value, torch.nn.UninitializedBuffer) else value.clone()
