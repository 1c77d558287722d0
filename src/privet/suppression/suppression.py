"""Suppression: the weights that matter least are set to zero while training, and kept there."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from privet.errors import ArgumentError, CheckpointError, DivergedError, PrivateTrainingError
from privet.suppression.bounds import add_noise, check_generator, hold
from privet.suppression.enforcement import Enforcement, Parts
from privet.suppression.evidence import PrivateSteps, check_evidence
from privet.suppression.layers import Layer, choose
from privet.suppression.mask import Mask
from privet.suppression.optimizer_state import check_optimizer, forget
from privet.suppression.ramp import Ramp, masked_count
from privet.suppression.report import LayerSparsity, SparsityReport
from privet.suppression.state import read_state, settings_of

__all__ = ["Suppression"]


class Suppression:
    """Masks more and more of the smallest weights while a model trains. **No formal guarantee**, and no epsilon.

    Sparsity follows :class:`Ramp`. At an update, each layer's smallest weights by magnitude are masked, exactly
    floor(s n) of its n (fewer where ``minimum_kept`` says so), of equals those of lower index; for good. Masked
    weights are exactly zero after every :meth:`step`: their gradients are zeroed as they arrive and again before the
    optimizer's step where they were changed, the weights after it, and what the optimizer remembers of them at the
    update that masks them. So any dense optimizer, learning-rate schedule and gradient accumulation will do. Model and
    optimizer stay the user's own::

        optimizer.step()
        suppression.step()

    It is also a callback of ``privet.training.fit`` and ``privet.dp.fit``, which make the optimizer themselves; leave
    it out then.

    Args:
        model: trained in place; one made by ``torch.compile`` will do.
        optimizer: trains all chosen weights; None where ``fit`` makes it.
        layers: names of parameters or modules, types of modules, and :class:`Layer` for bounds of their own; None for
            all convolution and fully connected layers. Biases are suppressed only by name.
        start_epoch: the epoch, from 1, whose first step begins the ramp.
        end_epoch: the epoch whose last step ends it.
        steps_per_epoch: optimizer steps in an epoch; with gradient accumulation, fewer than batches.
        updates: how often masks grow; None for every step of the ramp, 1,000 at most.
        sparsity_start: the share of weights masked at the ramp's first step, in [0, 1).
        sparsity_end: the share masked at its last, in [0, 1).
        generator: draws the noise of layers with ``noise_std``; needed there alone.
        private: the private training that makes every gradient, for :meth:`claim`; None for any other training.

    Raises:
        ArgumentError: a number is out of range; a layer is unknown, chosen twice, frozen, shared, or of weights that
            cannot be masked; the optimizer does not train it; another suppression already has it.

    Guarantees:
        None. After a private training the masks cost nothing, and buy nothing (:meth:`claim`).

    Example:
        >>> network = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2))
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> suppression = Suppression(network, optimizer, start_epoch=1, end_epoch=2, steps_per_epoch=5)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     network(torch.randn(8, 20)).square().mean().backward()
        ...     optimizer.step()
        ...     suppression.step()
        >>> print(suppression.report())
        step 10: 209 of 220 weights masked (95.0%)
          0.weight  190 of 200 (95.0%)
          2.weight   19 of  20 (95.0%)
        >>> int((suppression.finalize()[0].weight == 0).sum())
        190

    References:
        M. Zhu, S. Gupta, "To prune, or not to prune", 2017 (masks by magnitude on a cubic ramp).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        layers: Sequence[str | type[nn.Module] | Layer] | None = None,
        start_epoch: int,
        end_epoch: int,
        steps_per_epoch: int,
        updates: int | None = None,
        sparsity_start: float = 0.0,
        sparsity_end: float = 0.95,
        generator: Generator | None = None,
        private: PrivateSteps | None = None,
    ) -> None:
        self.ramp = Ramp.over(
            start_epoch=start_epoch,
            end_epoch=end_epoch,
            steps_per_epoch=steps_per_epoch,
            updates=updates,
            sparsity_start=sparsity_start,
            sparsity_end=sparsity_end,
        )
        self._model, self._steps_per_epoch = model, int(steps_per_epoch)
        chosen = choose(model, layers)
        self._parts: Parts = tuple((one, Mask(one.parameter)) for one in chosen)
        self._enforcement = Enforcement(self._parts)
        self._generator = check_generator(generator, chosen)
        self._history: list[tuple[int, ...]] = []  # a row an update: its step, then how many of each layer are masked
        self._done, self._finalized, self._applied, self._ended = 0, False, False, False
        self._optimizer: Optimizer | None = None
        self._private: PrivateSteps | None = None
        self._private_step = 0
        self._ledger_head: str | None = None
        self._released = True  # whether every step so far was a private one
        self._test_run = False  # whether one of them was seeded
        self._made_by_fit = optimizer is None
        if private is not None:
            self._rely_on(private, optimizer)
        if optimizer is not None:
            self._bind(optimizer)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that must be the same for a checkpoint to continue."""
        return settings_of(self.ramp, [one for one, _ in self._parts])

    def step(self) -> None:
        """Count a step of the optimizer, bring the masks up to the ramp, and hold weights to masks and bounds.

        Call it once after every ``optimizer.step()``.

        Raises:
            ArgumentError: there is no optimizer yet, a parameter was replaced, or this was finalized.
            DivergedError: a weight is NaN or infinite at an update.
            PrivateTrainingError: with ``private``, the step before was not a private one.
        """
        self._check_open()
        if self._optimizer is None:
            raise ArgumentError("optimizer", None, "the optimizer: Suppression(model, optimizer, ...)")
        self._check_places()
        if self._private is not None:
            self._check_released(self._private)
        self._enforcement.look()
        step = self._done + 1
        if self.ramp.updates_at(step):
            self._update(step, self._optimizer)
        self._hold()
        self._released &= self._private is not None and self._enforcement.steps == 1 and not self._enforcement.touched
        self._enforcement.end_step()
        self._done = step
        if self._private is not None:
            self._private_step, self._ledger_head = self._private.step, self._private.ledger.head
            self._test_run |= self._private.test_run

    def finalize(self) -> nn.Module:
        """Hold the weights to masks and bounds once more and let go of model and optimizer.

        Returns:
            The model: an ordinary one, with plain zeros.

        Raises:
            ArgumentError: a parameter was replaced; the model was let go all the same.
            DivergedError: a weight is NaN or infinite; so it was, too.
        """
        self._finalized = True
        self._enforcement.stop()
        if not self._applied:
            self._check_places()
            untouched = self._enforcement.untouched
            self._hold()
            self._enforcement.clear_weights()
            if untouched:
                self._enforcement.begin()
            for one, _ in self._parts:
                if not bool(one.parameter.isfinite().all()):
                    raise DivergedError(f"{one.name!r} has weights that are NaN or infinite. Lower the learning rate.")
            self._applied = True
        return self._model

    def report(self) -> SparsityReport:
        """What is masked now, a layer and in all, and how it came to be: print it, plot it."""
        layers = tuple(LayerSparsity.of(one.name, one.parameter, mask.masked) for one, mask in self._parts)
        return SparsityReport(self._done, layers, tuple(self._history))

    def claim(self) -> str:
        """What differential privacy says of the masks, where it says anything.

        Returns:
            One sentence for the privacy statement of the private training.

        Raises:
            PrivateTrainingError: the masks were chosen from weights that are not known to be released. Say "no formal
                guarantee" then.
        """
        if self._private is None or not self._released:
            raise PrivateTrainingError(
                "no differential-privacy claim: masks were, or will be, chosen from weights that training without "
                "noise made or that were changed between private steps. Suppression has no formal guarantee. Give "
                "Suppression(..., private=private) from the first step of dp.make_private on."
            )
        stamp = "NOT PRIVATE: test run; " if self._test_run or self._private.test_run else ""
        return (
            f"{stamp}The masks were chosen from weights that private steps released, and from initial weights that "
            "are public or private already: post-processing, at no further epsilon, if nothing but those steps changed "
            "weights or the optimizer's memory, also between a stop and a resume. They add no guarantee of their own."
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the model and the optimizer: plain values and tensors."""
        return {
            "version": 1,
            "settings": self.settings,
            "step": self._done,
            "released": self._released and self._enforcement.steps == 0 and self._enforcement.untouched,
            "private_step": self._private_step,
            "ledger_head": self._ledger_head,
            "weights": self._enforcement.digest() if self._enforcement.watched else None,
            "test_run": self._test_run,
            "masked": {one.name: mask.masked.cpu() for one, mask in self._parts},
            "history": torch.tensor(self._history, dtype=torch.int64).reshape(-1, 1 + len(self._parts)),
            "generator": None if self._generator is None else self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave, before or after model and optimizer take up theirs.

        Raises:
            ArgumentError: this was finalized.
            CheckpointError: it is of another suppression; says what differs, and nothing was changed.
            LedgerMismatchError: it is of a private training that is on another ledger.
        """
        self._check_open()
        if self._private is not None and self._private.closed:
            self._private = None  # of a fit that ended; the next one brings its own
        shapes = {one.name: one.parameter.shape for one, _ in self._parts}
        read = read_state(state, self.settings, shapes, noise=self._generator is not None)
        if self._private is not None:
            _check_private(self._private, read.private_step, read.ledger_head)
        if self._generator is not None and read.generator is not None:
            _set_generator(self._generator, read.generator)
        for one, mask in self._parts:
            mask.set(read.masked[one.name].to(one.parameter.device))
        self._released = read.released and (self._released or self._done == 0)
        self._history, self._done = read.history, read.step
        self._private_step, self._ledger_head = read.private_step, read.ledger_head
        self._test_run, self._ended = read.test_run, False
        self._enforcement.expect(read.weights)

    def on_start(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
        private: PrivateSteps | None = None,
    ) -> None:
        """Take what ``fit`` made, before its first step; refuse another model, length of an epoch or ramp's end."""
        if model is not self._model:
            raise ArgumentError("model", type(model).__name__, "the model that Suppression was made with")
        if steps_per_epoch not in (None, self._steps_per_epoch):
            raise ArgumentError("steps_per_epoch", self._steps_per_epoch, f"{steps_per_epoch}, as many as fit takes")
        self._check_open()
        if not self._made_by_fit:
            raise ArgumentError("optimizer", type(self._optimizer).__name__, "None, for fit makes one of its own")
        if self._ended and self._done:
            remedy = "Call finalize() on this one, and make another."
            raise ArgumentError("suppression", f"{self._done:,} steps of an earlier fit", "a new one", remedy)
        if total_steps is not None and self.ramp.end > total_steps:
            allowed = f"an epoch whose last step is among the {total_steps:,} of this training"
            raise ArgumentError(
                "end_epoch", f"{self.ramp.end // self._steps_per_epoch}", allowed, f"It is {self.ramp.end:,}."
            )
        if private is not None:
            if self._done:
                _check_private(private, self._private_step, self._ledger_head)
            self._rely_on(private, optimizer)
        self._bind(optimizer)
        self._ended = False

    def on_step(self, step: int, model: nn.Module, made_by: object) -> None:
        """:meth:`step`, as a callback."""
        self.step()

    def on_end(self) -> None:
        """Let go of what ``fit`` made; :meth:`finalize` still applies masks and bounds."""
        self._enforcement.stop()
        self._optimizer, self._ended = None, True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A suppression of the copies of model and optimizer; of a private training it makes no claim."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        copied._model = copy.deepcopy(self._model, memo)
        copied._parts = copy.deepcopy(self._parts, memo)
        copied._history = list(self._history)
        copied._generator = None if self._generator is None else self._generator.clone_state()
        copied._private, copied._released = None, False
        copied._enforcement = Enforcement(copied._parts)
        copied._optimizer = copy.deepcopy(self._optimizer, memo)
        if copied._optimizer is not None and not self._finalized:
            copied._enforcement.watch(copied._optimizer)
        return copied

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Suppression holds on to model and optimizer by hooks; save its state_dict() beside theirs")

    def _bind(self, optimizer: Optimizer) -> None:
        check_optimizer(optimizer, [one for one, _ in self._parts])
        self._enforcement.watch(optimizer)
        self._optimizer = optimizer

    def _rely_on(self, private: PrivateSteps, optimizer: Optimizer | None) -> None:
        chosen = [one for one, _ in self._parts]
        self._private, self._enforcement.watched = check_evidence(private, optimizer, chosen)
        self._private_step = private.step
        self._released &= self._done > 0 or private.step == 0  # what came before is not known
        self._enforcement.begin()

    def _check_released(self, private: PrivateSteps) -> None:
        """Refuse a step whose weights are not known to come of one private step."""
        if private.closed:
            raise PrivateTrainingError(
                "the private training was closed; masks would be chosen from what came after it."
            )
        if private.step != self._private_step + 1:
            raise PrivateTrainingError(
                f"suppression.step() came after {private.step - self._private_step} private steps. Call it once after "
                "each private.backward and optimizer.step(), so that masks are chosen from released weights. After a "
                "step that was missed, finalize() this one, and make another to go on, which will make no claim."
            )

    def _check_open(self) -> None:
        if self._finalized:
            raise ArgumentError("suppression", "finalized", "one that was not", "Make another to go on.")

    def _update(self, step: int, optimizer: Optimizer) -> None:
        """Choose the masks of all layers before any weight changes: an error leaves everything as it was."""
        self._enforcement.clear_weights()  # and masks follow weights that were moved
        sparsity = self.ramp.sparsity(step)
        more = [
            mask.smallest(one.parameter, masked_count(sparsity, one.parameter.numel(), one.rule.minimum_kept))
            for one, mask in self._parts
        ]
        for (one, mask), indices in zip(self._parts, more, strict=True):
            if len(indices):
                mask.add(indices)
                forget(optimizer, one.parameter, mask)
            if one.rule.noise_std and self._generator is not None:
                add_noise(one.parameter, mask.masked, one.rule, self._generator)
        self._history.append((step, *(mask.count for _, mask in self._parts)))

    def _hold(self) -> None:
        """Bounds hold from the first update on."""
        if self._history:
            for one, _ in self._parts:
                if one.rule.bounded:
                    hold(one.parameter, one.rule)

    def _check_places(self) -> None:
        for one, _ in self._parts:
            if one.owner._parameters.get(one.field) is not one.parameter:
                remedy = "Make Suppression after replacing it, or load weights without assign=True."
                raise ArgumentError("model", one.name, "a model that still holds this parameter", remedy)


def _check_private(private: PrivateSteps, step: int, ledger_head: str | None) -> None:
    if private.step != step:
        raise CheckpointError(
            f"the suppression state is of private step {step}, and the private training is at {private.step}: resume "
            "both from the same checkpoint."
        )
    if ledger_head:
        private.ledger.check_head(ledger_head)


def _set_generator(generator: Generator, state: Tensor) -> None:
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the state of the noise's generator cannot be used: {error}") from error
