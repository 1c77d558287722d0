"""What output defenses cost: next to a forward pass of VGG-16, and alone, on 256 x 1,000 logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Call, Work
from privet import outputs
from privet.models import VGG16

NAME = "outputs"
_BATCH, _CLASSES, _DECIMALS, _K = 256, 1000, 2, 3

_DEFENSES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "rounding": lambda network: outputs.Rounding(network, _DECIMALS),
    "labeling": outputs.Labeling,
    "top-k": lambda network: outputs.TopK(network, _K),
    "top-k of rounding": lambda network: outputs.TopK(outputs.Rounding(network, _DECIMALS), _K),
}


def works() -> list[Work]:
    """The defenses around VGG-16, and the defenses alone next to their peers."""
    return [_around_vgg16(), _share(), _alone()]


def _around_vgg16() -> Work:
    def plain(network: nn.Module) -> nn.Module:
        return network

    methods = {name: _forward(wrap) for name, wrap in {"plain": plain, **_DEFENSES}.items()}
    return Work(f"vgg16-{_BATCH}x{_CLASSES}", methods, baseline="plain", rounds=11)


def _share() -> Work:
    """Two forward passes differ by more than a defense takes, so a defense alone is divided by one, too."""
    methods = {"forward": _forward(lambda network: network)}
    methods.update({name: _defense(wrap) for name, wrap in _DEFENSES.items()})
    return Work(f"share-of-vgg16-{_BATCH}x{_CLASSES}", methods, baseline="forward", rounds=9)


@cache
def _network() -> nn.Module:
    return VGG16(classes=_CLASSES, seed=0).eval()


def _forward(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], Call]:
    def set_up() -> Call:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(_BATCH, 3, 32, 32, generator=generator)
        network = wrap(_network())

        @torch.no_grad()
        def call() -> object:
            return network(images)

        return call

    return set_up


def _alone() -> Work:
    """The NumPy peers look for no NaN, and only the float64 one rounds every value as float64 says."""
    methods: dict[str, Callable[[], Call]] = {name: _defense(wrap) for name, wrap in _DEFENSES.items()}
    methods["numpy-round-trip"] = _numpy_round_trip(np.float32)
    methods["numpy-round-trip, float64 as the defense"] = _numpy_round_trip(np.float64)
    missing = {}
    try:
        from art.defences.postprocessor import ClassLabels, Rounded
    except ImportError:
        missing["adversarial-robustness-toolbox"] = "not installed; ./run bench installs the extra [bench]"
    else:
        methods["adversarial-robustness-toolbox Rounded"] = _postprocessor(Rounded(decimals=_DECIMALS))
        methods["adversarial-robustness-toolbox ClassLabels"] = _postprocessor(ClassLabels())
    name = f"defense-alone-{_BATCH}x{_CLASSES}"
    return Work(name, methods, baseline="numpy-round-trip", rounds=301, missing=missing)


def _logits() -> Tensor:
    return torch.randn(_BATCH, _CLASSES, generator=torch.Generator().manual_seed(1)) * 3


def _defense(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], Call]:
    def set_up() -> Call:
        logits, defended = _logits(), wrap(nn.Identity().eval())
        return lambda: defended(logits)

    return set_up


def _numpy_round_trip(dtype: Any) -> Callable[[], Call]:
    def set_up() -> Call:
        logits = _logits()

        def call() -> object:
            scores = logits.detach().cpu().numpy().astype(dtype, copy=False)
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            probabilities = powers / powers.sum(axis=-1, keepdims=True)
            return torch.from_numpy(np.round(probabilities, _DECIMALS).astype(np.float32, copy=False))

        return call

    return set_up


def _postprocessor(postprocessor: Any) -> Callable[[], Call]:
    def set_up() -> Call:
        logits = _logits()

        def call() -> object:
            probabilities = torch.softmax(logits, dim=-1).numpy()
            return torch.from_numpy(np.asarray(postprocessor(probabilities)))

        return call

    return set_up
