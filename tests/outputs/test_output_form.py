"""What a defense lets out: validated, and composed in any grouping to the same."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privet.errors import ArgumentError
from privet.output_form import OutputForm

scores = st.builds(
    OutputForm, st.none() | st.integers(0, 15), st.none() | st.integers(1, 9), st.just(False), st.booleans()
)
forms = scores | st.just(OutputForm(labels_only=True))


@given(scores, scores, forms)
def test_composition(first, second, third):
    assert first.then(second).then(third) == first.then(second.then(third))
    assert third.then(OutputForm()) == third
    assert OutputForm(probabilities=first.probabilities).then(first) == first
    both = first.then(second)
    assert both.decimals in (first.decimals, second.decimals)
    assert all(both.decimals <= one for one in (first.decimals, second.decimals) if one is not None)
    assert all(both.k <= one for one in (first.k, second.k) if one is not None)
    assert both.probabilities == first.probabilities  # the innermost decides
    assert first.then(OutputForm(labels_only=True)) == OutputForm(labels_only=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decimals": -1},
        {"decimals": 16},
        {"decimals": True},
        {"decimals": 1.0},
        {"k": 0},
        {"k": True},
        {"k": "3"},
        {"labels_only": 1},
        {"labels_only": True, "k": 1},
        {"labels_only": True, "decimals": 0},
        {"probabilities": 1},
        {"labels_only": True, "probabilities": True},
    ],
)
def test_what_is_refused(wrong):
    with pytest.raises(ArgumentError):
        OutputForm(**wrong)


@pytest.mark.parametrize("kind", [np.int8, np.uint64, torch.tensor])
def test_integers_of_other_libraries(kind):
    form = OutputForm(decimals=kind(2), k=kind(3))
    assert form == OutputForm(decimals=2, k=3)
    assert type(form.decimals) is type(form.k) is int


@pytest.mark.parametrize("wrong", [np.True_, torch.tensor(True), np.float32(1), torch.tensor(1.0), np.array([1, 2])])
def test_neither_truth_values_nor_fractions_nor_several(wrong):
    for name in ("decimals", "k"):
        with pytest.raises(ArgumentError, match=name):
            OutputForm(**{name: wrong})


def test_scores_cannot_come_back():
    with pytest.raises(ArgumentError):
        OutputForm(labels_only=True).then(OutputForm(k=1))


def test_it_loads_neither_torch_nor_numpy():
    code = "import sys, privet.output_form; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
