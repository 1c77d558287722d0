"""A trained network, served with less in its answers.

A defense shows the network's own parameters, buffers and children as its own, because it shares the very containers
that hold them. So ``state_dict`` and ``named_parameters`` have the network's own names, and whatever walks a module by
those names (moving to a device, deep copies, compilers, exporters) meets the network with nothing but another
``forward``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from privet.errors import ArgumentError, DefenseError, NonFiniteOutputError, TrainingRefusedError
from privet.output_form import OutputForm
from privet.outputs import numerics
from privet.outputs.kept import kept_parts, refuse_shared
from privet.outputs.part import Part, as_part
from privet.outputs.steps import Scores, Step

__all__ = ["Defense", "Selected"]

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SHARED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_EXPORTER = "torch._export.non_strict_utils"  # the one module of PyTorch's exporter that calls parameters()
_NOT_GIVEN = object()


@dataclass(frozen=True)
class Selected:
    """All that a defense knows: the network, what of its output is meant, and what is done to it."""

    network: nn.Module
    steps: tuple[Step, ...]
    softmax: bool
    part: Part
    keep: tuple[Part, ...]

    @property
    def form(self) -> OutputForm:
        """What is let out after all steps."""
        form = OutputForm(probabilities=self.softmax)
        for step in self.steps:
            form = form.then(step.form)
        return form


def _served(
    network: nn.Module,
    step: Step,
    *,
    softmax: bool,
    part: Part | str | int | None,
    keep: Sequence[Part | str | int],
) -> Selected:
    """Checks the arguments of a defense and joins ``step`` to those of a defense that ``network`` may already be."""
    if not isinstance(network, nn.Module):
        raise ArgumentError("network", network, "a torch.nn.Module or another defense")
    if not isinstance(softmax, bool):
        raise ArgumentError("softmax", softmax, "True (the network answers logits) or False")
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise ArgumentError("keep", keep, "a sequence of parts, as in keep=('boxes',)")
    if not isinstance(network, Defense):
        if any(isinstance(module, Defense) for module in network.modules()):
            raise ArgumentError(
                "network",
                type(network).__name__,
                "a network that contains no defense",
                "Softmax would be applied twice; defend the whole network, and compile or wrap the outermost defense.",
            )
        _refuse_exported(network)
        defended = as_part("part", part)
        return Selected(network, (step,), softmax, defended, kept_parts(defended, keep))
    inner = network._defense
    if part is not None or len(keep) > 0:
        raise ArgumentError(
            "part", part, "no part and no keep around another defense", "Name them at the innermost one."
        )
    if inner.form.labels_only:
        raise ArgumentError(
            "network",
            type(network).__name__,
            "a defense that answers scores",
            "A label alone cannot be defended further.",
        )
    if inner.form.k is not None and step.form.k is not None and step.form.k > inner.form.k:
        raise ArgumentError("k", step.form.k, f"an integer from 1 to {inner.form.k}, the k of the defense within")
    # Rounding comes before top-k, else the order of equal rounded scores tells the order that rounding took away.
    steps = tuple(sorted((*inner.steps, step), key=lambda one: one.place))
    return Selected(inner.network, steps, inner.softmax, inner.part, inner.keep)


class Defense(nn.Module):
    """What every output defense is: the network with another ``forward``, that cannot be trained.

    It minimises what is answered. It carries no formal guarantee: an adaptive attacker loses little.
    """

    _defense: Selected

    def __init__(
        self,
        network: nn.Module,
        step: Step,
        *,
        softmax: bool,
        part: Part | str | int | None,
        keep: Sequence[Part | str | int],
    ) -> None:
        super().__init__()
        selected = _served(network, step, softmax=softmax, part=part, keep=keep)
        for name in _SHARED:
            object.__setattr__(self, name, getattr(selected.network, name))
        object.__setattr__(self, "_defense", selected)
        self.training = False

    @property
    def output_form(self) -> OutputForm:
        """What this defense, with those within it, lets out."""
        return self._defense.form

    def origin_network(self) -> nn.Module:
        """The network itself, the very same object, for training; the innermost one if defenses are nested."""
        return self._defense.network

    def origin_scores(self, output: Any) -> Tensor:
        """The part of what :meth:`origin_network` answered that is defended, with its gradient and without defense.

        Args:
            output: what the network answered.

        Returns:
            Its scores, a tensor.

        Raises:
            DefenseError: the output has no such part.
        """
        return self._defense.part.of(output)

    def defended_answer(self, answer: Any) -> Any:
        """Of what this defense answered, what is defended: all of it, or without what ``keep`` lets through beside."""
        return answer[0] if self._defense.keep else answer

    def around(self, network: nn.Module) -> Self:
        """The same defense around another network, as an attacker puts it around networks of its own.

        Args:
            network: answers as the defended one does; not a defense.

        Returns:
            All that this defense does, in the same order, to what ``network`` answers.

        Raises:
            ArgumentError: ``network`` is no module, or is defended already.

        Example:
            >>> from privet.outputs import Rounding
            >>> Rounding(nn.Linear(2, 3).eval(), decimals=1).around(nn.Linear(2, 3).eval()).output_form.decimals
            1
        """
        if isinstance(network, Defense):
            raise ArgumentError("network", type(network).__name__, "a network that is not defended")
        here = self._defense
        other = object.__new__(type(self))
        Defense.__init__(other, network, here.steps[0], softmax=here.softmax, part=here.part, keep=here.keep)
        object.__setattr__(other, "_defense", replace(other._defense, steps=here.steps))
        return other

    def forward(self, x: Any = _NOT_GIVEN, /, *more: Any, **named: Any) -> Any:
        """Asks the network and answers what the defense lets out.

        Args:
            x: the network's first argument, and after it any others, by position or name.
            more: further arguments of the network.
            named: further arguments of the network.

        Returns:
            The defended part alone; with ``keep``, a tuple of it and the kept parts. Nothing has a gradient.

        Raises:
            TrainingRefusedError: the network, or a module of it, is in training mode.
            NonFiniteOutputError: the part to defend holds NaN or infinity (a traced graph answers NaN and -1 instead).
            ArgumentError: ``k`` or ``decimals`` does not fit what the network answers.
            DefenseError: the output has no such part, or it holds no scores, or a kept part holds values of it.
        """
        chosen = self._defense
        _refuse_training_mode(chosen.network)
        in_graph = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        arguments = () if x is _NOT_GIVEN else (x, *more)
        with torch.no_grad():
            output = chosen.network(*arguments, **named)
            logits = chosen.part.of(output).detach()
            refuse_shared(chosen.part, chosen.keep, output, in_graph)
            _refuse_other_than_scores(logits)
            finite = None
            if in_graph:
                finite = numerics.finite_rows(logits)
            elif not numerics.every_row_is_finite(logits):
                raise NonFiniteOutputError(_where_not_finite(logits))
            scores = Scores(logits, softmax_due=chosen.softmax)
            for step in chosen.steps:
                scores = step(scores, in_graph=in_graph)
            answer = scores.answer(finite)
            if not chosen.keep:
                return answer
            # Copies, because a slice would carry all that it was taken from along.
            kept = [part.of(output).detach().clone(memory_format=torch.contiguous_format) for part in chosen.keep]
            return (answer, *kept)

    def train(self, mode: bool = True) -> Self:
        """Refuses training mode; ``train(False)`` puts the network in evaluation mode."""
        if mode:
            raise TrainingRefusedError(_refusal("put in training mode"))
        self._defense.network.train(False)
        return self

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Refused, because parameters are asked for to be trained; PyTorch's exporter alone is given them.

        A signpost, not a lock: ``named_parameters()`` and ``nn.Sequential(defense).parameters()`` give the weights.
        """
        if sys._getframe(1).f_globals.get("__name__") == _EXPORTER:
            return self._defense.network.parameters(recurse)
        raise TrainingRefusedError(_refusal("asked for its parameters"))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own ``state_dict``, with its own keys."""
        return self._defense.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads into the network what its own ``state_dict`` gave."""
        return self._defense.network.load_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """What the defense lets out, for ``repr``."""
        return str(self.output_form)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._defense.network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._defense.network._load_from_state_dict(*args, **kwargs)


