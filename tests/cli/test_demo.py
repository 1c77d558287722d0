"""The tour, as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from privet import report
from privet.cli.tour import STOPS
from privet.cli.tour.scene import set_scene
from privet.cli.tour.stop import StopResult


def privet(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "privet", *arguments], cwd=folder, capture_output=True, text=True)


def test_demo_prints_one_table_and_writes_one_page(tmp_path: Path) -> None:
    result = privet("demo", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for protection in ("none", "rounding", "top 3", "label only"):
        row = next(line for line in result.stdout.splitlines() if line.strip().startswith(protection))
        assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", row), "every figure has its interval"
    assert sum(" LiRA " in line for line in result.stdout.splitlines()) == 3
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout, "no cell is cut off at 80 columns"
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()] == [
        "privet-demo/report.html"
    ]
    page = (tmp_path / "privet-demo" / "report.html").read_text()
    assert "How to read this page" in page
    assert "No formal guarantee" in page
    assert str(tmp_path) not in page


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ("demo", "--seed", "-1"),
        ("demo", "--output", "file/x"),
        ("demo", "--seed", str(2**63)),
        ("nonsense",),
        ("demo", "--foo"),
        ("budget", "--delta", "x"),
    ):
        result = privet(*arguments, folder=tmp_path)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("privet: ")
        assert "train a network" not in result.stdout, "refused before any work"


def test_version(tmp_path: Path) -> None:
    from privet import __version__

    assert privet("--version", folder=tmp_path).stdout == f"privet {__version__}\n"


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import privet.cli
    from privet.errors import ArgumentError

    def refuse(*_: object, **__: object) -> None:
        raise ArgumentError("epochs", 0, "at least 1")

    monkeypatch.setattr(privet.cli, "app", refuse)
    with pytest.raises(SystemExit) as end:
        privet.cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "privet: epochs = 0 is not allowed; give at least 1.\n"


def test_every_stop_gives_rows_with_intervals_and_sections() -> None:
    scene = set_scene(seed=1)
    assert scene.members.inputs.shape[0] + scene.non_members.inputs.shape[0] == 5_000
    for stop in STOPS:
        result = stop.visit(scene)
        assert isinstance(result, StopResult)
        assert all(isinstance(section, report.Section) for section in result.sections)
        for row in result.rows:
            assert row.leakage.auc.low < row.leakage.auc.high
        if result.rows:
            assert result.rows[0].leakage.auc.low > 0.5, "a network that over-fits is seen to leak"
