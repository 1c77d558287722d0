"""``privet audit``: what a model gives away about whom it learned from."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["audit"]


def audit(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="CONFIG.toml, a network as model.py:build, or model.onnx; none with scores.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of the network: .safetensors, or .pt read without running code.")
    ] = None,
    members: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Records it was trained on: members.npz, a folder, name:train.")
    ] = None,
    non_members: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Records of the same distribution that it was not trained on.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the files of mnist, cifar10, ... are.")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:FUNCTION",
            help="function(inputs, labels, seed) trains a network as the target was: shadow models, for LiRA and RMIA.",
        ),
    ] = None,
    shadows: Annotated[int | None, typer.Option(min=4, help="How many shadow models; 16 if not given.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="ci=WIDTH", help="Add shadow models until the interval is as narrow.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(metavar="TIME", help="Of the whole audit: 90s, 10m, 2h.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keeps shadow models' answers; a stopped audit goes on from it.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of the training, where its code cannot tell: another text, another store."),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Ask about changed copies too: shifts-and-flips or shifts (images)."),
    ] = None,
    defense: Annotated[
        str | None, typer.Option(metavar="WHAT", help="What is served: rounding=2, top-k=3, labels, joined by commas.")
    ] = None,
    claim: Annotated[str | None, typer.Option(metavar="EPSILON,DELTA", help="As claimed, such as 3.0,1e-5.")] = None,
    canary_scores: Annotated[
        str | None, typer.Option(metavar="FILE.npy", help="Of canaries that were included at random; tests the claim.")
    ] = None,
    canaries_included: Annotated[
        str | None, typer.Option(metavar="FILE.npy", help="Which canaries were: True or False each.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="COLUMN", help="Results a group: class, or an array of both .npz files."),
    ] = None,
    member_scores: Annotated[
        str | None, typer.Option(metavar="FILE.npy", help="Scores of another attack; no TARGET then.")
    ] = None,
    non_member_scores: Annotated[
        str | None, typer.Option(metavar="FILE.npy", help="Its scores of records that are no members.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="With which all intervals hold at once; 0.95 if not given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of everything random; 0 if not given.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BOUND", help='Such as "tpr@1%>0.05" or "auc>0.6"; passes only if all of its interval does.'
        ),
    ] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """How much does a model give away about whom it learned from?

    Files named by TARGET and --train are executed if they are .py: name none that you do not trust. Options go before
    what CONFIG.toml says; its keys are their names without -- and with _ for -, such as fail_if = ["auc>0.6"].

    Exit code 0 if the audit finished and every bound holds, 1 if a bound is broken, 2 if the input is unusable, 3 if
    the audit cannot tell whether a bound holds, 70 if privet itself fails, 130 if it was interrupted.
    """
    given = {name: value for name, value in locals().items() if value is not None and value != []}
    for name in ("target", "as_json"):
        given.pop(name, None)
    if "slices" in given:
        given["slice"] = given.pop("slices")
    from privet.cli.audit.request import requested
    from privet.cli.audit.work import work

    work(requested(target, given), as_json)
