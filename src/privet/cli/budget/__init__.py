"""``privet budget``: what a plan would spend, or the noise with which it spends no more than a target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["budget"]

# Every value comes as text, so that one that is no number ends in one line like any other refusal.
_Text = str | None


def budget(
    population: Annotated[_Text, typer.Option(metavar="N", help="Records in the data set.")] = None,
    batch_size: Annotated[_Text, typer.Option(metavar="B", help="Expected records in a batch.")] = None,
    epochs: Annotated[_Text, typer.Option(metavar="E", help="Passes over the data, or:")] = None,
    steps: Annotated[_Text, typer.Option(metavar="T", help="Private steps.")] = None,
    noise: Annotated[_Text, typer.Option(metavar="NOISE", help="As 1.1 or 'exponential(2.0, to=0.6)'.")] = None,
    delta: Annotated[_Text, typer.Option(metavar="D", help="Above 0 and below 1/N.")] = None,
    target_epsilon: Annotated[_Text, typer.Option(metavar="E", help="Scale the noise to spend at most this.")] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file with fields of these names.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw how epsilon grows, as SVG.")] = None,
) -> None:
    """What a plan of private training would spend: epsilon by every accountant, and how it grows."""
    from privet.cli.budget import answer, request, show

    options = {
        "population": population,
        "batch_size": batch_size,
        "epochs": epochs,
        "steps": steps,
        "noise": noise,
        "delta": delta,
        "target_epsilon": target_epsilon,
    }
    if plot is not None:
        show.check_plot(plot)
    spent = answer.spend(request.read(options, plan))
    marks = [] if as_json and plot is None else answer.growth(spent)
    if plot is not None:
        show.write_plot(plot, spent, marks)
    if as_json:
        typer.echo(show.as_json(spent))
    else:
        show.print_tables(spent, marks)
