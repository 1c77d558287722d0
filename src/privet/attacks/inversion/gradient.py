"""Gradient inversion: the images behind a gradient that a client of federated learning sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from privet.attacks.inversion.arguments import generator_of, image_shape_of, whole_number
from privet.attacks.inversion.gradient_loss import MatchingLoss, Objective, Solver, SquaredDistance
from privet.attacks.inversion.network_part import check_modes
from privet.attacks.inversion.priors import Normalisation, Pixels, check_channels, check_weight, total_variation
from privet.attacks.inversion.progress import Show, shown
from privet.errors import ArgumentError, DataError

__all__ = ["GradientInversion", "GradientReconstruction"]

_SLACK = 1e-3  # of a record, or of the largest part: more than rounding makes


@dataclass(frozen=True, eq=False)
class GradientReconstruction:
    """Images that were found, of the best run.

    Attributes:
        images: (B, C, H, W), inside the bounds.
        labels: which label each image was reconstructed with (B,); recovered ones ascend.
        loss: the matching loss of these images, without the prior.
    """

    images: Tensor  # (B, C, H, W)
    labels: Tensor  # (B,)
    loss: float


class GradientInversion:
    r"""Reconstruct the images of a batch from the gradient of the loss on them. White box.

    For the gradient g of a batch of B images with labels y, find the images that minimise

    .. math:: d(\nabla_\theta \tfrac{1}{B} \sum_i \ell(f_\theta(x_i), y_i),\ g) + \lambda_{TV} \overline{V(u)},
              \quad u = (x - low) / (high - low)

    with l the cross-entropy, d the matching loss and V the squared differences of neighbours.

    Access: the model with the weights that the client used, and the gradient it sent. Assumed: one gradient (not a sum
    over several local steps) of cross-entropy on logits, averaged over the batch, with the model in the mode it is in.
    How the gradient was made matters: clipping scales it by an unknown factor (in private training that of each record
    by its own), which :class:`~privet.attacks.inversion.gradient_loss.SquaredDistance` takes for another batch and
    :class:`~privet.attacks.inversion.gradient_loss.CosineDistance` does not see for one image; noise of about the
    length of the gradient ruins both.
    Failing to reconstruct shows no privacy: no formal guarantee follows from it.

    Args:
        model: images (N, C, H, W) to logits (N, classes); without dropout or batch normalization in training mode.
        image_shape: (C, H, W).
        bounds: the least and the most that a pixel may be.
        normalisation: what was done to pixels before the model saw them; None for nothing.
        loss: how gradients are compared; None for the squared distance.
        tv_weight: of the total variation, at least 0; 0.01 helps the cosine where ReLU leaves several images.
        solver: how images move; None for the one that suits the loss.

    Raises:
        ArgumentError: an argument is outside what is allowed, or the model does not take such images.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 4))
        >>> original, label = torch.rand(1, 1, 4, 4), torch.tensor([2])
        >>> gradients = torch.autograd.grad(cross_entropy(model(original), label), list(model.parameters()))
        >>> attack = GradientInversion(model, image_shape=(1, 4, 4))
        >>> found = attack.reconstruct(gradients, iterations=100, seed=0)
        >>> int(found.labels), bool((found.images - original).abs().max() < 0.01)
        (2, True)

    References:
        L. Zhu, Z. Liu, S. Han, "Deep leakage from gradients", 2019; J. Geiping, H. Bauermeister, H. Dröge, M. Moeller,
        "Inverting gradients - how easy is it to break privacy in federated learning?", 2020; labels: B. Zhao,
        K. Mopuri, H. Bilen, "iDLG: Improved deep leakage from gradients", 2020.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        image_shape: tuple[int, int, int],
        bounds: tuple[float, float] = (0.0, 1.0),
        normalisation: Normalisation | None = None,
        loss: MatchingLoss | None = None,
        tv_weight: float = 0.0,
        solver: Solver | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError("model", type(model).__name__, "a torch.nn.Module")
        check_modes(model)
        self._model = model
        self._shape = image_shape_of(image_shape)
        self._pixels = Pixels.of(bounds)
        self._normalisation = check_channels(normalisation, self._shape)
        self._loss: MatchingLoss = SquaredDistance() if loss is None else loss
        for name, value, method in (("loss", self._loss, "solver"), ("solver", solver, "solve")):
            if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
                raise ArgumentError(name, value, f"an object with {method}, as privet.attacks.inversion has them")
        self._tv_weight = check_weight("tv_weight", tv_weight)
        self._solver = self._loss.solver() if solver is None else solver
        if not _trained(model):
            raise ArgumentError("model", type(model).__name__, "a model with parameters that require a gradient")
        self._last, self._classes = _last_layer(model, self._shape)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def reconstruct(
        self,
        gradients: Sequence[Tensor] | Mapping[str, Tensor],
        *,
        labels: Tensor | Sequence[int] | None = None,
        batch_size: int | None = None,
        iterations: int = 300,
        restarts: int = 1,
        seed: int | Generator,
        progress: bool | Show = False,
    ) -> GradientReconstruction:
        r"""Reconstruct the images behind a gradient.

        Labels that are not given are read off the gradient of the last layer's bias, which is
        :math:`g_c = \tfrac{1}{B} (\sum_i p_{ic} - n_c)` with :math:`n_c` images of class c. So
        :math:`n_c \ge -B g_c`, and at least 1 where :math:`g_c < 0`; where these bounds add up to B they are the
        labels, for certain if the gradient is exact. Of one image the most negative class is taken (iDLG), a good guess
        in noise as well.

        Args:
            gradients: of each parameter that requires one: in the order of ``model.parameters()``, or by name.
            labels: of the images (B,), in 0 ... classes - 1; None to recover them.
            batch_size: B, at least 1; None for as many as ``labels``, or 1 without them. Beyond 8 little is found.
            iterations: of each run, at least 1.
            restarts: runs from other random images, at least 1; the one of the least matching loss is kept.
            seed: of the first images, uniform inside the bounds.
            progress: whether to show a bar on a terminal, or what to call with steps done, steps in all and loss.

        Returns:
            Images, labels, and the matching loss. Images of a batch come in any order, but with their labels.

        Raises:
            ArgumentError: an argument is outside what is allowed, or the labels cannot be recovered.
            DataError: gradients hold NaN or infinity or are zero everywhere; or no run reached a finite loss.
        """
        check_modes(self._model)
        steps, runs = whole_number("iterations", iterations), whole_number("restarts", restarts)
        observed = _observed(gradients, _trained(self._model))
        device = next(self._model.parameters()).device
        known = self._labels(observed, labels, batch_size).to(device)
        generator = generator_of(seed)
        apart = self._apart(observed, known)

        def objective(images: Tensor) -> Tensor:
            return apart(images) + self._tv_weight * total_variation(self._pixels.share(images)).mean()

        best = GradientReconstruction(torch.empty(0), known, math.inf)
        with shown(progress, steps * runs) as show:
            for run in range(runs):

                def tell(done: int, loss: float, before: int = run * steps) -> None:
                    show(before + done, loss)

                shares = torch.rand((len(known), *self._shape), generator=generator, device=generator.device)
                start = (self._pixels.low + self._pixels.range * shares).to(device, self._dtype())
                images = self._solver.solve(objective, start, self._pixels, steps, tell)
                loss = float(apart(images).detach())
                if loss < best.loss:
                    best = GradientReconstruction(images.to(start.dtype), known, loss)
        if not math.isfinite(best.loss):
            raise DataError("no run reached a finite loss: the model answers NaN or infinity; check its weights.")
        return best

    def _dtype(self) -> torch.dtype:
        given = next(iter(_trained(self._model).values())).dtype
        return torch.promote_types(given, self._solver.dtype)

    def _apart(self, observed: dict[str, Tensor], labels: Tensor) -> Objective:
        """The matching loss as a function of images; it leaves the model as it is."""
        dtype = self._dtype()
        weights = {name: one.detach().to(dtype).requires_grad_() for name, one in _trained(self._model).items()}
        rest = (*self._model.named_parameters(), *self._model.named_buffers())
        fixed = {
            name: one.detach().to(dtype, copy=True) if one.is_floating_point() else one.clone()
            for name, one in rest
            if name not in weights
        }
        targets = [observed[name].to(weights[name]) for name in weights]

        def apart(images: Tensor) -> Tensor:
            seen = images if self._normalisation is None else self._normalisation(images)
            logits = functional_call(self._model, weights | fixed, (seen,))
            found = torch.autograd.grad(
                cross_entropy(logits, labels), list(weights.values()), create_graph=True, materialize_grads=True
            )
            return self._loss(found, targets)

        return apart

    def _labels(self, observed: dict[str, Tensor], labels: Any, batch_size: int | None) -> Tensor:
        if labels is None:
            count = 1 if batch_size is None else whole_number("batch_size", batch_size)
            return _recovered(observed, self._last, count)
        try:
            known = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError("labels", labels, "whole numbers (B,)") from None
        if known.dim() != 1 or not len(known) or known.is_floating_point() or known.dtype == torch.bool:
            raise ArgumentError("labels", labels, "whole numbers (B,), at least one")
        if batch_size is not None and whole_number("batch_size", batch_size) != len(known):
            raise ArgumentError("batch_size", batch_size, f"{len(known)}, as many as labels, or None")
        if int(known.min()) < 0 or int(known.max()) >= self._classes:
            raise ArgumentError("labels", known.tolist(), f"labels from 0 to {self._classes - 1}, as the model has")
        return known.long()


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _last_layer(model: nn.Module, shape: tuple[int, int, int]) -> tuple[str | None, int]:
    """The name of the linear layer whose output is the model's, if one is, and the number of classes."""
    given = next(model.parameters())
    outputs: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            logits = model(torch.zeros((1, *shape), device=given.device, dtype=given.dtype))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ArgumentError("image_shape", shape, "a shape that the model takes", f"It says: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ArgumentError("model", f"a model that answers {shown}", "one that answers logits (N, classes)")
    return next((name for name, output in outputs.items() if output is logits), None), logits.shape[1]


def _observed(gradients: object, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by the names of parameters, checked."""
    if isinstance(gradients, Mapping):
        if set(gradients) != set(trained):
            wrong = sorted(map(str, set(gradients) ^ set(trained)))
            raise ArgumentError("gradients", wrong, "one for each parameter that requires it, by its name")
        found = {name: gradients[name] for name in trained}
    elif isinstance(gradients, Sequence) and not isinstance(gradients, str):
        if len(gradients) != len(trained):
            raise ArgumentError(
                "gradients", f"{len(gradients)} tensors", f"{len(trained)}, one for each parameter that requires it"
            )
        found = dict(zip(trained, gradients, strict=True))
    else:
        raise ArgumentError("gradients", type(gradients).__name__, "a sequence of tensors, or a mapping by name")
    for name, gradient in found.items():
        if not isinstance(gradient, Tensor) or gradient.shape != trained[name].shape:
            shown = tuple(gradient.shape) if isinstance(gradient, Tensor) else type(gradient).__name__
            raise ArgumentError(
                "gradients",
                f"{shown} for {name}",
                f"a tensor {tuple(trained[name].shape)}",
                "Give zeros for a parameter that was not used." if gradient is None else "",
            )
        if not bool(gradient.isfinite().all()):
            raise DataError(f"the gradient of {name} holds NaN or infinity; give the gradient of a finite loss.")
    if not any(bool(gradient.any()) for gradient in found.values()):
        raise DataError("all gradients are zero: there is nothing to invert; give those of a batch with a loss.")
    return {name: one.detach().clone() if one.is_inference() else one.detach() for name, one in found.items()}


def _recovered(observed: dict[str, Tensor], last: str | None, count: int) -> Tensor:
    """Labels (B,), ascending, from the gradient of the last layer."""
    prefix = f"{last}." if last else ""
    bias = None if last is None else observed.get(prefix + "bias")
    weight = None if last is None else observed.get(prefix + "weight")
    if count == 1 and bias is None and weight is not None:
        # Rows are (p_c - [c = y]) a: the label's points against all others, whatever the sign of a.
        along = weight.double() @ weight.double()[weight.norm(dim=1).argmax()]
        ahead, against = int((along > 0).sum()), int((along < 0).sum())
        if min(ahead, against) == 1 < max(ahead, against):
            return (along if ahead == 1 else -along).argmax().reshape(1)
    if bias is None:
        raise ArgumentError(
            "labels", None, "the labels of the images", "The model does not end in a linear layer that shows them."
        )
    parts = bias.double()
    if count == 1:
        whole = float(parts.sum().abs()) <= _SLACK * float(parts.abs().max())
        if whole and int((parts < -_SLACK * parts.abs().max()).sum()) > 1:
            said = "The gradient of the last bias is below 0 for several classes: it is of several images."
            raise ArgumentError("batch_size", None, "the number of images behind the gradient", said)
        return parts.argmin().reshape(1)
    if float(parts.sum().abs()) > _SLACK * float(parts.abs().max()):
        raise ArgumentError(
            "labels",
            None,
            "the labels of the images",
            "Those of a batch cannot be read off: its gradient of the last bias does not add up to 0, as that of "
            "cross-entropy does. It was noised, or the loss was another.",
        )
    least = torch.where(parts < 0, (-count * parts - _SLACK).ceil().clamp_min(1.0), 0.0).long()
    if int(least.sum()) != count:
        raise ArgumentError(
            "labels",
            None,
            "the labels of the images",
            f"The gradient shows at least {int(least.sum())} of {count} labels: they repeat, the model is sure of "
            "classes, or the gradient was scaled.",
        )
    return torch.arange(len(parts), device=parts.device).repeat_interleave(least)
