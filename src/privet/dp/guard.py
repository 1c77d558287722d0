"""Keeps a model and its gradients as the private step left them: what would go past the step is refused."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from privet.errors import PrivateTrainingError

__all__ = ["Guard", "refuse_watched"]


def refuse_watched(model: nn.Module) -> None:
    """Refuse a model that another guard watches.

    Raises:
        PrivateTrainingError: says what to do.
    """
    for name, parameter in model.named_parameters():
        hooks = parameter._post_accumulate_grad_hooks or {}
        if any(isinstance(hook, _Refusal) for hook in hooks.values()):
            raise PrivateTrainingError(
                f"the model is in private training already (parameter {name!r}). Go on with that one, or call its "
                "close() first."
            )


class Guard:
    """Watches a model from ``make_private`` on.

    An ordinary backward pass that reaches a trainable parameter is refused, and its gradient removed: it would be
    neither clipped nor noised. So is a model whose trainable parameters or modules are other ones than at the start.

    Args:
        model: stays as it is; its parameters get a hook that :meth:`remove` takes away.
    """

    def __init__(self, model: nn.Module) -> None:
        """Start watching.

        Raises:
            PrivateTrainingError: a frozen parameter has a gradient, which an optimizer would go on applying.
        """
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad and parameter.grad is not None:
                raise PrivateTrainingError(
                    f"frozen parameter {name!r} has a gradient of an earlier backward pass, which an optimizer would "
                    "apply at every step, without noise. Set its .grad to None."
                )
        self._model = model
        self._before = _fingerprint(model)
        self._kept = [*model.modules(), *model.parameters()]  # whose ids are in the fingerprint: no other gets them
        handles = [
            parameter.register_post_accumulate_grad_hook(_Refusal(name))  # type: ignore[no-untyped-call]
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]
        self.remove = weakref.finalize(self, _remove, handles)

    def check_model(self) -> None:
        """Refuse a model that was changed.

        Raises:
            PrivateTrainingError: says what is new, gone or other.
        """
        now = _fingerprint(self._model)
        if now == self._before:
            return
        changed = sorted({name for name, *_ in self._before ^ now})
        raise PrivateTrainingError(
            f"the model was changed after make_private: {', '.join(map(repr, changed[:6]))}. Parameters that are new, "
            "replaced, frozen or unfrozen, and other modules, need a new make_private with the same ledger."
        )

    @contextmanager
    def no_other_gradients(self) -> Iterator[None]:
        """While this runs, the loss may neither be scaled for float16 nor run by a wrapper that adds up gradients.

        Raises:
            PrivateTrainingError: a GradScaler scales, float16 autocast is on, or DistributedDataParallel is called.
        """
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
                raise PrivateTrainingError(
                    "float16 autocast is refused: it needs a loss scale, and a scaled gradient would be clipped at the "
                    "wrong norm. Use torch.autocast(..., dtype=torch.bfloat16)."
                )
        refused: tuple[tuple[Any, str, Any], ...] = (
            (torch.amp.GradScaler, "scale", _refuse_scaler),
            (nn.parallel.DistributedDataParallel, "forward", _refuse_wrapper),
        )
        before = [getattr(owner, name) for owner, name, _ in refused]
        try:
            for owner, name, refusal in refused:
                setattr(owner, name, refusal)
            yield
        finally:
            for (owner, name, _), original in zip(refused, before, strict=True):
                setattr(owner, name, original)


class _Refusal:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, parameter: Tensor) -> NoReturn:
        parameter.grad = None
        raise PrivateTrainingError(
            f"an ordinary backward pass reached parameter {self._name!r}; its gradient would be neither clipped nor "
            "noised, and was removed. Give the loss to private.backward. To look at gradients of inputs, use "
            "torch.autograd.grad(loss, inputs); to train without privacy again, call private.close()."
        )


def _refuse_scaler(*arguments: Any, **named: Any) -> NoReturn:
    raise PrivateTrainingError(
        "a GradScaler scales the loss; its gradients would be clipped at the wrong norm. Leave it out, and use "
        "torch.autocast(..., dtype=torch.bfloat16), which needs none."
    )


def _refuse_wrapper(*arguments: Any, **named: Any) -> NoReturn:
    raise PrivateTrainingError(
        "DistributedDataParallel was called in the loss; it adds up gradients that are not clipped, and waits for "
        "ranks whose share of the sample is empty. Call the module inside of it, and leave the wrapper out: "
        "private.backward adds up what all ranks have."
    )


def _fingerprint(model: nn.Module) -> frozenset[tuple[str, int, bool]]:
    parameters = {
        (name, id(value), value.requires_grad) for name, value in model.named_parameters(remove_duplicate=False)
    }
    return frozenset(parameters | {(name, id(module), True) for name, module in model.named_modules()})


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
