"""From what was typed to what an audit takes: the network, the records, the training, the defense, the claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet import outputs
from privet.attacks.membership import METHODS, ONE_QUERY, Method, Queries, shifts_and_flips
from privet.attacks.membership.fleet.digest import digest
from privet.cli.audit.columns import column_from, records_from, scores_from, vector_from
from privet.cli.audit.request import Learned, Request
from privet.cli.audit.served import served_by
from privet.cli.user_file import function_from, told
from privet.errors import ArgumentError, FileFormatError
from privet.output_form import OutputForm

__all__ = ["Parts", "Training", "assemble"]

Records = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Training:
    """The user's function(inputs, labels, seed), as shadow models call it.

    It is looked up anew in every process, so that nothing of it has to be sent there.

    Attributes:
        reference: file.py:function.
        code: the digest of the function and of all that it reaches, other files too, where answers are kept in a store;
            "" where nothing is kept, or a version stands for it.
        inputs: of all audited records.
        labels: of all audited records.
    """

    reference: str
    inputs: Tensor
    labels: Tensor
    code: str = ""

    def __call__(self, indices: NDArray[np.int64], seed: int) -> nn.Module:
        """A network trained on some of the records."""
        chosen = torch.from_numpy(indices)
        try:
            network = _function(self.reference)(self.inputs[chosen], self.labels[chosen], seed)
        except Exception as error:
            said = f"It ended in {told(error, Path(self.reference.rpartition(':')[0]))}."
            raise ArgumentError("--train", self.reference, "function(inputs, labels, seed)", said) from error
        if not isinstance(network, nn.Module):
            said = f"It gave a {type(network).__name__}."
            raise ArgumentError("--train", self.reference, "a function that returns a torch.nn.Module", said)
        return network


@cache
def _function(reference: str) -> Callable[..., Any]:
    return function_from("--train", reference)


def _code_of(reference: str, version: str) -> str:
    """What the user's function is, so that a change in a file that it imports is another training."""
    try:
        return digest(_function(reference), "--train")
    except ArgumentError:
        if version:
            return ""
        raise


@dataclass(frozen=True, eq=False)
class Parts:
    """What ``audit_model`` takes."""

    model: Callable[[Tensor], Any]
    members: Records
    non_members: Records
    train: Training | None
    defense: outputs.Defense | None
    form: OutputForm | None
    claim: tuple[float, float] | None
    canaries: tuple[NDArray[np.float64], NDArray[np.bool_]] | None
    slices: dict[str, NDArray[Any]]
    queries: Queries
    methods: tuple[Method, ...]


def assemble(request: Request) -> Parts:
    """Read every file that the request names.

    Raises:
        PrivetError: one of them is not what it should be; says which.
    """
    assert request.model is not None
    assert request.members is not None
    assert request.non_members is not None
    claim = None if request.claim is None else _claim(request.claim)
    augment = _queries(request.augment)
    methods = METHODS if request.learned is None else _methods(request.learned)
    members = records_from("--members", request.members, request.folder)
    non_members = records_from("--non-members", request.non_members, request.folder)
    model, defense, form = served_by(request, members.inputs[:64])
    train = None
    if request.train is not None:
        _function(request.train)
        code = _code_of(request.train, request.version) if request.store is not None else ""
        both = torch.cat((members.inputs, non_members.inputs)), torch.cat((members.labels, non_members.labels))
        train = Training(request.train, *both, code)
    canaries = None
    if request.canary_scores is not None:
        assert request.canaries_included is not None
        included = vector_from("--canaries-included", request.canaries_included)
        if included.dtype != np.bool_:
            raise FileFormatError(request.canaries_included, f"an array of {included.dtype}", "True or False each")
        canaries = (scores_from("--canary-scores", request.canary_scores), included)
    return Parts(
        model,
        (members.inputs, members.labels),
        (non_members.inputs, non_members.labels),
        train,
        defense,
        form,
        claim,
        canaries,
        {name: column_from(name, request, members, non_members) for name in request.slice},
        augment,
        methods,
    )


def _claim(text: str) -> tuple[float, float]:
    try:
        epsilon, delta = map(float, text.split(","))
    except ValueError:
        raise ArgumentError("--claim", text, "epsilon,delta, such as 3.0,1e-5") from None
    return epsilon, delta


def _queries(text: str | None) -> Queries:
    match text:
        case None:
            return ONE_QUERY
        case "shifts-and-flips":
            return shifts_and_flips(flip=True)
        case "shifts":
            return shifts_and_flips(flip=False)
    raise ArgumentError("--augment", text, "shifts-and-flips or shifts")


def _methods(learned: Sequence[Learned]) -> tuple[Method, ...]:
    return tuple((one.method, one.parameters) for one in learned)
