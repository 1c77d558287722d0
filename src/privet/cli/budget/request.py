"""What was asked: options and a TOML file, checked before any work."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from privet import schedules
from privet.errors import ArgumentError, FileFormatError, PrivetError

__all__ = ["Request", "read"]

_MOST_STEPS = 10_000_000  # the values of every step are held in memory
_REQUIRED = ("population", "batch_size", "noise", "delta")


@dataclass(frozen=True)
class Request:
    """A plan that can be accounted for.

    Attributes:
        population: N records.
        batch_size: B, expected records in a batch, 1 to N.
        steps: T.
        noise: the schedule, or with a target its shape.
        delta: above 0, below 1/N.
        target_epsilon: what may be spent, where the scale of the noise is asked for.
    """

    population: int
    batch_size: int
    steps: int
    noise: schedules.NoiseSchedule
    delta: float
    target_epsilon: float | None

    @property
    def sampling_rate(self) -> float:
        """B / N."""
        return self.batch_size / self.population


def _number_as_text(value: object) -> object:
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    population: Annotated[int, Field(ge=1, le=2**53)]
    batch_size: Annotated[int, Field(ge=1)]
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1, le=_MOST_STEPS)] | None = None
    noise: Annotated[str, BeforeValidator(_number_as_text)]
    delta: Annotated[float, Field(gt=0)]
    target_epsilon: Annotated[float, Field(gt=0)] | None = None


_WHOLE = frozenset({"population", "batch_size", "steps"})


def read(options: Mapping[str, str | None], plan: Path | None) -> Request:
    """The request of options as typed and, where there is one, of a TOML file that they complete.

    Raises:
        PrivetError: if fields are missing, all named at once.
        ArgumentError: if a value is out of range, of the wrong type, or given twice.
        FileFormatError: if the file cannot be read, is no TOML or has unknown fields.
    """
    given = {name: _typed(name, text) for name, text in options.items() if text is not None}
    if plan is not None:
        planned = _planned(plan)
        for name in given:
            if name in planned:
                raise ArgumentError(name, given[name], f"it once; {plan} has it too")
        given |= planned
    missing = [f"--{name.replace('_', '-')}" for name in _REQUIRED if name not in given]
    if "epochs" not in given and "steps" not in given:
        missing.append("--epochs or --steps")
    if missing:
        raise PrivetError(f"missing: {', '.join(missing)}; give them as options or as fields of a --plan file.")
    if "epochs" in given and "steps" in given:
        raise ArgumentError("steps", given["steps"], "steps or epochs, not both")
    try:
        fields = _Fields.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from error
    return _checked(fields)


def _checked(fields: _Fields) -> Request:
    """What fields mean together."""
    if fields.batch_size > fields.population:
        raise ArgumentError("batch_size", fields.batch_size, f"at most the population, {fields.population:,}")
    if fields.delta >= 1.0 / fields.population:
        raise ArgumentError(
            "delta",
            fields.delta,
            f"less than 1/N = {1.0 / fields.population:.4g}",
            "With 1/N, publishing a record at random would count as private.",
        )
    steps = fields.steps
    if steps is None:
        assert fields.epochs is not None
        steps = schedules.steps_for(fields.epochs, fields.population, fields.batch_size)
        if steps > _MOST_STEPS:
            raise ArgumentError(
                "epochs", fields.epochs, f"epochs of at most {_MOST_STEPS:,} steps; these are {steps:,}"
            )
    noise = schedules.parse(fields.noise, steps)
    return Request(fields.population, fields.batch_size, steps, noise, fields.delta, fields.target_epsilon)


def _typed(name: str, text: str) -> object:
    if name == "noise":
        return text
    try:
        return int(text) if name in _WHOLE else float(text)
    except ValueError as error:
        raise ArgumentError(name, text, "a whole number" if name in _WHOLE else "a number") from error


def _planned(path: Path) -> dict[str, Any]:
    try:
        planned = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise FileFormatError(path, error.strerror or "no file", "a TOML file") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML
        raise FileFormatError(path, " ".join(str(error).split()), "TOML") from error
    unknown = [name for name in planned if name not in _Fields.model_fields]
    if unknown:
        raise FileFormatError(path, f"unknown fields {', '.join(unknown)}", f"only {', '.join(_Fields.model_fields)}")
    return planned


def _refusal(error: ValidationError) -> ArgumentError:
    first = error.errors()[0]
    allowed = first["msg"].removeprefix("Input should be ")
    comparison = allowed.startswith(("greater", "less"))
    return ArgumentError(str(first["loc"][0]), first["input"], f"a number {allowed}" if comparison else allowed)
