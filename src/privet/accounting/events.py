"""What was released: descriptions that know no accountant.

An event says with how much noise something was released, from which sample, how often. It is interpreted elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from privet.errors import ArgumentError, UnsupportedEventError

__all__ = ["Event", "NeighbouringRelation", "NoSampling", "Poisson", "Sampling", "TruncatedPoisson", "joint_noise"]

_VERSION = 1


class NeighbouringRelation(Enum):
    """Which pairs of data sets a guarantee tells apart.

    ``ADD_OR_REMOVE_ONE``: one is the other with one record more; a sum of vectors clipped to norm C changes by at most
    C, a count centred by 1/2 by at most 1/2. ``REPLACE_ONE``: one record differs; 2C and 1.
    """

    ADD_OR_REMOVE_ONE = "add-or-remove-one"
    REPLACE_ONE = "replace-one"


@dataclass(frozen=True)
class NoSampling:
    """Every record takes part."""


@dataclass(frozen=True)
class Poisson:
    """Each record takes part independently with probability ``rate``, in (0, 1]."""

    rate: float

    def __post_init__(self) -> None:
        _check_rate(self.rate)


@dataclass(frozen=True)
class TruncatedPoisson:
    """A Poisson sample of a population, cut at random to at most ``cap`` records.

    Attributes:
        rate: probability of each record before the cut, in (0, 1].
        cap: the largest batch, at least 1.
        population: how many records there are, at least 1.
    """

    rate: float
    cap: int
    population: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        for name, value in (("cap", self.cap), ("population", self.population)):
            if not _is_count(value):
                raise ArgumentError(name, value, "a whole number of at least 1")


Sampling = NoSampling | Poisson | TruncatedPoisson


@dataclass(frozen=True)
class Event:
    r"""Gaussian noise added to a query, ``count`` times, each time on a fresh sample.

    Attributes:
        noise_multiplier: z = noise std / L2 sensitivity of the query under the ledger's neighbouring relation, > 0 and
            finite. For truncated Poisson sampling the sensitivity is that of one record's contribution, the clip norm.
        sampling: how the records of one release are chosen.
        count: how often, at least 1.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> Event(1.1, Poisson(0.01), count=100).to_json()["sampling"]
        {'kind': 'poisson', 'rate': 0.01}
    """

    noise_multiplier: float
    sampling: Sampling
    count: int = 1

    def __post_init__(self) -> None:
        z: object = self.noise_multiplier
        if isinstance(z, bool) or not isinstance(z, int | float) or not 1e-100 <= z <= 1e100:
            raise ArgumentError("noise_multiplier", z, "a number above 0 (from 1e-100 to 1e100)")
        sampling: object = self.sampling
        if not isinstance(sampling, NoSampling | Poisson | TruncatedPoisson):
            raise ArgumentError("sampling", sampling, "NoSampling(), Poisson(rate) or TruncatedPoisson(...)")
        if not _is_count(self.count) or self.count > 2**53:
            raise ArgumentError("count", self.count, "a whole number from 1 to 2^53")

    def __str__(self) -> str:
        match self.sampling:
            case NoSampling():
                sampled = "no sampling"
            case Poisson(rate):
                sampled = f"Poisson rate {rate:g}"
            case TruncatedPoisson(rate, cap, population):
                sampled = f"Poisson rate {rate:g}, at most {cap:,} of {population:,}"
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return f"Gaussian, noise multiplier {self.noise_multiplier:g}, {sampled}, {times}"

    @property
    def rate(self) -> float:
        """The probability with which a record takes part in one release."""
        return 1.0 if isinstance(self.sampling, NoSampling) else float(self.sampling.rate)

    def to_json(self) -> dict[str, Any]:
        """The event as plain JSON data; :meth:`from_json` gives it back unchanged."""
        sampling: dict[str, Any]
        match self.sampling:
            case NoSampling():
                sampling = {"kind": "none"}
            case Poisson(rate):
                sampling = {"kind": "poisson", "rate": rate}
            case TruncatedPoisson(rate, cap, population):
                sampling = {"kind": "truncated-poisson", "rate": rate, "cap": cap, "population": population}
        return {
            "kind": "gaussian",
            "version": _VERSION,
            "noise_multiplier": float(self.noise_multiplier),
            "sampling": sampling,
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Event:
        """Read what :meth:`to_json` wrote.

        Raises:
            UnsupportedEventError: if the kind of event, of sampling, or the version is not known, by name.
            ArgumentError: if a value is missing, out of range or of the wrong type, or a field is unknown.
        """
        if not isinstance(data, Mapping):  # what was read from a file may be anything
            raise ArgumentError("event", data, "an object with the field 'kind'")
        if data.get("kind") != "gaussian":
            raise UnsupportedEventError(f"event of kind {data.get('kind')!r} is not known; 'gaussian' is.")
        if data.get("version") != _VERSION:
            raise UnsupportedEventError(f"event of version {data.get('version')!r} is not known; {_VERSION} is.")
        _check_fields("event", data, {"kind", "version", "noise_multiplier", "sampling", "count"})
        return cls(data["noise_multiplier"], _read_sampling(data["sampling"]), data["count"])


def joint_noise(noise_multipliers: Iterable[float]) -> float:
    r"""The noise multiplier of several Gaussian queries answered on the *same* sample.

    .. math:: 1 / z^2 = \sum_i 1 / z_i^2

    Scaling each query by its own sensitivity-to-noise ratio makes them one Gaussian query of sensitivity
    :math:`\sqrt{\sum_i z_i^{-2}}` and unit noise. They are one event: two events would claim a fresh sample for each.

    Args:
        noise_multipliers: z_i > 0 of each query; at least one.

    Raises:
        ArgumentError: if there is none, or one is not a finite number above 0.

    Example:
        >>> joint_noise([1.0, 1.0])
        0.7071067811865475

    References:
        Andrew et al., "Differentially private learning with adaptive clipping", 2021, theorem 1.
    """
    values = [float(z) for z in noise_multipliers]
    if not values or not all(0.0 < z < math.inf for z in values):
        raise ArgumentError("noise_multipliers", values, "at least one finite number above 0")
    return 1.0 / math.hypot(*(1.0 / z for z in values))


def check_delta(delta: float) -> float:
    """Return ``delta`` if it lies strictly between 0 and 1; ArgumentError if it does not."""
    if not 0.0 < delta < 1.0:
        raise ArgumentError("delta", delta, "a number strictly between 0 and 1, below one over the number of records")
    return float(delta)


def refuse_sampled_replacement(relation: NeighbouringRelation) -> None:
    """Raise UnsupportedEventError for Poisson sampling under replace-one: the theorem used does not cover it."""
    if relation is NeighbouringRelation.REPLACE_ONE:
        raise UnsupportedEventError(
            "Poisson sampling under replace-one is not covered by the amplification theorem used here; account for it "
            "under add-or-remove-one, or give unsampled events."
        )


def _read_sampling(data: object) -> Sampling:
    if not isinstance(data, Mapping):
        raise ArgumentError("sampling", data, "an object with the field 'kind'")
    match data.get("kind"):
        case "none":
            _check_fields("sampling", data, {"kind"})
            return NoSampling()
        case "poisson":
            _check_fields("sampling", data, {"kind", "rate"})
            return Poisson(data["rate"])
        case "truncated-poisson":
            _check_fields("sampling", data, {"kind", "rate", "cap", "population"})
            return TruncatedPoisson(data["rate"], data["cap"], data["population"])
        case other:
            raise UnsupportedEventError(
                f"sampling of kind {other!r} is not known; 'none', 'poisson' and 'truncated-poisson' are."
            )


def _check_fields(what: str, data: Mapping[str, Any], fields: set[str]) -> None:
    if set(data) != fields:
        raise ArgumentError(what, dict(data), f"exactly the fields {', '.join(sorted(fields))}")


def _check_rate(rate: object) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 < rate <= 1.0:
        raise ArgumentError("rate", rate, "a probability above 0 and at most 1")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
