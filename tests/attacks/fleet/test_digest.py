"""Whatever changes training changes the digest, and nothing else does."""

import copy
import functools
import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privet import dp, models, outputs, schedules
from privet.attacks.membership.fleet import Recipe
from privet.attacks.membership.fleet.digest import digest
from privet.errors import ArgumentError
from privet.training import fit as whole_training

TRAINING = """
import functools, torch
from dataclasses import dataclass
from torch import nn
import {helper}
from {helper} import prepared

DECAY = 0.1
DATA = torch.arange(6.0)
UNUSED = 1

@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    def scaled(self):
        return self.rate * 2

class Net(nn.Module):
    width = 8
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, self.width)
    def forward(self, x):
        return self.inner(x).relu()

def step(model, decay):
    return model, decay * 1.0

def never_called():
    return 1

def fit(indices, seed, momentum=0.9, *, options=Options()):
    # a comment
    model = Net()
    values = [step(model, DECAY) for _ in range(3)]
    return prepared(model, DATA, {helper}.FACTOR, options.scaled(), momentum), values

def late(indices, seed):
    from {helper} import prepared as imported_late
    return imported_late(indices)
"""
HELPER = """
FACTOR = 3

def prepared(*parts):
    return inner(parts)

def inner(parts):
    return parts, 7
"""


def module(folder: Path, name: str, text: str) -> ModuleType:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the two files anew, with changes, and gives the module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = (f"d_helper_{os.getpid()}", f"d_training_{os.getpid()}")

    def written(*changes: tuple[str, str]) -> ModuleType:
        texts = [HELPER, TRAINING.replace("{helper}", names[0])]
        for old, new in changes:
            assert any(old in text for text in texts)
            texts = [text.replace(old, new) for text in texts]
        module(tmp_path, names[0], texts[0])
        return module(tmp_path, names[1], texts[1])

    yield written
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "change",
    [
        ("DECAY = 0.1", "DECAY = 0.2"),
        ("arange(6.0)", "arange(6.0) * 1.5"),
        ("rate: float = 0.5", "rate: float = 0.25"),
        ("self.rate * 2", "self.rate * 3"),
        ("width = 8", "width = 9"),
        (".relu()", ".tanh()"),
        ("decay * 1.0", "decay * 1.5"),
        ("decay * 1.0", "decay - 1.0"),
        ("momentum=0.9", "momentum=0.8"),
        ("range(3)", "range(4)"),
        ("return parts, 7", "return parts, 8"),
        ("FACTOR = 3", "FACTOR = 4"),
        ("nn.Linear(2, self.width)", "nn.Linear(2, self.width, bias=False)"),
        ("(nn.Module)", "(nn.Identity)"),
    ],
)
def test_a_change_of_what_is_reached_changes_it(training: Any, change: tuple[str, str]) -> None:
    before = digest(training().fit)
    assert digest(training().fit) == before
    assert digest(training(change).fit) != before


@pytest.mark.parametrize(
    "change", [("# a comment", "# another"), ("UNUSED = 1", "UNUSED = 2"), ("    return 1\n", "    return 2\n")]
)
def test_a_change_of_what_is_not_reached_does_not(training: Any, change: tuple[str, str]) -> None:
    assert digest(training(change).fit) == digest(training().fit)


def test_values_changed_while_running_are_seen(training: Any) -> None:
    found = training()
    seen = {digest(found.fit)}
    found.DECAY = 0.3
    seen.add(digest(found.fit))
    sys.modules[found.prepared.__module__].FACTOR = 9
    seen.add(digest(found.fit))
    found.DATA[0] = 5.0
    seen.add(digest(found.fit))
    found.Net.forward = lambda self, x: x
    seen.add(digest(found.fit))
    assert len(seen) == 5


def test_a_function_that_imports_when_it_runs_is_followed(training: Any) -> None:
    before = digest(training().late)
    assert digest(training(("return parts, 7", "return parts, 8")).late) != before


def test_closures_defaults_partials_and_bound_objects_are_seen() -> None:
    def make(decay: Any) -> Any:
        return lambda indices, seed: (indices, decay)

    class Trainer:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def fit(self, indices: Any, seed: int) -> Any:
            return self.rate

    def plain(indices: Any, seed: int, decay: float) -> Any:
        return decay

    for one, other in (
        (make(0.1), make(0.2)),
        (make([1, 2]), make((1, 2))),
        (make(1), make(1.0)),
        (make(True), make(1)),
        (make({"a": 1, "b": 2}), make({"b": 2, "a": 1})),
        (Trainer(0.1).fit, Trainer(0.2).fit),
        (functools.partial(plain, decay=0.1), functools.partial(plain, decay=0.2)),
        (functools.lru_cache(make(0.1)), functools.lru_cache(make(0.2))),
    ):
        assert digest(one) != digest(other)
    assert digest(make(0.1)) == digest(make(0.1))
    assert digest(Trainer(0.1).fit) == digest(Trainer(0.1).fit)


class Kind(Enum):
    FIRST = 1
    SECOND = 2


