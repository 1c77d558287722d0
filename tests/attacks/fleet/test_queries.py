"""Queries keep the shape, the record itself comes first, and two calls are one."""

import pytest
import torch
from torch import Tensor

from privet.attacks.membership.fleet import ONE_QUERY, Queries, Query, noisy, shifts_and_flips
from privet.attacks.membership.fleet.digest import digest
from privet.errors import ArgumentError, DataError

IMAGES = torch.arange(2 * 1 * 3 * 4.0).reshape(2, 1, 3, 4)


def asked(queries: Queries, inputs: Tensor) -> dict[str, Tensor]:
    return {query.name: query.of(inputs) for query in queries}


@pytest.mark.parametrize("queries", [ONE_QUERY, shifts_and_flips(), noisy(0.5, 3, seed=1)])
def test_the_record_itself_comes_first_and_all_others_differ(queries: Queries) -> None:
    found = list(asked(queries, IMAGES).values())
    assert torch.equal(found[0], IMAGES)
    for place, one in enumerate(found):
        assert one.shape == IMAGES.shape
        assert not any(torch.equal(one, other) for other in found[:place])


def test_moves_repeat_the_edge_and_mirrors_come_last() -> None:
    found = asked(shifts_and_flips(pixels=1), IMAGES)
    rows = IMAGES[0, 0]
    assert found["right 1"][0, 0, 0].tolist() == [0, 0, 1, 2]
    assert found["left 1"][0, 0, 0].tolist() == [1, 2, 3, 3]
    assert torch.equal(found["down 1"][0, 0], rows[[0, 0, 1]])
    assert torch.equal(found["up 1"][0, 0], rows[[1, 2, 2]])
    assert torch.equal(found["mirrored"], IMAGES.flip(3))
    assert torch.equal(found["right 1, mirrored"], found["right 1"].flip(3))
    assert len(found) == 10


def test_noise_is_the_same_for_every_model_and_of_the_scale_given() -> None:
    inputs = torch.zeros(2_000, 5)
    first, second = (query.of(inputs) for query in list(noisy(0.5, 2, seed=3))[1:])
    assert torch.equal(first, list(noisy(0.5, 2, seed=3))[1].of(inputs))
    assert abs(float(first.std()) - 0.5) < 0.02  # four standard errors are 0.014
    assert abs(float((first * second).mean())) < 0.02


def test_queries_of_other_content_have_other_digests() -> None:
    kinds = [ONE_QUERY, shifts_and_flips(1), shifts_and_flips(2), shifts_and_flips(1, flip=False)]
    kinds += [noisy(0.1, 2, 0), noisy(0.2, 2, 0), noisy(0.1, 2, 1), noisy(0.1, 3, 0)]
    assert len({digest(queries) for queries in kinds}) == len(kinds)
    assert digest(noisy(0.1, 2, 0)) == digest(noisy(0.1, 2, 0))


def test_images_and_floats_are_asked_for_where_they_are_needed() -> None:
    with pytest.raises(DataError, match="are no images"):
        asked(shifts_and_flips(), torch.zeros(3, 4))
    with pytest.raises(DataError, match="floating-point"):
        asked(noisy(0.1, 1, 0), torch.zeros(3, 4, dtype=torch.int64))


def test_a_query_that_changes_the_shape_is_named() -> None:
    with pytest.raises(DataError, match=r"'half' made torch.float32 \(1, 1, 3, 4\)"):
        Query("half", lambda inputs: inputs[:1]).of(IMAGES)


def test_wrong_numbers_are_refused() -> None:
    for wrong in (lambda: shifts_and_flips(-1), lambda: noisy(0.0, 1, 0), lambda: noisy(float("nan"), 1, 0)):
        with pytest.raises(ArgumentError):
            wrong()
    for wrong in (lambda: noisy(1.0, 0, 0), lambda: noisy(1.0, 1, -1), lambda: Queries(())):
        with pytest.raises(ArgumentError):
            wrong()
