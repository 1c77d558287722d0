"""``privet train``, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import privet.cli
from privet.accounting import read_ledger
from privet.checkpoints import load_weights, read_snapshot
from privet.models import MLP

CONFIG = """
[model]
builder = "mlp"
arguments = { hidden = [8] }
seed = 4

[data]
source = "digits"

[held_out]
records = 297

[training]
steps = 12
expected_batch_size = 300
learning_rate = 0.5

[privacy]
delta = 1e-4
noise = "exponential(2.0, to=1.0)"
"""


@dataclass(frozen=True)
class Said:
    code: object
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    monkeypatch.chdir(tmp_path)

    def run(text: str, *arguments: str) -> Said:
        Path("run.toml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["privet", "train", "run.toml", *arguments])
        with pytest.raises(SystemExit) as end:
            privet.cli.main()
        printed = capsys.readouterr()
        return Said(end.value.code or 0, printed.out, printed.err)

    return run


def test_it_trains_and_says_where_everything_is(run: Callable[..., Said], tmp_path: Path) -> None:
    said = run(CONFIG)
    assert said.code == 0
    folder = tmp_path / "run-private"
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoint.safetensors",
        "run.ledger",
        "weights.safetensors",
        "weights.safetensors.privacy.json",
    ]
    statement = json.loads((folder / "weights.safetensors.privacy.json").read_text())
    assert statement["epsilon"]["upper"] == pytest.approx(read_epsilon(said.out), abs=2e-3)
    assert "MLP on 1,500 records, 12 steps of 300 expected" in said.err
    words = " ".join(said.out.split())
    assert "measured on held-out records, not covered by epsilon unless they are public" in words
    for name in ("weights", "statement", "checkpoint", "ledger"):
        assert re.search(rf"^{name} +run-private/", said.out, re.MULTILINE)
    load_weights(folder / "weights.safetensors", MLP((64, 8, 10)))
    assert all(len(line) <= 100 for line in said.out.splitlines())


def read_epsilon(text: str) -> float:
    found = re.search(r"claim: +epsilon <= ([0-9.]+)", text)
    assert found is not None
    return float(found.group(1))


def test_json_is_one_object_and_all_of_the_output(run: Callable[..., Said]) -> None:
    said = run(CONFIG.replace("[held_out]\nrecords = 297\n", ""), "--json", "--output", "here")
    found = json.loads(said.out)
    assert set(found) == {"statement", "complete", "files"}  # no accuracy without held-out records
    assert found["complete"] is True
    assert found["statement"]["plan"]["dataset_size"] == 1797
    assert found["files"]["weights"] == "here/weights.safetensors"
    assert said.err == ""


def test_a_run_in_the_way_is_refused_and_resumed(run: Callable[..., Said], tmp_path: Path) -> None:
    assert run(CONFIG, "--json").code == 0
    again = run(CONFIG)
    assert (again.code, again.out) == (2, "")
    assert "--resume" in again.err
    resumed = run(CONFIG, "--json", "--resume")
    assert json.loads(resumed.out)["statement"]["steps"] == 12
    assert read_ledger(tmp_path / "run-private" / "run.ledger").reserved == 12
    other = run(CONFIG.replace("0.5", "0.25"), "--resume")
    assert other.code == 2
    assert "belongs to another run: optimizer group 0" in other.err


def test_a_shared_ledger_adds_up(run: Callable[..., Said]) -> None:
    shared = CONFIG + 'ledger = "data.ledger"\n'
    first, second = (json.loads(run(shared, "--json", "--output", name).out) for name in ("one", "two"))
    assert second["statement"]["runs"] == 2
    assert second["statement"]["epsilon"]["upper"] > 1.2 * first["statement"]["epsilon"]["upper"]


def test_a_network_and_a_loss_of_ones_own(run: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def build(width):\n"
        "    print('building')\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))\n"
        "def loss(model, inputs, labels):\n"
        "    return torch.nn.functional.cross_entropy(model(inputs), labels, reduction='none', label_smoothing=0.1)\n"
    )
    model = '[model]\nbuilder = "mine.py:build"\narguments = { width = 5 }\nloss = "mine.py:loss"\n\n[data]'
    text = model + CONFIG.partition("[data]")[2]
    said = run(text, "--json")
    assert json.loads(said.out)["complete"] is True  # and nothing else is printed there
    wrong = run(text.replace("width = 5", "wide = 5"), "--output", "other")
    assert wrong.code == 2
    assert "TypeError" in wrong.err
    assert len(wrong.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('builder = "mlp"', 'builder = "mpl"', "model.builder = 'mpl'; expected lenet5, mlp,"),
        ('source = "digits"', 'source = "digit"', "data.source = 'digit'"),
        (
            'source = "digits"',
            'source = "digits"\npath = "x"',
            "an unknown key data.path; expected only source, folder",
        ),
        ("records = 297", "records = 1797", "held_out.records = 1797; expected fewer than the 1,797"),
        ("records = 297", 'records = 297\nsource = "digits"', "either records"),
        ("steps = 12", "steps = 12\nepochs = 1", "either epochs or steps"),
        ("steps = 12", "", "either epochs or steps"),
        ("steps = 12", 'steps = "12"', "training.steps = '12'; expected a valid integer"),
        ("expected_batch_size = 300", "expected_batch_size = 3000", "training.expected_batch_size = 3000"),
        ("learning_rate = 0.5", "", "no training.learning_rate"),
        ("learning_rate = 0.5", 'learning_rate = 0.5\noptimizer = "lbfgs"', "training.optimizer = 'lbfgs'"),
        ("learning_rate = 0.5", 'learning_rate = 0.5\noptimizer = "adam"\nmomentum = 0.9', "no momentum with adam"),
        ("delta = 1e-4", "delta = 1e-2", "privacy.delta = 0.01"),
        ("delta = 1e-4", "delta = 1e-4\ntarget_epsilon = 1.0\nbudget_epsilon = 1.0", "either target_epsilon"),
        ('noise = "exponential(2.0, to=1.0)"', "", "noise, or a target_epsilon"),
        ('noise = "exponential(2.0, to=1.0)"', 'noise = "exp(2.0)"', "privacy.noise = 'exp(2.0)'"),
        ('noise = "exponential(2.0, to=1.0)"', "noise = true", "privacy.noise = True"),
        ("[privacy]", "[privacy.clipping]\nrule = 'linear'\n[privacy]", 'only with kind = "adaptive"'),
        ("[privacy]", "[privacy.clipping]\nnorms = 1.0\n[privacy]", "an unknown key privacy.clipping.norms"),
        ("[privacy]", "[privacy", "expected TOML"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_key(
    run: Callable[..., Said], tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert before in CONFIG
    said = run(CONFIG.replace(before, after))
    assert (said.code, said.out) == (2, "")
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith("privet: run.toml: found ")
    assert words in said.err
    assert not (tmp_path / "run-private").exists()


def test_adaptive_clipping_layer_by_layer_reaches_the_plan(run: Callable[..., Said]) -> None:
    clipping = '\n[privacy.clipping]\nkind = "adaptive"\nnorm = 0.3\nper_layer = true\nrule = "linear"\n'
    plan = json.loads(run(CONFIG.replace("300", "1500") + clipping, "--json").out)["statement"]["plan"]
    assert plan["clipping"]["kind"] == "per-layer"
    assert plan["clipping"]["strategy"]["initial_norm"] == 0.3
    assert plan["clipping"]["strategy"]["rule"] == "linear"
    assert plan["noise"].startswith("exponential(2.0")


def test_in_a_terminal_ctrl_c_stops_between_two_steps(tmp_path: Path) -> None:
    """A long run on a terminal of 80 columns; one line says where it stopped."""
    config = tmp_path / "run.toml"
    config.write_text(CONFIG.replace("steps = 12", "steps = 100000").replace("exponential(2.0, to=1.0)", "100.0"))
    command = [sys.executable, "-m", "privet", "train", "run.toml"]
    near, far = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=far, stderr=far, env=environment) as process:
        os.close(far)
        text, asked, patience = "", False, time.monotonic() + 50
        while time.monotonic() < patience:
            try:
                text += os.read(near, 65536).decode(errors="replace")
            except OSError:  # its end of the terminal is closed
                break
            if not asked and re.search(r"step [1-9][\d,]*/100,000.*eps <= ", text):
                asked = True
                process.send_signal(signal.SIGINT)
        os.close(near)
    assert process.returncode == 130
    last = text.strip().splitlines()[-1]
    assert last.removeprefix("\x1b[?25h").startswith("privet: stopped; the checkpoint has ")  # the cursor is back
    assert "Traceback" not in text
    step = read_snapshot(tmp_path / "run-private" / "checkpoint.safetensors").callbacks[0]["step"]
    assert f"has {step:,} of 100,000 steps" in text
    assert read_ledger(tmp_path / "run-private" / "run.ledger").reserved == step > 0
    assert "loss" not in text
    assert "accuracy" not in text


def test_training_does_not_touch_the_global_random_state(run: Callable[..., Said]) -> None:
    before = torch.get_rng_state()
    run(CONFIG, "--json")
    assert torch.equal(before, torch.get_rng_state())
