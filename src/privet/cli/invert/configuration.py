"""An inversion as a TOML file: every key known, every value of its type, before any work."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from privet.attacks.inversion import AdamDescent, Descent, Normalisation, Representation, SignDescent
from privet.cli.toml_file import TomlTable
from privet.output_form import MOST_DECIMALS

__all__ = ["Configuration", "Data", "DefenseTable", "Inversion", "Network", "Output"]

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
_DESCENTS: dict[str, type[AdamDescent | SignDescent]] = {"adam": AdamDescent, "sign": SignDescent}
_FEWEST_IMAGES = 5  # fewer have no interval worth the name


def _default(function: Callable[..., Any], name: str) -> Any:
    return signature(function).parameters[name].default


def _ending(*endings: str) -> AfterValidator:
    def check(value: str) -> str:
        if Path(value).suffix.lower() not in endings:
            raise ValueError(f"a file whose name ends in {' or '.join(endings)}")
        return value

    return AfterValidator(check)


class Network(TomlTable):
    """``[network]`` and ``[judge]``: one of privet.models, or a function of a file of the user's, and its weights."""

    builder: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    mean: list[float] | None = None
    spread: list[Annotated[float, Field(gt=0)]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Network:
        if self.weights is None and ":" not in self.builder:
            raise ValueError("weights, since an untrained network says nothing")
        if (self.mean is None) != (self.spread is None):
            raise ValueError("both mean and spread, which pixels are normalised by, or neither")
        if self.mean is not None and self.spread is not None and not 0 < len(self.mean) == len(self.spread):
            raise ValueError("as many numbers in mean as in spread, one a channel or one for all")
        return self

    @property
    def normalisation(self) -> Normalisation | None:
        """What is done to pixels before the network sees them."""
        if self.mean is None or self.spread is None:
            return None
        return Normalisation(tuple(self.mean), tuple(self.spread))


class Attacked(Network):
    """``[network]``: the one whose answers are inverted, or a part of it."""

    layer: str | None = None


class Data(TomlTable):
    """``[data]``: images, split at random into those that are inverted and those that baselines are made of."""

    source: str
    folder: str | None = None
    images: Annotated[int, Field(ge=_FEWEST_IMAGES)] = 30
    candidates: Count = 1_000
    training: Count | None = None
    seed: Seed = 0


class Inversion(TomlTable):
    """``[inversion]``: how the attack goes."""

    iterations: Count = _default(Representation.reconstruct, "iterations")
    restarts: Count = _default(Representation.reconstruct, "restarts")
    seed: Seed = 0
    bounds: list[float] = Field(default_factory=lambda: list(_default(Representation, "bounds")))
    tv_weight: Annotated[float, Field(ge=0)] = _default(Representation, "tv_weight")
    norm_weight: Annotated[float, Field(ge=0)] = _default(Representation, "norm_weight")
    start: Annotated[float, Field(ge=0, le=1)] = _default(Representation, "start")
    descent: Literal["adam", "sign"] = "adam"
    step: Annotated[float, Field(gt=0, le=1)] | None = None
    device: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Inversion:
        if len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]:
            raise ValueError("bounds of two numbers, the lower first, such as [0, 1]")
        if self.step is None:
            object.__setattr__(self, "step", _default(_DESCENTS[self.descent], "step"))
        return self

    @property
    def moved(self) -> Descent:
        """How images move."""
        assert self.step is not None
        return _DESCENTS[self.descent](self.step)


class DefenseTable(TomlTable):
    """``[defense]``: what is let out of the answers, as privet.outputs does it."""

    decimals: Annotated[int, Field(ge=0, le=MOST_DECIMALS)] | None = None
    k: Count | None = None
    label_only: bool = False

    @model_validator(mode="after")
    def _fits(self) -> DefenseTable:
        scores = self.decimals is not None or self.k is not None
        if scores == self.label_only:
            raise ValueError("either decimals, k or both, or label_only = true")
        return self


class Output(TomlTable):
    """``[output]``: files that are written; none where it is left out."""

    picture: Annotated[str, _ending(".png", ".svg", ".pdf")] | None = None
    numbers: Annotated[str, _ending(".json")] | None = None


class Configuration(TomlTable):
    """The whole file."""

    network: Attacked
    judge: Network
    data: Data
    inversion: Inversion = Inversion()
    defense: DefenseTable | None = None
    output: Output = Output()

    @model_validator(mode="after")
    def _fits(self) -> Configuration:
        if self.defense is not None and self.network.layer is not None:
            raise ValueError("either network.layer or a defense, which stands behind the last layer")
        return self
