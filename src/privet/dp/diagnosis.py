"""What is known about a model's readiness for private training: plain data, and its text."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Diagnosis", "Layer", "Path", "Problem"]


class Path(enum.Enum):
    """What takes a layer's per-example gradients."""

    RULE = "rule"
    FALLBACK = "fallback"
    FROZEN = "frozen"
    REFUSED = "refused"


_WORDS = {
    Path.RULE: "rule",
    Path.FALLBACK: "no rule: by vmap, slow",
    Path.FROZEN: "frozen: free",
    Path.REFUSED: "not ready",
}


@dataclass(frozen=True)
class Layer:
    """A module with parameters, or one that is refused.

    Attributes:
        name: as in ``named_modules``; empty for the model itself.
        kind: the name of its class.
        path: what takes its per-example gradients.
        trainable: numbers that are trained.
        frozen: numbers that are not.
    """

    name: str
    kind: str
    path: Path
    trainable: int
    frozen: int


@dataclass(frozen=True)
class Problem:
    """One reason why private training would not start.

    Attributes:
        name: of the layer or parameter; empty for the model, the loss, or where it is not known.
        kind: the name of its class; ``Parameter``; ``Loss``.
        reason: why it is not ready.
        edit: what mends it, in words; empty where the reason says it.
        code: the same as Python statements, for a namespace with ``model``, ``torch`` and ``nn``; empty where it
            needs the source of the user's own class.
    """

    name: str
    kind: str
    reason: str
    edit: str = ""
    code: str = ""

    @property
    def who(self) -> str:
        """What has the problem, for people to read."""
        if self.kind == "Loss":
            return "the per-example loss"
        if not self.name:
            return f"the model ({self.kind})"
        return f"parameter {self.name}" if self.kind == "Parameter" else f"layer {self.name} ({self.kind})"


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`examine` found; plain data.

    Attributes:
        layers: every module with parameters and every one that is refused, in the model's order.
        problems: everything found that stands in the way; nothing where the model is ready.
        examples: how many were compared with a loop over single ones; 0 where problems came before.
        worst: the largest distance between the engine's gradient of an example and that of the loop, as a share of
            its norm; None where nothing was compared.
    """

    layers: tuple[Layer, ...]
    problems: tuple[Problem, ...]
    examples: int = 0
    worst: float | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "ready": self.ready,
            "problems": [
                {"name": p.name, "kind": p.kind, "reason": p.reason, "edit": p.edit, "code": p.code}
                for p in self.problems
            ],
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "path": layer.path.value,
                    "trainable": layer.trainable,
                    "frozen": layer.frozen,
                }
                for layer in self.layers
            ],
            "examples": self.examples,
            "worst": self.worst,
        }

    def text(self, width: int = 80) -> str:
        """For people to read, in lines of at most ``width`` characters but for code and names that are longer."""
        trainable = sum(layer.trainable for layer in self.layers)
        counted = f"{_count(len(self.layers), 'layer')}, {_count(trainable, 'trainable parameter')}"
        blocks = [f"ready: {counted}" if self.ready else f"NOT READY: {_count(len(self.problems), 'problem')}"]
        blocks += [_told(number, problem, width) for number, problem in enumerate(self.problems, 1)]
        if self.layers:
            blocks.append("\n".join(_table(self.layers)))
        blocks.append("\n".join(textwrap.wrap(self._checked(), width)))
        return "\n\n".join(blocks)

    def _checked(self) -> str:
        if self.worst is not None:
            return (
                f"{_count(self.examples, 'example')} in a batch got the gradients of a loop over single examples, to "
                f"{self.worst:.1e} of each one's gradient norm."
            )
        return "Gradients were not yet compared with those of single examples; mend this, and ask again."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _told(number: int, problem: Problem, width: int) -> str:
    lead = f"{number}. "
    rest = " " * len(lead)
    lines = textwrap.wrap(f"{lead}{problem.who}", width, subsequent_indent=rest, break_long_words=False)
    for words in (f"{problem.reason}.", problem.edit):
        lines += textwrap.wrap(words, width, initial_indent=rest, subsequent_indent=rest, break_long_words=False)
    if problem.code:
        lines += ["", *textwrap.indent(problem.code, rest + "    ").splitlines()]
    return "\n".join(lines)


_LONGEST_NAME = 34


def _table(layers: Sequence[Layer]) -> Iterator[str]:
    """One line a layer; a name that is too long has a line of its own."""
    rows = [("layer", "class", "trainable", "gradients by")]
    rows += [(layer.name or "(the model)", layer.kind, f"{layer.trainable:,}", _WORDS[layer.path]) for layer in layers]
    names = max(len(row[0]) for row in rows if len(row[0]) <= _LONGEST_NAME)
    kinds = max(len(row[1]) for row in rows)
    numbers = max(len(row[2]) for row in rows)
    for name, kind, number, words in rows:
        rest = f"{kind:<{kinds}}  {number:>{numbers}}  {words}"
        if len(name) > names:
            yield name
            name = ""
        yield f"{name:<{names}}  {rest}"
