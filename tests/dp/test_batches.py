"""A batch holds exactly the chosen records, in order, whatever the data set is made of and however it is cut."""

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from privet.data import Examples
from privet.dp.batches import Batch, data_source, length_of, map_tensors, slice_data
from privet.errors import ArgumentError, PrivateTrainingError

N = 30
X = torch.arange(N * 6, dtype=torch.float32).reshape(N, 2, 3)
Y = torch.arange(N) % 7
Pair = namedtuple("Pair", "inputs labels")


class Records(Dataset[tuple[torch.Tensor, int]]):
    """A map-style data set that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.asked.append(index)
        return X[index], int(Y[index])


class Several(Records):
    """One that reads several records at once."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        raise AssertionError("one at a time is not the way to read this data set")

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        return [(X[index], int(Y[index])) for index in indices]


class Columns:
    """No data set, but it has inputs and labels."""

    inputs, labels = X, Y


class Doubling(Columns, Records):
    """Has the columns too, but what it gives is not their rows."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return 2 * X[index], int(Y[index])


class DoublingTensors(TensorDataset):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return 2 * X[index], Y[index]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(N))


SOURCES: dict[str, Any] = {
    "tuple": (X, Y),
    "list": [X, Y],
    "dict": {"x": X, "y": Y},
    "ordered dict": OrderedDict(x=X, y=Y),
    "named tuple": Pair(X, Y),
    "nested": ({"x": X}, Y),
    "numpy": (X.numpy(), Y.numpy()),
    "numpy backwards": (X.numpy()[::-1].copy()[::-1], Y.numpy().astype(">i8")),
    "TensorDataset": TensorDataset(X, Y),
    "columns": Columns(),
    "Examples": Examples(X, Y, tuple("abcdefg"), "the test"),
    "list of records": [(X[index], int(Y[index])) for index in range(N)],
    "map-style": Records(),
    "several at once": Several(),
    "subset": Subset(Records(), range(N)),
}


def flat(data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs and labels of any structure of SOURCES."""
    values = list(data.values()) if isinstance(data, dict) else list(data)
    inputs = values[0]["x"] if isinstance(values[0], dict) else values[0]
    return inputs, values[1]


