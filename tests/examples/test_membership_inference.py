"""The example runs as a user runs it, on real digits and on files of the format of CIFAR-100."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "membership_inference.py"


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("cifar", [False, True], ids=["as it comes", "CIFAR-100"])
def test_it_prints_every_attacker_and_lira(tmp_path: Path, cifar: bool) -> None:
    more: tuple[str, ...] = ()
    if cifar:
        generator = np.random.default_rng(0)
        records = generator.integers(0, 256, (100, 3_074), dtype=np.uint8)
        records[:, 0], records[:, 1] = np.arange(100) % 20, np.arange(100)
        records.tofile(tmp_path / "train.bin")
        more = ("--cifar100", str(tmp_path))
    out = run("--records", "40", "--epochs", "1", "--shadows", "6", "--html", "page.html", *more, folder=tmp_path)
    assert ("VGG16" if cifar else "LeNet5") in out
    for attacker in ("knn", "logistic regression", "mlp", "random forest"):
        assert f"  {attacker}: " in out
    for figure in ("precision", "accuracy", "recall"):
        assert out.count(f"    {figure}") == 4
    assert "\nLiRA " in out
    assert (tmp_path / "page.html").is_file()