def _refusal(what: str) -> str:
    return f"a defended network cannot be {what}; train origin_network(), which is the network itself."


def _refuse_training_mode(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if module.training:
            which = f"its module {name!r}" if name else "the network"
            raise TrainingRefusedError(
                f"{which} is in training mode, and a defense serves a trained network; call eval() on the defense, "
                "and use origin_network() to train."
            )


def _refuse_exported(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):  # torch.export forbids eval() there
            raise ArgumentError(
                "network",
                type(network).__name__,
                "a network that was not exported",
                "The module of an exported program is in training mode for good; defend the network, then export.",
            )


def _refuse_other_than_scores(logits: Tensor) -> None:
    if logits.dtype not in _TYPES or logits.ndim == 0 or logits.shape[-1] == 0:
        raise DefenseError(
            f"the part to defend is {logits.dtype} of shape {tuple(logits.shape)}; "
            "scores are float16, bfloat16, float32 or float64, of shape (..., classes) with at least one class."
        )


def _where_not_finite(logits: Tensor) -> str:
    bad = ~numerics.finite_rows(logits).reshape(-1)
    first = int(bad.nonzero()[0, 0])
    return (
        f"the network answered NaN or infinity in {int(bad.sum())} of {bad.numel()} rows (the first is row {first}); "
        "no defense passes that on. Mask classes with a large negative number, "
        f"such as {torch.finfo(logits.dtype).min:.4g}, not with -infinity."
    )
