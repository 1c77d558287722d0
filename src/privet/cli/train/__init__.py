"""``privet train``: train a network privately, as a TOML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["train"]


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.", show_default=False)],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, or start where there is none.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where everything is saved; CONFIG's name and -private if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead.")] = False,
) -> None:
    """Train a network with differential privacy, and say what it spent.

    Saves weights, privacy statement, ledger and checkpoint in one folder. Ctrl-C stops after the step under way, and a
    killed run loses no more than the steps since its last checkpoint: --resume goes on.

    A builder or loss of your own (model.py:build) is executed: name no file that you do not trust.
    """
    from privet.cli.train.work import work

    work(config, resume, output, as_json)
