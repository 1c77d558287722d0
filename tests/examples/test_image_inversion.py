"""The example runs as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "image_inversion.py"


@pytest.mark.slow
def test_images_come_out_of_the_convolutional_part_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "from convolutional part: finds originals" in done.stdout
    for name in ("logits", "2 decimals", "top 3", "label only"):
        assert f"\nfrom {name}\n" in done.stdout
    assert done.stdout.count("class mean") == 5
    assert (tmp_path / "inversion.png").stat().st_size > 10_000
