"""The epsilon of an open-ended run: one release more, with any noise, in a few milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable

from privet.accounting.events import Event, Poisson, check_delta
from privet.accounting.live_layout import AHEAD, Layout, lay_out
from privet.accounting.pld import PLD
from privet.accounting.spectrum import ComposedLoss
from privet.errors import ArgumentError

__all__ = ["OpenRun"]

_FEWEST = 64  # steps, before which a run is composed afresh each time
_FELT = 0.01  # of delta: a larger error of the arithmetic, and the accountant is asked instead
_CLOSE = 1e-5  # relative: how near below delta the answer is


class OpenRun:
    r"""The upper end of epsilon of a run to which releases are appended one at a time, each with its own noise.

    All releases are Poisson samples at one rate. The answer is that of :class:`PLD` but for a slightly wider lattice
    and nodes fixed in advance: an upper bound always, in the median a few milliseconds after each release. Now and then
    (each time the run has grown by 30 %, or its noise has left the range provided for) a layout takes a good part of a
    second. The first 64 releases are left to :class:`PLD`.

    Guarantees:
        As :class:`PLD`, under add-or-remove-one. Floating-point rounding is bounded and part of the answer.

    Example:
        >>> run = OpenRun(rate=0.01, delta=1e-5)
        >>> for step in range(3):
        ...     run.append(1.1 - 0.1 * step)
        >>> run.steps, round(run.upper_epsilon(), 2)
        (3, 0.32)
    """

    def __init__(self, rate: float, delta: float, accountant: PLD | None = None) -> None:
        """Begin with nothing spent.

        Args:
            rate: sampling rate q of every release, in (0, 1).
            delta: in (0, 1).
            accountant: whose bracket width is aimed at, and who answers where this class does not.

        Raises:
            ArgumentError: if a value is out of range.
        """
        if not 0.0 < Poisson(rate).rate < 1.0:
            raise ArgumentError("rate", rate, "a rate below 1", "Without sampling PLD is exact, and as fast.")
        self._rate, self._delta, self._accountant = float(rate), check_delta(delta), accountant or PLD()
        self._counts: dict[float, int] = {}
        self._steps = 0
        self._layout: Layout | None = None
        self._lay_out_at = _FEWEST
        self._guess = (1.0, -1.0)

    @property
    def steps(self) -> int:
        """How many releases there were."""
        return self._steps

    def events(self) -> list[Event]:
        """What was released, equal noise multipliers merged, in no order."""
        return [Event(noise, Poisson(self._rate), count) for noise, count in self._counts.items()]

    def append(self, noise_multiplier: float, count: int = 1) -> None:
        """Add ``count`` releases.

        Raises:
            ArgumentError: if the noise multiplier is not a finite number above 0, or ``count`` is not at least 1.
        """
        event = Event(noise_multiplier, Poisson(self._rate), count)
        noise = float(event.noise_multiplier)
        self._counts[noise] = self._counts.get(noise, 0) + count
        self._steps += count
        if self._layout is not None:
            self._layout = self._layout.after(noise, count)
            if self._layout is None:
                self._lay_out_at = self._steps

    def upper_epsilon(self) -> float:
        """Epsilon is not above this."""
        if self._steps >= self._lay_out_at:
            self._layout = lay_out(self._rate, self._delta, self._accountant.width, self._counts)
            self._lay_out_at = math.ceil(self._steps * AHEAD)
        return self._answer(self._layout, self.events)

    def would_spend(self, noise_multiplier: float, count: int = 1) -> float:
        """The upper end after ``count`` releases more, which are not appended."""
        event = Event(noise_multiplier, Poisson(self._rate), count)
        layout = self._layout and self._layout.after(float(event.noise_multiplier), count)
        return self._answer(layout, lambda: [*self.events(), event])

    def _answer(self, layout: Layout | None, events: Callable[[], list[Event]]) -> float:
        if layout is not None:
            losses = (layout.forward.composed(), layout.reverse.composed())
            found = _root(losses, self._delta, self._guess)
            if found is not None:
                self._guess = found
                return found[0] + max(one.shift for one in losses) if found[0] > 0.0 else 0.0
        return self._accountant.upper_epsilon(events(), self._delta)


def _root(
    losses: tuple[ComposedLoss, ComposedLoss], delta: float, guess: tuple[float, float]
) -> tuple[float, float] | None:
    """An epsilon at which both directions have at most delta, little more than the smallest, and the slope there.

    Secants on log delta, kept inside a bracket, from a guess of epsilon and of d(log delta) / d(epsilon). None if no
    epsilon serves, or rounding is felt.
    """

    def at(epsilon: float) -> float:
        pairs = [one.delta(epsilon) for one in losses]
        highest = max(value + error for value, error in pairs)
        felt = max(error for _, error in pairs) > _FELT * delta
        return math.inf if felt else math.log(max(highest, 1e-300) / delta) + _CLOSE / 2.0

    x, slope = guess
    low, high = 0.0, max(one.spacing * (one.start + one.size) for one in losses)
    if at(0.0) <= 0.0:
        return 0.0, slope
    x = min(max(x, 1e-9), high)
    miss = at(x)
    for turn in range(100):
        if abs(miss) <= _CLOSE / 2.0:
            return x, slope
        low, high = (x, high) if miss > 0.0 else (low, x)
        if high - low <= 1e-9 * max(1.0, high):
            break
        following = x - miss / slope
        if turn > 12 or not low < following < high:
            following = (low + high) / 2.0
        reached = at(following)
        if math.isfinite(reached - miss) and (reached - miss) * (following - x) < 0.0:
            slope = (reached - miss) / (following - x)
        x, miss = following, reached
    # A jump is where rounding begins to be felt, and no answer.
    return (high, slope) if -1e-3 <= at(high) <= _CLOSE / 2.0 else None
