"""``privet doctor``: is a model ready for private training, and if not, what mends it?"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from privet.dp.diagnosis import Diagnosis

__all__ = ["doctor"]

_EXAMPLES = 8  # of the data set; a few suffice


def doctor(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As model.py:build; build() returns the network.")],
    data: Annotated[str, typer.Option(metavar="SOURCE", help="A data set's name or path: digits, records.npz, ...")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the files of mnist, cifar10, ... are.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:FUNCTION",
            help="function(model, inputs, labels) returns one loss for each example; cross-entropy if not given.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Is a model ready for private training? If not: which layers, why, which edit.

    The files in MODEL and --loss are executed: name none that you do not trust.

    Exit code 0 if the model is ready, 1 if not, 2 if the input is unusable.
    """
    from privet.cli.user_file import function_from, network_from
    from privet.data import load
    from privet.dp.doctor import examine

    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no part of the answer
        function = _cross_entropy if loss is None else function_from("--loss", loss)
        examples = load(data, folder)
        network = network_from("MODEL", model)
        count = min(_EXAMPLES, len(examples))
        parameter = next(network.parameters(), None)
        device = None if parameter is None else parameter.device
        batch = (examples.inputs[:count].to(device), examples.labels[:count].to(device))
        diagnosis = examine(network, lambda given: function(network, *given), batch, count)
    typer.echo(json.dumps(diagnosis.to_json()) if as_json else _as_text(model, data, diagnosis))
    if not diagnosis.ready:
        raise typer.Exit(1)


def _cross_entropy(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.cross_entropy(model(inputs), labels, reduction="none")


def _as_text(model: str, data: str, diagnosis: Diagnosis) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return f"{model} with {data}\n\n{diagnosis.text(width)}"
