"""The tables of docs/inversion.md are those that the record holds, and a client's noise is that of private training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import inversion_tables as script
from benchmarks.pages import put

ROOT = Path(__file__).parents[3]


def test_the_page_shows_the_record() -> None:
    record = json.loads(max((ROOT / "benchmarks" / "records").glob("*-inversion-tables.json")).read_text())
    answers = [script.Answered(**line) for line in record["answers"]]
    sent = [script.Sent(**line) for line in record["gradients"]]
    page = (ROOT / "docs" / "inversion.md").read_text()
    tables = {"answers": script.answers_table(answers), "gradients": script.gradients_table(sent)}
    assert put(page, {script.MARKS[name]: table for name, table in tables.items()}) == page


def test_a_page_without_its_marks_is_left_alone() -> None:
    start, end = script.MARKS["answers"]
    for page in ("none", start, f"{end} {start}", f"{start} {start} {end}"):
        with pytest.raises(SystemExit, match="Nothing was written"):
            put(page, {(start, end): "table"})


def test_what_private_training_sends_is_clipped_and_noised() -> None:
    gradients = [torch.full((300, 100), 2.0), torch.ones(5)]
    clipped = script.privately(0.5, 0.0, gradients, torch.Generator())
    assert float(torch.cat([one.flatten() for one in clipped]).norm()) == pytest.approx(0.5, rel=1e-5)
    assert float(clipped[0][0, 0] / clipped[1][0]) == pytest.approx(2.0)
    assert torch.equal(script.privately(1e6, 0.0, gradients, torch.Generator())[0], gradients[0])
    noised = script.privately(0.5, 3.0, gradients, torch.Generator().manual_seed(0))
    assert float((noised[0] - clipped[0]).std()) == pytest.approx(1.5, rel=0.02)  # 30,000 numbers: 4.9 standard errors


@pytest.mark.slow
def test_a_line_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "_SENT", script._SENT[:1])
    (line,) = script.sent()
    assert line.labels == [True] * 10
    assert float(torch.tensor(line.psnr).median()) >= 50.0
