"""A training as a TOML file: every key known, every value of its type, before any work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from privet.cli.toml_file import TomlTable

__all__ = ["Configuration", "Data", "HeldOut", "Model", "Privacy", "Training"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _number_as_text(value: object) -> object:
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Model(TomlTable):
    """``[model]``: a network of privet.models, or a function of a file of the user's."""

    builder: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    seed: Seed = 0
    loss: str | None = None


class Data(TomlTable):
    """``[data]``: the private records."""

    source: str
    folder: str | None = None


class HeldOut(TomlTable):
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


class Training(TomlTable):
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


class Clipping(TomlTable):
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


class Privacy(TomlTable):
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


class Configuration(TomlTable):
    """The whole file."""

    model: Model
    data: Data
    held_out: HeldOut | None = None
    training: Training
    privacy: Privacy
