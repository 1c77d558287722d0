"""The plan of a private training: the one object from which sampler, clipping, noise, ledger and accountant read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

from privet import schedules
from privet.accounting.bound import Bound
from privet.accounting.calibration import merged_events, schedule_scale
from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, Sampling, TruncatedPoisson
from privet.accounting.pld import PLD
from privet.accounting.reference import Reference
from privet.dp.clipping import ClippingStrategy, FixedNorm, noise_split, rounded_up
from privet.dp.plan_checks import check_plan
from privet.errors import AccountingError, ArgumentError
from privet.schedules.checks import check_count

__all__ = ["Plan"]

_DIGITS = 7  # of a scale, rounded up: far fewer than would cost epsilon, few enough to copy
_UNIT_NORM = FixedNorm(1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that decides a guarantee, checked and computed once; two plans are equal where their digests are.

    Nothing in it may be learned from the private data: the number of records is public, and so is the expected batch
    size, which is the denominator of every step whatever batch was drawn.

    Attributes:
        dataset_size: N records, public.
        expected_batch_size: B, from 1 to N. Each record takes part in a step with probability B / N; all do where
            B is N.
        delta: above 0, below 1 / N.
        noise: a noise multiplier, or a schedule of them: noise std over the sensitivity of all that a step releases.
            Where counts are released, the gradient gets more noise, so that both together have the one stated.
        steps: T, at most 10,000,000; or
        epochs: passes over the data, T = ceil(E N / B).
        target_epsilon: what the whole plan may spend. The noise is then a shape whose scale is solved for, rounded up
            in the seventh digit.
        budget_epsilon: what may be spent with the noise as it is given; training stops before the step that would
            spend more. Not both.
        clipping: which parameters are clipped together, and to what norm.
        max_batch_size: no batch is ever larger: a larger sample is cut at random, which costs some epsilon. From B to
            N - 1. Not the number of examples that fit into memory at once, which changes no guarantee.
        relation: which data sets are told apart. Replace-one only where every record takes part in every step.
        unit: what is protected; ``"example"`` and nothing else.

    Guarantees:
        :meth:`epsilon` holds for the whole plan, for one data set used by nothing else. What was spent in all is
        what the ledger says.

    Raises:
        ArgumentError: if a value is out of range, values do not fit together, or counts leave nothing to the gradient.
        AccountingError: if no scale of the noise meets the target.

    Example:
        >>> plan = Plan(dataset_size=60_000, expected_batch_size=256, epochs=2, delta=1e-5, noise=1.1)
        >>> plan.total_steps, plan.event(0).to_json()["sampling"]["kind"]
        (469, 'poisson')
        >>> print(plan.epsilon())
        <= 0.418 (not below 0.417)
    """

    dataset_size: int
    expected_batch_size: float
    delta: float
    noise: schedules.NoiseSchedule | float
    steps: int | None = None
    epochs: float | Fraction | Decimal | None = None
    target_epsilon: float | None = None
    budget_epsilon: float | None = None
    clipping: ClippingStrategy = _UNIT_NORM
    max_batch_size: int | None = None
    relation: NeighbouringRelation = NeighbouringRelation.ADD_OR_REMOVE_ONE
    unit: str = "example"

    def __post_init__(self) -> None:
        check_plan(self)
        values = self.noise_multipliers  # with a target, this is where the scale is solved for
        for extreme in (min(values), max(values)):
            Event(extreme, self.sampling)
        self.check_groups(self.clipping.least_groups)
        if self.budget_epsilon is not None:
            first = self.upper_epsilon(self.events(0, 1))
            if first > self.budget_epsilon:
                raise ArgumentError(
                    "budget_epsilon", self.budget_epsilon, f"at least {first:.6g}, which the first step alone spends"
                )

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Plan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def sampling_rate(self) -> float:
        """The probability with which a record takes part in a step: B / N."""
        return self.expected_batch_size / self.dataset_size

    @cached_property
    def sampling(self) -> Sampling:
        """How the records of a step are chosen."""
        if self.expected_batch_size == self.dataset_size:
            return NoSampling()
        if self.max_batch_size is not None:
            return TruncatedPoisson(self.sampling_rate, int(self.max_batch_size), int(self.dataset_size))
        return Poisson(self.sampling_rate)

    @cached_property
    def total_steps(self) -> int:
        """T, as given or as the epochs say."""
        if self.steps is not None:
            return int(self.steps)
        assert self.epochs is not None
        passes = _exact(self.epochs) / _exact(self.expected_batch_size)
        return schedules.steps_for(passes, self.dataset_size, 1)

    @cached_property
    def noise_scale(self) -> float | None:
        """By what the given noise is multiplied to meet the target; None without one."""
        if self.target_epsilon is None:
            return None
        scale = schedule_scale(self._shape, self.sampling, self.delta, self.target_epsilon)
        return rounded_up(scale, _DIGITS)

    @cached_property
    def schedule(self) -> schedules.NoiseSchedule:
        """The schedule that is run: with a target, the scaled one."""
        return self._given if self.noise_scale is None else schedules.scaled(self._given, self.noise_scale)

    @cached_property
    def noise_multipliers(self) -> tuple[float, ...]:
        """The noise multiplier of every step, as it is run and accounted for."""
        if self.noise_scale is None:
            return self._shape
        values = schedules.evaluate(self.schedule, self.total_steps)
        for step, (value, before) in enumerate(zip(values, self._shape, strict=True)):
            if not math.isclose(value, self.noise_scale * before, rel_tol=1e-9):
                raise ArgumentError(
                    f"noise({step})", value / self.noise_scale, f"the same answer each time; it was {before!r}"
                )
        spent = self.upper_epsilon(merged_events(values, self.sampling))
        assert self.target_epsilon is not None
        if spent > self.target_epsilon:
            raise AccountingError(
                f"the scale {self.noise_scale!r} spends {spent!r}, above the target {self.target_epsilon!r}."
            )
        return values

    @property
    def budget(self) -> float | None:
        """The epsilon that training may not exceed: the target or the budget; None without either."""
        return self.budget_epsilon if self.target_epsilon is None else self.target_epsilon

    @property
    def accountant(self) -> PLD | Reference:
        """Which accountant's upper end counts: PLD, but for truncated batches the one that knows them."""
        return Reference() if isinstance(self.sampling, TruncatedPoisson) else PLD()

    def event(self, step: int) -> Event:
        """What step ``step`` releases, from 0 to T - 1."""
        check_count("step", step, low=0)
        if step >= self.total_steps:
            raise ArgumentError("step", step, f"a step of the plan, from 0 to {self.total_steps - 1:,}")
        return Event(self.noise_multipliers[step], self.sampling)

    def events(self, start: int = 0, stop: int | None = None) -> list[Event]:
        """What steps ``start`` ... ``stop`` - 1 release, one event for each run of equal noise; all if not given."""
        last = self.total_steps if stop is None else stop
        check_count("start", start, low=0)
        check_count("stop", last, low=0)
        if not start <= last <= self.total_steps:
            raise ArgumentError("start, stop", (start, last), f"0 <= start <= stop <= {self.total_steps:,}")
        return merged_events(self.noise_multipliers[start:last], self.sampling)

    def epsilon(self) -> Bound:
        """What the whole plan spends at its delta; computed once. The upper end counts."""
        return self._epsilon

    def check_groups(self, groups: int) -> None:
        """Refuse a number of groups whose counts would spend, at some step, what the noise multiplier allows.

        A plan does not know how many layers a model has; this is asked again when it meets one.

        Raises:
            ArgumentError: with the smallest count noise that works.
        """
        self._split(max(self.noise_multipliers), groups)

    def gradient_noise_multiplier(self, step: int, groups: int) -> float:
        """The noise multiplier of each group's gradient at ``step``; see :func:`privet.dp.clipping.noise_split`."""
        return self._split(self.event(step).noise_multiplier, groups)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over everything that changes the guarantee; the noise by its exact values."""
        text = json.dumps(self._guarantee, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The plan as plain JSON data, for a statement; epsilon is not part of it."""
        values = self.noise_multipliers
        return {
            **self._guarantee,
            "sampling_rate": self.sampling_rate,
            "epochs": self.total_steps * self.sampling_rate,
            "target_epsilon": None if self.target_epsilon is None else float(self.target_epsilon),
            "noise": schedules.describe(self.schedule),
            "noise_scale": self.noise_scale,
            "noise_range": [min(values), max(values)],
            "digest": self.digest,
        }

    @property
    def _guarantee(self) -> dict[str, Any]:
        return {
            "kind": "plan",
            "version": 1,
            "unit": self.unit,
            "relation": self.relation.value,
            "dataset_size": int(self.dataset_size),
            "expected_batch_size": float(self.expected_batch_size),
            "sampling": self.event(0).to_json()["sampling"],
            "steps": self.total_steps,
            "noise_digest": schedules.digest(self.noise_multipliers),
            "clipping": self.clipping.to_json(),
            "delta": float(self.delta),
            "budget_epsilon": None if self.budget is None else float(self.budget),
        }

    @cached_property
    def _given(self) -> schedules.NoiseSchedule:
        noise = self.noise
        return noise if callable(noise) else schedules.Constant(noise)

    @cached_property
    def _shape(self) -> tuple[float, ...]:
        return schedules.evaluate(self._given, self.total_steps)

    @cached_property
    def _epsilon(self) -> Bound:
        return self.accountant.epsilon(self.events(), self.delta, self.relation)

    def upper_epsilon(self, events: Sequence[Event]) -> float:
        """The upper end of epsilon at the plan's delta after some events, of this plan or others."""
        by = self.accountant
        if isinstance(by, PLD):
            return by.upper_epsilon(events, self.delta, self.relation)  # in half the time
        return by.epsilon(events, self.delta, self.relation).upper

    def _split(self, z: float, groups: int) -> float:
        stds = self.clipping.count_noise_stds(groups, float(self.expected_batch_size))
        return noise_split(z, groups, stds, self.relation)


def _exact(number: float | Fraction | Decimal) -> Fraction:
    """A float stands for its shortest decimal form, as in :func:`privet.schedules.steps_for`."""
    return Fraction(repr(float(number))) if isinstance(number, float) else Fraction(number)
