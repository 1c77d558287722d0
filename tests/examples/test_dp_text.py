"""The example, cut short: both models learn something, at the epsilon of the plan."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "dp_text.py"


def test_both_models_learn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("dp_text", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "EPOCHS", 1)
    with torch.random.fork_rng():
        example.main()
    said = capsys.readouterr().out
    found = re.findall(r"(\w+): ([\d.]+) bits a character before, ([\d.]+) after; epsilon <= ([\d.]+)", said)
    assert [name for name, *_ in found] == ["Transformer", "Recurrent"]
    for _, before, after, epsilon in found:
        assert float(after) < float(before) - 1.0
        assert float(epsilon) <= 8.0