@pytest.mark.parametrize("name", SOURCES)
@given(chosen=st.lists(st.integers(0, N - 1), unique=True).map(sorted), most=st.none() | st.integers(1, N))
def test_the_parts_are_the_chosen_records_in_order(name: str, chosen: list[int], most: int | None) -> None:
    source = data_source(SOURCES[name])
    batch = source.batch(torch.tensor(chosen, dtype=torch.int64))
    assert (source.size, batch.size, batch.empty) == (N, len(chosen), not chosen)
    parts = list(batch.parts(most))
    sizes = [size for _, size in parts]
    assert sum(sizes) == len(chosen)
    assert all(1 <= size <= (most or N) for size in sizes)
    assert len(parts) == -(-len(chosen) // (most or N))
    inputs = torch.cat([X[:0], *(flat(data)[0] for data, _ in parts)])
    labels = torch.cat([Y[:0], *(flat(data)[1] for data, _ in parts)])
    assert torch.equal(inputs, X[chosen])
    assert torch.equal(labels, Y[chosen])


def test_one_tensor_gives_a_tensor_and_keeps_its_structure_otherwise() -> None:
    indices = torch.tensor([1, 4])
    for data, kind in ((X, torch.Tensor), ((X, Y), tuple), ([X, Y], list), ({"x": X}, dict), (Pair(X, Y), Pair)):
        [(part, size)] = data_source(data).batch(indices).parts()
        assert type(part) is kind
        assert size == length_of(part) == 2


def test_an_empty_batch_reads_nothing() -> None:
    records = Records()
    batch = data_source(records).batch(torch.empty(0, dtype=torch.int64))
    assert batch.empty
    assert list(batch.parts()) == list(batch.parts(4)) == []
    assert records.asked == []


def test_a_batch_reads_only_its_own_records_and_only_when_asked() -> None:
    records = Records()
    batch = data_source(records).batch(torch.tensor([2, 9, 11]), most=2)
    assert records.asked == []
    parts = batch.parts()
    next(parts)
    assert records.asked == [2, 9]
    next(parts)
    assert records.asked == [2, 9, 11]


def test_parts_are_given_again_until_the_batch_is_spent() -> None:
    batch = data_source((X, Y)).batch(torch.tensor([2, 9, 11]))
    first, again = list(batch.parts(2)), list(batch.parts(2))
    assert [size for _, size in first] == [2, 1]
    assert all(torch.equal(a[0], b[0]) for (a, _), (b, _) in zip(first, again, strict=True))
    batch.spent = True
    with pytest.raises(PrivateTrainingError, match="already used"):
        batch.parts(2)


def test_what_is_shown_of_a_batch_tells_nothing_of_its_records() -> None:
    batches = [data_source(X).batch(torch.arange(k)) for k in (0, 1, 17)]
    assert len({repr(batch) for batch in batches}) == 1


def test_the_size_of_parts_may_be_given_with_the_batch() -> None:
    batch = data_source(X).batch(torch.arange(5), most=2)
    assert [size for _, size in batch.parts()] == [2, 2, 1]
    assert [size for _, size in batch.parts(4)] == [4, 1]


def test_workers_give_the_same_parts_batch_after_batch() -> None:
    source, plain = data_source(Records(), workers=2), data_source(Records())
    generator = torch.Generator().manual_seed(1)
    for most in (None, 3, 4):
        chosen = torch.randperm(N, generator=generator)[:11]  # any order is kept
        read, wanted = (list(one.batch(chosen).parts(most)) for one in (source, plain))
        assert [size for _, size in read] == [size for _, size in wanted]
        for (a, _), (b, _) in zip(read, wanted, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
        assert list(source.batch(chosen[:0]).parts()) == []


def test_workers_read_one_batch_at_a_time() -> None:
    source = data_source(Records(), workers=1)
    first = source.batch(torch.arange(6), most=2).parts()
    next(first)
    second = source.batch(torch.arange(6, 12), most=2).parts()
    assert torch.equal(next(second)[0][0], X[6:8])
    with pytest.raises(PrivateTrainingError, match="one batch at a time"):
        next(first)
    assert [size for _, size in second] == [2, 2]


def test_a_transform_on_reading_is_not_passed_by() -> None:
    for dataset in (Doubling(), DoublingTensors(X, Y)):
        [(data, _)] = data_source(dataset).batch(torch.tensor([3, 4])).parts()
        assert torch.equal(data[0], 2 * X[3:5])


def test_data_are_moved_to_the_device() -> None:
    for dataset in ((X, Y), Records()):
        [(data, _)] = data_source(dataset, device="meta").batch(torch.tensor([3, 4])).parts()
        assert {tensor.device.type for tensor in data} == {"meta"}


def test_a_collate_function_is_used_and_must_keep_every_record() -> None:
    batch = data_source(Records(), collate=lambda records: {"n": [label for _, label in records]}).batch(
        torch.arange(3)
    )
    [(data, size)] = batch.parts()
    assert (data, size) == ({"n": [0, 1, 2]}, 3)
    short = data_source(Records(), collate=lambda records: X[: len(records) - 1]).batch(torch.arange(3))
    with pytest.raises(PrivateTrainingError, match="hold 2 records where 3"):
        list(short.parts())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (DataLoader(TensorDataset(X, Y)), "give loader.dataset"),
        (Stream(), "independently"),
        ((row for row in X), "independently"),
        (iter([1, 2]), "independently"),
        (RandomSampler(range(3)), "no other sampler"),
        (SequentialSampler(range(3)), "no other sampler"),
        (WeightedRandomSampler([0.5, 0.5], 2), "no other sampler"),
        (BatchSampler(SequentialSampler(range(3)), 2, False), "no other sampler"),
        ("text", "by their index"),
        (3, "by their index"),
        (None, "by their index"),
        ({1, 2}, "by their index"),
        ((X, Y[:-1]), "lengths"),
        ((X, 3), "dense tensors"),
        (X[0, 0, 0], "dense tensors"),
        ([], "at least one record"),
        ((), "same number everywhere"),
        ({}, "same number everywhere"),
        (X[:0], "at least one record"),
        (X.to_sparse(), "dense tensors"),
        (X.clone().requires_grad_(), "detach"),
        ((X, np.array(["a"] * N)), "arrays of numbers"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_what_cannot_be_drawn_from_is_refused_with_a_remedy(dataset: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        data_source(dataset)


def test_arguments_out_of_range_are_refused() -> None:
    source = data_source(X)
    for indices in ([[1]], [0.5], [N], [-1]):
        with pytest.raises(ArgumentError, match="indices"):
            source.batch(torch.tensor(indices))
    for most in (0, -1, True, 2.0):
        with pytest.raises(ArgumentError, match="most"):
            source.batch(torch.arange(3), most)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="most"):
            source.batch(torch.arange(3)).parts(most)  # type: ignore[arg-type]
    for workers in (-1, 1.0, True):
        with pytest.raises(ArgumentError, match="workers"):
            data_source(Records(), workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="collate"):
        data_source(X, collate=list)


def structures(size: int) -> st.SearchStrategy[Any]:
    rows = st.sampled_from(
        [torch.arange(size), torch.zeros(size, 2), [str(i) for i in range(size)], tuple(b"" for _ in range(size))]
        if size
        else [torch.zeros(0, 2)]
    )
    return st.recursive(
        rows,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.tuples(inner, inner),
            st.builds(Pair, inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
            st.builds(lambda value: UserDict(a=value), inner),
        ),
        max_leaves=5,
    )


@given(st.data(), st.integers(0, 6))
def test_slices_put_together_are_the_data(data: st.DataObject, size: int) -> None:
    whole = data.draw(structures(size))
    start = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(start, size))
    part = slice_data(whole, start, stop)
    assert length_of(whole) == size
    assert shape(part) == shape(whole)
    for leaf, row in zip(leaves(part), leaves(whole), strict=True):
        assert len(leaf) == stop - start
        assert list(map(str, leaf)) == list(map(str, row))[start:stop]


def shape(data: Any) -> Any:
    if isinstance(data, dict | UserDict):
        return type(data), {key: shape(value) for key, value in data.items()}
    if isinstance(data, list | tuple) and data and not isinstance(data[0], str | bytes):
        return type(data), [shape(value) for value in data]
    return "leaf"


def leaves(data: Any) -> list[Any]:
    if isinstance(data, dict | UserDict):
        return [leaf for value in data.values() for leaf in leaves(value)]
    if isinstance(data, list | tuple) and data and not isinstance(data[0], str | bytes):
        return [leaf for value in data for leaf in leaves(value)]
    return [data]


def test_tensors_are_mapped_and_nothing_else_is_touched() -> None:
    data = {"x": X, "names": ["a"] * N, "inner": (Y, [Y])}
    mapped = map_tensors(data, lambda tensor: tensor + 1)
    assert torch.equal(mapped["x"], X + 1)
    assert torch.equal(mapped["inner"][1][0], Y + 1)
    assert mapped["names"] is data["names"]
    assert torch.equal(data["inner"][0], torch.arange(N) % 7)


@pytest.mark.parametrize("data", [3, "text", None, torch.tensor(1.0), (X, None), {"x": X, "n": 3}, (X, object())])
def test_what_has_no_examples_is_refused(data: object) -> None:
    for function in (length_of, lambda value: slice_data(value, 0, 1), lambda value: map_tensors(value, torch.abs)):
        with pytest.raises(ArgumentError, match="data"):
            function(data)


def test_lengths_that_differ_and_slices_outside_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"lengths \[29, 30\]"):
        length_of((X, Y[1:]))
    for start, stop in ((-1, 2), (2, 1), (0, N + 1)):
        with pytest.raises(ArgumentError, match="start"):
            slice_data(X, start, stop)


def test_a_batch_is_the_one_type() -> None:
    assert isinstance(data_source(X).batch(torch.arange(2)), Batch)
