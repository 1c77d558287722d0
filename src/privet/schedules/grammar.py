"""The noise grammar: a schedule as a line of text, and back."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from privet.errors import ArgumentError
from privet.schedules.checks import check_count
from privet.schedules.decays import ExponentialDecay, StepDecay, TimeDecay
from privet.schedules.shapes import Constant, Cosine, Floor, Linear, NoiseSchedule, Scaled, Staircase

__all__ = ["describe", "parse"]

_FORMS = (
    "a number, or constant(1.1), exponential(2.0, to=0.6), exponential(2.0, rate=1e-4), time(..) and step(..) "
    "likewise, linear(2.0, to=0.6), cosine(2.0, to=0.6), staircase(2.0, factor=0.9, every=100); each may add floor=0.5"
)
_LONGEST = 200


@dataclass(frozen=True)
class _Form:
    """How a shape is written: the sets of named arguments that it takes, and what makes it of them."""

    arguments: tuple[frozenset[str], ...]
    build: Callable[[float, Mapping[str, float], int], NoiseSchedule]


def _form(build: Callable[[float, Mapping[str, float], int], NoiseSchedule], *arguments: str) -> _Form:
    return _Form(tuple(frozenset(names.split()) for names in arguments), build)


def _decay(shape: type[TimeDecay] | type[StepDecay] | type[ExponentialDecay]) -> _Form:
    def build(start: float, named: Mapping[str, float], steps: int) -> NoiseSchedule:
        return shape.reaching(start, named["to"], steps) if "to" in named else shape(start, named["rate"])

    return _form(build, "to", "rate")


def _line(shape: type[Linear] | type[Cosine]) -> _Form:
    def build(start: float, named: Mapping[str, float], steps: int) -> NoiseSchedule:
        return shape(start, named["to"], _whole(named, "steps") if "steps" in named else steps)

    return _form(build, "to", "to steps")


def _stairs(start: float, named: Mapping[str, float], steps: int) -> NoiseSchedule:
    every = _whole(named, "every")
    if "to" in named:
        return Staircase.reaching(start, named["to"], steps, every)
    return Staircase(start, named["factor"], every)


_GRAMMAR: Mapping[str, _Form] = {
    "constant": _form(lambda sigma, named, steps: Constant(sigma), ""),
    "exponential": _decay(ExponentialDecay),
    "time": _decay(TimeDecay),
    "step": _decay(StepDecay),
    "linear": _line(Linear),
    "cosine": _line(Cosine),
    "staircase": _form(_stairs, "factor every", "to every"),
}


def parse(text: str, steps: int) -> NoiseSchedule:
    """Read a schedule from a line of text; nothing is executed.

    ======================================= =================================================
    ``1.1``, ``constant(1.1)``              :class:`Constant`
    ``exponential(2.0, rate=1e-4)``         :class:`ExponentialDecay`; ``time``, ``step`` likewise
    ``exponential(2.0, to=0.6)``            reached at the last step, t = ``steps`` - 1
    ``linear(2.0, to=0.6)``                 :class:`Linear`; ``cosine`` likewise; ``steps=`` reaches it earlier
    ``staircase(2.0, factor=0.9, every=9)`` :class:`Staircase`; or ``to=`` in place of ``factor=``
    ``exponential(2.0, to=0.6, floor=0.8)`` :class:`Floor` around it
    ======================================= =================================================

    Args:
        text: at most 200 characters.
        steps: T, at least 1, for what is reached at the last step.

    Raises:
        ArgumentError: if the text is no schedule, or a value in it is out of range.

    Example:
        >>> parse("exponential(2.0, rate=1e-4, floor=0.5)", steps=10_000)
        Floor(schedule=ExponentialDecay(start=2.0, rate=0.0001), at_least=0.5)
    """
    check_count("steps", steps)
    name, start, named = _read(text)
    if name not in _GRAMMAR:
        raise _refusal(text, f"{name} is no schedule.")
    form = _GRAMMAR[name]
    given = frozenset(named) - {"floor"}
    if given not in form.arguments:
        raise ArgumentError("noise", text, _written(name))
    try:
        schedule = form.build(start, named, steps)
        return Floor(schedule, named["floor"]) if "floor" in named else schedule
    except ArgumentError as error:
        raise ArgumentError("noise", text, f"{_written(name)}, in range", f"Here, {error}") from error


def describe(schedule: NoiseSchedule) -> str:
    """The schedule in the noise grammar; :func:`parse` gives back a schedule of exactly the same values.

    A callable of your own has no such form and is shown by its name, as ``custom(name)``.

    Example:
        >>> describe(ExponentialDecay.reaching(2.0, 1.0, steps=2))
        'exponential(2.0, rate=0.6931471805599453)'
        >>> describe(Floor(Linear(2, 0.6, steps=500), at_least=0.8))
        'linear(2.0, to=0.6, steps=500, floor=0.8)'
    """
    floors = []
    while isinstance(schedule, Floor):
        floors.append(float(schedule.at_least))
        schedule = schedule.schedule
    floor = f", floor={max(floors)!r}" if floors else ""
    match schedule:
        case Constant(sigma):
            return f"constant({float(sigma)!r}{floor})"
        case TimeDecay(start, rate):
            return f"time({float(start)!r}, rate={float(rate)!r}{floor})"
        case StepDecay(start, rate):
            return f"step({float(start)!r}, rate={float(rate)!r}{floor})"
        case ExponentialDecay(start, rate):
            return f"exponential({float(start)!r}, rate={float(rate)!r}{floor})"
        case Staircase(start, factor, every):
            return f"staircase({float(start)!r}, factor={float(factor)!r}, every={every}{floor})"
        case Linear(start, end, steps):
            return f"linear({float(start)!r}, to={float(end)!r}, steps={steps}{floor})"
        case Cosine(start, end, steps):
            return f"cosine({float(start)!r}, to={float(end)!r}, steps={steps}{floor})"
        case Scaled(inner, factor):
            return f"custom({_name(inner)}, scale={float(factor)!r}{floor})"
        case _:
            return f"custom({_name(schedule)}{floor})"


def _read(text: object) -> tuple[str, float, dict[str, float]]:
    """The name, the first number and the named numbers."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise _refusal(text, f"It is text of at most {_LONGEST} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refusal(text) from error
    if not isinstance(tree, ast.Call):
        return "constant", _number(text, tree), {}
    if not isinstance(tree.func, ast.Name) or len(tree.args) != 1:
        raise _refusal(text, "The first argument is the start, every other one has a name.")
    named: dict[str, float] = {}
    for keyword in tree.keywords:
        if keyword.arg is None or keyword.arg in named:
            raise _refusal(text, "Each argument is given once, by its name.")
        named[keyword.arg] = _number(text, keyword.value)
    return tree.func.id, _number(text, tree.args[0]), named


def _number(text: str, node: ast.expr) -> float:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise _refusal(text, "Every value is a plain number.")
    return sign * node.value


def _written(name: str) -> str:
    """The forms of one shape."""
    forms = (", ".join([".."] + [f"{argument}=.." for argument in sorted(names)]) for names in _GRAMMAR[name].arguments)
    return " or ".join(f"{name}({form})" for form in forms) + ", and floor=.. if you like"


def _whole(named: Mapping[str, float], name: str) -> int:
    value = named[name]
    check_count(name, value)
    return int(value)


def _name(schedule: object) -> str:
    return getattr(schedule, "__qualname__", type(schedule).__qualname__)


def _refusal(text: object, remedy: str = "") -> ArgumentError:
    return ArgumentError("noise", text, _FORMS, remedy)
