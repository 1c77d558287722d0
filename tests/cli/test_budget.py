"""``privet budget``, as a user runs it."""

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer

import privet.cli
from privet import schedules
from privet.accounting.bound import Bound
from privet.cli.budget import answer, budget, request, show
from privet.errors import ArgumentError


@dataclass(frozen=True)
class Said:
    code: object
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command through the shell's own way of ending; without a start of Python for each."""
    app = typer.Typer()
    app.command()(budget)
    monkeypatch.setattr(privet.cli, "app", app)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["privet", *arguments])
        with pytest.raises(SystemExit) as end:
            privet.cli.main()
        printed = capsys.readouterr()
        return Said(end.value.code or 0, printed.out, printed.err)

    return run


def options(**changed: str | None) -> list[str]:
    """Four steps of a small plan, with changes; None takes an option away."""
    values = {"population": "1000", "batch_size": "300", "steps": "4", "noise": "2.0", "delta": "1e-5"} | changed
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


def found(said: Said) -> dict[str, object]:
    assert (said.code, said.err) == (0, "")
    result = json.loads(said.out)
    assert isinstance(result, dict)
    return result


def test_json_agrees_with_known_values(run: Callable[..., Said]) -> None:
    plan = options(population="60000", batch_size="256", steps="14062", noise="constant(1.1)")
    result = found(run(*plan, "--json"))
    assert set(result) == {"epsilon", "delta", "steps", "sampling_rate"}
    assert (result["delta"], result["steps"], result["sampling_rate"]) == (1e-5, 14062, 256 / 60000)
    epsilon = result["epsilon"]
    assert set(epsilon) == {"pld", "rdp", "zcdp"}
    assert set(epsilon["pld"]) == {"lower", "upper"}
    # The bracket holds the truth, which lies in [2.38144, 2.38169].
    assert epsilon["pld"]["lower"] <= 2.38169
    assert epsilon["pld"]["upper"] >= 2.38144
    assert epsilon["pld"]["upper"] - epsilon["pld"]["lower"] < 0.01
    assert epsilon["pld"]["upper"] < epsilon["rdp"] <= 2.59656 + 1e-4
    assert epsilon["zcdp"] > 100.0


def test_without_sampling_the_answer_is_exact(run: Callable[..., Said]) -> None:
    whole = found(run(*options(batch_size="1000"), "--json"))  # the sum of 1/sigma^2 is 1
    assert whole["epsilon"]["pld"]["upper"] == pytest.approx(4.377178, abs=1e-6)
    assert whole["sampling_rate"] == 1.0
    tables = run(*options())
    assert re.search(r"pld +│ 4\.378 +│ +│ as if not sampled", tables.out)


def test_the_last_partial_step_of_the_epochs_counts(run: Callable[..., Said]) -> None:
    assert found(run(*options(steps=None, epochs="1"), "--json"))["steps"] == 4
    assert found(run(*options(steps=None, epochs="0.3"), "--json"))["steps"] == 1
    assert found(run(*options(steps=None, epochs="0.1", batch_size="10"), "--json"))["steps"] == 10


def test_every_step_has_its_own_noise(run: Callable[..., Said]) -> None:
    decayed = found(run(*options(batch_size="1000", noise="exponential(2.0, to=0.5)", steps="3"), "--json"))
    precision = 1 / 4 + 1 + 4
    constant = found(run(*options(batch_size="1000", noise=repr((3 / precision) ** 0.5), steps="3"), "--json"))
    assert decayed["epsilon"]["pld"]["upper"] == pytest.approx(constant["epsilon"]["pld"]["upper"], rel=1e-9)


