"""What is audited: the target as it is served, and the records, all checked before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from privet.attacks.membership import Answers, Pool, answers_of
from privet.attacks.membership.fleet.signal_row import answering
from privet.attacks.target import Target
from privet.audit.limits import check_counts, check_whole
from privet.errors import ArgumentError, DataError, LabelError, PrivetError
from privet.output_form import OutputForm

__all__ = ["Defended", "Subject", "records_in", "subject_of"]

_FEWEST = 20
_MOST_CLASSES = 2**31  # until the target has told how many there are
_PROBED = 64  # records that are asked to see how the target answers


@runtime_checkable
class Defended(Protocol):
    """A defense as an audit sees it: an output defense of privet, or anything of the same shape."""

    @property
    def output_form(self) -> OutputForm:
        """What is let out."""

    def origin_network(self) -> nn.Module:
        """The network that is defended."""

    def __call__(self, inputs: Tensor) -> Any:
        """What is let out about each input."""

    def around(self, network: nn.Module) -> Callable[[Tensor], Any]:
        """The same defense around another network."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The target as it is served, and the records it is asked about.

    Attributes:
        pool: the records, members first.
        query: maps inputs to answers.
        form: what the answers hold.
        defend: puts the same defense around another network; None without a defense.
        undefended: what the model answers without the defense, where shadow models can be asked so; else None.
        defense: its name, or "".
        batch_size: records a query.
    """

    pool: Pool
    query: Callable[[Tensor], Any]
    form: OutputForm
    defend: Callable[[nn.Module], Callable[[Tensor], Any]] | None
    undefended: OutputForm | None
    defense: str
    batch_size: int

    def answers(self) -> Answers:
        """What the target says about every record."""
        with answering(self.query) as ask:
            return answers_of(Target(ask, self.pool.classes, self.form, self.batch_size), self.pool)


def subject_of(
    model: Any,
    members: Any,
    non_members: Any,
    *,
    defense: Any,
    classes: int | None,
    form: OutputForm | None,
    batch_size: int,
) -> Subject:
    """Check target and records, and find out what was not told: how many classes, logits or probabilities.

    Args:
        model: a module, or anything that maps inputs (N, ...) to logits, probabilities or labels.
        members: a pair (inputs, labels), or an object that has both.
        non_members: the same.
        defense: what serves the model; None for the model as it is.
        classes: how many; None: as many as the target answers.
        form: what the target lets out; None: what its answers look like, or the defense says.
        batch_size: records a query.

    Raises:
        ArgumentError: an argument is not as above, or they contradict one another.
        DataError: records cannot be used as they are.
        SampleTooSmallError: there are fewer than 20 of either.
    """
    if not callable(model):
        raise ArgumentError("model", model, "a module, or a function from inputs to logits, probabilities or labels")
    check_whole("batch_size", batch_size, 1)
    ours, theirs = records_in("members", members), records_in("non_members", non_members)
    query, told, defend, name = _served(model, defense, form)
    check_counts(len(ours[0]), len(theirs[0]), least=_FEWEST)
    pool = Pool.of(ours, theirs, _MOST_CLASSES if classes is None else classes)
    probed = _probe(query, pool.inputs[:_PROBED])
    if told is None:
        told = _form_of(probed)
    if classes is None:
        _refuse_other_answers(probed, told)
        classes = _classes_of(model, probed, told, pool)
        if (largest := int(pool.labels.max())) >= classes:
            where = int(pool.labels.argmax())
            raise LabelError(
                f"record {where} (members first) has label {largest} and the model answers {classes} classes; give "
                f"integers in 0 ... {classes - 1}."
            )
        pool = replace(pool, classes=classes)
    target = Target(query, classes, told, batch_size)
    with answering(query) as ask:
        replace(target, query=ask).ask(pool.inputs[:_PROBED])  # answers that are not what the form says end it here
    undefended = None if defend is None or told.labels_only else _undefended(query, pool)
    return Subject(pool, query, told, defend, undefended, name, batch_size)


def records_in(name: str, given: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a pair, or of an object that has both; arrays become tensors.

    Raises:
        ArgumentError: it is neither.
    """
    if hasattr(given, "inputs") and hasattr(given, "labels"):
        given = (given.inputs, given.labels)
    given = getattr(given, "tensors", given)  # of a TensorDataset
    if not isinstance(given, tuple | list) or len(given) != 2:
        allowed = "a pair (inputs, labels), a TensorDataset, or an object with .inputs and .labels"
        raise ArgumentError(name, type(given).__name__, allowed)
    inputs, labels = (torch.from_numpy(np.asarray(part)) if isinstance(part, np.ndarray) else part for part in given)
    if not isinstance(inputs, Tensor) or not isinstance(labels, Tensor) or inputs.ndim == 0 or labels.ndim == 0:
        raise ArgumentError(name, f"{type(given[0]).__name__} and {type(given[1]).__name__}", "two tensors or arrays")
    return inputs, labels


