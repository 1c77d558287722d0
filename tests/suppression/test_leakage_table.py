"""The table of docs/suppression.md is the one that the record holds, and the script that makes it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import suppression_leakage as script
from benchmarks import suppression_rows as rows

from privet import data
from privet.attacks.membership import Pool

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_record() -> None:
    record = max((ROOT / "benchmarks" / "records").glob("*-suppression-leakage.json"))
    lines = [script.Line(**line) for line in json.loads(record.read_text())["lines"]]
    page = (ROOT / "docs" / "suppression.md").read_text()
    assert f"{script.START}\n{script.tables(lines)}\n{script.END}" in page
    assert len(lines) == 1 + 2 * len(rows.SPARSITIES) + len(rows.DECAYS) + len(rows.EPSILONS)


def test_two_networks_of_a_block_share_no_image_and_all_are_of_the_size_that_is_said() -> None:
    member = rows.membership()
    assert member.shape == (16, 10_000)
    assert np.array_equal(member.sum(1), np.full(16, rows.MEMBERS))
    assert np.array_equal(member[::2], ~member[1::2])


@pytest.mark.slow
def test_it_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, unseen = data.mnist5k().split(600, 100, seed=0)
    first, rest = images.take(range(300)), images.take(range(300, 600))
    pool = Pool.of((first.inputs, first.labels), (rest.inputs, rest.labels), 10)
    for module in (rows, script):
        monkeypatch.setattr(module, "BLOCKS", 4)
        monkeypatch.setattr(module, "LOOKS", (1, 2))
    monkeypatch.setattr(rows, "INVERTED", 6)
    monkeypatch.setattr(rows, "CANDIDATES", 50)
    monkeypatch.setattr(rows, "MEMBERS", 300)
    monkeypatch.setattr(rows, "EPOCHS", 2)
    monkeypatch.setattr(rows, "RAMP", (1, 2))
    monkeypatch.setattr(rows, "_images", lambda: (images, pool, unseen))
    for row in rows.rows():
        for number in range(8):
            rows.train_one(tmp_path, row, number)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    rows.train_one(tmp_path, "plain", 0)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    lines = script.read(tmp_path)
    assert [round(line.sparsity, 2) for line in lines[:5]] == [0.0, 0.5, 0.8, 0.95, 0.99]
    assert [line.epochs for line in lines[:5]] == [2] * 5
    assert all(line.epochs in (1, 2) for line in lines[5:9])
    for line in lines:
        assert bool(line.beside) == line.training.startswith("suppression")
        for value, low, high in (*line.auc.values(), *(ends for rates in line.tpr.values() for ends in rates.values())):
            assert 0.0 <= low <= value <= high <= 1.0
    for suppressed, stopped in zip(lines[1:5], lines[5:9], strict=True):
        assert suppressed.beside["accuracy"][0] == pytest.approx(suppressed.accuracy[0] - stopped.accuracy[0], abs=2e-5)
        assert suppressed.beside["found"][0] == pytest.approx(suppressed.found[0] - stopped.found[0], abs=2e-5)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()  # of which nothing is known
    with pytest.raises(SystemExit, match="other settings"):
        script.train_all(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(rows.settings() | {"PRIVATE_RATE": 3}))
    with pytest.raises(SystemExit, match="other settings"):
        script.train_all(tmp_path)


def test_early_stopping_is_matched_on_a_rising_curve() -> None:
    curve = np.array([0.2, 0.5, 0.9, 0.5, 0.7, 0.8, 0.8, 0.75])  # a spike; rises best as .2 .5 .7 .7 .7 .783 .783 .783
    assert [script.nearest_look(curve, accuracy) for accuracy in (0.1, 0.52, 0.65, 0.75, 0.99)] == [0, 1, 4, 7, 5]
