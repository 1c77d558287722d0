"""The page shows the record, and its features are each image's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import fashion_record as script
from benchmarks.pages import put
from benchmarks.scattering import Scattering, morlet
from torch import nn

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_record() -> None:
    runs = script.read(max((ROOT / "benchmarks" / "records").glob("*-fashion-record.json")))
    page = (ROOT / "docs" / "does_it_learn.md").read_text()
    assert put(page, {work.marks: script.table(work, runs) for work in script.WORKS}) == page
    for work in script.WORKS:
        here = [one for one in runs if one.work == work.name]
        assert [one.judged_on for one in here].count("test") == script.SEEDS * len(work.recipes)
        rates = len(work.recipes) * len(work.rates) * work.rate_seeds
        assert len([one for one in here if one.judged_on == "held out" and one.rate in work.rates]) == rates
    assert all(one.epsilon <= script.EPSILON for one in runs)


def made(recipe: str, rate: float, judged_on: str, accuracy: float) -> script.Run:
    return script.Run("short", recipe, rate, 0, judged_on, accuracy, 2.7, 1.0, 10, 1.0, "")


def test_rates_and_the_best_constant_are_chosen_on_images_held_out() -> None:
    here, there = script.Recipe("here", 0.1), script.Recipe("there", 1.0)
    work = replace(script.WORKS[0], name="short", rates=(1.0, 2.0), recipes=(here, there))
    held_out = (("here", 1.0, 0.5), ("here", 2.0, 0.7), ("there", 1.0, 0.6), ("there", 2.0, 0.4))
    runs = [made(recipe, rate, "held out", accuracy) for recipe, rate, accuracy in held_out]
    runs += [made("here", 1.0, "test", 0.1), made("there", 1.0, "test", 0.9), made("there", 2.0, "test", 0.99)]
    assert [script.best_rate(work, one, runs) for one in work.recipes] == [2.0, 1.0]
    assert script.best_constant(work, runs) is here


def test_features_are_of_each_image_alone_and_blind_to_its_brightness() -> None:
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    transform = Scattering()
    together = transform(images)
    assert together.shape == (4, 81, 7, 7)
    torch.testing.assert_close(together[2:3], transform(images[2:3]))
    brighter = transform(images + 0.5)
    torch.testing.assert_close(brighter[:, 1:], together[:, 1:], atol=1e-5, rtol=1e-4)  # but for the mean itself
    assert not list(transform.parameters())


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_a_wavelet_sums_to_zero_and_answers_to_its_own_wave(angle: float) -> None:
    made = morlet(1.6, 1.178, angle, 0.5, 6)
    assert made.sum((1, 2)).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    line = torch.arange(-6, 7, dtype=torch.float64)
    down, across = torch.meshgrid(line, line, indexing="ij")

    def answer(turned: float) -> float:
        wave = torch.cos(1.178 * (across * torch.cos(torch.tensor(turned)) + down * torch.sin(torch.tensor(turned))))
        return float((made[0] * wave).sum().square() + (made[1] * wave).sum().square())

    assert answer(angle) > 5 * answer(angle + 1.5708)


@pytest.mark.slow
def test_a_short_run_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2_000) % 10
    inputs = torch.randn(2_000, 40, generator=generator)
    inputs[torch.arange(2_000), labels] += 4.0
    work = replace(script.WORKS[0], name="short", network=lambda: nn.Linear(40, 10), batch=500, epochs=10)
    found = script.train(work, work.recipes[0], 1.6, 0, (inputs, labels), (inputs, labels), "test")
    assert found.accuracy > 0.8
    assert found.epsilon <= script.EPSILON
