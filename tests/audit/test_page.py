"""The page of an audit: the verdict first, no number without its interval, no word that promises too much."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html import unescape

import pytest
from tests.audit import samples
from tests.report.test_page import Reader

from privet.audit import page as pages
from privet.audit.result import AuditResult
from privet.audit.verdict import Verdict
from privet.audit.words import attack_words, controls, lets_out, readable, verdict_words
from privet.output_form import OutputForm
from privet.report import Card, Cell, Page, Table, render_html, write_estimate

EVERY = pytest.mark.parametrize("make", samples.EVERY.values(), ids=samples.EVERY)


@cache
def page_of(result: AuditResult) -> Page:
    return pages.page_of(result)


@cache
def text(page: Page) -> str:
    """What a reader sees, in order, in one line."""
    html = re.sub(r"<(style|title)>.*?</\1>|<svg.*?</svg>", " ", render_html(page), flags=re.DOTALL)
    shown = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)).replace("\N{WORD JOINER}", ""))
    return shown.replace("( ", "(").strip()


def tables(page: Page) -> list[Table]:
    return [block for section in page.sections for block in section.blocks if isinstance(block, Table)]


@EVERY
def test_the_page_is_well_formed_and_fetches_nothing(make: Callable[[], AuditResult]) -> None:
    html = render_html(page_of(make()))
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert all(address.startswith(("data:", "#")) for address in reader.fetched)


@EVERY
def test_the_verdict_comes_first_and_then_what_it_does_not_mean(make: Callable[[], AuditResult]) -> None:
    result = make()
    words, shown = verdict_words(result), text(page_of(result))
    places = [
        shown.index(part)
        for part in (result.verdict.value, words.title, result.reason, "It does not mean that", "What was tested")
    ]
    assert places == sorted(places)
    first_number = shown.index(f"{result.auc.value:.3f}")
    assert places[3] < first_number


@EVERY
def test_no_word_promises_too_much(make: Callable[[], AuditResult]) -> None:
    shown = text(page_of(make())).lower()
    assert not re.findall(r"\b(private|safe|safely|secure|protected|anonymous|harmless)\b", shown)
    for found in re.finditer("guarantee", shown):
        assert shown[: found.start()].endswith(("no formal ", "the claimed "))


def test_no_verdict_looks_like_all_is_well() -> None:
    tones = {result.verdict: verdict_words(result).tone for result in (make() for make in samples.EVERY.values())}
    assert set(tones) == set(Verdict)
    assert {verdict for verdict, tone in tones.items() if tone == "leak"} == {Verdict.LEAK, Verdict.CLAIM_VIOLATED}
    assert {verdict for verdict, tone in tones.items() if tone == "plain"} == {Verdict.NO_LEAK_FOUND}


@EVERY
def test_every_figure_has_its_interval(make: Callable[[], AuditResult]) -> None:
    page = page_of(make())
    assert all(card.interval for card in page.cards)
    for table in tables(page):
        for row in table.rows:
            assert not any(isinstance(cell, str) and re.fullmatch(r"[\d.]+%", cell) for cell in row)
    # A rate or an area in running text stands beside the ends of its interval, or is asked for, allowed or exact.
    html = render_html(page)
    assert html.count('<span class="estimate"><b>') == html.count("</b> <small>")


@EVERY
def test_every_attack_stands_there_with_what_it_found(make: Callable[[], AuditResult]) -> None:
    result = make()
    shown, read = text(page_of(result)), readable(result)
    for attack in result.attacks:
        area = write_estimate(attack.auc, chance=0.5 if read else None)
        assert f"{attack.name} {area.value} {area.low} – {area.high}" in shown
        assert (attack_words(attack).replace("\N{NO-BREAK SPACE}", " ") if read else "cannot be read") in shown
        for rate in attack.rates.values():
            if rate.reached:
                found = write_estimate(rate.tpr, percent=True, chance=rate.fpr.high if read else None)
                realised = write_estimate(rate.fpr, percent=True)
                assert f"{found.value} {found.low} – {found.high} others {realised}" in shown


@EVERY
def test_controls_and_warnings_are_visible(make: Callable[[], AuditResult]) -> None:
    result = make()
    shown = text(page_of(result))
    for warning in result.warnings:
        assert warning in shown
    for control in controls(result):
        assert f"{control.mark} {control.title} {control.body}" in shown


def test_a_broken_control_is_marked() -> None:
    marks = {control.title: control.held for control in controls(samples.invalid())}
    assert list(marks.values()) == [False, True, True, True]
    null = replace(samples.leak().null, found=("loss threshold",))
    assert not controls(replace(samples.leak(), null=null))[1].held
    alarms = replace(samples.leak().null, alarms=40)
    assert not controls(replace(samples.leak(), null=alarms))[1].held
    assert [control.held for control in controls(samples.underpowered())][-1] is False
    assert controls(samples.scores_only())[0].mark == "not checked"


def differing(result: AuditResult) -> AuditResult:
    return replace(result, blind=samples.invalid().blind)


@pytest.mark.parametrize("result", [samples.invalid(), differing(samples.claim_violated())], ids=["invalid", "hidden"])
def test_an_audit_that_cannot_be_read_offers_no_figure_to_quote(result: AuditResult) -> None:
    """Nor does one whose violated claim, which rests on canaries alone, goes before its failed check."""
    page = page_of(result)
    assert [card.value for card in page.cards if not card.value.startswith("ε")] == ["0.641"], "why it cannot be read"
    titles = [section.title for section in page.sections]
    assert titles.index("Can this audit be trusted?") < titles.index("What the attacks scored")
    assert set(titles) <= {
        "What limits this audit",
        "The claimed guarantee",
        "Can this audit be trusted?",
        "What the attacks scored",
        "What was tested",
        "How to read this page",
    }
    assert "a leak" not in [str(row[-1]).replace("\N{NO-BREAK SPACE}", " ") for row in tables(page)[0].rows]
    assert not any(isinstance(cell, Cell) and cell.stands_out for row in tables(page)[0].rows for cell in row)


def test_a_weak_audit_offers_no_figure_and_says_what_would_help() -> None:
    page = page_of(samples.underpowered())
    assert page.cards == ()
    assert "4,100 members" in text(page)


def test_a_claim_stands_beside_its_bound() -> None:
    page = page_of(samples.claim_violated())
    assert page.cards[0] == Card(
        "ε ≥ 4.12", "proved by 1,000 canaries; claimed is ε = 3 at δ = 1e-05", "leak", "with 95% confidence"
    )
    assert "violated Claimed: epsilon 3 at delta 1e-05" in text(page)
    assert "not tested Claimed: epsilon 3" in text(page_of(samples.underpowered()))


def test_a_defense_carries_no_formal_guarantee() -> None:
    assert "No formal guarantee" in text(page_of(samples.no_leak_found()))
    assert "No formal guarantee" not in text(page_of(samples.leak()))


def test_an_audit_that_was_stopped_says_so() -> None:
    assert "stopped before its end" in text(page_of(replace(samples.leak(), interrupted=True)))


def test_where_no_leak_was_found_the_order_of_records_may_be_chance() -> None:
    assert "may be chance alone" in text(page_of(samples.no_leak_found()))
    assert "may be chance alone" not in text(page_of(samples.leak()))


def test_pictures_are_of_the_members_that_stand_out() -> None:
    result = samples.leak()
    shown = text(page_of(result))
    assert f"member {result.records.top(1)[0].row}" in shown
    assert "show this page only to those who may see them" in shown


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (OutputForm(), "scores of all classes"),
        (OutputForm(labels_only=True), "its label alone"),
        (OutputForm(decimals=1, probabilities=True), "probabilities rounded to 1 decimal of all classes"),
        (OutputForm(k=3, probabilities=True), "the 3 highest probabilities and their classes"),
    ],
)
def test_what_is_let_out_is_said_in_words(form: OutputForm, words: str) -> None:
    assert lets_out(form) == words
