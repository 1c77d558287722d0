"""Law of the ledger under SIGKILL: whenever a writer dies, all the noise it drew is counted, and spent never falls."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a ledger on disk needs Linux or macOS")
WRITER = Path(__file__).parent / "killed_writer.py"


def kill_writers(folder: Path, kills: int, fault: str = "none") -> dict[str, Any]:
    command = [sys.executable, str(WRITER), str(folder), str(kills), fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_250_kills_at_random_points_lose_nothing_that_was_drawn(tmp_path: Path) -> None:
    result = kill_writers(tmp_path, 250)
    rows = result["rows"]
    assert len(rows) == 250
    assert all(row["killed"] for row in rows)
    assert all(row["counted"] for row in rows)
    for before, after in pairwise(rows):
        if "last" not in before:
            assert all(a <= b for a, b in zip(before["spent"], after["spent"], strict=True))
            assert before["unconfirmed"] <= after["unconfirmed"]
    # The kills fell inside the work: noise was drawn, windows were lost, lines were cut.
    assert len({row["drawn"] for row in rows}) > 50
    assert any(sum(row["spent"]) > row["drawn"] for row in rows)
    assert any(row["torn"] for row in rows)
    assert not result["torch"]


def test_sabotage_reservation_after_the_noise_is_caught(tmp_path: Path) -> None:
    rows = kill_writers(tmp_path, 40, "reserves after the noise")["rows"]
    assert not all(row["counted"] for row in rows)
