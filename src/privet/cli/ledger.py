"""``privet ledger``: look at a ledger, and take it up again after a torn write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privet.errors import LedgerCorruptError, LedgerMismatchError, PrivetError

if TYPE_CHECKING:
    from privet.accounting import LedgerContents

__all__ = ["ledger_app"]

_MOST_EVENTS = 12

ledger_app = typer.Typer(
    name="ledger", help="The record of what was spent: is it intact, and what does it say?", no_args_is_help=True
)
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The ledger.", show_default=False)]


@ledger_app.callback()
def _ledger() -> None:
    """The record of what was spent: is it intact, and what does it say?"""


@ledger_app.command()
def verify(
    file: _File,
    expect_head: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="A head it once had, such as a checkpoint's; it must be in it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Check every record of a ledger. Exit code 0 if it is intact, 1 if not, 2 if it cannot be read."""
    from privet.accounting import read_ledger

    try:
        contents = read_ledger(file, expect_head=expect_head)
    except PrivetError as error:
        damaged = isinstance(error, LedgerCorruptError | LedgerMismatchError)
        if as_json and damaged:
            typer.echo(json.dumps({"intact": False, "problem": str(error)}))
        else:
            typer.echo(f"privet: {error}", err=True)
        raise typer.Exit(1 if damaged else 2) from error
    typer.echo(json.dumps(_as_json(contents)) if as_json else _as_text(file, contents))


@ledger_app.command()
def repair(file: _File) -> None:
    """Keep a torn last line, covered by a record that says so. Events that stand whole in it count as spent."""
    from privet.accounting import Ledger

    try:
        with Ledger.open(file, accept_torn_tail=True) as ledger:
            typer.echo(_as_text(file, ledger.contents()))
    except PrivetError as error:
        typer.echo(f"privet: {error}", err=True)
        raise typer.Exit(1 if isinstance(error, LedgerCorruptError) else 2) from error


def _as_json(contents: LedgerContents) -> dict[str, Any]:
    runs = [
        {
            "id": run.id,
            "plan_digest": run.plan_digest,
            "description": run.description,
            "reserved": run.reserved,
            "unconfirmed": run.unconfirmed,
            "resumed": run.resumed,
        }
        for run in contents.runs
    ]
    return {
        "intact": True,
        "records": contents.records,
        "relation": contents.relation.value,
        "unit": contents.unit,
        "runs": runs,
        "events": [event.to_json() for event in contents.events],
        "reserved": contents.reserved,
        "unconfirmed": contents.unconfirmed,
        "torn": contents.torn,
        "head": contents.head,
    }


def _as_text(file: Path, contents: LedgerContents) -> str:
    lines = [f"{file}: intact, {contents.records:,} records"]
    lines += [f"relation     {contents.relation.value}", f"unit         {contents.unit}"]
    lines += [f"runs         {len(contents.runs):,}"]
    for run in contents.runs:
        about = f", {run.description}" if run.description else ""
        lines.append(
            f"  {run.id}: {run.reserved:,} steps, {run.unconfirmed:,} unconfirmed, plan {run.plan_digest}{about}"
        )
    lines.append(f"events       {len(contents.events):,}, merged")
    lines += [f"  {event}" for event in contents.events[:_MOST_EVENTS]]
    if len(contents.events) > _MOST_EVENTS:
        lines.append(f"  ... and {len(contents.events) - _MOST_EVENTS:,} more (--json prints all)")
    lines.append(f"spent        {contents.reserved:,} steps, {contents.unconfirmed:,} of them reserved but unconfirmed")
    if contents.torn:
        lines.append(f"torn writes  {contents.torn:,}, accepted")
    return "\n".join([*lines, f"head         {contents.head}"])
