"""From a TOML file to images, a table of their quality, and what it means."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
import typer
from torch import nn

from privet import __version__
from privet.atomic_file import replacing
from privet.attacks.inversion import InversionQuality, Quality, Reconstruction, save_grid
from privet.attacks.inversion.measures import nearest
from privet.audit.provenance import weights_digest
from privet.cli.invert.configuration import Configuration
from privet.cli.invert.networks import Normalised
from privet.cli.invert.parts import Parts, assemble
from privet.cli.toml_file import read_toml
from privet.outputs import Defense
from privet.statistics import Estimate

__all__ = ["work"]

_WIDEST = 100
_MEASURES = ("relative_l2", "psnr", "ssim", "confidence", "reidentified")
_NO_PROOF = "Another attack may find more; no formal guarantee follows."


def work(config: Path, as_json: bool) -> None:
    """Invert as ``config`` says, print how good it is, and write the files.

    Raises:
        PrivetError: something is not allowed or cannot be done.
    """
    configuration = read_toml(config, Configuration)
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no part of the answer
        try:
            parts = assemble(config, configuration)
            if not as_json:
                typer.echo(_headline(parts, configuration), err=True)
            wanted = configuration.inversion
            found = parts.attack.reconstruct(
                parts.observed,
                iterations=wanted.iterations,
                restarts=wanted.restarts,
                seed=wanted.seed,
                progress=True,
            )
            quality = parts.quality(found.images)
        except KeyboardInterrupt:
            typer.echo("privet: stopped before there was anything to say.", err=True)
            raise typer.Exit(130) from None
    text = json.dumps(_as_json(parts, configuration, found, quality), allow_nan=False)
    typer.echo(text if as_json else _as_text(parts, configuration, quality))
    if parts.numbers is not None:  # last, so that nothing is lost if it cannot be written
        with replacing(parts.numbers) as file:
            file.write(text.encode() + b"\n")
    if parts.picture is not None:
        _draw(parts, found, quality)
    if not as_json:
        for name, path in (("picture", parts.picture), ("numbers", parts.numbers)):
            if path is not None:
                typer.echo(f"{name:14}{path}")


def _headline(parts: Parts, configuration: Configuration) -> str:
    return (
        f"{type(parts.network).__name__}: from {_answers(parts, configuration)} about {len(parts.originals):,} images, "
        f"of {parts.source}"
    )


def _answers(parts: Parts, configuration: Configuration) -> str:
    if isinstance(parts.served, Defense):
        form = parts.served.output_form
        if form.labels_only:
            return "the labels"
        scores = "the probabilities" if form.probabilities else "the scores"
        highest = "" if form.k is None else f"the {form.k} highest of "
        decimals = "" if form.decimals is None else f" at {form.decimals} decimal{'s' * (form.decimals != 1)}"
        return highest + scores + decimals
    layer = configuration.network.layer
    return "the answers" if layer is None else f"the answers of layer {layer}"


def _access(parts: Parts, configuration: Configuration) -> str:
    return f"the weights of the attacked network (white box) and {_answers(parts, configuration)} about each image"


def _as_text(parts: Parts, configuration: Configuration, quality: InversionQuality) -> str:
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    judged = f"The judge's confidence in the true label of the originals themselves: {parts.known.confidence}."
    assumed = f"Assumed: {_access(parts, configuration)}."
    said = (_finding(quality), judged, f"No verdict rests on SSIM alone. {assumed}")
    lines = [line for one in said for line in textwrap.wrap(one, width)]
    return "\n".join([str(quality), "", *lines])


def _finding(quality: InversionQuality) -> str:
    ours, by_class = quality.reconstruction.reidentified, quality.class_mean.reidentified
    counts = (
        f"{_count(ours)} of {ours.n:,} originals are nearest to their own reconstruction among "
        f"{quality.candidates:,} images, {_count(by_class)} to the mean image of their class"
    )
    if quality.reidentifies:
        return f"Finds originals: {counts}, and the intervals do not meet."
    return f"Does not find more originals than the class mean does: {counts}, and the intervals meet. {_NO_PROOF}"


def _count(share: Estimate) -> int:
    return round(share.value * share.n)


def _draw(parts: Parts, found: Reconstruction, quality: InversionQuality) -> None:
    assert parts.picture is not None
    originals, training = parts.originals.inputs, parts.training.inputs
    rows = {
        "original": originals,
        "reconstruction": found.images,
        "nearest other": training[nearest(originals, training)],
    }
    save_grid(parts.picture, rows, quality.reconstruction.distances, bounds=parts.bounds)


def _as_json(
    parts: Parts, configuration: Configuration, found: Reconstruction, quality: InversionQuality
) -> dict[str, Any]:
    return {
        "reidentifies": quality.reidentifies,
        "finding": _finding(quality),
        "access": _access(parts, configuration),
        "candidates": quality.candidates,
        "quality": {name.replace(" ", "_"): _measures(one) for name, one in quality.sets().items()},
        "judge_on_originals": _estimate(parts.known.confidence),
        "images": {
            "relative_l2": quality.reconstruction.distances.tolist(),
            "answer_distance": found.distances.tolist(),
            "labels": parts.originals.labels.tolist(),
        },
        "settings": configuration.model_dump(),
        "data": {
            "source": parts.source,
            "image_shape": list(parts.originals.inputs.shape[1:]),
            "images": len(parts.originals),
            "training": len(parts.training),
            "candidates": len(parts.candidates),
        },
        "weights_sha256": {"network": weights_digest(parts.network), "judge": weights_digest(_bare(parts.judge))},
        "versions": {"privet": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _bare(judge: nn.Module) -> nn.Module:
    return judge.network if isinstance(judge, Normalised) else judge


def _measures(quality: Quality) -> dict[str, Any]:
    return {name: _estimate(getattr(quality, name)) for name in _MEASURES}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": float(estimate.value),
        "low": float(estimate.low),
        "high": float(estimate.high),
        "n": estimate.n,
        "confidence": estimate.confidence,
    }
