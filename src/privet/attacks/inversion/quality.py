"""How good reconstructed images are, each measure with its interval and beside two baselines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privet.attacks.inversion.measures import (
    nearest,
    peak_signal_to_noise,
    relative_distance,
    separations,
    similarity,
)
from privet.attacks.inversion.priors import Pixels
from privet.errors import ArgumentError, DataError
from privet.statistics import Estimate, clopper_pearson, mean_interval

__all__ = ["InversionQuality", "Quality", "evaluate"]

_TAKEN_UP = 0.25  # of the bounds, by the pixels of the data


@dataclass(frozen=True, eq=False)
class Quality:
    """One set of images beside the originals: means over the images, with intervals.

    Attributes:
        relative_l2: ||x' - x|| / ||x||; 0 is perfect, 1 is what an image of zeros has.
        psnr: in dB, at most 100.
        ssim: structural similarity, at most 1. It ranks defenses backwards at times: no verdict may rest on it alone.
        confidence: of an independently trained network in the true label, in [0, 1].
        reidentified: how often the original is the nearest of the candidates.
        distances: ||x' - x|| / ||x|| of each image (N,), to sort by.
    """

    relative_l2: Estimate
    psnr: Estimate
    ssim: Estimate
    confidence: Estimate
    reidentified: Estimate
    distances: NDArray[np.float64]  # (N,)


@dataclass(frozen=True, eq=False)
class InversionQuality:
    """Reconstructions and what an attacker has without them.

    Attributes:
        reconstruction: what was reconstructed.
        class_mean: the mean training image of the true class in place of each: who knows the label has that.
        nearest_other: the training image nearest to each original: what a good guess at the kind of image looks like.
        candidates: among how many images the original was looked for.
    """

    reconstruction: Quality
    class_mean: Quality
    nearest_other: Quality
    candidates: int

    @property
    def reidentifies(self) -> bool:
        """Whether more originals are found than by the class mean: the intervals do not meet."""
        return self.reconstruction.reidentified.low > self.class_mean.reidentified.high

    def __str__(self) -> str:
        sets = list(self.sets().values())
        lines = [
            ("", *self.sets()),
            ("L2 / norm", *(str(one.relative_l2) for one in sets)),
            ("PSNR, dB", *(f"{one.psnr.value:.1f} [{one.psnr.low:.1f}, {one.psnr.high:.1f}]" for one in sets)),
            ("SSIM", *(str(one.ssim) for one in sets)),
            ("confidence", *(str(one.confidence) for one in sets)),
            (f"found of {self.candidates:,}", *(str(one.reidentified) for one in sets)),
        ]
        return "\n".join(f"{line[0]:14}" + "".join(f"{cell:>22}" for cell in line[1:]) for line in lines)

    def sets(self) -> dict[str, Quality]:
        """What was reconstructed and both baselines, by name."""
        return {
            "reconstruction": self.reconstruction,
            "class mean": self.class_mean,
            "nearest other": self.nearest_other,
        }


def evaluate(
    images: Tensor,
    originals: Tensor,
    labels: Tensor,
    *,
    judge: nn.Module,
    attacked: nn.Module | None,
    training: tuple[Tensor, Tensor],
    candidates: Tensor,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> InversionQuality:
    """Compare reconstructed images with the originals, and with two baselines that need no attack.

    Args:
        images: the reconstructions (N, C, H, W), N >= 5.
        originals: what they should be (N, C, H, W).
        labels: the true classes (N,).
        judge: an independently trained network that answers logits, in evaluation mode.
        attacked: the network that was inverted, or the one that the inverted part is of; the judge may not be it. None
            where there is no such network.
        training: inputs (M, C, H, W) and labels (M,) like the originals, without them: the baselines.
        candidates: other images (K, C, H, W), without the originals, among which each original is looked for.
        bounds: the least and the most that a pixel may be.

    Returns:
        Means with 95% intervals: Student's over the images, for re-identification the exact one of a share.

    Raises:
        ArgumentError: the judge is the attacked network, or has its weights; is in training mode; or does not answer
            logits for all classes. Or pixels lie outside the bounds, or take up less than a quarter of them.
        DataError: shapes do not fit, a class has no training image, an original is among the others, or a candidate
            among the training images.
    """
    images, originals, candidates = (one.detach().cpu().double() for one in (images, originals, candidates))
    inputs, classes = training[0].detach().cpu().double(), training[1].cpu().long()
    labels = labels.cpu()
    _check(images, originals, labels, (inputs, classes), candidates)
    _check_bounds(originals, inputs, Pixels.of(bounds))
    labels = labels.long()
    means = []
    for label in labels.tolist():
        of_class = inputs[classes == label]
        if not len(of_class):
            raise DataError(f"training has no image of class {label}; give some, for the mean image of a class.")
        means.append(of_class.mean(0))
    _check_judge(judge, attacked, originals, labels)
    _check_copies(originals, inputs, candidates)
    others = inputs[nearest(originals, inputs)]
    pool = torch.cat((originals, candidates))
    sets = (images, torch.stack(means), others)
    found, by_class, by_others = (_quality(one, originals, labels, judge, pool, bounds) for one in sets)
    return InversionQuality(found, by_class, by_others, len(candidates) + 1)


def _quality(
    images: Tensor, originals: Tensor, labels: Tensor, judge: nn.Module, pool: Tensor, bounds: tuple[float, float]
) -> Quality:
    distances = relative_distance(images, originals)
    answers = _asked(judge, images).cpu().double()
    confidence = answers.softmax(1)[torch.arange(len(labels)), labels].numpy()
    others = separations(images, pool[len(originals) :]).min(1).values  # each original stands among these alone
    own = (images - originals).flatten(1).norm(dim=1)
    return Quality(
        mean_interval(distances, least=0.0),
        mean_interval(peak_signal_to_noise(images, originals, bounds), most=100.0),
        mean_interval(similarity(images, originals, bounds).clip(-1.0, 1.0), least=-1.0, most=1.0),
        mean_interval(confidence.clip(0.0, 1.0), least=0.0, most=1.0),
        clopper_pearson(int((own < others).sum()), len(originals)),
        distances,
    )


def _asked(judge: nn.Module, images: Tensor) -> Tensor:
    where = next(iter(judge.parameters()), images)
    with torch.no_grad():
        answers: Tensor = judge(images.to(where.device, where.dtype))
    return answers


def _check_answers(answers: object, labels: Tensor) -> None:
    least = int(labels.max()) + 1
    if not isinstance(answers, Tensor) or answers.dim() != 2 or not answers.shape[1] >= least:
        found = tuple(answers.shape) if isinstance(answers, Tensor) else f"a {type(answers).__name__}"
        raise ArgumentError(
            "judge", f"one that answers {found}", f"one that answers logits (N, {least} classes or more)"
        )
    if not bool(answers.isfinite().all()):
        raise ArgumentError("judge", "one that answers NaN or infinity", "one that answers finite logits")
    if bool((answers >= 0.0).all()) and bool(((answers.sum(1) - 1.0).abs() < 1e-3).all()):
        remedy = "Softmax is taken of them here; leave its own out."
        raise ArgumentError("judge", "one that answers probabilities", "one that answers logits", remedy)


def _check(images: Tensor, originals: Tensor, labels: Tensor, training: Any, candidates: Tensor) -> None:
    if images.dim() != 4 or images.shape != originals.shape:
        raise DataError(
            f"reconstructions of shape {tuple(images.shape)} and originals of shape {tuple(originals.shape)}; give "
            "(N, C, H, W) of each."
        )
    finite = (("reconstructions", images), ("originals", originals), ("training images", training[0]))
    for name, value in (*finite, ("candidates", candidates)):
        if not bool(value.isfinite().all()):
            raise DataError(f"the {name} hold NaN or infinity.")
    for name, value in (("training", training[0]), ("candidates", candidates)):
        if value.dim() != 4 or value.shape[1:] != originals.shape[1:] or not len(value):
            raise DataError(f"{name} of shape {tuple(value.shape)}; give images (K, ...) like the originals.")
    if training[1].shape != (len(training[0]),):
        raise DataError(f"training labels of shape {tuple(training[1].shape)}; give one for each of its images.")
    if labels.shape != (len(originals),) or labels.is_floating_point():
        raise DataError(f"labels of shape {tuple(labels.shape)}; give one class for each of {len(originals)} images.")


def _check_bounds(originals: Tensor, inputs: Tensor, pixels: Pixels) -> None:
    """PSNR and SSIM are relative to the bounds: too wide ones flatter."""
    low, high = float(originals.min()), float(originals.max())
    if low < pixels.low or high > pixels.high:
        raise ArgumentError("bounds", (pixels.low, pixels.high), f"bounds that hold the originals, {low:g} to {high:g}")
    span = max(high, float(inputs.max())) - min(low, float(inputs.min()))
    if span < _TAKEN_UP * pixels.range:
        allowed = f"the least and the most that a pixel may be; originals and training images span {span:g}"
        raise ArgumentError("bounds", (pixels.low, pixels.high), allowed, "Wider ones make everything look alike.")


def _check_copies(originals: Tensor, inputs: Tensor, candidates: Tensor) -> None:
    of_originals, of_inputs, of_candidates = map(_digests, (originals, inputs, candidates))
    for name, where in (("training", set(of_inputs)), ("candidates", set(of_candidates))):
        for number, one in enumerate(of_originals):
            if one in where:
                raise DataError(f"original {number} is among the {name}; leave the originals out of them.")
    known = set(of_inputs)
    for number, one in enumerate(of_candidates):
        if one in known:
            raise DataError(
                f"candidate {number} is among the training images too: a baseline made of these would find it and "
                "never the original. Leave copies out of the data."
            )


def _digests(images: Tensor) -> list[bytes]:
    rows = (images.flatten(1) + 0.0).numpy()  # of -0 as of 0
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def _check_judge(judge: nn.Module, attacked: nn.Module | None, originals: Tensor, labels: Tensor) -> None:
    given: object = judge
    if not isinstance(given, nn.Module) or hasattr(given, "origin_network"):
        raise ArgumentError("judge", type(given).__name__, "a network without a defense, a torch.nn.Module")
    if any(module.training for module in judge.modules()):
        raise ArgumentError("judge", type(judge).__name__, "a network in evaluation mode", "Call judge.eval().")
    _check_answers(_asked(judge, originals), labels)
    if attacked is None:
        return
    own = [value for _, value in judge.named_parameters() if bool((value != value.flatten()[:1]).any())]
    equal = any(
        other.shape == value.shape and bool((other.to(value) == value).all())
        for _, other in attacked.named_parameters()
        for value in own
    )
    if judge is attacked or equal:
        raise ArgumentError(
            "judge",
            type(judge).__name__,
            "a network trained independently of the attacked one",
            "Whatever fools a network into an answer is judged right by it; train another from another seed.",
        )
