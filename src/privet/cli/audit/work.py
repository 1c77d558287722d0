"""The audit that was asked for, its answer on standard output, and what the exit code says."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap

import typer

from privet.atomic_file import check_destination
from privet.audit import AuditResult, Bound, Outcome, audit_model, audit_scores, bound_words, check_bound, parse_bound
from privet.cli.audit.columns import scores_from
from privet.cli.audit.parts import assemble
from privet.cli.audit.request import Request
from privet.errors import ArgumentError

__all__ = ["work"]

_WIDTH = 80
_CODES = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.INCONCLUSIVE: 3}
_WORST_FIRST = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


def work(request: Request, as_json: bool) -> None:
    """Audit, print, write the page, and end with the exit code of the bounds.

    Raises:
        PrivetError: something is not allowed or cannot be done.
    """
    bounds = [parse_bound(text) for text in request.fail_if]
    html = None if request.html is None else check_destination("--html", request.html)
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no part of the answer
        try:
            result = _audited(request)
        except KeyboardInterrupt:
            kept = (
                "" if request.store is None else f" What was computed is in {request.store}; the same command goes on."
            )
            typer.echo(f"privet: stopped before there was anything to say.{kept}", err=True)
            raise typer.Exit(130) from None
    outcomes = [check_bound(result, bound) for bound in bounds]
    typer.echo(json.dumps(_as_json(result, bounds, outcomes), allow_nan=False) if as_json else str(result))
    if not as_json:
        for bound in bounds:
            typer.echo("\n".join(textwrap.wrap(bound_words(result, bound), _WIDTH, subsequent_indent="  ")))
    if html is not None:  # last, so that nothing is lost if it cannot be written
        result.report(html)
        if not as_json:
            typer.echo(f"The page: {html}")
    if result.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(next((_CODES[outcome] for outcome in _WORST_FIRST if outcome in outcomes), 0))


def _audited(request: Request) -> AuditResult:
    if request.member_scores is not None:
        assert request.non_member_scores is not None
        members = scores_from("--member-scores", request.member_scores)
        non_members = scores_from("--non-member-scores", request.non_member_scores)
        return audit_scores(members, non_members, seed=request.seed, confidence=request.confidence)
    parts = assemble(request)
    return audit_model(
        parts.model,
        parts.members,
        parts.non_members,
        train_fn=parts.train,
        defense=parts.defense,
        form=parts.form,
        claim=parts.claim,
        canaries=parts.canaries,
        time_limit=request.time_limit,
        until=None if request.until is None else _width(request.until),
        shadows=request.shadows,
        slices=parts.slices,
        queries=parts.queries,
        methods=parts.methods,
        store=request.store,
        version=request.version,
        seed=request.seed,
        confidence=request.confidence,
    )


def _width(text: str) -> float:
    name, _, value = text.partition("=")
    try:
        width = float(value)
    except ValueError:
        width = 0.0
    if name.strip() != "ci" or not 0.0 < width < 1.0:
        raise ArgumentError("--until", text, "ci=WIDTH, such as ci=0.01, between 0 and 1")
    return width


def _as_json(result: AuditResult, bounds: list[Bound], outcomes: list[Outcome]) -> dict[str, object]:
    found: dict[str, object] = result.to_json()
    if bounds:
        found["bounds"] = [
            {"bound": str(bound), "outcome": outcome.value} for bound, outcome in zip(bounds, outcomes, strict=True)
        ]
    return found
