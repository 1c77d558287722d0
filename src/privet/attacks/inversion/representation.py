"""Image inversion from representations: images whose answers are those that were observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Generator, Tensor, nn

from privet.attacks.inversion.arguments import generator_of, image_shape_of, whole_number
from privet.attacks.inversion.descent import AdamDescent, Descent
from privet.attacks.inversion.network_part import Function, check_answers, check_modes, part_of
from privet.attacks.inversion.observation import Distance, distance_to
from privet.attacks.inversion.priors import Normalisation, Pixels, check_channels, check_weight, priors
from privet.attacks.inversion.progress import Show, shown
from privet.errors import ArgumentError, DataError
from privet.output_form import OutputForm

__all__ = ["Defended", "Reconstruction", "Representation"]

_NOISE = 0.1  # of the range, from end to end


class Defended(Protocol):
    """A network behind an output defense, as ``privet.outputs`` makes it."""

    @property
    def output_form(self) -> OutputForm:
        """What it lets out."""

    def origin_network(self) -> nn.Module:
        """The network itself."""

    def origin_scores(self, output: Any) -> Tensor:
        """Of what the network answers, what is defended."""

    def defended_answer(self, answer: Any) -> Any:
        """Of what the defense answers, what is defended."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Images that were found, each the best of its run.

    Attributes:
        images: (N, C, H, W), inside the bounds.
        losses: of each image, priors included (N,).
        distances: of each image's answer from the observed one, without priors (N,).
    """

    images: Tensor  # (N, C, H, W)
    losses: Tensor  # (N,)
    distances: Tensor  # (N,)


class Representation:
    r"""Reconstruct images from what a network, or a part of it, answers about them. White box: it needs gradients.

    For each observed answer :math:`\Phi_0`, find the image inside the bounds that minimises

    .. math:: d(\Phi(x), \Phi_0) + \lambda_{TV} V(u) + \lambda_2 \overline{u^2}, \quad u = (x - low) / (high - low)

    with d the squared distance relative to :math:`\|\Phi_0\|^2` (of a defended answer, what
    :func:`~privet.attacks.inversion.observation.distance_to` says) and V the squared differences of neighbours. All
    images move at once, each by its own gradient; the best of each is kept.

    Access: the weights up to that part (to compute gradients), and the answers.

    Args:
        network: a module in evaluation mode, a part of one (``network.features``), or a differentiable function from
            images (N, C, H, W) to answers (N, ...), of each image apart.
        image_shape: (C, H, W), any channels and any sizes.
        bounds: the least and the most that a pixel may be.
        layer: the name of a module within ``network`` whose output was observed, the first one where it is called
            several times; None for the network's own.
        normalisation: what is done to pixels before the network sees them; None for nothing.
        form: what a defense let out of the answers; see :meth:`behind`.
        tv_weight: of the total variation, at least 0.
        norm_weight: of the norm prior, at least 0.
        descent: how images move.
        start: the level around which images begin, a share of the range in [0, 1]; 0 suits a black background.

    Raises:
        ArgumentError: an argument is outside what is allowed, or dropout or batch normalization is in training mode.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32)).eval()
        >>> originals = torch.rand(3, 1, 4, 4)
        >>> attack = Representation(network, image_shape=(1, 4, 4), tv_weight=0.0, norm_weight=0.0)
        >>> found = attack.reconstruct(network(originals).detach(), iterations=300, seed=0)
        >>> bool((found.images - originals).abs().max() < 0.01)
        True

    References:
        A. Mahendran, A. Vedaldi, "Understanding deep image representations by inverting them", 2015.
    """

    def __init__(
        self,
        network: Function | nn.Module,
        *,
        image_shape: Sequence[int],
        bounds: Sequence[float] = (0.0, 1.0),
        layer: str | None = None,
        normalisation: Normalisation | None = None,
        form: OutputForm | None = None,
        tv_weight: float = 1.0,
        norm_weight: float = 0.1,
        descent: Descent | None = None,
        start: float = 0.0,
    ) -> None:
        self._part = part_of(network, layer)
        self._network = network
        self._shape = image_shape_of(image_shape)
        self._pixels = Pixels.of(bounds)
        self._normalisation = check_channels(normalisation, self._shape)
        self._form = OutputForm() if form is None else form
        self._tv_weight = check_weight("tv_weight", tv_weight)
        self._norm_weight = check_weight("norm_weight", norm_weight)
        self._descent = AdamDescent() if descent is None else descent
        given: object = self._descent
        if not callable(getattr(given, "begin", None)) or isinstance(given, type):
            raise ArgumentError("descent", given, "AdamDescent(...), SignDescent(...), or an object with begin")
        self._defended: Callable[[Any], Any] = lambda answer: answer
        level: object = start
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 <= level <= 1.0:
            raise ArgumentError("start", level, "a share of the range of pixels, in [0, 1]")
        self._start = float(level)
        check_modes(network)

    @classmethod
    def behind(cls, served: Defended, **settings: Any) -> Self:
        """An attack on what a defense lets out, by gradients of the network within.

        It assumes more than a client of the service has: the weights of the network (a leaked or published model), but
        of the records no more than the defended answers.

        Args:
            served: a network in a defense of ``privet.outputs``; what that keeps beside the defended part is not used.
            settings: as of the class, without ``network``, ``form`` and ``layer``.

        Raises:
            ArgumentError: as of the class; or a layer is named, which no defense lets out.
        """
        if settings.get("layer") is not None:
            raise ArgumentError("layer", settings["layer"], "None behind a defense", "It lets out answers alone.")
        if not hasattr(served, "origin_network"):
            raise ArgumentError("served", type(served).__name__, "a network in a defense of privet.outputs")
        network = served.origin_network()
        attack = cls(network, form=served.output_form, **settings)
        attack._part = lambda images: served.origin_scores(network(images))
        attack._defended = served.defended_answer
        return attack

    @torch.inference_mode(False)
    @torch.enable_grad()
    def reconstruct(
        self,
        targets: Any,
        *,
        iterations: int = 100,
        restarts: int = 1,
        seed: int | Generator,
        progress: bool | Show = False,
    ) -> Reconstruction:
        """Reconstruct an image for each observed answer, all at once.

        Args:
            targets: what was observed: answers (N, ...); behind a defense, labels (N,) or values and indices (N, k).
            iterations: gradient steps of each run, at least 1.
            restarts: runs from other random images, at least 1; each image keeps its best.
            seed: of the first images.
            progress: whether to show a bar on a terminal, or what to call with steps done, steps in all and mean loss.

        Returns:
            Images and how well they fit.

        Raises:
            ArgumentError: an argument is outside what is allowed, or ``targets`` is not what this part answers.
            DataError: an answer holds NaN or infinity, or is zero everywhere; or the network answers NaN.
        """
        check_modes(self._network)
        steps, runs = whole_number("iterations", iterations), whole_number("restarts", restarts)
        targets = self._defended(targets)
        device, dtype = _where(self._network, targets)
        distance, count = distance_to(targets, self._form, device)
        if count == 0:
            raise ArgumentError("targets", "no answers", "at least one")
        generator = generator_of(seed)
        best: Reconstruction | None = None
        with shown(progress, steps * runs) as show:
            for run in range(runs):
                noise = _NOISE * (torch.rand((count, *self._shape), generator=generator, device=generator.device) - 0.5)
                shares = (self._start + noise).abs().clamp(0.0, 1.0)
                images = (self._pixels.low + self._pixels.range * shares).to(device, dtype)
                if run == 0:
                    check_answers(self._seen, images)
                found = self._run(images, distance, steps, lambda done, loss, run=run: show(run * steps + done, loss))
                best = found if best is None else _better(best, found)
        assert best is not None
        return best

    def _run(self, images: Tensor, distance: Distance, steps: int, show: Any) -> Reconstruction:
        mover = self._descent.begin(self._pixels.range)
        best = Reconstruction(images.clone(), *(torch.full_like(images[:, 0, 0, 0], torch.inf) for _ in range(2)))
        for step in range(steps + 1):
            prior, pull = self._priors(images)
            images.requires_grad_()
            with torch.set_grad_enabled(step < steps):
                apart = distance(self._seen(images))
            held = apart.detach()
            best = _better(best, Reconstruction(images.detach(), held + prior, held))
            if step == steps:
                break
            (gradient,) = torch.autograd.grad(apart.sum(), images)
            gradient = gradient + pull
            images = images.detach()
            mover.move(images, gradient, step / steps)
            images.clamp_(self._pixels.low, self._pixels.high)
            show(step + 1, float(best.losses.mean()))
        lost = (~best.losses.isfinite()).nonzero().reshape(-1).tolist()
        if lost:
            raise DataError(f"of images {lost[:5]} every answer was NaN or infinite; leave these targets out.")
        return best

    def _seen(self, images: Tensor) -> Tensor:
        """The answers about images as they are."""
        return self._part(images if self._normalisation is None else self._normalisation(images))

    def _priors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Their sum (N,) and its gradient in pixels."""
        value, gradient = priors(self._pixels.share(images), self._tv_weight, self._norm_weight)
        return value, gradient / self._pixels.range


def _better(left: Reconstruction, right: Reconstruction) -> Reconstruction:
    """Of each image the one of the smaller loss; NaN is never smaller."""
    take = right.losses < left.losses
    return Reconstruction(
        torch.where(take[:, None, None, None], right.images, left.images),
        torch.where(take, right.losses, left.losses),
        torch.where(take, right.distances, left.distances),
    )


def _where(network: object, targets: object) -> tuple[torch.device, torch.dtype]:
    """Of the network's weights; of the targets where it is a function or has none."""
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16):
                remedy = "Squares of its gradients would be lost; call network.float()."
                raise ArgumentError("network", str(parameter.dtype), "a network of float32 or float64", remedy)
            return parameter.device, parameter.dtype
    if isinstance(targets, tuple) and targets:  # of top-k
        targets = targets[0]
    if not isinstance(targets, Tensor):
        return torch.device("cpu"), torch.float32
    return targets.device, targets.dtype if targets.dtype is torch.float64 else torch.float32
