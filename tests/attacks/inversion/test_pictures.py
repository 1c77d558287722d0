from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from privet.attacks.inversion import from_best_to_worst, save_grid
from privet.errors import ArgumentError, DataError


def test_the_best_and_the_worst_are_always_shown() -> None:
    distances = torch.rand(50, generator=torch.Generator().manual_seed(0)).tolist()
    chosen = from_best_to_worst(distances, 6)
    shown = [distances[index] for index in chosen]
    assert len(set(chosen.tolist())) == 6
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (min(distances), max(distances))
    assert sorted(from_best_to_worst(distances, 99).tolist()) == list(range(50))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_is_written(tmp_path: Path, channels: int, kind: str) -> None:
    images = torch.rand(7, channels, 5, 9)
    path = tmp_path / f"grid.{kind}"
    save_grid(path, {"original": images, "found": images - 2.0}, range(7), bounds=(0, 1), count=4)
    assert path.stat().st_size > 1_000
    if kind == "png":
        with Image.open(path) as image:
            assert image.size[0] > image.size[1]


def test_each_column_is_one_image_with_its_distance_and_bright_is_white(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    words: list[str] = []
    monkeypatch.setattr(Axes, "imshow", lambda axes, image, **how: shown.append((np.asarray(image), how)))
    monkeypatch.setattr(Axes, "set_xlabel", lambda axes, text, **how: words.append(text))
    images = torch.stack([torch.full((1, 3, 3), level) for level in (10.0, 20.0, 30.0)])
    save_grid(tmp_path / "grid.png", {"original": images}, [0.3, 0.1, 0.2], bounds=(0, 40), count=3)
    assert [float(image.mean()) for image, _ in shown] == pytest.approx([0.5, 0.75, 0.25])
    assert {image.shape for image, _ in shown} == {(3, 3, 3)}  # as colours: no map is laid over them
    assert [float(text) for text in words] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"path": "grid.gif"}, ArgumentError, r"\.png, \.svg or \.pdf"),
        ({"rows": {}}, ArgumentError, "at least one row"),
        ({"count": 1}, ArgumentError, "at least 2 images"),
        ({"rows": {"found": torch.rand(6, 1, 5, 5)}}, DataError, r"found: images of shape \(6, 1, 5, 5\)"),
        ({"rows": {"found": torch.rand(7, 2, 5, 5)}}, DataError, "1 or 3"),
        ({"bounds": (1, 0)}, ArgumentError, "the lower first"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    given = {"path": "grid.png", "rows": {"original": torch.rand(7, 1, 5, 5)}, "bounds": (0, 1), "count": 4} | changed
    path, rows = tmp_path / given.pop("path"), given.pop("rows")
    with pytest.raises(error, match=said):
        save_grid(path, rows, range(7), **given)
    assert not list(tmp_path.iterdir())
