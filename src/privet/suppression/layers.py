"""Which weights are suppressed, and within what bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

from privet.errors import ArgumentError
from privet.suppression.mask import MASKABLE
from privet.suppression.ramp import whole

__all__ = ["DEFAULT_LAYERS", "Chosen", "Layer", "choose"]

DEFAULT_LAYERS: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """One layer, or all layers of a type, and how its weights are bounded while it is suppressed.

    ``lower_clip`` and ``upper_bound`` hold after every step from the first update on, for weights that are kept.

    Args:
        select: the name of a parameter (``"features.conv1.weight"``), the name of a module (``"features.conv1"``: its
            own parameters of two dimensions or more), or a type of module (``nn.Conv2d``: those of every such module).
        minimum_kept: so many weights are never masked, 0 ... n.
        lower_clip: a kept weight nearer to 0 than this is moved to it, its sign kept; 0 for none. Weights at it are of
            one magnitude, so that the next update masks those of lower index.
        upper_bound: a kept weight further from 0 than this is moved to it, above ``lower_clip``; infinity for none.
        noise_std: standard deviation of Gaussian noise added to large kept weights at every update; 0 for none.
        noise_from: a weight is large from this share of the largest magnitude of its layer on, in [0, 1].

    Raises:
        ArgumentError: a number is outside what is allowed.

    Example:
        >>> Layer("features.conv1", minimum_kept=10, lower_clip=0.005)
        Layer('features.conv1', minimum_kept=10, lower_clip=0.005)
    """

    select: str | type[nn.Module]
    minimum_kept: int = 0
    lower_clip: float = 0.0
    upper_bound: float = math.inf
    noise_std: float = 0.0
    noise_from: float = 0.75

    def __post_init__(self) -> None:
        select: object = self.select
        if not isinstance(select, str) and not (isinstance(select, type) and issubclass(select, nn.Module)):
            raise ArgumentError("select", select, "the name of a layer or parameter, or a type of module")
        object.__setattr__(self, "minimum_kept", whole("minimum_kept", self.minimum_kept, 0))
        _check_number("lower_clip", self.lower_clip, 0.0, math.inf)
        _check_number("upper_bound", self.upper_bound, 0.0, math.inf, high_included=True)
        _check_number("noise_std", self.noise_std, 0.0, math.inf)
        _check_number("noise_from", self.noise_from, 0.0, 1.0, high_included=True)
        if self.noise_from != type(self).noise_from and not self.noise_std:
            raise ArgumentError("noise_from", self.noise_from, "left out where noise_std is 0", "There is no noise.")
        for name in ("lower_clip", "upper_bound", "noise_std", "noise_from"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one setting
        if not self.upper_bound > self.lower_clip:
            raise ArgumentError("upper_bound", self.upper_bound, f"a number above lower_clip = {self.lower_clip:g}")

    @property
    def bounded(self) -> bool:
        """Whether magnitudes are held between bounds."""
        return self.lower_clip > 0.0 or self.upper_bound < math.inf

    def __repr__(self) -> str:
        select = self.select if isinstance(self.select, str) else self.select.__name__
        fields = ("minimum_kept", "lower_clip", "upper_bound", "noise_std", "noise_from")
        given = [
            f"{name}={getattr(self, name)!r}" for name in fields if getattr(self, name) != getattr(type(self), name)
        ]
        return f"Layer({', '.join([repr(select) if isinstance(self.select, str) else select, *given])})"


@dataclass(frozen=True, eq=False)
class Chosen:
    """A parameter that is suppressed.

    Attributes:
        name: in the model.
        owner: the module that holds it.
        field: its name there.
        parameter: the weights.
        rule: how they are bounded.
    """

    name: str
    owner: nn.Module
    field: str
    parameter: nn.Parameter
    rule: Layer


def choose(model: nn.Module, layers: Sequence[str | type[nn.Module] | Layer] | None) -> tuple[Chosen, ...]:
    """Find the weights that ``layers`` mean, in the order of the model's parameters.

    Args:
        model: any module; of one made by ``torch.compile``, the module within.
        layers: names, types and :class:`Layer`; None for all convolution and fully connected layers.

    Returns:
        One for each parameter.

    Raises:
        ArgumentError: nothing was chosen; a layer is unknown, has no weights, or is chosen twice; a parameter is
            frozen, shared, computed from others, sparse, not there yet, or not of real floating-point numbers.

    Example:
        >>> [chosen.name for chosen in choose(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), None)]
        ['0.weight']
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", model, "a torch.nn.Module")
    if layers is not None and (isinstance(layers, str | type | Layer) or not isinstance(layers, Sequence)):
        raise ArgumentError("layers", layers, "a list of names, types of modules and Layer")
    rules = [one if isinstance(one, Layer) else Layer(one) for one in (DEFAULT_LAYERS if layers is None else layers)]
    places = {name: (owner, field) for name, owner, field in _places(model)}
    found: dict[str, Layer] = {}
    for rule in rules:
        names = _names(model, rule.select, list(places))
        if not names and layers is not None:
            raise _unknown(model, rule.select, list(places))
        for name in names:
            if name in found:
                raise ArgumentError("layers", rule.select, "every layer once", f"{name!r} is chosen twice.")
            found[name] = rule
    if not found:
        raise ArgumentError("layers", layers, "at least one layer with weights", f"{type(model).__name__} has none.")
    _refuse_shared(model, found)
    chosen = []
    for name in places:
        if name in found:
            owner, field = places[name]
            parameter = owner._parameters[field]
            assert parameter is not None
            _check(name, owner, parameter, found[name])
            chosen.append(Chosen(name, owner, field, parameter, found[name]))
    return tuple(chosen)


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every parameter's name, the module that holds it, and its name there; shared ones under each name."""
    for place, module in _modules(model):
        for field, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{place}.{field}" if place else field, module, field


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules(remove_duplicate=False):
        if "_orig_mod" not in module._modules:  # what torch.compile wraps comes next, under a name with this in it
            yield _plain(name), module


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _names(model: nn.Module, select: str | type[nn.Module], names: list[str]) -> list[str]:
    if isinstance(select, str):
        select = _plain(select)
        if select in names:
            return [select]
        holders = [(name, module) for name, module in _modules(model) if name == select]
    else:
        holders = [(name, module) for name, module in _modules(model) if isinstance(module, select)]
    found = []
    for name, module in holders:
        if is_parametrized(module) or any(isinstance(hook, WeightNorm) for hook in module._forward_pre_hooks.values()):
            raise _computed(name)
        for field, parameter in module._parameters.items():
            if parameter is not None and (isinstance(parameter, UninitializedParameter) or parameter.dim() >= 2):
                found.append(f"{name}.{field}" if name else field)
    return found


