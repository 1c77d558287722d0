"""What a request spends, by every accountant."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from privet import schedules
from privet.accounting.bound import Bound
from privet.accounting.calibration import merged_events, schedule_scale
from privet.accounting.events import NoSampling, Poisson
from privet.accounting.pld import PLD
from privet.accounting.rdp import RDP
from privet.accounting.zcdp import ZCDP
from privet.cli.budget.request import Request
from privet.errors import AccountingError

__all__ = ["Mark", "Spent", "growth", "spend"]

_DIGITS = 7  # of a scale, rounded up: far fewer than would cost epsilon, few enough to copy


@dataclass(frozen=True)
class Spent:
    """What a request spends under add-or-remove-one.

    Attributes:
        request: what was asked.
        noise: the schedule that is accounted for: with a target, the scaled one.
        noise_multipliers: its value at every step.
        noise_scale: by what the noise was multiplied to meet the target; None without a target.
        pld, rdp, zcdp: epsilon by accountant.
        unamplified: epsilon by PLD if every record took part in every step.
    """

    request: Request
    noise: schedules.NoiseSchedule
    noise_multipliers: tuple[float, ...]
    noise_scale: float | None
    pld: Bound
    rdp: Bound
    zcdp: Bound
    unamplified: Bound


@dataclass(frozen=True)
class Mark:
    """A point on the way: after so many steps, epsilon is at most so much."""

    steps: int
    epochs: float
    epsilon: float


def spend(request: Request) -> Spent:
    """Account for a request, its noise scaled first where there is a target.

    Raises:
        ArgumentError: if the noise of a step is no finite number above 0.
        AccountingError: if no scale meets the target.
    """
    noise, scale = request.noise, None
    values = schedules.evaluate(noise, request.steps)
    sampling = Poisson(request.sampling_rate)
    if request.target_epsilon is not None:
        scale = _rounded_up(schedule_scale(values, sampling, request.delta, request.target_epsilon))
        noise = schedules.scaled(noise, scale)
        values = schedules.evaluate(noise, request.steps)
    events = merged_events(values, sampling)
    pld = PLD().epsilon(events, request.delta)
    if request.target_epsilon is not None and pld.upper > request.target_epsilon:
        raise AccountingError(f"the scale {scale!r} spends {pld.upper!r}, above the target {request.target_epsilon!r}.")
    return Spent(
        request,
        noise,
        values,
        scale,
        pld=pld,
        rdp=RDP().epsilon(events, request.delta),
        zcdp=ZCDP().epsilon(events, request.delta),
        unamplified=PLD().epsilon(merged_events(values, NoSampling()), request.delta),
    )


def growth(spent: Spent) -> list[Mark]:
    """The upper end of epsilon after each tenth of the steps, rounded up; the last is the whole."""
    request = spent.request
    accountant = PLD(width=1e-3, nodes=64)  # a little above the headline's, in half the time
    sampling = Poisson(request.sampling_rate)
    marks = []
    for steps in sorted({-(-request.steps * tenth // 10) for tenth in range(1, 11)}):
        upper = spent.pld.upper
        if steps < request.steps:
            events = merged_events(spent.noise_multipliers[:steps], sampling)
            upper = min(upper, accountant.upper_epsilon(events, request.delta))  # a part spends no more than the whole
        marks.append(Mark(steps, steps * request.sampling_rate, upper))
    return marks


def _rounded_up(scale: float) -> float:
    exact = Decimal(scale)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() + 1 - _DIGITS), ROUND_CEILING))