def test_a_file_says_the_same_as_options(run: Callable[..., Said], tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'population = 1000\nbatch_size = 300\nepochs = 1\nnoise = "exponential(2.0, to=1.0)"\ndelta = 1e-5\n'
    )
    by_options = run(*options(steps=None, epochs="1", noise="exponential(2.0, to=1.0)"), "--json")
    assert run("--plan", str(plan), "--json") == by_options
    assert found(by_options)["steps"] == 4
    plan.write_text("noise = 2\nbatch_size = 300\nsteps = 4\n")
    completed = run("--plan", str(plan), "--json", "--population", "1000", "--delta", "1e-5")
    assert completed == run(*options(), "--json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 1", "unknown fields epoch"),
        ("steps = 4\nsteps = 5", "expected TOML"),
        ("steps = ", "expected TOML"),
        ("\udcff", "expected TOML"),
        ("steps = 4.5", "steps = 4.5"),
        ('steps = "4"', "steps = '4'"),
        ("steps = true", "steps = True"),
        ("noise = true", "noise = True"),
        ("noise = [1.0]", "noise = "),
        ("target_epsilon = nan", "target_epsilon = nan"),
        ("delta = 1e-6", "delta = 1e-05 is not allowed; give it once"),
    ],
)
def test_files_that_are_refused(run: Callable[..., Said], tmp_path: Path, text: str, said: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_bytes(text.encode(errors="surrogateescape"))
    name = text.split(" =")[0]
    given = options(**({name: None} if name in ("steps", "noise") else {}))
    refused(run("--plan", str(plan), *given), said)


def refused(said: Said, what: str) -> None:
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("privet: ")
    assert said.err.count("\n") == 1
    assert what in said.err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"population": None, "noise": None, "steps": None}, "missing: --population, --noise, --epochs or --steps;"),
        ({"epochs": "1"}, "steps or epochs, not both"),
        ({"population": "0"}, "population = 0"),
        ({"population": "many"}, "population = 'many'"),
        ({"batch_size": "0"}, "batch_size = 0"),
        ({"batch_size": "1001"}, "batch_size = 1001 is not allowed; give at most the population, 1,000"),
        ({"batch_size": "1.5"}, "batch_size = '1.5'"),
        ({"steps": "0"}, "steps = 0"),
        ({"steps": "10000001"}, "steps = 10000001"),
        ({"steps": None, "epochs": "0"}, "epochs = 0.0"),
        ({"steps": None, "epochs": "inf"}, "epochs = inf"),
        ({"steps": None, "epochs": "1e9"}, "10,000,000 steps"),
        ({"delta": "0"}, "delta = 0.0"),
        ({"delta": "-1e-5"}, "delta = -1e-05"),
        ({"delta": "1e-3"}, "delta = 0.001 is not allowed; give less than 1/N = 0.001. With 1/N, publishing a record"),
        ({"delta": "1"}, "less than 1/N"),
        ({"delta": "nan"}, "delta = nan"),
        ({"noise": "wild(2.0)"}, "wild is no schedule"),
        ({"noise": "0"}, "sigma = 0"),
        ({"noise": "exponential(1.0, rate=1e3)"}, "schedule(1) = 0.0"),
        ({"target_epsilon": "0"}, "target_epsilon = 0.0"),
        ({"target_epsilon": "few"}, "target_epsilon = 'few'"),
        ({"plan": "nowhere/plan.toml"}, "nowhere/plan.toml: found No such file"),
        ({"plot": "out.png"}, "ends in .svg"),
        ({"plot": "nowhere/out.svg"}, "a folder that exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Callable[..., Said], changed: dict[str, str], said: str) -> None:
    refused(run(*options(**changed)), said)
    refused(run(*options(**changed), "--json"), said)


@pytest.mark.parametrize(
    "noise", ["exponential(1.0, to=0.5)", "linear(0.3, to=0.9)", "exponential(1.0, rate=0.5, floor=0.6)"]
)
def test_the_scaled_noise_that_is_printed_meets_the_target(run: Callable[..., Said], noise: str) -> None:
    plan = {"noise": noise, "steps": "8"}
    solved = found(run(*options(**plan, target_epsilon="3"), "--json"))
    scale = solved["noise_scale"]
    epsilon = solved["epsilon"]["pld"]
    assert 2.99 < epsilon["upper"] <= 3.0
    printed = run(*options(**plan, target_epsilon="3")).out
    assert f"scaled by {scale!r} to stay within epsilon 3" in printed
    shown = re.search(r"^noise (.*)$", printed, re.MULTILINE)
    assert shown is not None
    again = found(run(*options(**plan | {"noise": shown[1]}), "--json"))
    assert again["epsilon"]["pld"] == epsilon
    less = schedules.describe(schedules.scaled(schedules.parse(noise, 8), 0.999 * scale))
    assert found(run(*options(**plan | {"noise": less}), "--json"))["epsilon"]["pld"]["upper"] > 3.0


def test_a_scale_that_misses_the_target_is_never_printed(
    run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "schedule_scale", lambda *_: 0.5)
    refused(run(*options(target_epsilon="3")), "above the target 3.0")


def test_a_scale_is_rounded_up() -> None:
    assert answer._rounded_up(1.2345670001) == 1.234568
    assert answer._rounded_up(1.234567) == pytest.approx(1.234567, rel=1e-6)
    for scale in (0.001234, 0.9999999999, 1.0, 123456789.1, 1e-3 / 3):
        assert scale <= answer._rounded_up(scale) <= scale * (1 + 2e-6)


def test_tables_end_with_the_headline_and_never_fall(run: Callable[..., Said]) -> None:
    said = run(*options(steps="35", noise="exponential(2.0, to=0.8)"))
    assert (said.code, said.err) == (0, "")
    headline = re.match(r"epsilon <= ([\d.]+) \(not below ([\d.]+)\) at delta 1e-05\n", said.out)
    assert headline is not None
    assert float(headline[2]) < float(headline[1])
    assert "35 steps (10.50 epochs), sampling rate 0.3 (300 of 1,000)" in said.out
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in said.out.partition("on the way")[2].splitlines()
        if line.startswith("│")
    ]
    assert [int(row[1]) for row in rows] == [4, 7, 11, 14, 18, 21, 25, 28, 32, 35]
    assert [float(row[0]) for row in rows] == [round(0.3 * int(row[1]), 2) for row in rows]
    epsilons = [float(row[2]) for row in rows]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == float(headline[1])
    assert epsilons[0] < epsilons[-1] / 2


