"""Any map-style dataset becomes Examples, item for item, or is refused by the index."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from privet.data import Examples, digits, from_dataset
from privet.errors import ArgumentError, DataError, LabelError


class Items(Dataset):
    def __init__(self, *items: object) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


ROW = torch.zeros(2)


def test_items_are_kept_in_order() -> None:
    inputs, labels = torch.rand(6, 3), torch.tensor([2, 0, 1, 1, 0, 2])
    examples = from_dataset(TensorDataset(inputs, labels))
    assert torch.equal(examples.inputs, inputs)
    assert torch.equal(examples.labels, labels)
    assert examples.class_names == ("0", "1", "2")


@pytest.mark.parametrize(("limit", "count"), [(None, 6), (1, 1), (4, 4), (6, 6), (99, 6)])
def test_limit_takes_the_first(limit: int | None, count: int) -> None:
    inputs = torch.arange(12.0).reshape(6, 2)
    examples = from_dataset(TensorDataset(inputs, torch.zeros(6, dtype=torch.int64)), limit=limit)
    assert torch.equal(examples.inputs, inputs[:count])
    assert ("the first" in examples.source) == (count < 6)


def test_limit_reads_no_further() -> None:
    assert len(from_dataset(Items((ROW, 0), (ROW, 1), "broken"), limit=2)) == 2


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "2"])
def test_impossible_limits_are_refused(limit: int) -> None:
    with pytest.raises(ArgumentError, match="limit"):
        from_dataset(Items((ROW, 0)), limit=limit)


@pytest.mark.parametrize(
    "label", [1, np.int32(1), np.uint8(1), torch.tensor(1), torch.tensor(1, dtype=torch.uint8), np.array(1)]
)
def test_any_integer_is_a_label(label: object) -> None:
    assert from_dataset(Items((ROW, 0), (ROW, label))).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "label",
    [1.0, True, np.bool_(True), np.float32(1), torch.tensor(1.0), torch.tensor([1]), "1", None, -1, -100, 2**63],
)
def test_anything_else_is_none(label: object) -> None:
    with pytest.raises(LabelError, match=r"Items\[1\]"):
        from_dataset(Items((ROW, 0), (ROW, label)))


def test_a_label_too_large_for_a_class_is_refused() -> None:
    with pytest.raises(LabelError, match=r"labels\[1\] = 1000000"):
        from_dataset(Items((ROW, 0), (ROW, 1_000_000)))


@pytest.mark.parametrize(
    "item",
    [ROW, (ROW,), (ROW, 0, 0), {"x": ROW, "y": 0}, None, (torch.zeros(3), 0), (ROW.double(), 0), (ROW.long(), 0),
     ("text", 0), ([0.0, 0.0], 0), (np.array(["a", "b"]), 0), (np.zeros(2), 0)],
)  # fmt: skip
def test_an_item_unlike_the_first_is_named(item: object) -> None:
    with pytest.raises(DataError, match=r"Items\[1\]"):
        from_dataset(Items((ROW, 0), item))


def test_not_a_number_is_named() -> None:
    with pytest.raises(DataError, match=r"inputs\[1, 0\] = nan"):
        from_dataset(Items((ROW, 0), (ROW * torch.nan, 0)))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_images_of_bytes_are_scaled(shape: tuple[int, ...], kind: type) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    examples = from_dataset(Items((kind(pixels), 0)))
    assert examples.inputs.shape == (1, *((1, *shape)[-3:]))
    assert np.array_equal(examples.inputs.numpy().reshape(shape), pixels.astype(np.float32) / 255)


def test_names_come_from_the_caller_then_the_dataset() -> None:
    dataset = Items((ROW, 0))
    dataset.classes = ["cat", "dog"]
    assert from_dataset(dataset).class_names == ("cat", "dog")
    assert from_dataset(dataset, class_names=("a", "b", "c")).class_names == ("a", "b", "c")
    assert from_dataset(digits(), limit=3).class_names == digits().class_names
    with pytest.raises(LabelError, match="labels"):
        from_dataset(Items((ROW, 1)), class_names=("a",))


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[object]:
        yield ROW, 0


@pytest.mark.parametrize("dataset", [Stream(), iter([(ROW, 0)]), None, Dataset()])
def test_a_dataset_without_members_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ArgumentError, match="map-style"):
        from_dataset(dataset)


def test_an_iterable_dataset_is_told_why() -> None:
    with pytest.raises(ArgumentError, match="no members and non-members"):
        from_dataset(Stream())


def test_nothing_is_no_data_set() -> None:
    with pytest.raises(DataError, match="no examples"):
        from_dataset(Items())


def test_too_much_is_refused_before_it_is_allocated() -> None:
    class Endless(Items):
        def __len__(self) -> int:
            return 2**40

    with pytest.raises(ArgumentError, match="limit"):
        from_dataset(Endless((ROW, 0)))
    assert isinstance(from_dataset(Endless((ROW, 0)), limit=1), Examples)
