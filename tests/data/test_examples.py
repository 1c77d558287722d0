"""What an Examples holds is valid, and its parts are parts of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from privet.data import Examples
from privet.errors import ArgumentError, DataError, LabelError


def rows(count: int, classes: int = 3) -> Examples:
    inputs = torch.arange(count, dtype=torch.float32)[:, None] * torch.ones(2)
    return Examples(inputs, torch.arange(count) % classes, tuple("abcdefghij"[:classes]), "rows")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, -100, 1]), "labels[1] = -100"),
        (torch.tensor([0, 1, -1]), "labels[2] = -1"),
        (torch.tensor([3, 1, 1]), "labels[0] = 3"),
        (torch.tensor([0.0, 1.0, 2.0]), "torch.float32"),
        (torch.tensor([0.0, float("nan"), 2.0]), "torch.float32"),
        (torch.tensor([True, False, True]), "torch.bool"),
        (torch.tensor([[0], [1], [2]]), "shape (3, 1)"),
        (torch.tensor([], dtype=torch.int64), "no labels"),
    ],
)
def test_labels_outside_the_classes_are_refused_with_value_and_index(labels: torch.Tensor, said: str) -> None:
    with pytest.raises(LabelError) as caught:
        Examples(torch.rand(3, 2), labels, ("a", "b", "c"), "here")
    assert said in str(caught.value)
    assert str(caught.value).startswith("here: ")
    assert "from 0 to 2" in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [0.0, 0.0]]), "inputs[1, 0] = nan"),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, float("inf")]]), "inputs[2, 1] = inf"),
        (torch.tensor([[0.0, -float("inf")], [0.0, 0.0], [0.0, 1.0]]), "inputs[0, 1] = -inf"),
        (torch.zeros(3, 2, dtype=torch.int64), "torch.int64"),
        (torch.zeros(3, 2, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(3, 2).to_sparse(), "sparse"),
        (torch.zeros(3), "shape (3,)"),
        (torch.zeros(3, 0), "shape (3, 0)"),
        (torch.zeros(0, 2), "shape (0, 2)"),
        (torch.zeros(2, 2), "2 inputs and 3 labels"),
        (np.zeros((3, 2)), "ndarray"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(inputs: torch.Tensor, said: str) -> None:
    with pytest.raises(DataError) as caught:
        Examples(inputs, torch.tensor([0, 1, 2]), ("a", "b", "c"), "here")
    assert said in str(caught.value)


UNSEEN = [("a", f"b{unseen}c") for unseen in "\u202e\u2066\u200b\u200d\ufeff\u00ad\u2028\u2029\x85"] + [
    ("a", "b" * 1001)
]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ["a", "b"],
        ("a", "a"),
        ("a", ""),
        ("a", " "),
        ("a", "b\n"),
        ("a", "\x1b[2J"),
        ("a", "\ud800"),
        ("a", 1),
        *UNSEEN,
    ],
)
def test_class_names_are_distinct_printable_text(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"here: class_names"):
        Examples(torch.rand(2, 2), torch.tensor([0, 1]), names, "here")


@pytest.mark.parametrize("source", ["", None, 3])
def test_source_is_text(source: str) -> None:
    with pytest.raises(DataError, match="source"):
        Examples(torch.rand(2, 2), torch.tensor([0, 1]), ("a", "b"), source)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_become_int64_whatever_integers_they_were(dtype: torch.dtype) -> None:
    examples = Examples(torch.rand(3, 2), torch.tensor([2, 0, 1], dtype=dtype), ("a", "b", "c"), "here")
    assert examples.labels.dtype == torch.int64
    assert examples.labels.tolist() == [2, 0, 1]


def test_it_is_a_dataset_that_a_loader_reads() -> None:
    examples = rows(7)
    inputs, labels = next(iter(DataLoader(examples, batch_size=7)))
    assert torch.equal(inputs, examples.inputs)
    assert torch.equal(labels, examples.labels)
    assert [label for _, label in examples] == examples.labels.tolist()
    assert type(examples[-1][1]) is int
    with pytest.raises(IndexError, match="index = 7"):
        examples[7]
    with pytest.raises(ArgumentError, match="take"):
        examples[1:3]  # type: ignore[index]


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        rows(3).labels = torch.zeros(3)  # type: ignore[misc]


@given(st.data())
def test_parts_are_disjoint_and_of_the_sizes_asked_for(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    examples = rows(sum(sizes) + data.draw(st.integers(0, 5)))
    parts = examples.split(*sizes, seed=data.draw(st.integers(0, 2**63 - 1)))
    assert [len(part) for part in parts] == sizes
    taken = torch.cat([part.inputs[:, 0] for part in parts])
    assert len(set(taken.tolist())) == sum(sizes)
    for part in parts:
        assert torch.equal(part.labels, part.inputs[:, 0].long() % 3)  # each input kept its own label


def test_a_split_is_a_function_of_its_seed_and_shuffles() -> None:
    examples = rows(100)
    first, again, other = (examples.split(50, seed=seed)[0].inputs[:, 0].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) != list(range(50))


def test_a_split_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    rows(10).split(5, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("sizes", [(), (0,), (-1, 2), (11,), (5, 6), (2.0,), (True,), ("3",)])
def test_impossible_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="sizes"):
        rows(10).split(*sizes, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, None, True])
def test_impossible_seeds_are_refused(seed: int) -> None:
    with pytest.raises(ArgumentError, match="seed"):
        rows(10).split(5, seed=seed)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_take_keeps_order_and_repeats(kind: type) -> None:
    part = rows(10).take(kind([4, 0, 4]))
    assert part.inputs[:, 0].tolist() == [4.0, 0.0, 4.0]
    assert part.labels.tolist() == [1, 0, 1]
    assert part.source == "rows (3 of 10)"


def test_take_copies() -> None:
    whole = rows(4)
    whole.take(range(4)).inputs.zero_()
    assert whole.inputs[3, 0] == 3


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ([], "indices"),
        ([0, 10], "indices[1] = 10"),
        ([0, 1, -1], "indices[2] = -1"),
        ([0.5], "indices"),
        ([[0]], "indices"),
        ("ab", "indices"),
        (None, "indices"),
        ([2**70], "indices"),
        ([True] * 10, "nonzero"),
    ],
)
def test_indices_that_name_no_example_are_refused(indices: list[int], said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        rows(10).take(indices)
    assert said in str(caught.value)
