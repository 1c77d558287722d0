"""What private training refuses in a model before it starts: one table, each row with its reason and the edit."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, jit, nn
from torch.nn.modules import batchnorm, instancenorm, lazy
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from privet.dp.per_example.expand import Expand
from privet.dp.per_example.ownership import Owner, owners

__all__ = ["Refusal", "keeps_statistics", "refusals"]


@dataclass(frozen=True)
class Refusal:
    """One module, or parameter, that stands in the way of private training.

    Attributes:
        name: as in ``named_modules`` (or ``named_parameters``); empty for the model itself.
        kind: the name of its class.
        reason: why it is refused.
        edit: what mends it.
    """

    name: str
    kind: str
    reason: str
    edit: str

    def __str__(self) -> str:
        who = f"layer {self.name!r}" if self.name else "the model itself"
        return f"{who} ({self.kind}) is refused: {self.reason}. {self.edit}"


_PARAMETERS = (
    *("weight", "bias", "in_proj_weight", "in_proj_bias"),
    *("q_proj_weight", "k_proj_weight", "v_proj_weight", "bias_k", "bias_v"),
)

Words = Callable[[str, nn.Module], str]


@dataclass(frozen=True)
class _Row:
    """One kind of module; the first row that applies to a module speaks."""

    applies: Callable[[nn.Module], bool]
    reason: str
    edit: str | Words
    whole: bool = False  # nothing below it is looked at

    def refusal(self, name: str, module: nn.Module) -> Refusal:
        edit = self.edit if isinstance(self.edit, str) else self.edit(name, module)
        return Refusal(name, type(module).__name__, self.reason, edit)


def refusals(model: nn.Module) -> list[Refusal]:
    """Everything in the model that private training refuses, in the model's order; empty if nothing is.

    Args:
        model: as it is to be trained; its modes (``train()``, ``eval()``) and ``requires_grad`` count.

    Example:
        >>> [str(refusal) for refusal in refusals(nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4)))]
        ["layer '1' (LazyLinear) is refused: its shapes are not known yet. Run the model once on a public batch, or \
give the shapes."]
    """
    found: list[Refusal] = []
    closed: set[nn.Module] = set()
    seen: set[nn.Module] = set()

    def visit(name: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        row = next((row for row in _TABLE if row.applies(module)), None)
        if row is not None:
            found.append(row.refusal(name, module))
            if row.whole:
                closed.update(module.modules())
                return
        for key, child in module.named_children():
            visit(f"{name}.{key}" if name else key, child)

    visit("", model)
    held = owners(model)
    for owner in held:
        if owner.module not in closed:
            found += [refusal for refusal in _of_owner(owner) if refusal.name not in {one.name for one in found}]
    found += _shared(held)
    found += _hooked_parameters(model)
    order = {name: place for place, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    return sorted(found, key=lambda refusal: order.get(refusal.name, len(order)))


def keeps_statistics(module: nn.Module) -> bool:
    """Whether it is harmless in eval mode only, where it normalises by statistics that stay as they are."""
    return isinstance(module, batchnorm._BatchNorm | instancenorm._InstanceNorm) and module.track_running_stats


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _of_batch(module: nn.Module) -> bool:
    return isinstance(module, batchnorm._BatchNorm) and not module.track_running_stats


def _batch_statistics(module: nn.Module) -> bool:
    return isinstance(module, batchnorm._BatchNorm) and module.track_running_stats and module.training


def _instance_statistics(module: nn.Module) -> bool:
    return isinstance(module, instancenorm._InstanceNorm) and module.track_running_stats and module.training


def _lazy(module: nn.Module) -> bool:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return isinstance(module, lazy.LazyModuleMixin) or any(
        isinstance(one, UninitializedParameter | UninitializedBuffer) for one in own
    )


def _optional(place: str, *names: str) -> tuple[type, ...]:
    """Classes of a part of PyTorch that is slow to load: where nobody loaded it, nothing is an instance of them."""
    room = sys.modules.get(place)
    return tuple(found for name in names if isinstance(found := getattr(room, name, None), type))


def _compiled(module: nn.Module) -> bool:
    is_one = isinstance(module, _optional("torch._dynamo.eval_frame", "OptimizedModule"))
    return (is_one or module._compiled_call_impl is not None) and _trains(module)


def _sharded(module: nn.Module) -> bool:
    known = _optional("torch.distributed.fsdp", "FullyShardedDataParallel", "FSDPModule")
    return isinstance(module, (DataParallel, DistributedDataParallel, *known))


def _quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.nn.", "torch.ao.quantization."))


def _scripted(module: nn.Module) -> bool:
    return isinstance(module, jit.ScriptModule) and _trains(module)


def _recurrent(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase) and type(module) not in (nn.RNN, nn.GRU, nn.LSTM) and _trains(module)


def _sequence_first(module: nn.Module) -> bool:
    kinds = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    return isinstance(module, kinds) and _trains(module) and getattr(module.self_attn, "batch_first", True) is False


def _group_norm(name: str, module: nn.Module) -> str:
    channels = int(getattr(module, "num_features", 0))
    groups = math.gcd(32, channels)
    if isinstance(module, nn.BatchNorm1d):
        groups = 1  # without positions a small group would normalise its values away
    elif groups == channels:
        groups = max(1, groups // 2)
    edit = f"Put nn.GroupNorm({groups}, {channels}) in its place"
    if keeps_statistics(module):
        return f"{edit}; or, where its statistics come from public data, call {_path(name)}.eval() after model.train()."
    return f"{edit}; eval mode does not help, since it keeps no running statistics."


def _group_norm_of_one(name: str, module: nn.Module) -> str:
    return (
        f"Make it with track_running_stats=False; or, where its statistics come from public data, call {_path(name)}"
        ".eval() after model.train()."
    )


def _inner(name: str, module: nn.Module) -> str:
    inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
    if isinstance(inner, nn.Module):
        return "Give the module inside of it (its attribute _orig_mod or module), and call that one in the loss."
    return "Give the module as it was before."


def _path(name: str) -> str:
    """How one writes it: model.layers[0].norm."""
    return "model" + "".join(f"[{piece}]" if piece.isdigit() else f".{piece}" for piece in name.split(".") if piece)


_TABLE: tuple[_Row, ...] = (
    _Row(_lazy, "its shapes are not known yet", "Run the model once on a public batch, or give the shapes."),
    _Row(
        _of_batch,
        "it normalises each example by the mean and variance of the whole batch, in eval mode too, so that no "
        "example's gradient is its own",
        _group_norm,
    ),
    _Row(
        _batch_statistics,
        "it normalises each example by the mean and variance of the whole batch, so that no example's gradient is its "
        "own, and keeps running averages of private data in the model without noise",
        _group_norm,
    ),
    _Row(
        _instance_statistics,
        "with track_running_stats it keeps running averages of private data in the model without noise",
        _group_norm_of_one,
    ),
    _Row(
        _compiled,
        "it is compiled (torch.compile), and its layers cannot be listened to",
        "Give the model as it was before torch.compile.",
        whole=True,
    ),
    _Row(_sharded, "gradients would be summed over devices before they are clipped", _inner, whole=True),
    _Row(_quantized, "quantized modules have no gradients that noise can be added to", "Train in float32.", whole=True),
    _Row(_scripted, "it is TorchScript, and its layers cannot be listened to", "Give the Python module.", whole=True),
    _Row(
        _recurrent,
        "a recurrent layer of another type than nn.RNN, nn.GRU and nn.LSTM may compute something else",
        "Take one of these, without weight norm; or freeze it (requires_grad_(False)).",
    ),
    _Row(
        _sequence_first,
        "it takes (positions, examples, features), and its linear layers and norms would take positions for examples",
        "Make it with batch_first=True and give it (examples, positions, features).",
    ),
)


def _of_owner(owner: Owner) -> Iterator[Refusal]:
    """What is refused only where trainable parameters are."""
    for name, module in owner.modules():
        kind = type(module).__name__
        reason, edit = _hooks(module)
        if reason:
            yield Refusal(name, kind, reason, edit)
        elif "forward" in vars(module):
            yield Refusal(name, kind, "its forward is set on the instance", "Put it in a class of its own.")
        elif owner.rule is not None and (plain := _plain_tensors(module)):
            yield Refusal(
                name,
                kind,
                f"its {plain[0]} is a plain tensor, and gradients through it would be lost",
                "Compute with torch.nn.functional inside a module that owns the parameters.",
            )
        elif owner.rule is None and isinstance(module, nn.RNNBase):
            yield Refusal(
                name,
                kind,
                f"it is part of {_named(owner)}, which has no rule of its own and is run by torch.func.vmap, and that "
                "cannot run recurrent layers",
                _apart(owner),
            )
        elif owner.rule is None and _draws(module):
            where = _named(owner)
            yield Refusal(
                name,
                kind,
                f"it is random and part of {where}, which has no rule of its own and is run twice; the second run "
                "would draw other numbers",
                f"Set its probability to 0. Or: {_apart(owner)}",
            )


def _apart(owner: Owner) -> str:
    return (
        f"Give parameters that belong to {_named(owner)} directly by privet.dp.Expand, and move its layers without a "
        "rule into a module of their own, so that this one is outside of it."
    )


def _named(owner: Owner) -> str:
    return f"{owner.name!r} ({type(owner.module).__name__})" if owner.name else "the model itself"


def _hooks(module: nn.Module) -> tuple[str, str]:
    """The reason and the edit; empty where there is no hook."""
    known: list[object] = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    for hook in known:
        if isinstance(hook, WeightNorm | SpectralNorm):
            edit = "Use torch.nn.utils.parametrizations.weight_norm, or none."
            return "an old-style weight norm or spectral norm computes its weight in a hook", edit
        if isinstance(hook, prune.BasePruningMethod):
            return "pruning computes its weight in a hook", "Call torch.nn.utils.prune.remove on it before."
    if known or module._backward_hooks or module._backward_pre_hooks:
        edit = "Remove the hook, or put what it does into a module without parameters."
        return "it has a forward or backward hook, which may change outputs and gradients unseen", edit
    return "", ""


def _plain_tensors(module: nn.Module) -> list[str]:
    """Names that a rule takes for parameters, under which something else lies."""
    names = [*_PARAMETERS, *(module._flat_weights_names if isinstance(module, nn.RNNBase) else [])]
    if isinstance(module, Expand):
        names.append("value")
    return [key for key in names if isinstance(vars(module).get(key), Tensor)]


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
        return True
    if not module.training:
        return False
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0.0)
    return isinstance(module, nn.RReLU) or (isinstance(module, _DropoutNd) and bool(module.p > 0.0))


def _shared(held: Sequence[Owner]) -> Iterator[Refusal]:
    """A module with a handler of its own that is also inside a unit would be listened to twice."""
    inside = {module: owner for owner in held if owner.whole for _, module in owner.modules() if module != owner.module}
    for owner in held:
        if owner.module in inside:
            unit = inside[owner.module]
            where = _named(unit)
            yield Refusal(
                owner.name,
                type(owner.module).__name__,
                f"the same module is also inside {where}, which is handled in one piece",
                "Keep it in one place and pass its output to the other; or make two modules that share the parameter.",
            )


def _hooked_parameters(model: nn.Module) -> Iterator[Refusal]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (parameter._backward_hooks or parameter._post_accumulate_grad_hooks):
            yield Refusal(
                name,
                "Parameter",
                "it has a hook on its gradient, which would not run: gradients do not arrive there before they are "
                "clipped and noised",
                "Remove the hook (a Suppression's by finalize(); make that after make_private); change .grad after "
                "the private step.",
            )
