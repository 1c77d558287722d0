"""From a TOML file to weights, a statement and a ledger in one folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import typer

from privet import schedules
from privet.checkpoints import read_snapshot
from privet.cli.toml_file import read_toml
from privet.cli.train.configuration import Configuration
from privet.cli.train.parts import Parts, assemble
from privet.dp.fit_records import FitResult
from privet.dp.fitting import cross_entropy, fit
from privet.dp.plan import Plan
from privet.dp.progress import shown, wrapped
from privet.errors import CheckpointError, FileWriteError
from privet.training import Evaluation, evaluate

__all__ = ["work"]

_WIDEST = 100
HELD_OUT = "measured on held-out records, not covered by epsilon unless they are public"


def work(config: Path, resume: bool, output: Path | None, as_json: bool) -> None:
    """Train as ``config`` says.

    Raises:
        PrivetError: something is not allowed or cannot be done.
    """
    configuration = read_toml(config, Configuration)
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no part of the answer
        parts = assemble(config, configuration)
    folder = Path(f"{config.stem}-private") if output is None else output
    named = configuration.privacy.ledger
    files = {
        "weights": folder / "weights.safetensors",
        "statement": folder / "weights.safetensors.privacy.json",
        "checkpoint": folder / "checkpoint.safetensors",
        "ledger": folder / "run.ledger" if named is None else config.parent / named,
    }
    _prepare(folder, files["checkpoint"], resume)
    if not as_json:
        typer.echo(_headline(parts), err=True)
    training = configuration.training
    try:
        with contextlib.redirect_stdout(sys.stderr), shown(True, parts.plan.total_steps) as show:
            result = fit(
                parts.model,
                parts.records,
                parts.plan,
                ledger=files["ledger"],
                loss=cross_entropy if parts.loss is None else parts.loss,
                optimizer=parts.optimizer,
                scheduler=parts.scheduler,
                average=training.average,
                seed=training.seed,
                device=training.device,
                max_physical_batch=training.max_physical_batch,
                checkpoint=files["checkpoint"],
                checkpoint_every=training.checkpoint_every,
                resume=resume,
                weights=files["weights"],
                progress=False if show is None else show,
            )
    except KeyboardInterrupt:
        typer.echo(_interrupted(config, files["checkpoint"], output, parts.plan), err=True)
        raise typer.Exit(130) from None
    accuracy = None if parts.held_out is None else evaluate(parts.model, parts.held_out)
    if as_json:
        typer.echo(json.dumps(_as_json(result, accuracy, files), allow_nan=False))
    else:
        typer.echo(_as_text(result, accuracy, files))


def _prepare(folder: Path, checkpoint: Path, resume: bool) -> None:
    if checkpoint.exists() and not resume:
        raise CheckpointError(
            f"{checkpoint} exists: give --resume to go on, or another --output. What it spent stays on its ledger."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(folder, error.strerror or str(error)) from error


def _headline(parts: Parts) -> str:
    plan = parts.plan
    budget = "no budget" if plan.budget is None else f"budget epsilon {plan.budget:g}"
    return (
        f"{type(parts.model).__name__} on {plan.dataset_size:,} records, {plan.total_steps:,} steps of "
        f"{plan.expected_batch_size:g} expected\n{budget} at delta {plan.delta:g}\n"
        f"noise {schedules.describe(plan.schedule)}"
    )


def _interrupted(config: Path, checkpoint: Path, output: Path | None, plan: Plan) -> str:
    where = "" if output is None else f" --output {output}"
    try:
        step = int(read_snapshot(checkpoint).callbacks[0]["step"])
    except (CheckpointError, LookupError):
        return "privet: stopped; nothing was trained or spent."
    return (
        f"privet: stopped; the checkpoint has {step:,} of {plan.total_steps:,} steps. "
        f"Go on: privet train {config} --resume{where}"
    )


def _as_text(result: FitResult, accuracy: Evaluation | None, files: dict[str, Path]) -> str:
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    lines = [wrapped(result.statement, width), ""]
    if not result.complete:
        spent = result.spent
        lines.append(f"The budget ended training after {spent.steps:,} of {spent.total_steps:,} steps.")
    if accuracy is not None:
        said = f"accuracy      {accuracy.accuracy:.1%} of {accuracy.n:,} records ({HELD_OUT})"
        lines += textwrap.wrap(said, width, subsequent_indent=" " * 14)
    lines += [f"{name:14}{path}" for name, path in files.items()]
    return "\n".join(lines)


def _as_json(result: FitResult, accuracy: Evaluation | None, files: dict[str, Path]) -> dict[str, Any]:
    found: dict[str, Any] = {"statement": result.statement.to_json(), "complete": result.complete}
    if accuracy is not None:
        found["held_out"] = {"accuracy": accuracy.accuracy, "records": accuracy.n, "note": HELD_OUT}
    return found | {"files": {name: str(path) for name, path in files.items()}}
