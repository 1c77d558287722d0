"""``privet invert``: what images looked like, from what a network answered about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["invert"]


def invert(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Reconstruct images from what a network answers about them, and say how good they are.

    Assumes an attacker who has the weights and the answers. An independently trained network judges the images, beside
    two baselines that need no attack.

    A builder of your own (model.py:build) is executed: name no file that you do not trust.

    Exit code 0 if the reconstruction finished, whatever it found, 2 if the input is unusable, 70 if privet itself
    fails, 130 if it was interrupted.
    """
    from privet.cli.invert.work import work

    work(config, as_json)
