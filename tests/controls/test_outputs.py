"""Sabotaged output defenses: each planted fault is caught by the law that the real defenses obey.

The fault is planted in the library itself, in the one function that does the step, and the same law is first shown to
hold without it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.outputs import laws
from tests.outputs.laws import Expected

from privet import outputs
from privet.outputs import defense, numerics, part, steps

SPREAD = torch.randn(40, 30, generator=torch.Generator().manual_seed(11)) * 3
MANY = torch.randn(300, 1000, generator=torch.Generator().manual_seed(13)) * 2
TIED = laws.tied(12, (40, 300))
HALVES = torch.tensor([[0.125, 0.375, 0.625], [-0.125, -0.375, 2.5]])


def rounding(network, **kwargs):
    return outputs.Rounding(network, 2, **kwargs)


def top(network, **kwargs):
    return outputs.TopK(network, 3, **kwargs)


def nested(network, **kwargs):
    return outputs.TopK(outputs.Rounding(network, 2, **kwargs), 3)


def raw(network, **kwargs):
    return outputs.Rounding(network, 2, softmax=False, **kwargs)


def exact(make, logits, **expected) -> Callable[[], None]:
    return lambda: laws.law_exact(make(laws.identity()), logits, Expected(**expected))


def truncated(real):
    def fault(scores, decimals, *, softmax, whole):
        values = numerics.probabilities(scores) if softmax else scores
        return (values.double() * 10**decimals).trunc().div(10**decimals).to(scores.dtype)

    return fault


def half_away(real):
    def fault(scores, decimals, *, softmax, whole):
        scaled = (numerics.probabilities(scores) if softmax else scores).double() * 10**decimals
        return (scaled.sign() * (scaled.abs() + 0.5).floor() / 10**decimals).to(scores.dtype)

    return fault


def in_the_narrow_type(real):
    def fault(scores, decimals, *, softmax, whole):
        return torch.round((torch.softmax(scores, -1) if softmax else scores) * 10**decimals) / 10**decimals

    return fault


def decided_in_single(real):
    def fault(flat, decimals):
        return torch.round(torch.softmax(flat.float(), -1) * 10**decimals) / 10**decimals

    return fault


def first_rows_only(real):
    def fault(scores, decimals, *, softmax, whole):
        result = scores.clone()
        result[:65] = real(scores[:65], decimals, softmax=softmax, whole=True)
        return result

    return fault


def unstable(real):
    def fault(scores, k):
        values, indices = torch.topk(scores.flip(-1), k)  # of equals the highest class, if it were stable
        return values, scores.shape[-1] - 1 - indices

    return fault


def ascending(real):
    return lambda scores, k: tuple(one.flip(-1) for one in real(scores, k))


def a_view_of_all(real):
    def fault(scores, k):
        values, indices = torch.sort(scores, dim=-1, descending=True, stable=True)
        return values[..., :k].clone(), indices[..., :k]

    return fault


def last_of_equals(real):
    return lambda scores: scores.shape[-1] - 1 - torch.argmax(scores.flip(-1), -1)


def over_the_whole_batch(real):
    return lambda scores: torch.argmax(scores)


def softmax_per_batch(real):
    return lambda scores: torch.softmax(scores.double().flatten(), 0).reshape(scores.shape).to(scores.dtype)


def softmax_again(real):
    def fault(self, scores, *, in_graph):
        after = real(self, scores, in_graph=in_graph)
        return steps.Scores(after.values, after.indices, softmax_due=True)

    return fault


def every_finite(real):
    return lambda scores: True


def sum_of_one_row(real):
    return lambda scores: bool(torch.isfinite(scores[0]).all())


def passes_the_rest_on(real):
    def fault(self, *arguments, **named):
        answer = real(self, *arguments, **named)
        output = self._defense.network(*arguments, **named)
        return (answer, output["hidden"]) if isinstance(output, dict) else answer

    return fault


def takes_the_first_part(real):
    return lambda output, name: next(iter(output.values()))


def not_detached(real):
    def fault(self, x):
        logits = self._defense.network(x)
        return torch.softmax(logits, -1) + 0 * real(self, x)

    return fault


def kept_gradient(real):
    def fault(self, finite):
        answer = real(self, finite)
        return answer._replace(values=answer.values.requires_grad_())

    return fault


FAULTS: dict[str, tuple[Any, str, Callable[[Any], Any], Callable[[], None]]] = {
    "truncates": (numerics, "rounded", truncated, exact(rounding, SPREAD, decimals=2)),
    "truncates raw scores": (numerics, "rounded", truncated, exact(raw, SPREAD, softmax=False, decimals=2)),
    "halves away from zero": (numerics, "rounded", half_away, exact(raw, HALVES, softmax=False, decimals=2)),
    "rounds in the narrow type": (
        numerics,
        "rounded",
        in_the_narrow_type,
        exact(lambda n: outputs.Rounding(n, 3), SPREAD.half(), decimals=3),
    ),
    "lets float32 decide what only float64 can": (
        numerics,
        "_rounded_softmax_in_single",
        decided_in_single,
        exact(lambda n: outputs.Rounding(n, 5), MANY, decimals=5),
    ),
    "rounds the first rows": (numerics, "rounded", first_rows_only, exact(rounding, SPREAD.repeat(5, 1), decimals=2)),
    "unstable top-k": (numerics, "largest", unstable, exact(top, TIED, k=3)),
    "unstable nested top-k": (numerics, "largest", unstable, exact(nested, TIED, k=3, decimals=2)),
    "ascending top-k": (numerics, "largest", ascending, exact(top, SPREAD, k=3)),
    "ordered before it is rounded": (
        steps.Round,
        "place",
        lambda real: 3,
        exact(lambda n: outputs.Rounding(outputs.TopK(n, 9), 1), SPREAD, k=9, decimals=1),
    ),
    "the whole ranking behind the top-k": (
        numerics,
        "largest",
        a_view_of_all,
        lambda: laws.law_owns_its_storage(top(laws.identity()), SPREAD),
    ),
    "label: last of equals": (
        numerics,
        "first_largest",
        last_of_equals,
        exact(outputs.Labeling, TIED, labels=True, softmax=False),
    ),
    "one label for the batch": (
        numerics,
        "first_largest",
        over_the_whole_batch,
        exact(outputs.Labeling, SPREAD, labels=True, softmax=False),
    ),
    "one label for the batch, row by row": (
        numerics,
        "first_largest",
        over_the_whole_batch,
        lambda: laws.law_row_by_row(outputs.Labeling(laws.identity()), SPREAD),
    ),
    "softmax over the batch": (numerics, "_softmax", softmax_per_batch, exact(top, SPREAD, k=3)),
    "softmax over the batch, row by row": (
        numerics,
        "_softmax",
        softmax_per_batch,
        lambda: laws.law_row_by_row(top(laws.identity()), SPREAD),
    ),
    "softmax twice": (steps.Round, "__call__", softmax_again, exact(nested, SPREAD, k=3, decimals=2)),
    "NaN passes": (defense.numerics, "every_row_is_finite", every_finite, lambda: laws.law_not_finite(rounding)),
    "NaN passes in labels": (
        defense.numerics,
        "every_row_is_finite",
        every_finite,
        lambda: laws.law_not_finite(outputs.Labeling),
    ),
    "NaN passes in a later row": (
        defense.numerics,
        "every_row_is_finite",
        sum_of_one_row,
        lambda: laws.law_not_finite(top),
    ),
    "hidden states pass": (
        outputs.Rounding,
        "forward",
        passes_the_rest_on,
        lambda: laws.law_nothing_else(lambda n, name: rounding(n, part=name), rounding),
    ),
    "hidden states pass next to labels": (
        outputs.Labeling,
        "forward",
        passes_the_rest_on,
        lambda: laws.law_nothing_else(lambda n, name: outputs.Labeling(n, part=name), outputs.Labeling),
    ),
    "another part than the named one": (
        part,
        "_member",
        takes_the_first_part,
        lambda: laws.law_nothing_else(lambda n, name: top(n, part=name), top),
    ),
    "not detached": (outputs.Rounding, "forward", not_detached, lambda: laws.law_detached(rounding)),
    "values not detached": (steps.Scores, "answer", kept_gradient, lambda: laws.law_detached(nested)),
}


@pytest.mark.parametrize(("place", "name", "fault", "law"), FAULTS.values(), ids=FAULTS)
def test_the_fault_is_caught(place, name, fault, law, monkeypatch):
    law()
    monkeypatch.setattr(place, name, fault(getattr(place, name)))
    with pytest.raises(AssertionError):
        law()
