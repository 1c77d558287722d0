"""An audit in a terminal: at most 80 columns, the verdict first, nothing left out that limits it."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from tests.audit import samples

from privet.audit.result import AuditResult
from privet.audit.text import WIDTH, text_of
from privet.audit.words import controls, verdict_words

EVERY = pytest.mark.parametrize("make", samples.EVERY.values(), ids=samples.EVERY)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@EVERY
def test_no_line_is_wider_than_a_terminal(make: Callable[[], AuditResult]) -> None:
    result = make()
    long = replace(result.attacks[0], name="an attack whose name is longer than anybody would ever think of")
    crowded = replace(
        result, attacks=(long, *result.attacks), warnings=("w" * 100, "word " * 40), columns=result.columns
    )
    for one in (result, crowded):
        assert max(cell_len(line) for line in text_of(one).splitlines()) <= WIDTH == 80


@EVERY
def test_the_verdict_is_the_first_line_and_nothing_is_left_out(make: Callable[[], AuditResult]) -> None:
    result = make()
    text = text_of(result)
    assert text.splitlines()[0] == result.verdict.value
    shown = words(text)
    meaning = verdict_words(result)
    assert words(f"{meaning.title}. {result.reason} It does not mean {meaning.caveat}") in shown
    for warning in result.warnings:
        assert warning in shown
    for control in controls(result):
        assert f"{control.mark} {control.title}" in shown
        assert control.held or words(control.body) in shown
    assert not re.findall(r"\b(private|safe|secure|protected)\b", shown.lower())


def test_attacks_keep_their_numbers_on_one_line() -> None:
    result = samples.leak()
    lines = text_of(result).splitlines()
    for attack in result.attacks:
        area = f"{attack.auc.value:.3f} ("
        assert any(line.startswith(attack.name.split()[0]) and area in line and "yes" in line for line in lines)


def test_what_cannot_be_read_is_not_called_a_leak() -> None:
    text = text_of(samples.invalid())
    assert not re.search(r"\byes$", text, flags=re.MULTILINE)
    assert "shadow models in turn" not in text
    assert "\ngroups" not in text


def test_brackets_in_names_are_no_markup() -> None:
    result = samples.scores_only()
    named = replace(result, attacks=(replace(result.attacks[0], name="[bold]x[/bold]"),), warnings=("[red]w",))
    assert "[bold]x[/bold]" in text_of(named)
    assert "[red]w" in text_of(named)


def test_the_audit_is_written_like_that() -> None:
    assert str(samples.leak()) == text_of(samples.leak())
