"""Import directions: the contracts hold, and each is seen to break when the import it forbids is planted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--config", folder / "pyproject.toml", "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder / "src"), "PATH": ""}, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_contracts_hold(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("outputs/__init__.py", "import privet.attacks"),
        ("attacks/membership/threshold.py", "import privet.outputs"),
        ("data/__init__.py", "import privet.models"),
        ("models/__init__.py", "import privet.data"),
        ("report/page.py", "import privet.attacks"),
        ("statistics/roc.py", "import privet.report"),
        ("output_form.py", "import privet.statistics"),
        ("errors.py", "import privet.statistics"),
        ("training/__init__.py", "import privet.cli"),
        ("checkpoints/snapshots.py", "import privet.training"),
        ("checkpoints/snapshots.py", "import privet.models"),
        ("atomic_file.py", "import privet.checkpoints"),
        ("accounting/pld.py", "import privet.data"),
        ("schedules/values.py", "import privet.accounting"),
        ("atomic_file.py", "import privet.statistics"),
        ("newroom.py", ""),
        ("errors.py", "import torch"),
        ("output_form.py", "import torch"),
        ("report/render.py", "import torch"),
        ("statistics/intervals.py", "import torch"),
        ("accounting/events.py", "import torch"),
        ("atomic_file.py", "import torch"),
        ("schedules/values.py", "import torch"),
    ],
)
def test_planted_import_is_caught(copy: Path, module: str, planted: str) -> None:
    with (copy / "src" / "privet" / module).open("a") as file:
        file.write(f"\n{planted}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout or "newroom" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        ("privet", ("torch", "scipy", "numpy", "matplotlib")),
        ("privet.errors", ("torch", "numpy")),
        ("privet.output_form", ("torch", "numpy")),
        ("privet.statistics", ("torch",)),
        ("privet.report", ("torch",)),
        ("privet.accounting", ("torch", "dp_accounting")),
        ("privet.schedules", ("torch", "numpy")),
        ("privet.cli", ("torch", "numpy")),
    ],
)
def test_importing_a_room_loads_nothing_it_does_not_use(room: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {room}; print(sorted({{m.split('.')[0] for m in sys.modules}} & set({absent!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_curated_names_exist_and_are_few() -> None:
    import privet

    assert len(privet.__all__) <= 30
    for name in privet.__all__:
        found = getattr(privet, name)
        assert found.__name__ == (name if callable(found) else f"privet.{name}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = privet.nothing
