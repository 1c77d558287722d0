"""``privet doctor``: exit codes, and one line for what is wrong with the input."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import privet.cli
from privet.cli import app

MODEL = """
import torch
from torch import nn
import torch.nn.functional as F

def ready():
    print("a word of the builder")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def norm():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))

def none():
    return None

def failing():
    raise RuntimeError("no luck")

def squares(model, inputs, labels):
    return (model(inputs) - F.one_hot(labels, 10)).square().sum(dim=1)

def mean(model, inputs, labels):
    return squares(model, inputs, labels).mean()

number = 3
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a_model.py"
    path.write_text(MODEL)
    return path


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def from_the_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["privet", "doctor", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        privet.cli.main()
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_a_model_that_is_ready_exits_with_0(model: Path) -> None:
    code, out = call(f"{model}:ready", "--data", "digits")
    assert code == 0
    assert "ready: 1 layer, 650 trainable parameters" in out
    assert "4 examples" in out


def test_one_that_is_not_exits_with_1_and_tells_the_edit(model: Path) -> None:
    code, out = call(f"{model}:norm", "--data", "digits")
    assert code == 1
    assert "layer 1 (BatchNorm1d)" in out
    assert "model[1] = nn.GroupNorm(" in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_json_is_all_that_is_printed(model: Path) -> None:
    code, out = call(f"{model}:ready", "--data", "digits", "--json")
    assert code == 0
    assert json.loads(out)["ready"] is True
    code, out = call(f"{model}:norm", "--data", "digits", "--json")
    assert code == 1
    assert json.loads(out)["problems"][0]["code"].startswith("model[1] = ")


def test_the_loss_may_be_the_users(model: Path) -> None:
    assert call(f"{model}:ready", "--data", "digits", "--loss", f"{model}:squares")[0] == 0
    code, out = call(f"{model}:ready", "--data", "digits", "--loss", f"{model}:mean")
    assert code == 1
    assert "the per-example loss" in out
    assert "reduction='none'" in " ".join(out.split())


def test_data_that_do_not_fit_the_model_are_a_problem_of_the_loss(model: Path) -> None:
    code, out = call(f"{model}:small", "--data", "digits")
    assert code == 1
    assert "mat1 and mat2" in " ".join(out.split())


def test_a_file_of_records_will_do(model: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.npz"
    np.savez(records, x=np.ones((3, 64), dtype=np.float32), y=np.array([0, 1, 9]))
    assert call(f"{model}:ready", "--data", records)[0] == 0


def test_what_the_file_imports_may_lie_next_to_it(tmp_path: Path) -> None:
    (tmp_path / "width_of_the_doctor_test.py").write_text("width = 64")
    path = tmp_path / "beside.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom torch import nn\nfrom width_of_the_doctor_test import width\n"
        "@dataclass\nclass Sizes:\n    width: int = width\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(Sizes().width, 10))\n"
    )
    assert call(f"{path}:build", "--data", "digits")[0] == 0


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("{}", "give file.py:function"),
        ("{}:", "give file.py:function"),
        ("{}:no such", "give file.py:function"),
        ("nowhere.py:build", "There is no nowhere.py"),
        ("{}:number", "a function that .*; there is ready, norm"),
        ("{}:absent", "a function that .*; there is ready, norm"),
        ("{}:none", "returns a torch.nn.Module. It gave a NoneType."),
        ("{}:failing", r"It ended in RuntimeError at line 20: no luck\."),
        ("{}:squares", "needs no arguments. It ended in TypeError"),
    ],
)
def test_an_unusable_model_is_told_in_one_line_with_2(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reference: str, told: str
) -> None:
    err = from_the_shell(monkeypatch, capsys, reference.format(model), "--data", "digits")
    assert re.search(told, err), err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1\nraise SystemExit(0)\n", "SystemExit at line 2: 0"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError at line 1: No module named"),
        ("def build(:\n", "SyntaxError at line 1"),
    ],
)
def test_a_file_that_fails_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, told: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    assert told in from_the_shell(monkeypatch, capsys, f"{path}:build", "--data", "digits")


def test_unknown_data_are_told_in_one_line_with_2(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "fashion-mnist" in from_the_shell(monkeypatch, capsys, f"{model}:ready", "--data", "weather")


def test_help_says_that_the_file_is_executed() -> None:
    _, out = call("--help")
    assert "executed" in out
    assert "trust" in out


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    blocks = dict(re.findall(r"```python\n# (model.py)\n(.*?)```", page, re.DOTALL))
    (shown,) = re.findall(r"```console\n\$ privet doctor model.py:build --data digits\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(blocks["model.py"])
    monkeypatch.setenv("COLUMNS", "80")
    code, out = call("model.py:build", "--data", "digits")
    assert (code, out) == (1, shown)
