"""A collate function may make of a record only what depends on that record."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from privet.dp.batches import data_source
from privet.errors import PrivateTrainingError


class Texts:
    """Records of some lengths: (words, label)."""

    def __init__(self, *lengths: int) -> None:
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((self._lengths[index],), float(index + 1)), index


def to_the_longest(records: list[Any]) -> Any:
    return pad_sequence([words for words, _ in records], batch_first=True), torch.tensor(
        [label for _, label in records]
    )


def to_eight(records: list[Any]) -> Any:
    padded = torch.zeros(len(records), 8)
    for row, (words, _) in zip(padded, records, strict=True):
        row[: len(words)] = words
    return {"words": padded, "names": [f"text {label}" for _, label in records]}


def read(dataset: object, collate: Any, *pieces: list[int], workers: int = 0) -> list[Any]:
    source = data_source(dataset, collate=collate, workers=workers)
    return [data for piece in pieces for data, _ in source.batch(torch.tensor(piece)).parts()]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("lengths", "pieces"),
    [
        ((3, 3, 5, 3), [[0, 1, 2, 3]]),  # among the first of the first piece
        ((3,) * 20 + (5,), [list(range(21))]),  # the last of it
        ((3, 3, 3, 3, 5), [[0, 1, 2], [3, 4]]),
        ((3, 3, 5, 3, 3, 5), [[0, 1], [3, 4], [2]]),  # alone in its piece, the first of another length
        ((3, 3, 5, 3), [[0, 1], [3], [3, 2, 0]]),
    ],
)
def test_padding_to_the_longest_is_refused(lengths, pieces, workers):
    with pytest.raises(PrivateTrainingError, match=r"how far a record is padded[\s\S]*one length that is fixed"):
        read(Texts(*lengths), to_the_longest, *pieces, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_padding_to_one_length_is_not(workers):
    first, second = read(Texts(3, 5, 8, 1), to_eight, [0, 2], [3, 1, 0], workers=workers)
    assert first["words"].sum(dim=1).tolist() == [3.0, 24.0]
    assert second["names"] == ["text 3", "text 1", "text 0"]


def less_the_mean(records: list[Any]) -> Tensor:
    words = torch.stack([words for words, _ in records])
    return words - words.mean()


def numbered(records: list[Any]) -> Any:
    return np.array([[label + len(records)] for _, label in records])


def named(records: list[Any]) -> Any:
    return [f"{label} of {len(records)}" for _, label in records]


@pytest.mark.parametrize("collate", [less_the_mean, numbered, named])
def test_what_depends_on_the_others_is_refused(collate):
    with pytest.raises(PrivateTrainingError, match="other numbers of a record alone"):
        read(Texts(3, 3, 3), collate, [0, 1, 2])


def masked(records: list[Any]) -> Tensor:
    words = torch.stack([words for words, _ in records])
    return words * (torch.rand(words.shape) < 0.5) + random.random() + np.random.random()  # noqa: NPY002


def test_what_is_drawn_at_random_is_not_and_draws_what_it_would_have_drawn():
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(4)
    found = read(Texts(3, 3, 3), masked, [0, 1, 2], [2, 0])
    for seeded in (torch.manual_seed, random.seed, np.random.seed):
        seeded(4)
    data = Texts(3, 3, 3)
    for one, piece in zip(found, ([0, 1, 2], [2, 0]), strict=True):
        assert torch.equal(one, masked([data[index] for index in piece]))


def test_nan_is_the_same_as_nan():
    assert read(Texts(3, 3), lambda records: torch.full((len(records), 2), torch.nan), [0, 1])