def _computed(name: str) -> ArgumentError:
    remedy = "They are computed from others (torch.nn.utils.parametrize, weight_norm); remove that, or leave it out."
    return ArgumentError("layers", name, "a layer whose weights are parameters of their own", remedy)


def _unknown(model: nn.Module, select: str | type[nn.Module], names: list[str]) -> ArgumentError:
    if not isinstance(select, str):
        return ArgumentError(
            "layers", select.__name__, "a type with weights in the model", f"Its weights: {_some(names)}."
        )
    within = [name for name in names if name.startswith(f"{select}.")]
    if within:
        remedy = f"It has no weights of two dimensions or more of its own; name what is meant: {_some(within)}."
        return ArgumentError("layers", select, "the name of a layer or a parameter", remedy)
    near = difflib.get_close_matches(select, [*names, *(name.rpartition(".")[0] for name in names)], 1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"There are {_some(names)}."
    return ArgumentError("layers", select, "the name of a layer or a parameter of the model", remedy)


def _refuse_shared(model: nn.Module, found: dict[str, Layer]) -> None:
    """One tensor under two names: masks of one layer would change another."""
    starts: dict[tuple[object, int], list[str]] = {}
    for name, owner, field in _places(model):
        parameter = owner._parameters[field]
        assert parameter is not None
        if not isinstance(parameter, UninitializedParameter) and not parameter.is_meta and parameter.numel():
            starts.setdefault((parameter.device, parameter.data_ptr()), []).append(name)
    for names in starts.values():
        if len(names) > 1 and any(name in found for name in names):
            shared = " and ".join(map(repr, names[:3]))
            raise ArgumentError(
                "layers",
                next(name for name in names if name in found),
                "weights of one layer alone",
                f"{shared} share one tensor.",
            )


def _check(name: str, owner: nn.Module, parameter: nn.Parameter, rule: Layer) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise ArgumentError("layers", name, "weights that are there", "Run the model once on an example first.")
    if parameter.is_meta:
        raise ArgumentError("layers", name, "weights that are there", "Move the model off the meta device first.")
    if isinstance(owner, ParametrizationList):
        raise _computed(name)
    if parameter.numel() == 0:
        raise ArgumentError("layers", name, "weights, at least one", "This layer has none; leave it out.")
    if not parameter.requires_grad:
        raise ArgumentError(
            "layers", name, "weights that are trained", "This one is frozen; name the others in layers."
        )
    if type(parameter.data) is not Tensor or parameter.dtype not in MASKABLE or parameter.is_sparse:
        kind = f"{type(parameter.data).__name__} of {parameter.dtype}"
        raise ArgumentError(
            "layers", name, "dense weights of float16, bfloat16, float32 or float64", f"It is a {kind}."
        )
    if getattr(owner, "sparse", False):
        raise ArgumentError("layers", name, "weights with dense gradients", "Make the embedding with sparse=False.")
    least, most = torch.finfo(parameter.dtype).tiny, torch.finfo(parameter.dtype).max
    for bound in ("lower_clip", "upper_bound"):
        if getattr(rule, bound) not in (0.0, math.inf) and not least <= getattr(rule, bound) <= most:
            allowed = f"a number from {least:.3g} to {most:.3g}, as {parameter.dtype} has them"
            raise ArgumentError(bound, getattr(rule, bound), allowed)
    if rule.minimum_kept > parameter.numel():
        raise ArgumentError("minimum_kept", rule.minimum_kept, f"at most the {parameter.numel():,} weights of {name!r}")


def _check_number(name: str, value: object, low: float, high: float, high_included: bool = False) -> None:
    inside = (
        isinstance(value, int | float | np.floating | np.integer)
        and not isinstance(value, bool)
        and low <= value <= high
    )
    if not inside or (value == high and not high_included):
        raise ArgumentError(name, value, f"a number in [{low:g}, {high:g}{']' if high_included else ')'}")


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
