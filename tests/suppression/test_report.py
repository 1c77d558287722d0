from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.suppression.training import BATCHES, network, suppression_of, train
from torch import optim

from privet.errors import ArgumentError
from privet.suppression import LayerSparsity, SparsityReport
from privet.suppression.ramp import masked_count


def report(steps: int = 5 * BATCHES) -> SparsityReport:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    suppression = suppression_of(model, optimizer, updates=6)
    train(model, optimizer, suppression, steps)
    found = suppression.report()
    weight = model.get_parameter("0.weight").detach().abs()
    assert (found.layers[0].smallest, found.layers[0].largest) == (float(weight[weight > 0].min()), float(weight.max()))
    return found


def test_it_says_what_is_masked_now_and_after_each_update() -> None:
    found = report()
    assert [layer.masked for layer in found.layers] == [masked_count(0.9, size) for size in (36, 640, 30)]
    assert (found.weights, found.masked) == (706, 32 + 576 + 27)
    series = found.over_time()
    assert list(series) == ["all layers", "0.weight", "3.weight", "5.weight"]
    for points in series.values():
        assert len(points) == 6
        assert [step for step, _ in points] == sorted({step for step, _ in points})
        assert [share for _, share in points] == sorted(share for _, share in points)
    assert series["3.weight"][-1] == (4 * BATCHES, 0.9)
    assert series["all layers"][-1][1] == found.sparsity == 635 / 706


def test_text_and_table() -> None:
    found = report()
    assert str(found).splitlines() == [
        "step 30: 635 of 706 weights masked (89.9%)",
        "  0.weight   32 of  36 (88.9%)",
        "  3.weight  576 of 640 (90.0%)",
        "  5.weight   27 of  30 (90.0%)",
    ]
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(found)
    text = captured.get()
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in ("3.weight", "640", "576", "90.0%", "all", "635", "89.9%"):
        assert word in text


@pytest.mark.parametrize("kind", ["png", "svg", "pdf", "PNG"])
def test_a_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"sparsity.{kind}"
    report().plot(path)
    assert path.stat().st_size > 1_000
    if kind.lower() == "png":
        with Image.open(path) as image:
            assert image.size == (960, 600)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.png, \.svg or \.pdf"):
        report().plot(tmp_path / "sparsity.gif")
    with pytest.raises(ArgumentError, match="Nothing was masked yet"):
        report(1).plot(tmp_path / "sparsity.png")
    with pytest.raises(ArgumentError, match="path"):
        report().plot(tmp_path / "nowhere" / "sparsity.png")
    assert not list(tmp_path.iterdir())


def test_a_layer_of_which_nothing_or_everything_is_kept() -> None:
    weights = torch.tensor([0.5, -2.0])
    kept = LayerSparsity.of("a", weights, torch.tensor([False, False]))
    gone = LayerSparsity.of("b", weights, torch.tensor([True, True]))
    assert (kept.masked, kept.smallest, kept.largest) == (0, 0.5, 2.0)
    assert (gone.masked, gone.smallest, gone.largest) == (2, 0.0, 0.0)
    assert SparsityReport(0, (kept, gone), ()).sparsity == 0.5
