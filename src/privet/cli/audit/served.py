"""What is served: a network, perhaps behind a defense, or an ONNX file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from privet import outputs
from privet.attacks.onnx_query import OnnxQuery, onnx_query
from privet.checkpoints import load_weights
from privet.cli.audit.request import Request
from privet.cli.user_file import network_from
from privet.errors import ArgumentError
from privet.output_form import OutputForm

__all__ = ["served_by"]


class _OnnxNetwork(nn.Module):
    """An ONNX file that answers logits, as a network that a defense can be put around."""

    def __init__(self, query: OnnxQuery) -> None:
        super().__init__()
        self.query = query

    def forward(self, inputs: Tensor) -> Any:
        return self.query(inputs)


def served_by(
    request: Request, inputs: Tensor
) -> tuple[Callable[[Tensor], Any], outputs.Defense | None, OutputForm | None]:
    """The network or the file, the defense around it, and what is let out where no defense tells.

    Args:
        request: with a model.
        inputs: some of the records (n, ...), to see how an ONNX file answers.

    Raises:
        PrivetError: there is no such network, file or defense, or they do not go together; says which.
    """
    assert request.model is not None
    steps = _steps(request.defense)
    if request.model.endswith(".onnx"):
        if request.weights is not None:
            raise ArgumentError("--weights", request.weights, f"none: {request.model} has its own")
        query = onnx_query(request.model)
        if not steps or _defended(query(inputs)):
            if steps and request.train is not None:
                allowed = "none with --train: the file is defended already, and shadow models could not be"
                raise ArgumentError("--defense", request.defense, allowed)
            return query, None, _form(steps)
        network: nn.Module = _OnnxNetwork(query)
    else:
        network = network_from("TARGET", request.model)
    if request.weights is not None:
        load_weights(request.weights, network)
    if isinstance(network, outputs.Defense):
        if steps:
            raise ArgumentError("--defense", request.defense, f"none: {request.model} gives a defended network")
        return network.origin_network(), network, None
    network.eval()
    defense: nn.Module = network
    for step in steps:
        defense = step(defense)
    return network, defense if isinstance(defense, outputs.Defense) else None, None


def _defended(answer: Any) -> bool:
    """Whether answers are labels, the k largest scores, or probabilities: then a defense is described, not added."""
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        return True
    values = answer.double()
    slack = 0.02 + 0.05 * values.shape[-1]  # what rounding to one decimal may move
    return bool((values >= 0.0).all()) and bool(((values.sum(-1) - 1.0).abs() <= slack).all())


_KINDS: dict[str, tuple[bool, Callable[..., outputs.Defense], Callable[[int], OutputForm]]] = {
    "rounding": (True, outputs.Rounding, lambda value: OutputForm(decimals=value, probabilities=True)),
    "top-k": (True, outputs.TopK, lambda value: OutputForm(k=value, probabilities=True)),
    "labels": (False, outputs.Labeling, lambda _: OutputForm(labels_only=True)),
}


@dataclass(frozen=True)
class _Step:
    kind: str
    value: int

    def __call__(self, network: nn.Module) -> outputs.Defense:
        takes_value, make, _ = _KINDS[self.kind]
        return make(network, self.value) if takes_value else make(network)

    @property
    def form(self) -> OutputForm:
        return _KINDS[self.kind][2](self.value)


def _steps(defense: str | None) -> tuple[_Step, ...]:
    allowed = "rounding=DECIMALS, top-k=K, labels, joined by commas from the inside out"
    steps = []
    for one in () if defense is None else defense.split(","):
        kind, _, value = one.strip().partition("=")
        if kind not in _KINDS or (re.fullmatch(r"\d+", value) is None if _KINDS[kind][0] else value != ""):
            raise ArgumentError("--defense", defense, allowed)
        steps.append(_Step(kind, int(value or 0)))
    return tuple(steps)


def _form(steps: Sequence[_Step]) -> OutputForm | None:
    form = None
    for step in steps:
        form = step.form if form is None else form.then(step.form)
    return form
