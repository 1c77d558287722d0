"""Plan a private training and keep its books, without a model; a few seconds on a CPU.

Prints the noise schedule scaled to epsilon 3, epsilon after each quarter of it, what the ledger holds after the first
half, how many steps of the last noise still fit, and the refusal of one step too many.
"""

from privet import schedules
from privet.accounting import PLD, Event, Ledger, Monitor, NeighbouringRelation, Poisson, calibration
from privet.errors import BudgetExceededError

POPULATION, BATCH, EPOCHS, DELTA, TARGET = 5_000, 100, 20, 1e-5, 3.0


def main() -> None:
    sampling = Poisson(BATCH / POPULATION)
    steps = schedules.steps_for(EPOCHS, POPULATION, BATCH)
    shape = schedules.evaluate(schedules.ExponentialDecay.reaching(2.0, 1.0, steps), steps)
    scale = calibration.schedule_scale(shape, sampling, DELTA, TARGET)
    noise = [scale * z for z in shape]
    print(f"{steps:,} steps, noise from {noise[0]:.3f} to {noise[-1]:.3f}")

    events = calibration.merged_events(noise, sampling)
    for quarter, bound in enumerate(PLD().trajectory(events, DELTA, [steps * part // 4 for part in range(1, 5)]), 1):
        print(f"after {25 * quarter}%: epsilon {bound} at delta {DELTA:g}")

    with Ledger.in_memory(NeighbouringRelation.ADD_OR_REMOVE_ONE, unit="example") as ledger:
        run = ledger.begin_run(schedules.digest(noise), "half of the plan")
        run.reserve(events[: len(events) // 2])
        monitor = Monitor(ledger, DELTA, TARGET)
        last = Event(noise[-1], sampling)
        left = monitor.steps_left(last)
        print(f"the ledger: epsilon {monitor.spent()}; {left:,} steps of noise {noise[-1]:.3f} still fit")
        try:
            monitor.check([last] * (left + 1))
        except BudgetExceededError as refusal:
            print(f"one more is refused: {refusal}")


if __name__ == "__main__":
    main()
