"""Originals and reconstructions side by side, from the best to the worst."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from privet.atomic_file import check_destination, replacing
from privet.attacks.inversion.priors import Pixels
from privet.errors import ArgumentError, DataError

__all__ = ["from_best_to_worst", "save_grid"]

_FORMATS = ("png", "svg", "pdf")


def from_best_to_worst(distances: ArrayLike, count: int) -> NDArray[np.intp]:
    """Choose images for a picture: the best, the worst, and evenly between, never the best alone.

    Args:
        distances: of each image from its original (N,).
        count: how many to show, at least 2; all where there are fewer.

    Returns:
        Their indices, by rising distance.

    Raises:
        ArgumentError: there is none, or one alone would be shown.

    Example:
        >>> from_best_to_worst([0.3, 0.1, 0.5, 0.2, 0.4], 3)
        array([1, 0, 2])
    """
    order = np.argsort(np.asarray(distances), kind="stable")
    if count < 2 or not len(order):
        raise ArgumentError("count", count, "at least 2 images to show, the best and the worst, and one there is")
    if count >= len(order):
        return order
    return order[np.linspace(0, len(order) - 1, count).round().astype(np.intp)]


def save_grid(
    path: str | Path, rows: Mapping[str, Tensor], distances: ArrayLike, *, bounds: Any = (0.0, 1.0), count: int = 12
) -> None:
    """Draw rows of images, each column one image, sorted from the best reconstruction to the worst.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``; written over where it exists, in one step.
        rows: images (N, C, H, W) by the name of the row, C of 1 or 3; the originals first.
        distances: what the columns are sorted by (N,), written under the last row.
        bounds: the least and the most that a pixel may be.
        count: columns, at least 2.

    Raises:
        ArgumentError: the path has another ending, or there are no rows or columns.
        DataError: rows are not of as many images as there are distances, or not of 1 or 3 channels.
        FileWriteError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    pixels, values = Pixels.of(bounds), np.asarray(distances, dtype=np.float64)
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise ArgumentError("path", str(path), "a file whose name ends in .png, .svg or .pdf")
    if not rows:
        raise ArgumentError("rows", sorted(rows), "at least one row")
    for name, images in rows.items():
        if images.dim() != 4 or len(images) != len(values) or images.shape[1] not in (1, 3):
            raise DataError(f"{name}: images of shape {tuple(images.shape)}; give ({len(values)}, 1 or 3, H, W).")
    destination = check_destination("path", path)
    chosen = from_best_to_worst(values, count)
    figure = Figure(figsize=(1.1 + 0.8 * len(chosen), 0.35 + 0.85 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for index, place in zip(chosen, line, strict=True):
            shown = pixels.share(images[index].detach().cpu().double()).clamp(0.0, 1.0).permute(1, 2, 0).numpy()
            place.imshow(shown.repeat(3 // shown.shape[2], axis=2), interpolation="nearest")
            place.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for index, place in zip(chosen, axes[-1], strict=True):
        place.set_xlabel(f"{values[index]:.2f}", fontsize=9)
    with replacing(destination) as file:
        figure.savefig(file, format=kind, dpi=150)
