"""The blind attacker finds sets that differ in distribution, by whatever trace, and nothing else."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from privet.attacks.membership import MembershipScores, Pool
from privet.attacks.membership import blind as attack
from privet.attacks.membership.halves import Halves, halves
from privet.attacks.membership.looks import looks_of
from privet.data import mnist5k
from privet.errors import ArgumentError, DataError, SampleTooSmallError
from privet.statistics import auc_interval

room = importlib.import_module("privet.attacks.membership.blind")  # the package calls the attack by the same name
LIMIT = 0.52  # the lower end of the area at 99%, above which an audit is called invalid


def low(scores: MembershipScores) -> float:
    return auc_interval(scores.members, scores.non_members, seed=0, confidence=0.99).low


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """2,000 real digits (N, 1, 28, 28), in random order."""
    data = mnist5k()
    chosen = torch.randperm(len(data.inputs), generator=torch.Generator().manual_seed(0))[:2_000]
    return data.inputs[chosen], data.labels[chosen]


def split(records: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor] = lambda x: x) -> Pool:
    inputs, labels = records
    half = len(labels) // 2
    return Pool.of((inputs[:half], labels[:half]), (change(inputs[half:]), labels[half:]), classes=10)


def noise(inputs: Tensor) -> Tensor:
    return inputs + 0.02 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))


def resized(inputs: Tensor) -> Tensor:
    return interpolate(interpolate(inputs, 31, mode="bilinear"), 28, mode="bilinear")


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x + 0.01,
    "brightness": lambda x: x * 0.97,
    "contrast": lambda x: x**1.1,
    "noise": noise,
    "pixels over 256": lambda x: x * 255.0 / 256.0,
    "half precision": lambda x: x.half().float(),
    "fewer bits": lambda x: (x * 63.0).round() / 63.0,
    "resized": resized,
    "shifted": lambda x: torch.roll(x, 1, -1),
    "mirrored": lambda x: x.flip(-1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_images_prepared_in_another_way_are_found(
    images: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor]
) -> None:
    assert low(attack(split(images, change), seed=0)) > 0.6


def gaussian(count: int, seed: int, *, width: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator), torch.randint(0, 10, (count,), generator=generator)


def correlated(inputs: Tensor) -> Tensor:
    return torch.cat((inputs[:, :1], 0.8 * inputs[:, :1] + 0.6 * inputs[:, 1:2], inputs[:, 2:]), 1)


TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean of all": lambda x: x + 0.2,
    "mean of one": lambda x: torch.cat((x[:, :1] + 1.0, x[:, 1:]), 1),
    "spread of all": lambda x: x * 1.1,
    "spread of one": lambda x: torch.cat((x[:, :1] * 2.0, x[:, 1:]), 1),
    "correlation": correlated,
    "one decimal": lambda x: torch.round(x, decimals=1),
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_tables_of_another_distribution_are_found(change: Callable[[Tensor], Tensor]) -> None:
    assert low(attack(split(gaussian(4_000, 0), change), seed=0)) > LIMIT


def test_another_balance_of_the_classes_is_found() -> None:
    (inputs, labels), generator = gaussian(4_000, 0), torch.Generator().manual_seed(1)
    shares = torch.tensor([1.0] * 9 + [5.0])
    labels[2_000:] = torch.multinomial(shares, 2_000, replacement=True, generator=generator)
    assert low(attack(split((inputs, labels)), seed=0)) > LIMIT


def test_labels_that_fit_their_inputs_worse_are_found() -> None:
    (inputs, labels), generator = gaussian(4_000, 0, width=3), torch.Generator().manual_seed(1)
    inputs = inputs + 2.0 * labels[:, None]
    labels[2_000:] = labels[2_000:][torch.randperm(2_000, generator=generator)]
    assert low(attack(split((inputs, labels)), seed=0)) > LIMIT


def quiet(scores: MembershipScores) -> bool:
    """Whether nothing is found, at a confidence of 0.999."""
    area = auc_interval(scores.members, scores.non_members, seed=0, confidence=0.999)
    return area.low <= 0.5 <= area.high


@pytest.mark.parametrize("seed", range(4))
def test_sets_of_one_distribution_are_not_told_apart(images: tuple[Tensor, Tensor], seed: int) -> None:
    order = torch.randperm(2_000, generator=torch.Generator().manual_seed(seed))
    shuffled = images[0][order], images[1][order]
    assert quiet(attack(split(shuffled), seed=seed))
    assert quiet(attack(split(gaussian(1_000, seed)), seed=seed))


def test_scoring_the_training_half_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(is_member: NDArray[np.bool_], **how: Any) -> Halves:
        parts = halves(is_member, **how)
        learned = np.sort(parts.training)
        return Halves(parts.training, learned[is_member[learned]], learned[~is_member[learned]], is_member)

    null = split(gaussian(1_000, 0))
    assert quiet(attack(null, seed=0))
    monkeypatch.setattr(room, "halves", seen)
    assert not quiet(attack(null, seed=0))


def test_copies_within_a_set_teach_nothing_about_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = gaussian(300, 0, width=60)
    rows = torch.cat((torch.arange(150).repeat(4), torch.arange(150, 300).repeat(4)))
    pool = Pool(inputs[rows], labels[rows], 600, 10)  # Pool.of refuses so many
    assert quiet_of_copies(attack(pool, seed=0))

    def apart(is_member: NDArray[np.bool_], *, copies: object, **how: Any) -> Halves:
        return halves(is_member, **how)

    monkeypatch.setattr(room, "halves", apart)
    assert not quiet_of_copies(attack(pool, seed=0))


def quiet_of_copies(scores: MembershipScores) -> bool:
    """As :func:`quiet`, each score counted once."""
    area = auc_interval(np.unique(scores.members), np.unique(scores.non_members), seed=0, confidence=0.999)
    return area.low <= 0.5 <= area.high


def test_what_is_held_out_teaches_nothing(images: tuple[Tensor, Tensor]) -> None:
    before = split((images[0][:400], images[1][:400]))
    first = attack(before, seed=3)
    rows = first.member_rows
    assert rows is not None
    inputs = before.inputs.clone()
    inputs[rows[:20]] = 1e3 * (1.0 + inputs[rows[:20]])  # far from all: scales and directions fitted on it would move
    second = attack(Pool(inputs, before.labels, before.members, 10), seed=3)
    assert second.member_rows is not None
    assert np.array_equal(second.member_rows, rows)
    assert np.allclose(second.members[20:], first.members[20:], rtol=0, atol=1e-9)
    assert np.allclose(second.non_members, first.non_members, rtol=0, atol=1e-9)
    assert not np.allclose(second.members[:20], first.members[:20])


@settings(max_examples=25)
@given(
    shape=st.sampled_from([(), (1,), (2,), (3, 2), (1, 4, 4), (3, 9, 5), (2, 3, 4, 4), (5_000,)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.uint8, torch.int64, torch.bool]),
    scale=st.sampled_from([0.0, 1.0, 1e-30, 1e4]),
)
def test_looks_are_finite_and_of_each_record_alone(shape: tuple[int, ...], dtype: torch.dtype, scale: float) -> None:
    values = scale * torch.rand(7, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = values.clamp(0, 255).to(dtype) if not dtype.is_floating_point else values.to(dtype)
    looks = looks_of(inputs)
    assert looks.dtype == torch.float32
    assert torch.isfinite(looks).all()
    assert torch.equal(looks_of(inputs[2:5]), looks[2:5])


@pytest.mark.parametrize("shape", [(), (1,), (3, 20, 20), (3, 64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_records_of_every_shape_and_type_are_read(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size = 256 if shape else 60
    inputs = torch.rand(60, *shape, generator=generator, dtype=torch.float64) * size
    if not shape or shape == (1,):
        inputs = (torch.arange(60.0, dtype=torch.float64) * 3).reshape(60, *shape)
    labels = torch.randint(0, 300, (60,), generator=generator)
    inputs = inputs.to(dtype)
    scores = attack(Pool.of((inputs[:30], labels[:30]), (inputs[30:], labels[30:]), classes=300), seed=0)
    assert np.isfinite(scores.members).all()
    assert (len(scores.members), len(scores.non_members)) == (15, 15)


def test_values_beyond_the_squares_of_float32_are_read() -> None:
    inputs, labels = gaussian(80, 0)
    scores = attack(split((inputs.double() * 1e300, labels)), seed=0)
    assert np.isfinite(scores.members).all()


def test_the_same_seed_makes_the_same_attack() -> None:
    pool = split(gaussian(200, 0))
    first, second, other = (attack(pool, seed=seed) for seed in (5, 5, 6))
    assert first.attack == "blind"
    assert np.array_equal(first.members, second.members)
    assert not np.array_equal(first.members, other.members)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SampleTooSmallError, match="19 members"):
        attack(split(gaussian(38, 0)), seed=0)
    pool = split(gaussian(60, 0))
    with pytest.raises(ArgumentError, match="seed"):
        attack(pool, seed=-1)
    with pytest.raises(DataError, match="is_member"):
        attack(pool, seed=0, is_member=np.ones(3, dtype=np.bool_))
