"""One private step: the one place where clipping, noise and the event that is accounted for meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privet.accounting.events import Event, joint_noise
from privet.dp.clipping import ClippingState, changed_contributions, estimated_fractions
from privet.dp.noise import Noise
from privet.dp.per_example.engine import Gradients
from privet.dp.plan import Plan
from privet.dp.ranks import Alone, Ranks
from privet.errors import PrivateTrainingError

__all__ = ["Release", "Step", "StepNoise"]


@dataclass(frozen=True)
class StepNoise:
    r"""The noise of one step, and the event it is accounted as: both from one noise multiplier.

    With G groups of clip norm :math:`C_g`, group g gets noise of std :math:`z_g f C_g` on its sum and each count k
    noise of std :math:`\sigma_k`, with f = 1 under add-or-remove-one and 2 under replace-one, where

    .. math:: G / z_g^2 + \sum_k (f / (2 \sigma_k))^2 = 1 / z^2

    Attributes:
        event: z and how the step is sampled.
        gradient_stds: of each group's sum of clipped gradients.
        count_stds: of each centred count.
    """

    event: Event
    gradient_stds: tuple[float, ...]
    count_stds: tuple[float, ...]

    @classmethod
    def of(cls, plan: Plan, step: int, state: ClippingState) -> StepNoise:
        """The noise of step ``step``, which is clipped to the norms of ``state``.

        Raises:
            PrivateTrainingError: the parts do not add up to the event. It cannot happen; if it does, nothing is drawn.
        """
        event = plan.event(step)
        norms, factor = state.max_grad_norms, changed_contributions(plan.relation)
        multiplier = plan.gradient_noise_multiplier(step, len(norms))
        gradients = tuple(multiplier * factor * norm for norm in norms)
        counts = plan.clipping.count_noise_stds(len(norms), plan.expected_batch_size)
        drawn = [std / (factor * norm) for std, norm in zip(gradients, norms, strict=True)]
        drawn += [std / (factor / 2.0) for std in counts]
        if not joint_noise(drawn) >= event.noise_multiplier * (1.0 - 1e-9):
            raise PrivateTrainingError(
                f"step {step}: the noise to be drawn has noise multiplier {joint_noise(drawn)!r}, the event "
                f"{event.noise_multiplier!r}; nothing was drawn. Please report this."
            )
        return cls(event, gradients, counts)


@dataclass(frozen=True)
class Release:
    """What a private step let out, besides the gradient itself. All of it is covered by the event.

    Attributes:
        step: of the plan.
        event: what was reserved in the ledger for it.
        max_grad_norms: what each group was clipped to.
        clipping: what the next step clips to.
    """

    step: int
    event: Event
    max_grad_norms: tuple[float, ...]
    clipping: ClippingState


class Step:
    r"""A step under way: noise first, then each part of the batch, clipped.

    .. math:: \tilde g = \frac{1}{B} \Big( \sum_i f_i g_i + \mathcal N(0, \sigma^2 C^2 I) \Big)

    B is the expected batch size, whatever the batch; the noise is drawn once, however many parts there are.

    Args:
        plan: what is released.
        number: which of its steps.
        state: what it is clipped to.
        ranges: of each group in the flat buffer.
        flat: is overwritten with the noise, then holds the private gradient.
        noise: where the noise comes from; None for none, and in all ranks but the first.
        ranks: the processes whose parts of the batch belong together; None for this one alone.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        state: ClippingState,
        ranges: Sequence[tuple[int, int]],
        flat: Tensor,
        noise: Noise | None,
        ranks: Ranks | None = None,
    ) -> None:
        """Draw the noise of the gradient. The step has to be on the ledger before."""
        self._plan, self._number, self._state = plan, number, state
        self._flat, self._noise, self._ranks = flat, noise, Alone() if ranks is None else ranks
        self._sigma = StepNoise.of(plan, number, state)
        self._below = torch.zeros(len(self._sigma.count_stds), dtype=torch.float64)
        for (start, stop), std in zip(ranges, self._sigma.gradient_stds, strict=True):
            if noise is None:
                flat[start:stop].zero_()
            else:
                noise.normal_(flat[start:stop], std / plan.expected_batch_size)

    def add(self, gradients: Gradients) -> Tensor:
        """Add some examples' clipped gradients.

        Returns:
            The clip factors, (G, B): private, for diagnostics only.
        """
        norms = gradients.squared_norms.sqrt()
        clipped = self._plan.clipping.clip(self._state, norms)
        self._check_factors(clipped.factors, norms)
        self._below += clipped.below.cpu()
        gradients.add_to(self._flat, clipped.factors / self._plan.expected_batch_size)
        return clipped.factors

    def _check_factors(self, factors: Tensor, norms: Tensor) -> None:
        """A strategy may be the user's own; that it clips is what the noise was drawn for."""
        bounds = norms.new_tensor(self._state.max_grad_norms).unsqueeze(1)  # (G, 1)
        lengths = torch.where(norms.isfinite(), factors * norms, 0.0)  # others are taken out
        if factors.shape != norms.shape or not bool(((factors >= 0.0) & (lengths <= bounds * (1.0 + 1e-6))).all()):
            raise PrivateTrainingError(
                f"{type(self._plan.clipping).__name__}.clip gave factors that leave a gradient longer than its clip "
                "norm; what it returns has to be in [0, 1] and hold every example to max_grad_norms."
            )

    def finish(self) -> Release:
        """Add up what the ranks have, draw the noise of the counts, and move the clip norms for the step that comes.

        Raises:
            PrivateTrainingError: the gradient is not finite; it must not reach the optimizer.
        """
        self._ranks.sum_(self._flat)
        if len(self._below):
            self._ranks.sum_(self._below)
        if not math.isfinite(float(self._flat.sum())) and not bool(self._flat.isfinite().all()):
            raise PrivateTrainingError(
                f"step {self._number}: the private gradient is not finite though every example was clipped. The step "
                "counts as spent; the gradients were removed. Please report this with the model's layers."
            )
        if self._below.numel():  # by rank 0 for all: another machine may have another last bit
            told = self._ranks.of_first("the clip norms", lambda: self._following().to_json())
            following = ClippingState.from_json(told)
        else:
            following = self._following()
        return Release(self._number, self._sigma.event, self._state.max_grad_norms, following)

    def _following(self) -> ClippingState:
        noise = self._noise
        drawn = [0.0 if noise is None else noise.draw(std) for std in self._sigma.count_stds]
        fractions = estimated_fractions(self._below.tolist(), drawn, self._plan.expected_batch_size)
        return self._plan.clipping.update(self._state, fractions)