def test_growth_is_what_the_first_steps_spend() -> None:
    noise = "cosine(2.0, to=0.8, steps=20)"
    given = {"population": "1000", "batch_size": "300", "steps": "20", "noise": noise, "delta": "1e-5"}
    asked = request.read(given, None)
    marks = answer.growth(answer.spend(asked))
    for mark in (marks[0], marks[4], marks[9]):
        part = answer.spend(replace(asked, steps=mark.steps)).pld
        assert part.lower <= mark.epsilon <= part.upper + 0.01


def test_plot_is_a_drawing_whose_text_is_text(run: Callable[..., Said], tmp_path: Path) -> None:
    drawing = tmp_path / "out.svg"
    said = run(*options(), "--plot", str(drawing), "--json")
    assert set(found(said)) == {"epsilon", "delta", "steps", "sampling_rate"}
    text = drawing.read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert "epsilon at most, at delta 1e-05" in text
    assert "epochs" in text
    run(*options(), "--plot", str(drawing))
    assert drawing.read_text() == text


def test_no_finite_bound_is_null_and_is_not_drawn(tmp_path: Path) -> None:
    asked = request.read({"population": "10", "batch_size": "5", "steps": "1", "noise": "2", "delta": "1e-3"}, None)
    spent = replace(answer.spend(asked), pld=Bound(1.0, math.inf), zcdp=Bound(0.0, math.inf))
    result = json.loads(show.as_json(spent), parse_constant=lambda constant: pytest.fail(constant))
    assert result["epsilon"]["pld"] == {"lower": 1.0, "upper": None}
    assert result["epsilon"]["zcdp"] is None
    with pytest.raises(ArgumentError, match="no bound to draw"):
        show.write_plot(tmp_path / "out.svg", spent, [answer.Mark(1, 0.5, math.inf)])
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_is_rounded_up() -> None:
    assert show._up(1.0001) == "1.001"
    assert show._up(1.25) == "1.250"
    assert show._up(math.inf) == "unbounded"


def test_no_torch_is_loaded() -> None:
    code = (
        "import sys, typer; from privet.cli.budget import budget; app = typer.Typer(); app.command()(budget)\n"
        "print('loaded', {'numpy', 'pydantic'} & set(sys.modules))\n"
        f"sys.argv = ['privet', *{options()!r}, '--json']\n"
        "try: app()\n"
        "except SystemExit: print('torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("loaded set()", "False")
