"""What a configuration stands for: the networks, the images, the attack, each tried before the work starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privet import outputs
from privet.atomic_file import check_destination
from privet.attacks.inversion import InversionQuality, Quality, Representation, evaluate
from privet.attacks.inversion.network_part import part_of
from privet.cli.audit.columns import records_from
from privet.cli.invert.configuration import Configuration, DefenseTable, Network
from privet.cli.invert.networks import Normalised, network_of
from privet.cli.user_file import told
from privet.data import Examples
from privet.data.load import NAMES
from privet.errors import ArgumentError, DataError, FileFormatError, FileWriteError

__all__ = ["Parts", "assemble"]

_COLOURS = (1, 3)
_IN_FOLDERS = ("mnist", "fashion-mnist", "cifar10", "cifar100")


@dataclass(frozen=True, eq=False)
class Parts:
    """All that an inversion takes.

    Attributes:
        network: the attacked one, without its defense.
        served: what answers: the network, or a defense around it.
        judge: takes pixels as they are.
        source: where the images are from.
        originals: what is looked for.
        training: of the baselines.
        candidates: among which each original is looked for.
        attack: on the observed answers.
        observed: the answers about the originals.
        known: the originals beside the same baselines, as they are judged; what no reconstruction can surpass.
        bounds: of pixels.
        picture: where it is drawn.
        numbers: where the numbers are written.
    """

    network: nn.Module
    served: nn.Module
    judge: nn.Module
    source: str
    originals: Examples
    training: Examples
    candidates: Examples
    attack: Representation
    observed: Any
    known: Quality
    bounds: tuple[float, float]
    picture: Path | None
    numbers: Path | None

    def quality(self, images: Tensor) -> InversionQuality:
        """How good reconstructions (N, C, H, W) of the originals are."""
        return evaluate(
            images,
            self.originals.inputs,
            self.originals.labels,
            judge=self.judge,
            attacked=self.network,
            training=(self.training.inputs, self.training.labels),
            candidates=self.candidates.inputs,
            bounds=self.bounds,
        )


def assemble(path: Path, configuration: Configuration) -> Parts:
    """Make everything that a configuration names; paths in it are seen from its folder.

    One step of the attack and one judgement of the originals are tried, so that what fails does so here.

    Raises:
        FileFormatError: a value is not allowed where it stands; says its key.
        PrivetError: data cannot be read, a file of the user's cannot be run, or nothing can be written.
    """
    output = configuration.output
    picture = _destination(path, "output.picture", output.picture)
    numbers = _destination(path, "output.numbers", output.numbers)
    images = _images(path, configuration)
    low, high = configuration.inversion.bounds
    originals, candidates, training = _split(path, configuration, images)
    network = _moved(path, configuration, network_of(path, "network", configuration.network, images))
    judge = _moved(path, configuration, network_of(path, "judge", configuration.judge, images))
    served, network = _served(path, configuration, network)
    observed = _observed(path, configuration, served, originals.inputs)
    judge = _judging(path, configuration, judge, originals)
    with (
        _placed(path, {"judge": "judge", "bounds": "inversion.bounds"}),
        _running(path, "judge", configuration.judge, None),
    ):
        known = evaluate(
            originals.inputs,
            originals.inputs,
            originals.labels,
            judge=judge,
            attacked=network,
            training=(training.inputs, training.labels),
            candidates=candidates.inputs,
            bounds=(low, high),
        ).reconstruction
    attack = _attack(path, configuration, served, network, tuple(originals.inputs.shape[1:]), observed)
    return Parts(
        network,
        served,
        judge,
        images.source,
        originals,
        training,
        candidates,
        attack,
        observed,
        known,
        (low, high),
        picture,
        numbers,
    )


def _destination(path: Path, key: str, name: str | None) -> Path | None:
    if name is None:
        return None
    with _placed(path, {key: key}):
        found = check_destination(key, path.parent / name)
    if not os.access(found.parent, os.W_OK):
        raise FileWriteError(path.parent / name, f"no right to write in {found.parent}")
    return path.parent / name


def _images(path: Path, configuration: Configuration) -> Examples:
    wanted = configuration.data
    name = wanted.source.removesuffix(":train").removesuffix(":test")
    named = name in NAMES
    if wanted.folder is not None and name not in _IN_FOLDERS:
        allowed = f"none: {wanted.source} is in no folder of files ({', '.join(_IN_FOLDERS)} are)"
        raise FileFormatError(path, f"data.folder = {wanted.folder!r}", allowed)
    source = wanted.source if named else str(path.parent / wanted.source)
    folder = None if wanted.folder is None else str(path.parent / wanted.folder)
    with _placed(path, {"data.source": "data.source"}):
        images = records_from("data.source", source, folder)
    found = f"data.source = {wanted.source!r} with inputs of shape {tuple(images.inputs.shape[1:])}"
    if images.inputs.dim() != 4:
        raise FileFormatError(path, found, "images (C, H, W)")
    channels = images.inputs.shape[1]
    if configuration.output.picture is not None and channels not in _COLOURS:
        raise FileFormatError(path, found, "1 or 3 channels for a picture", "Leave output.picture out.")
    for table in ("network", "judge"):
        mean = getattr(configuration, table).mean
        if mean is not None and len(mean) not in (1, channels):
            raise FileFormatError(path, f"{table}.mean of {len(mean)} numbers", f"1 or {channels}, one a channel")
    low, high = configuration.inversion.bounds
    least, most = float(images.inputs.min()), float(images.inputs.max())
    if least < low or most > high:
        raise FileFormatError(
            path, f"inversion.bounds = [{low:g}, {high:g}]", f"bounds that hold the pixels, {least:g} to {most:g}"
        )
    return images


def _split(path: Path, configuration: Configuration, images: Examples) -> tuple[Examples, ...]:
    wanted = configuration.data
    training = wanted.training
    if training is None:
        training = max(1, len(images) - wanted.images - wanted.candidates)
    total = wanted.images + wanted.candidates + training
    if total > len(images):
        given = f"data.images, candidates and training of {total:,} together"
        raise FileFormatError(path, given, f"at most the {len(images):,} of {wanted.source}")
    return images.split(wanted.images, wanted.candidates, training, seed=wanted.seed)


def _moved(path: Path, configuration: Configuration, network: nn.Module) -> nn.Module:
    device = configuration.inversion.device
    if device is None:
        return network
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it holds no numbers")
        return network.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a build without it asserts
        said = str(error).partition("\n")[0]
        raise FileFormatError(
            path, f"inversion.device = {device!r} ({said})", "a device that PyTorch has here"
        ) from error


def _served(path: Path, configuration: Configuration, network: nn.Module) -> tuple[nn.Module, nn.Module]:
    wanted, builder = configuration.defense, configuration.network.builder
    if isinstance(network, outputs.Defense):
        for key, value in (("a defense", wanted), ("network.layer", configuration.network.layer)):
            if value is not None:
                raise FileFormatError(path, key, f"none: {builder} gives a defended network")
        return network, network.origin_network()
    return (network if wanted is None else _defended(network, wanted)), network


def _defended(network: nn.Module, wanted: DefenseTable) -> outputs.Defense:
    if wanted.label_only:
        return outputs.Labeling(network)
    served: nn.Module = network
    if wanted.decimals is not None:
        served = outputs.Rounding(served, wanted.decimals)
    if wanted.k is not None:
        served = outputs.TopK(served, wanted.k)
    assert isinstance(served, outputs.Defense)
    return served


def _observed(path: Path, configuration: Configuration, served: nn.Module, images: Tensor) -> Any:
    wanted = configuration.network
    normalisation = wanted.normalisation
    images = images.to(configuration.inversion.device)
    seen = images if normalisation is None else normalisation(images)
    with _placed(path, {"layer": "network.layer", "k": "defense.k", "decimals": "defense.decimals"}):
        part = served if isinstance(served, outputs.Defense) else part_of(served, wanted.layer)
        with _running(path, "network", wanted, images), torch.no_grad():
            return part(seen)


def _attack(
    path: Path,
    configuration: Configuration,
    served: nn.Module,
    network: nn.Module,
    shape: tuple[int, ...],
    observed: Any,
) -> Representation:
    wanted = configuration.inversion
    settings: dict[str, Any] = {
        "image_shape": shape,
        "bounds": tuple(wanted.bounds),
        "normalisation": configuration.network.normalisation,
        "tv_weight": wanted.tv_weight,
        "norm_weight": wanted.norm_weight,
        "start": wanted.start,
        "descent": wanted.moved,
    }
    with _placed(path, {"targets": "network", "image_shape": "data.source"}):
        if isinstance(served, outputs.Defense):
            attack = Representation.behind(served, **settings)
        else:
            attack = Representation(network, layer=configuration.network.layer, **settings)
        with _running(path, "network", configuration.network, None):
            attack.reconstruct(observed, iterations=1, seed=wanted.seed)
    return attack


def _judging(path: Path, configuration: Configuration, judge: nn.Module, originals: Examples) -> nn.Module:
    wanted, images = configuration.judge, originals.inputs
    if isinstance(judge, outputs.Defense):
        judge = judge.origin_network()
    if wanted.normalisation is not None:
        judge = Normalised(judge, wanted.normalisation).eval()
    with _running(path, "judge", wanted, images), torch.no_grad():
        answers: object = judge(images.to(configuration.inversion.device))
    if isinstance(answers, Tensor) and answers.shape != (len(images), originals.classes):
        expected = f"logits ({len(images)}, {originals.classes}), one a class"
        raise FileFormatError(path, f"a judge that answers {tuple(answers.shape)}", expected)
    return judge


@contextmanager
def _running(path: Path, table: str, wanted: Network, images: Tensor | None) -> Iterator[None]:
    """The network's own errors, from images that it does not take, in one line."""
    try:
        yield
    except (ArgumentError, DataError):
        raise
    except (Exception, SystemExit) as error:
        file = path.parent / wanted.builder.rpartition(":")[0]
        taken = "images of its data" if images is None else f"images of shape {tuple(images.shape)}"
        raise FileFormatError(
            path, f"{table}.builder = {wanted.builder!r}, which ended in {told(error, file)}", f"a network for {taken}"
        ) from error


@contextmanager
def _placed(path: Path, keys: dict[str, str]) -> Iterator[None]:
    """An argument that was refused, by the key it stands under; what is wrong with the data, by the file."""
    try:
        yield
    except ArgumentError as error:
        key = keys.get(error.name, error.name)
        raise FileFormatError(path, f"{key} = {error.value!r}", error.allowed, error.remedy) from error
    except FileFormatError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
