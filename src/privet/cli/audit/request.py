"""What is to be audited, from the command line and a TOML file, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from privet.cli.toml_file import TomlTable, refusal, tables_of
from privet.data.load import NAMES
from privet.errors import ArgumentError

__all__ = ["Learned", "Request", "requested"]

_FILES = (
    "model",
    "weights",
    "members",
    "non_members",
    "folder",
    "train",
    "store",
    "member_scores",
    "non_member_scores",
    "canary_scores",
    "canaries_included",
    "html",
)


class Learned(TomlTable):
    """``[[learned]]``: an attacker that is trained, and the parameters it chooses from."""

    method: str
    parameters: dict[str, list[Any]] = Field(default_factory=dict)


class Request(TomlTable):
    """The whole file; every key but ``learned`` is also an option, and every option but --json a key."""

    model: str | None = None
    weights: str | None = None
    members: str | None = None
    non_members: str | None = None
    folder: str | None = None
    train: str | None = None
    shadows: Annotated[int, Field(ge=4)] | None = None
    until: str | None = None
    time_limit: str | None = None
    store: str | None = None
    version: str = ""
    augment: str | None = None
    defense: str | None = None
    claim: str | None = None
    canary_scores: str | None = None
    canaries_included: str | None = None
    slice: list[str] = Field(default_factory=list)
    member_scores: str | None = None
    non_member_scores: str | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    fail_if: list[str] = Field(default_factory=list)
    html: str | None = None
    learned: list[Learned] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Request:
        scores = (self.member_scores, self.non_member_scores)
        if (scores[0] is None) != (scores[1] is None):
            raise ValueError("both member_scores and non_member_scores, or neither")
        if (self.canary_scores is None) != (self.canaries_included is None):
            raise ValueError("both canary_scores and canaries_included, or neither")
        if scores[0] is not None:
            self._scores_alone()
            return self
        if self.model is None:
            raise ValueError("a model (model.py:build or model.onnx), or member_scores and non_member_scores")
        if self.members is None or self.non_members is None:
            raise ValueError("members and non_members, the records to audit with")
        if self.train is None:
            for name in ("shadows", "until", "store", "augment"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} only with train, which makes shadow models")
        if self.canary_scores is not None and self.claim is None:
            raise ValueError("canary_scores only with claim, which they test")
        return self

    def _scores_alone(self) -> None:
        allowed = {"member_scores", "non_member_scores", "confidence", "seed", "fail_if", "html"}
        more = [name for name in type(self).model_fields if name in self.model_fields_set and name not in allowed]
        if more:
            raise ValueError(f"no {', '.join(more)} with scores, which are all that is looked at")


def requested(target: str | None, options: dict[str, Any]) -> Request:
    """What the command line asks for; its options go before what a TOML file says.

    Args:
        target: a TOML file, what the ``model`` key would say, or None.
        options: by the names of the keys, those alone that were given.

    Raises:
        FileFormatError: the TOML file cannot be read, or has a key or a value that is not allowed.
        ArgumentError: an option does not go with the others.
    """
    path = Path(target) if target is not None and target.endswith(".toml") else None
    values: dict[str, Any] = {} if target is None else {"model": target}
    if path is not None:
        values = {name: _beside(path, name, value) for name, value in tables_of(path).items()}
    try:
        return Request.model_validate(values | options)
    except ValidationError as error:
        problems = error.errors()
        first = problems[0]
        if first["type"] == "value_error":
            given = ", ".join([*values, *(name for name in options if name not in values)]) or "nothing"
            raise ArgumentError("what was given", given, str(first["ctx"]["error"])) from error
        if path is not None and first["loc"][0] not in options:
            raise refusal(path, Request, problems) from error
        allowed = str(first["msg"]).removeprefix("Input should be ")
        raise ArgumentError(str(first["loc"][0]), first["input"], allowed) from error


def _beside(config: Path, key: str, value: Any) -> Any:
    """Files and folders that a TOML file names lie beside it; a data set known by its name lies nowhere."""
    if not isinstance(value, str) or key not in _FILES:
        return value
    if key in ("members", "non_members") and value.removesuffix(":train").removesuffix(":test") in NAMES:
        return value
    return str(config.parent / value)
