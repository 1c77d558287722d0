"""``privet ledger``: exit codes and one line for what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privet.accounting.events import Event, NeighbouringRelation, NoSampling, Poisson, TruncatedPoisson
from privet.accounting.ledger import Ledger
from privet.cli.ledger import ledger_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a ledger on disk needs Linux or macOS")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.ledger"
    with Ledger.create(path, NeighbouringRelation.REPLACE_ONE, "patient") as ledger:
        run = ledger.begin_run("abc", "a first run")
        run.reserve([Event(1.1, Poisson(0.01), 1000), Event(2.0, NoSampling())])
        run.confirm(900)
        ledger.begin_run("def").reserve(Event(3.0, TruncatedPoisson(0.5, 3, 10), 2))
    return path


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(ledger_app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def head(path: Path) -> str:
    return str(json.loads(path.read_text().splitlines()[-1])["digest"])


def test_an_intact_ledger_is_told_and_exits_with_0(path: Path) -> None:
    code, out, err = call("verify", path)
    assert (code, err) == (0, "")
    for part in (
        "intact, 6 records",
        "replace-one",
        "patient",
        "1: 1,001 steps, 101 unconfirmed, plan abc, a first run",
        "Gaussian, noise multiplier 1.1, Poisson rate 0.01, 1,000 times",
        "Gaussian, noise multiplier 2, no sampling, once",
        "at most 3 of 10, 2 times",
        "1,003 steps, 103 of them reserved but unconfirmed",
        head(path),
    ):
        assert part in out


def test_json_holds_the_same(path: Path) -> None:
    code, out, _ = call("verify", path, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["intact"] is True
    assert (told["records"], told["relation"], told["unit"], told["head"]) == (6, "replace-one", "patient", head(path))
    assert [Event.from_json(event).count for event in told["events"]] == [1000, 1, 2]
    assert (told["reserved"], told["unconfirmed"], told["torn"]) == (1003, 103, 0)
    assert told["runs"][0] == {
        "id": 1,
        "plan_digest": "abc",
        "description": "a first run",
        "reserved": 1001,
        "unconfirmed": 101,
        "resumed": 0,
    }


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [(b'"count":1000', b'"count":1', "line 3"), (b'"patient"', b'"example"', "line 1"), (b"}\n", b"}", "line 1")],
)
def test_an_altered_ledger_is_one_line_with_its_place_and_exit_code_1(
    path: Path, old: bytes, new: bytes, where: str
) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))
    before = path.read_bytes()
    code, out, err = call("verify", path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert where in err
    assert "byte " in err
    code, out, err = call("verify", path, "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["intact"] is False
    assert where in json.loads(out)["problem"]
    assert call("repair", path)[0] == 1
    assert path.read_bytes() == before


def test_a_head_that_is_missing_exits_with_1(path: Path) -> None:
    last = head(path)
    assert call("verify", path, "--expect-head", last)[0] == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert call("verify", path)[0] == 0
    code, _, err = call("verify", path, "--expect-head", last)
    assert code == 1
    assert "cut off its end" in err


def test_a_torn_tail_is_1_until_it_is_repaired(path: Path) -> None:
    torn = path.read_bytes()[:-30]
    path.write_bytes(torn)
    code, _, err = call("verify", path)
    assert code == 1
    assert "privet ledger repair" in err
    code, out, _ = call("repair", path)
    assert code == 0
    assert "torn writes  1" in out
    assert path.read_bytes().startswith(torn)
    assert call("verify", path)[0] == 0


@pytest.mark.parametrize("arguments", [["verify"], ["verify", "--nonsense"], ["verify", "a", "b"], ["nonsense"]])
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_what_cannot_be_read_exits_with_2(path: Path, command: str) -> None:
    for target in (path.with_name("missing"), path.parent):
        code, out, err = call(command, target)
        assert (code, out, err.count("\n")) == (2, "", 1)
    with Ledger.open(path):
        assert call("verify", path)[0] == 0
        assert call("repair", path)[0] == 2
    assert call("verify", path, "--expect-head", "short")[0] == 2