@dataclass(frozen=True, slots=True)
class Slotted:
    rate: float


def values() -> list[Any]:
    base = torch.arange(4.0)
    dropout, other = nn.Dropout(0.1), nn.Dropout(0.2)
    generator = torch.Generator().manual_seed(1)
    rest = [None, Kind.FIRST, Kind.SECOND, Slotted(0.1), Slotted(0.2), Path("a"), Path("b"), {1, 2}, {1, 3}, b"a"]
    rest += [OrderedDict(a=1), {"a": 1}, torch.float32, torch.float64, np.float32(1), np.float64(1), slice(1, 2), ...]
    rest += [torch.nn.functional.relu, torch.nn.functional.gelu, torch.relu, torch.tanh, np.exp, np.log, len, nn.Linear]
    rest += [generator, torch.Generator().manual_seed(2), np.random.default_rng(1), np.random.default_rng(2)]
    tensors = [base, base.double(), base.reshape(2, 2), base + 1, base.numpy(), base.bfloat16(), base[:0], base[0]]
    return rest + tensors + [dropout, other, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)]


def test_values_of_every_kind_are_told_apart_and_their_copies_are_not() -> None:
    found = [digest(value) for value in values()]
    assert len(set(found)) == len(found)
    assert found == [digest(value) for value in values()]


def test_modules_are_their_type_their_weights_and_their_settings() -> None:
    network = nn.Linear(2, 2)
    before = digest(network)
    with torch.no_grad():
        network.weight[0, 0] += 1e-6
    assert digest(network) != before


def test_looking_copying_and_running_change_nothing() -> None:
    class Trainer:
        def fit(self, indices: Any, seed: int) -> int:
            return sum(place * seed for place in range(20))

        @functools.cached_property
        def twice(self) -> list[int]:
            return [1]

    trainer = Trainer()
    before = digest(trainer.fit)
    assert trainer.twice == [1]
    copy.deepcopy(trainer)
    for seed in range(100):
        trainer.fit(None, seed)
    assert digest(trainer.fit) == before == digest(trainer.fit)


def test_trainings_with_this_library_and_its_peers_have_one() -> None:
    images = torch.zeros(20, 1, 28, 28)
    records = torch.utils.data.TensorDataset(images, torch.zeros(20))
    loader = torch.utils.data.DataLoader(records, batch_size=5)

    def private(indices: Any, seed: int) -> Any:
        plan = dp.Plan(dataset_size=20, expected_batch_size=5, epochs=1, delta=1e-5, noise=schedules.Constant(1.0))
        return dp.make_private(models.LeNet5(), plan)

    def ordinary(indices: Any, seed: int) -> Any:
        from sklearn.linear_model import LogisticRegression

        optimizer = torch.optim.Adam(models.LeNet5().parameters())
        return LogisticRegression, torch.optim.lr_scheduler.StepLR(optimizer, 1), loader, whole_training

    def build(seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def recipe(rate: float) -> Recipe:
        return Recipe(build, images, torch.zeros(20).long(), epochs=1, batch_size=5, learning_rate=rate)

    served = outputs.Rounding(models.LeNet5().eval(), decimals=1)
    for train_fn in (private, ordinary, recipe(0.1), served.around):
        assert digest(train_fn) == digest(train_fn)
    used = recipe(0.1)
    assert used.stackable
    used.train_many([np.arange(10)], [0])
    assert digest(used) == digest(recipe(0.1)) != digest(recipe(0.2))
    assert digest(served.around) != digest(outputs.Rounding(served.origin_network(), decimals=2).around)


def test_what_stands_in_itself_is_walked_once() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    other: list[Any] = [2]
    other.append(other)
    assert digest(ring) != digest(other)

    def recursive(n: int) -> int:
        return recursive(n - 1) if n else 0

    assert len(digest(recursive)) == 64


@pytest.mark.parametrize(
    "unknown", [threading.Lock(), (value for value in (1, 2)), torch.empty(2, device="meta"), sys.stderr]
)
def test_what_cannot_be_told_apart_is_refused_with_a_way_out(unknown: Any) -> None:
    with pytest.raises(ArgumentError, match="version="):
        digest(lambda indices, seed: unknown)


def test_code_that_may_reach_anything_is_refused() -> None:
    for train_fn in (
        lambda indices, seed: eval("1"),  # noqa: S307
        lambda indices, seed: globals()["x"],
        lambda indices, seed: importlib.import_module("x"),
    ):
        with pytest.raises(ArgumentError, match="anything may stand"):
            digest(train_fn)
    assert digest(lambda model: model.eval())


@pytest.mark.slow  # a killed run that goes on in another process shows it, too
def test_it_is_the_same_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import torch
        from torch import nn
        from privet.attacks.membership.fleet.digest import digest
        KINDS = {"a", "b", "c", "d"}
        class Net(nn.Module):
            def forward(self, x):
                return x if "a" in {"a", "b", "c"} else KINDS
        def fit(indices, seed):
            return Net(), torch.relu, nn.functional.dropout
        print(digest((fit, [Net()])))
    """)
    )
    found = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
