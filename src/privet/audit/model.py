"""The audit of a model: arguments, evidence, controls, assessment, result."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from privet.attacks.membership.fleet import ONE_QUERY, Executor, Fleet, Queries, TrainFn
from privet.attacks.membership.learned import METHODS, Method, check_methods
from privet.audit.claim import UNTESTED, ClaimAudit, checked_claim, claim_of
from privet.audit.conclude import conclude
from privet.audit.controls import Controls, controlled
from privet.audit.evidence import Evidence, gathered
from privet.audit.judge import Judged, judge
from privet.audit.planted import planted_rows
from privet.audit.provenance import images_of, provenance_of
from privet.audit.result import AuditResult
from privet.audit.runs import headline_of
from privet.audit.slices import checked_columns
from privet.audit.subject import Defended, Subject, subject_of
from privet.audit.terms import Terms, seconds_of
from privet.audit.watch import watched
from privet.errors import ArgumentError
from privet.output_form import OutputForm

__all__ = ["audit_model"]

_SHADOWS = 16
_ALONE = (
    "Only attacks that need the model alone were run. Give train_fn (--train): shadow models show how each record is "
    "answered with and without it, and attacks that know this find far more."
)


def audit_model(
    model: Callable[[Tensor], Any],
    members: Any,
    non_members: Any,
    *,
    train_fn: TrainFn | None = None,
    defense: Defended | None = None,
    claim: tuple[float, float] | None = None,
    canaries: tuple[ArrayLike, ArrayLike] | None = None,
    time_limit: float | str | None = None,
    until: float | None = None,
    shadows: int | None = None,
    slices: Mapping[str, Any] | None = None,
    queries: Queries = ONE_QUERY,
    methods: Sequence[Method] = METHODS,
    executor: Executor | None = None,
    store: str | Path | None = None,
    version: str = "",
    classes: int | None = None,
    form: OutputForm | None = None,
    batch_size: int = 1_024,
    seed: int = 0,
    confidence: float = 0.95,
    planted_share: float = 0.05,
    progress: bool = True,
) -> AuditResult:
    """Ask how much a trained model gives away about which records it was trained on.

    Every argument is checked before any work. Then a classifier that never sees the model compares the two sets; the
    target is asked once about every record; thresholds and learned attacks judge its answers; with ``train_fn``, shadow
    models show how each record is answered by models that were trained on it and by others. Every attack is run again
    where there is nothing to find and where there is a planted leak, and only then is there a verdict.

    Args:
        model: a module, or any function from inputs (N, ...) to logits, probabilities or labels. A module is asked in
            evaluation mode and left as it was.
        members: records the model was trained on: a pair of inputs (M, ...) and labels (M,), or an object with both;
            M >= 20.
        non_members: records of the same distribution that it was not trained on, N >= 20; none of the members.
        train_fn: trains a new model as the target was: ``train_fn(indices, seed)``, with indices into the members
            followed by the non-members.
        defense: what serves the model, if it is not served as it is. The attacks adapt to it, and shadow models pass
            through it.
        claim: (epsilon, delta) that the training is said to satisfy, shown beside what is found.
        canaries: scores (m,) of canaries and whether each was included, by a fair coin: these test the claim.
        time_limit: for the whole audit: seconds, or text such as "10min"; shadow models stop in time.
        until: shadow models are added, up to 256, until the interval of their pooled true positive rate at a false
            positive rate of 1% is no wider than this.
        shadows: how many shadow models to begin with; None: 16. Rounded up to whole blocks, three at least, within each
            of which every record is trained on equally often: 2 models for sets of equal size, 26 for 200 and 5,000.
        slices: name -> one value a record (members first), by whose groups the finding is split.
        queries: the ways in which shadow models and target are asked about each record.
        methods: of the learned attacks: pairs of a name and the values to try for each parameter.
        executor: where shadow models are trained; None: chosen by what ``train_fn`` allows.
        store: a folder that keeps the shadow models' answers, to go on from after a kill.
        version: of what ``train_fn`` does, where its code does not tell.
        classes: how many; None: as many as the model answers.
        form: what the model's answers hold; None: seen from them, or told by the defense.
        batch_size: records a query.
        seed: of everything drawn, >= 0.
        confidence: of all intervals together, in (0, 1).
        planted_share: how many of the members the planted leak is about, from 0.001 to 0.5.
        progress: True to draw how far it is on standard error, if that is a terminal.

    Returns:
        Estimates, controls and verdict.

    Raises:
        ArgumentError: an argument is out of range, or two contradict one another.
        DataError: records cannot be used, or members and non-members have an input in common.
        SampleTooSmallError: there are too few records for any statement.
        KeyboardInterrupt: the audit was stopped before shadow models were trained, or after. While they are, it ends
            their training alone, and what there is is evaluated.

    Guarantees:
        Without a leak, ``LEAK`` is concluded with probability at most 1 - ``confidence`` if members and non-members are
        independent samples of one distribution. ``NO LEAK FOUND`` is about the attacks that were run and leaks of at
        least the planted size; no verdict says that a model is private.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> inputs, labels = torch.randn(400, 5, generator=generator), torch.arange(400) % 2
        >>> def knows(asked):  # a model that is surer of the first 200 records
        ...     known = torch.cdist(asked, inputs[:200]).min(1).values < 1e-3
        ...     return torch.stack([torch.zeros(len(asked)), 4.0 * known], 1)
        >>> result = audit_model(
        ...     knows, (inputs[:200], labels[:200]), (inputs[200:], labels[200:]), methods=(), progress=False
        ... )
        >>> result.verdict.value
        'LEAK'
    """
    begun, limit = time.monotonic(), seconds_of(time_limit)
    if train_fn is None:
        for name, value in (("shadows", shadows), ("until", until), ("store", store)):
            if value is not None:
                raise ArgumentError(name, value, "None without train_fn, which makes shadow models")
    terms = Terms(confidence, seed, planted_share, _SHADOWS if shadows is None else shadows, until, limit)
    chosen, claimed = check_methods(methods) if len(methods) else (), None if claim is None else checked_claim(claim)
    subject = subject_of(
        model, members, non_members, defense=defense, classes=classes, form=form, batch_size=batch_size
    )
    pool = subject.pool
    columns = checked_columns(slices or {}, pool.members, pool.size - pool.members)
    proof = claim_of(claimed, canaries, confidence)
    fleet = _fleet(train_fn, subject, queries, executor, seed=seed, store=store, version=version)
    rows = planted_rows(pool.members, planted_share, seed)
    with watched(progress) as watch:
        ends = None if limit is None else begun + limit
        evidence = gathered(subject, fleet, chosen, terms, ends=ends, watch=watch)
        watch.say("controls")
        ran = tuple(method for method in chosen if method[0] in evidence.runs)
        controls = controlled(evidence.world, evidence.runs, ran, rows, terms)
        watch.say("judging")
        judged = judge(evidence, controls, rows.size, terms)
    how = "" if evidence.growth is None else evidence.growth.how
    took = time.monotonic() - begun
    made = provenance_of(model, subject, terms, shadows=evidence.shadows, how=how, seconds=took)
    return _result(subject, evidence, controls, judged, terms, columns, (claimed, proof), made)


def _fleet(
    train_fn: TrainFn | None, subject: Subject, queries: Queries, executor: Executor | None, **kept: Any
) -> Fleet | None:
    """The fleet that asks shadow models as the target is asked."""
    if not isinstance(queries, Queries):
        raise ArgumentError("queries", queries, "Queries, such as shifts_and_flips()")
    if train_fn is None:
        return None
    _check_signature(train_fn)
    return Fleet(
        train_fn,
        subject.pool,
        form=subject.form,
        defend=subject.defend,
        undefended=subject.undefended,
        queries=queries,
        executor=executor,
        **kept,
    )


def _check_signature(train_fn: Any) -> None:
    """Refuse a function that cannot be called with indices and a seed, as far as it can be seen."""
    try:
        inspect.signature(train_fn).bind(0, 0)
    except TypeError as error:
        name = getattr(train_fn, "__name__", type(train_fn).__name__)
        raise ArgumentError(
            "train_fn", name, "a function of two arguments, train_fn(indices, seed)", f"Here: {error}."
        ) from None
    except ValueError:  # a few builtins tell no signature
        return


def _result(
    subject: Subject,
    evidence: Evidence,
    controls: Controls,
    judged: Judged,
    terms: Terms,
    columns: Mapping[str, NDArray[Any]],
    claims: tuple[tuple[float, float] | None, ClaimAudit | None],
    provenance: tuple[tuple[str, str], ...],
) -> AuditResult:
    """The verdict, and all it rests on."""
    pool, growth, (claimed, proof) = subject.pool, evidence.growth, claims
    verdict, reason = conclude(
        judged.attacks,
        null=controls.null,
        planted=judged.planted,
        exchange=controls.exchange,
        blind=evidence.blind,
        claim=proof,
        shadows=evidence.shadows,
        unrun=growth is not None and not evidence.shadows,
        doubt=judged.doubt,
    )
    return AuditResult(
        verdict=verdict,
        reason=reason,
        attacks=judged.attacks,
        headline=headline_of(evidence.runs),
        members=pool.members,
        non_members=pool.size - pool.members,
        confidence=terms.confidence,
        tests=judged.tests,
        null=controls.null,
        planted=judged.planted,
        exchange=controls.exchange,
        blind=evidence.blind,
        claim=proof,
        claimed=claimed,
        procedure=judged.procedure,
        shadows=evidence.shadows,
        shadows_asked=0 if growth is None else terms.shadows,
        form=subject.form,
        defense=subject.defense,
        labels=pool.labels.numpy(),
        columns=columns,
        inputs=images_of(pool.inputs),
        accuracy=evidence.accuracy,
        warnings=(
            *((_ALONE,) if growth is None else ()),
            *judged.warnings,
            *((UNTESTED,) if claimed and proof is None else ()),
        ),
        interrupted=growth is not None and growth.interrupted,
        provenance=provenance,
    )
