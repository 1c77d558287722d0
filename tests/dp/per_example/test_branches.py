"""Every way a norm and a sum can be computed is taken, and gives the same numbers; less memory changes the way only."""

from collections.abc import Callable

import pytest
import torch
from tests.dp.per_example.laws import Problem, law_agrees, law_takes_out, problem
from tests.dp.per_example.layers import LAYERS
from torch import nn

from privet.dp.per_example import convolution, kernels
from privet.dp.per_example.convolution import _ConvolutionUse, _Shape
from privet.dp.per_example.linear import LinearUse
from privet.dp.per_example.tape import Tape
from privet.dp.per_example.use import Room


@pytest.fixture
def taken(monkeypatch) -> set[str]:
    """What is done on the way to the norms: from the first to the last arrival of a layer's use."""
    seen: set[str] = set()
    measuring = [False]

    def spy(owner: object, name: str, event: Callable[[object], str]) -> None:
        real = getattr(owner, name)

        def call(*arguments, **named):
            result = real(*arguments, **named)
            if measuring[0]:
                seen.add(event(result))
            return result

        monkeypatch.setattr(owner, name, call)

    spy(kernels, "ghost_squared_norms", lambda _: "ghost")
    spy(kernels, "outer", lambda _: "outer")
    spy(kernels, "unfold", lambda _: "unfold")
    spy(_Shape, "by_each_weight", lambda _: "grouped")
    spy(Room, "keep", lambda kept: "full" if kept is None else "kept")
    real = Tape.arrived

    def arrived(self, use):
        measuring[0] = True
        real(self, use)
        measuring[0] = False

    monkeypatch.setattr(Tape, "arrived", arrived)
    return seen


@pytest.fixture
def no_room(monkeypatch) -> None:
    monkeypatch.setattr(Room, "keep", lambda self, *shape: None)


def linear(positions: int, q: int, p: int) -> Problem:
    return problem(nn.Linear(q, p), (positions, q))


def conv(channels: int, filters: int, side: int, **more: int) -> Problem:
    return problem(nn.Conv2d(channels, filters, 3, **more), (channels, side, side), size=9)


BRANCHES = [
    ("linear, one position", lambda: linear(1, 6, 5), set(), set()),
    ("linear, ghost", lambda: linear(2, 40, 30), {"ghost"}, {"ghost"}),
    ("linear, ghost if not kept", lambda: linear(2, 5, 4), {"kept", "outer"}, {"full", "ghost"}),
    ("linear, made", lambda: linear(8, 5, 4), {"kept", "outer"}, {"full", "outer"}),
    ("conv, ghost", lambda: conv(20, 24, 4), {"ghost", "unfold"}, {"ghost", "unfold"}),
    ("conv, unfolded", lambda: conv(3, 4, 9), {"kept", "unfold", "outer"}, {"full", "unfold", "outer"}),
    ("conv, wide", lambda: conv(16, 16, 12), {"kept", "grouped"}, {"full", "grouped"}),
    ("conv, groups", lambda: conv(4, 6, 6, groups=2), {"kept", "grouped"}, {"full", "grouped"}),
]
ways = pytest.mark.parametrize(
    ("make", "roomy", "full"), [row[1:] for row in BRANCHES], ids=[row[0] for row in BRANCHES]
)
sizes = pytest.mark.parametrize("block", ["as it is", "one example"])


@pytest.fixture
def small_blocks(block, monkeypatch) -> None:
    """The block of each loop over examples as small as it gets."""
    if block == "one example":
        monkeypatch.setattr(kernels, "_GRAM_NUMBERS", 1)
        monkeypatch.setattr(convolution, "_BLOCK", 1)
        monkeypatch.setattr(convolution, "_AT_ONCE", 2)


def poisoned(case: Problem) -> Problem:
    inputs, targets = case.data
    loud = inputs.clone()
    loud[0] = torch.nan
    return Problem(case.model, (loud, targets))


@sizes
@ways
def test_with_room(make, roomy, full, taken, small_blocks):
    case = make()
    law_agrees(case)
    assert taken in (roomy, full)
    law_takes_out(case, poisoned(case), 0)


def keeping_everything(monkeypatch) -> None:
    real = Room.start
    monkeypatch.setattr(Room, "start", lambda self, most_bytes: real(self, 1 << 30))


@sizes
@ways
def test_with_all_the_room_there_is(make, roomy, full, taken, small_blocks, monkeypatch):
    keeping_everything(monkeypatch)
    case = make()
    law_agrees(case)
    assert taken == roomy
    law_takes_out(case, poisoned(case), 0)


@sizes
@ways
def test_without_room(make, roomy, full, no_room, small_blocks, request):
    taken = request.getfixturevalue("taken")
    case = make()
    law_agrees(case)
    assert taken == full
    law_takes_out(case, poisoned(case), 0)


def test_the_table_has_every_branch():
    """No row is another's double, and the rows' events are all there are."""
    events = [(kind.partition(",")[0], frozenset(way)) for kind, _, *both in BRANCHES for way in both if way]
    assert set(events) == {
        ("linear", frozenset({"ghost"})),
        ("linear", frozenset({"kept", "outer"})),
        ("linear", frozenset({"full", "ghost"})),
        ("linear", frozenset({"full", "outer"})),
        ("conv", frozenset({"ghost", "unfold"})),
        ("conv", frozenset({"kept", "unfold", "outer"})),
        ("conv", frozenset({"full", "unfold", "outer"})),
        ("conv", frozenset({"kept", "grouped"})),
        ("conv", frozenset({"full", "grouped"})),
    }


@pytest.mark.parametrize("layer", LAYERS, ids=lambda one: one.name)
def test_a_full_room_changes_no_number_of_any_layer(layer, no_room):
    law_agrees(layer.behind(), groups=3)


def test_long_examples_are_measured_in_blocks(no_room, taken):
    """A linear layer so large that its gradients are made few examples at a time."""
    case = problem(nn.Linear(1024, 1024, bias=False), (600, 1024), size=5, dtype=torch.float32)
    blocks = []
    engine_outer = kernels.outer

    def outer(left, right, out=None):
        blocks.append(len(left))
        return engine_outer(left, right, out)

    kernels.outer, before = outer, kernels.outer
    try:
        law_agrees(case)
    finally:
        kernels.outer = before
    assert blocks[:2] == [4, 1]


@pytest.mark.parametrize("use", [LinearUse, _ConvolutionUse])
def test_what_was_kept_lets_go_of_its_causes(use, monkeypatch):
    """Keeping a layer's gradients pays for itself: input and output gradient are dropped."""
    keeping_everything(monkeypatch)
    found = []
    real = use.squared_norms

    def squared_norms(self, room):
        result = real(self, room)
        found.append((self._kept is not None, self._inputs is None, self._grad is None))
        return result

    monkeypatch.setattr(use, "squared_norms", squared_norms)
    law_agrees(linear(8, 5, 4) if use is LinearUse else conv(3, 4, 9))
    assert set(found) == {(True, True, True)}


def test_a_room_gives_out_no_more_than_it_was_given_and_nothing_twice():
    room = Room(torch.float32, torch.device("cpu"))
    for _ in range(3):
        room.start(4 * 160)
        taken = [room.keep(3, 5), room.keep(40), room.keep(6, 16)]
        assert [None if one is None else tuple(one.shape) for one in taken] == [(3, 5), (40,), (6, 16)]
        assert room.keep(1) is None
        for number, one in enumerate(taken):
            one.fill_(number)
        assert [float(one.mean()) for one in taken] == [0.0, 1.0, 2.0]
    room.start(4 * 15)
    assert room.keep(15) is None