def _served(
    model: Callable[[Tensor], Any], defense: Any, form: Any
) -> tuple[Callable[[Tensor], Any], OutputForm | None, Callable[[nn.Module], Callable[[Tensor], Any]] | None, str]:
    """What answers, its form where it is known, and the defense to put around shadow models."""
    if defense is None and isinstance(model, Defended):
        defense = model
    if defense is None:
        if form is not None and not isinstance(form, OutputForm):
            raise ArgumentError("form", form, "an OutputForm, or None to see by the answers")
        return model if isinstance(model, nn.Module) else partial(_as_tensor, model), form, None, ""
    if not isinstance(defense, Defended) or isinstance(defense, type):
        raise ArgumentError("defense", defense, "an output defense, as in outputs.Rounding(model, decimals=1)")
    if defense is not model and defense.origin_network() is not model:
        raise ArgumentError("defense", type(defense).__name__, "the defense that serves this very model")
    told = defense.output_form
    if form is not None and form not in (told, replace(told, probabilities=not told.labels_only)):
        raise ArgumentError(
            "form",
            form,
            f"None beside a defense, or {told} with probabilities=True where the network itself gives them",
        )
    return defense, form or told, defense.around, type(defense).__name__


def _as_tensor(model: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """What a function answers; an array as a tensor."""
    answer = model(inputs)
    return torch.from_numpy(answer) if isinstance(answer, np.ndarray) else answer


def _probe(query: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    try:
        with torch.no_grad(), answering(query) as ask:
            return ask(inputs)
    except PrivetError:
        raise
    except Exception as error:
        raise DataError(
            f"the model cannot answer about inputs of {inputs.dtype} and shape {tuple(inputs.shape)} "
            f"({type(error).__name__}: {error}); give records prepared as it was trained on them."
        ) from error


def _undefended(defense: Any, pool: Pool) -> OutputForm | None:
    """What the network within answers; None if that is more than the scores, which only the defense tells apart."""
    answer = _probe(defense.origin_network(), pool.inputs[:_PROBED])
    scores = isinstance(answer, Tensor) and answer.is_floating_point() and answer.shape[1:] == (pool.classes,)
    return _form_of(answer) if scores else None


def _form_of(answer: Any) -> OutputForm:
    """Labels, probabilities or logits, by what a few answers look like."""
    if not isinstance(answer, Tensor):
        raise ArgumentError(
            "model", f"a model that answers a {type(answer).__name__}", "one that answers a tensor", "Or give form=."
        )
    if answer.ndim == 1 and not answer.is_floating_point():
        return OutputForm(labels_only=True)
    if answer.ndim == 2 and answer.is_floating_point() and len(answer) > 1:
        shares, sums = bool(((answer >= 0.0) & (answer <= 1.0)).all()), answer.double().sum(1)
        if shares and bool(((sums - 1.0).abs() < 0.01).all()):
            return OutputForm(probabilities=True)
        if shares and bool((answer > 0.0).any()):
            raise ArgumentError(
                "model",
                f"a model that answers shares whose sums are {float(sums.min()):.3g} to {float(sums.max()):.3g}",
                "one that answers logits, or probabilities that sum to 1",
                "If they are rounded, give form=OutputForm(decimals=..., probabilities=True).",
            )
    return OutputForm()


def _refuse_other_answers(answer: Any, form: OutputForm) -> None:
    """What no attack can read: more than the scores, or one number for two classes."""
    if isinstance(answer, tuple) and not hasattr(answer, "indices"):
        raise ArgumentError(
            "model",
            f"a target that answers {len(answer)} parts",
            "one that answers the scores alone",
            "Audit the same defense without keep=: what else is answered is not looked at.",
        )
    if isinstance(answer, Tensor) and answer.is_floating_point() and answer.shape[1:] in ((), (1,)):
        raise ArgumentError(
            "model",
            f"a model that answers {tuple(answer.shape)}, one number a record",
            "one that answers a score for each class, (N, C)",
            "Of a probability p of the second class make torch.stack((1 - p, p), 1).",
        )


def _classes_of(model: Any, probed: Any, form: OutputForm, pool: Pool) -> int:
    """As many as there are scores; behind top-k or labels, as many as the network within answers, or labels tell."""
    answer = probed
    if form.labels_only or form.k is not None:
        inside = model.origin_network() if isinstance(model, Defended) else model
        answer = _probe(inside, pool.inputs[:1]) if isinstance(inside, nn.Module) else None
    if isinstance(answer, Tensor) and answer.ndim == 2 and answer.is_floating_point():
        return int(answer.shape[1])
    if form.labels_only:
        told = [int(pool.labels.max())] + ([int(probed.max())] if isinstance(probed, Tensor) else [])
        return max(2, 1 + max(told))
    raise ArgumentError("classes", None, "the number of classes, which the answers do not tell")
