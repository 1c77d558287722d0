"""The shell: ``privet COMMAND``. Bad input ends in one line and exit code 2."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from privet import __version__
from privet.cli.audit import audit
from privet.cli.budget import budget
from privet.cli.doctor import doctor
from privet.cli.invert import invert
from privet.cli.ledger import ledger_app
from privet.cli.train import train
from privet.errors import PrivetError

__all__ = ["app", "main"]

_FAULT = 70  # of the program; 1 is an answer of privet audit and privet doctor

app = typer.Typer(
    name="privet",
    help="The privacy of trained models: how much they give away, how to make it less, how to prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"privet {__version__}")
        raise typer.Exit


@app.callback()
def privet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """The privacy of trained models: how much they give away, how to make it less, how to prove it."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="The folder that report.html is written to.", file_okay=False)] = Path(
        "privet-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the split, the training and the resampling.")] = 0,
) -> None:
    """A tour on real data: train a network that over-fits, attack it, defend it, attack it again, write the report."""
    from privet.cli.tour import walk

    walk(output, seed)


app.command()(audit)
app.command()(budget)
app.command()(doctor)
app.command()(invert)
app.command()(train)
app.add_typer(ledger_app, name="ledger")


def main() -> None:
    """Run the command line; a refusal is one line on standard error and exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except PrivetError as error:
        typer.echo(f"privet: {error}", err=True)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        words = getattr(error, "format_message", None)  # what the parser of the command line raises
        if words is None:
            traceback.print_exc()
            sys.exit(_FAULT)
        typer.echo(f"privet: {words()}".replace("\n", " "), err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
