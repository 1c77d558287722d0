"""The example runs as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "suppress_privacy.py"


@pytest.mark.slow
def test_it_prints_accuracies_and_sparsity_by_layer_and_draws(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--plot", "picture.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    accuracies = [float(value) for value in re.findall(r"accuracy (0\.\d+) on", done.stdout)]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.75
    masked = {"conv1": 140, "conv2": 2_250, "fc1": 45_600, "fc2": 9_576, "fc3": 790}
    for layer, count in masked.items():
        assert re.search(rf"{layer}\.weight +[\d,]+ +{count:,} ", done.stdout)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
