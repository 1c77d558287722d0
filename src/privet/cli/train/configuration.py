"""A training as a TOML file: every key known, every value of its type, before any work."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from privet.errors import FileFormatError

__all__ = ["Configuration", "Data", "HeldOut", "Model", "Privacy", "Training", "read"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _number_as_text(value: object) -> object:
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Model(_Table):
    """``[model]``: a network of privet.models, or a function of a file of the user's."""

    builder: str
    arguments: dict[str, Any] = {}
    seed: Seed = 0
    loss: str | None = None


class Data(_Table):
    """``[data]``: the private records."""

    source: str
    folder: str | None = None


class HeldOut(_Table):
    """``[held_out]``: what accuracy is measured on."""

    records: Count | None = None
    source: str | None = None
    folder: str | None = None

    @model_validator(mode="after")
    def _one(self) -> HeldOut:
        if (self.records is None) == (self.source is None):
            raise ValueError("either records, set apart from the data, or a source of its own")
        if self.folder is not None and self.source is None:
            raise ValueError("folder only with source")
        return self


class Training(_Table):
    """``[training]``: what changes no guarantee but the steps and the expected batch size."""

    expected_batch_size: Count
    epochs: Positive | None = None
    steps: Count | None = None
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    average: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Seed = 0
    device: str | None = None
    max_physical_batch: Count | None = None
    checkpoint_every: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("either epochs or steps")
        if self.momentum is not None and self.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(f"no momentum with {self.optimizer}, which has betas of its own")
        return self


class Clipping(_Table):
    """``[privacy.clipping]``: fixed to a norm, or adaptive; for all parameters or layer by layer."""

    kind: Literal["fixed", "adaptive"] = "fixed"
    norm: Positive = 1.0
    per_layer: bool = False
    target_quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    learning_rate: Positive | None = None
    count_noise_std: Positive | None = None
    rule: Literal["geometric", "linear"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Clipping:
        adaptive = ("target_quantile", "learning_rate", "count_noise_std", "rule")
        if self.kind == "fixed" and any(getattr(self, name) is not None for name in adaptive):
            raise ValueError(f'{", ".join(adaptive)} only with kind = "adaptive"')
        return self


class Privacy(_Table):
    """``[privacy]``: what changes the guarantee."""

    delta: Positive
    noise: Annotated[str, BeforeValidator(_number_as_text)] = "1.0"
    target_epsilon: Positive | None = None
    budget_epsilon: Positive | None = None
    max_batch_size: Count | None = None
    ledger: str | None = None
    clipping: Clipping = Clipping()

    @model_validator(mode="after")
    def _fits(self) -> Privacy:
        if self.target_epsilon is not None and self.budget_epsilon is not None:
            raise ValueError("either target_epsilon, to which the noise is scaled, or budget_epsilon, or neither")
        if self.target_epsilon is None and "noise" not in self.model_fields_set:
            raise ValueError("noise, or a target_epsilon to which it is scaled")
        return self


class Configuration(_Table):
    """The whole file."""

    model: Model
    data: Data
    held_out: HeldOut | None = None
    training: Training
    privacy: Privacy


def read(path: Path) -> Configuration:
    """Read a file.

    Raises:
        FileFormatError: it cannot be read, is no TOML, or has a key or a value that is not allowed; says which.
    """
    try:
        tables = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise FileFormatError(path, error.strerror or "no file", "a TOML file") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML
        raise FileFormatError(path, " ".join(str(error).split()), "TOML") from error
    try:
        return Configuration.model_validate(tables)
    except ValidationError as error:
        raise _refusal(path, error.errors()) from error


def _refusal(path: Path, errors: list[Any]) -> FileFormatError:
    """One line: unknown keys first, since they explain missing ones."""
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    key = ".".join(map(str, first["loc"])) or "the file"
    match first["type"]:
        case "extra_forbidden":
            return FileFormatError(path, f"an unknown key {key}", f"only {', '.join(_keys(first['loc'][:-1]))} there")
        case "missing":
            return FileFormatError(path, f"no {key}", "it to be given")
        case "value_error":
            return FileFormatError(path, f"[{key}] {_shown(first['input'])}", str(first["ctx"]["error"]))
    allowed = first["msg"].removeprefix("Input should be ")
    return FileFormatError(path, f"{key} = {_shown(first['input'])}", allowed)


def _keys(place: tuple[str | int, ...]) -> list[str]:
    tables: Mapping[str, type[_Table]] = {
        "": Configuration,
        "model": Model,
        "data": Data,
        "held_out": HeldOut,
        "training": Training,
        "privacy": Privacy,
        "privacy.clipping": Clipping,
    }
    return list(tables[".".join(map(str, place))].model_fields)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
