"""A stop: what a differentially private training of the same images would be allowed to do, before it is run."""

from __future__ import annotations

from privet import schedules
from privet.accounting import PLD, Poisson, calibration
from privet.cli.tour.scene import Scene
from privet.cli.tour.stop import StopResult
from privet.report import Figure, Line, Note, Section, Table, Text, line_figure

__all__ = ["budget"]

_TARGET, _DELTA, _EPOCHS, _BATCH, _MARKS = 3.0, 1e-4, 20, 25, 8
_SHAPES = ("constant(1.0)", "exponential(2.0, to=1.0)", "linear(2.0, to=1.0)")


def budget(scene: Scene) -> StopResult:
    """Scale three noise schedules to one epsilon and show how each spends it."""
    population = len(scene.members)
    sampling = Poisson(_BATCH / population)
    steps = schedules.steps_for(_EPOCHS, population, _BATCH)
    marks = [round(steps * part / _MARKS) for part in range(_MARKS + 1)]
    lines, rows = [], []
    for text in _SHAPES:
        shape = schedules.evaluate(schedules.parse(text, steps), steps)
        scale = calibration.schedule_scale(shape, sampling, _DELTA, _TARGET)
        noise = [scale * z for z in shape]
        events = calibration.merged_events(noise, sampling)
        spent = PLD(width=1e-3).trajectory(events, _DELTA, marks)
        name = text.split("(")[0]
        lines.append(Line(name, [mark * _BATCH / population for mark in marks], [bound.upper for bound in spent]))
        rows.append((name, f"{noise[0]:.3f}", f"{noise[-1]:.3f}", str(PLD().epsilon(events, _DELTA))))
    return StopResult((), (_section(population, steps, lines, tuple(rows)),))


def _section(population: int, steps: int, lines: list[Line], rows: tuple[tuple[str, str, str, str], ...]) -> Section:
    words = "; ".join(f"{line.name}: {', '.join(f'{y:.2f}' for y in line.ys)}" for line in lines)
    return Section(
        "What can be promised, before it is run",
        (
            Text(
                (
                    "Differentially private training adds noise to every step, and an accountant says what all steps "
                    f"together give away at most. For {_EPOCHS} epochs over these {population:,} images, "
                    f"{_BATCH} expected in a step, {steps:,} steps: how much noise keeps epsilon within {_TARGET:g} at "
                    f"delta {_DELTA:g}? Noise that falls over time starts higher and spends more of the budget late.",
                )
            ),
            Figure(
                line_figure(lines, "epochs", "epsilon spent, at most"),
                "Epsilon after each epoch: the upper end of a bracket that holds the true value.",
                f"Lines that rise to {_TARGET:g}: {words}",
            ),
            Table(
                "Noise is the standard deviation over the clip norm. All three schedules are scaled to the same "
                "epsilon.",
                ("Schedule", "Noise at the start", "Noise at the end", "Epsilon at the end"),
                rows,
            ),
            Note(
                "A plan is not a measurement",
                "These figures hold for a training that draws this noise, clips every record's gradient and samples at "
                "random. The network above was trained without any of it: nothing here describes that network.",
            ),
        ),
    )
