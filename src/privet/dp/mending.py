"""The edit that mends what private training refuses in a model, as code that can be run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import jit, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from privet.dp.per_example.ownership import Owner
from privet.dp.per_example.refusals import Refusal, keeps_statistics

__all__ = ["mending", "mending_of_rule", "place_of"]

_GROUP_NORM = re.compile(r"nn\.GroupNorm\((\d+), (\d+)")


def mending(model: nn.Module, refusal: Refusal) -> str:
    """The lines that mend a refused module or parameter.

    They are written for a namespace with ``model``, ``torch`` and ``torch.nn`` as ``nn``, for a model that is made
    already; where the model's source can be changed, change it there to the same effect.

    Args:
        model: whose refusals were asked for.
        refusal: one of them.

    Returns:
        Python statements; empty where the mending needs the source of a class.

    Example:
        >>> from privet.dp.per_example.refusals import refusals
        >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6))
        >>> mending(model, refusals(model)[0])
        'model[1] = nn.GroupNorm(2, 6)'
    """
    parameters = dict(model.named_parameters())
    if refusal.kind == "Parameter" and refusal.name in parameters:
        return "\n".join(_cleared(place_of(model, refusal.name), parameters[refusal.name], _PARAMETER_HOOKS))
    modules = dict(model.named_modules(remove_duplicate=False))
    if refusal.name not in modules:
        return ""
    return "\n".join(_lines(place_of(model, refusal.name), modules[refusal.name], refusal.edit))


def mending_of_rule(model: nn.Module, owner: Owner) -> str:
    """The lines that mend what the rule of a layer refuses of it; empty where they are not known."""
    if not isinstance(owner.module, nn.Embedding):
        return ""
    place = place_of(model, owner.name)
    usual = {"max_norm": None, "scale_grad_by_freq": False, "sparse": False}
    return "\n".join(f"{place}.{key} = {value}" for key, value in usual.items() if getattr(owner.module, key) != value)


def place_of(model: nn.Module, name: str) -> str:
    """How one writes a module or parameter of this name: ``model.layers[0].weight``.

    Example:
        >>> place_of(nn.Sequential(nn.ModuleDict({"a b": nn.Linear(1, 1)})), "0.a b.weight")
        "model[0]['a b'].weight"
    """
    written, here = "model", model
    for piece in name.split(".") if name else ():
        if isinstance(here, nn.Sequential | nn.ModuleList) and piece in here._modules and piece.isdigit():
            written += f"[{list(here._modules).index(piece)}]"
        elif isinstance(here, nn.ModuleDict) and piece in here._modules:
            written += f"[{piece!r}]"
        elif isinstance(here, nn.ParameterList) and piece.isdigit():
            written += f"[{piece}]"
        elif piece.isidentifier():
            written += f".{piece}"
        else:
            written += f".{'_modules' if piece in here._modules else '_parameters'}[{piece!r}]"
        below = here._modules.get(piece)
        here = here if below is None else below
    return written


_MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _cleared(place: str, holder: nn.Module | nn.Parameter, hooks: tuple[str, ...]) -> Iterator[str]:
    yield from (f"{place}.{kind}.clear()" for kind in hooks if getattr(holder, kind, None))


def _lines(place: str, module: nn.Module, edit: str) -> Iterator[str]:
    if isinstance(module, jit.ScriptModule) or type(module).__module__.startswith("torch.ao."):
        return  # only its source helps
    if isinstance(module, LazyModuleMixin):
        yield "model(inputs)  # once, with public inputs"
    elif isinstance(module, _BatchNorm | _InstanceNorm):
        yield from _norm(place, module, edit)
    elif isinstance(module, DataParallel | DistributedDataParallel):
        yield f"{place} = {place}.module"
    elif "_orig_mod" in module._modules:
        yield f"{place} = {place}._orig_mod"
    elif module._compiled_call_impl is not None:
        yield f"{place}._compiled_call_impl = None"
    elif isinstance(module, nn.RNNBase):
        if "outside of it" in edit:
            return  # only the source of what it is in helps
        yield f"{place}.requires_grad_(False)  # or another layer in its place"
    elif "batch_first=True" in edit:
        yield from (
            f"{place}.{name}.batch_first = True  # of its inputs, too"
            for name, child in module.named_children()
            if isinstance(child, nn.MultiheadAttention)
        )
    elif "forward" in vars(module) and not _hooked(module):
        yield f"del {place}.forward"
    elif _hooked(module):
        yield from _unhooked(place, module)
    elif isinstance(module, _DropoutNd):
        yield f"{place}.p = 0.0"
    elif isinstance(module, nn.MultiheadAttention) and module.dropout:
        yield f"{place}.dropout = 0.0"


def _norm(place: str, module: _BatchNorm | _InstanceNorm, edit: str) -> Iterator[str]:
    """A pretrained one that is frozen keeps its statistics; any other gives way to what normalises one example."""
    own = list(module.parameters(recurse=False))
    if own and keeps_statistics(module) and not any(parameter.requires_grad for parameter in own):
        yield f"{place}.eval()  # after every model.train(); its statistics have to be from public data"
        return
    proposed = _GROUP_NORM.search(edit)
    if proposed is not None:
        affine = "" if module.affine else ", affine=False"
        yield f"{place} = nn.GroupNorm({proposed[1]}, {proposed[2]}{affine}{_as_there(own)})"
    elif isinstance(module, _InstanceNorm):
        affine = ", affine=True" if module.affine else ""
        yield f"{place} = nn.{type(module).__name__}({module.num_features}{affine}{_as_there(own)})"


def _as_there(own: list[nn.Parameter]) -> str:
    """Where and in which precision it is made, if not as usual."""
    if not own:
        return ""
    device = "" if own[0].device.type == "cpu" else f", device={str(own[0].device)!r}"
    return device + ("" if own[0].dtype == torch.float32 else f", dtype={own[0].dtype}")


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, kind) for kind in _MODULE_HOOKS)


def _unhooked(place: str, module: nn.Module) -> Iterator[str]:
    """By the function that was made for it, where there is one."""
    known = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    found: list[str] = []
    for hook in known:
        hooks: object = hook  # PyTorch's own are objects
        if isinstance(hooks, WeightNorm):
            found.append(f"torch.nn.utils.remove_weight_norm({place}, {hooks.name!r})")
            found.append(f"torch.nn.utils.parametrizations.weight_norm({place}, {hooks.name!r}, dim={hooks.dim})")
        elif isinstance(hooks, SpectralNorm):
            found.append(f"torch.nn.utils.remove_spectral_norm({place}, {hooks.name!r})")
        elif isinstance(hooks, prune.BasePruningMethod):
            found.append(f"torch.nn.utils.prune.remove({place}, {hooks._tensor_name!r})")
    yield from found or _cleared(place, module, _MODULE_HOOKS)
