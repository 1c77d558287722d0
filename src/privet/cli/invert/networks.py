"""The networks that a configuration names, with their weights, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from privet.attacks.inversion import Normalisation
from privet.checkpoints import load_weights
from privet.cli.builders import builders_for
from privet.cli.invert.configuration import Network
from privet.cli.user_file import function_from, told
from privet.data import Examples
from privet.errors import FileFormatError

__all__ = ["Normalised", "network_of"]

_SEED = 0  # weights are read over it


class Normalised(nn.Module):
    """A network that takes pixels as they are."""

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network, self.normalisation = network, normalisation

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to answers."""
        answers: Tensor = self.network(self.normalisation(images))
        return answers


def network_of(path: Path, table: str, wanted: Network, records: Examples) -> nn.Module:
    """Build a network and read its weights; files are seen from the configuration's folder.

    Args:
        path: the configuration.
        table: the name of the table, for errors.
        wanted: what it says.
        records: images like those the network takes.

    Raises:
        FileFormatError: there is no such network, or the weights are not its own.
        ArgumentError: the user's file cannot be executed.
    """
    key, file = f"{table}.builder", ""
    if ":" in wanted.builder:
        reference = str(path.parent / wanted.builder)
        build, file = function_from(key, reference), reference.rpartition(":")[0]
    else:
        build = _known(path, key, wanted, records)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        try:
            network = build(**wanted.arguments)
        except (Exception, SystemExit) as error:
            said = told(error, Path(file)) if file else str(error)
            given = f"{key} = {wanted.builder!r} with {wanted.arguments or 'no arguments'}, which ended in: {said}"
            raise FileFormatError(path, given, f"a network for {_like(records)}") from error
    if not isinstance(network, nn.Module):
        raise FileFormatError(path, f"{key} that gives a {type(network).__name__}", "a torch.nn.Module")
    if wanted.weights is not None:
        load_weights(path.parent / wanted.weights, network)
    return network.eval()


def _known(path: Path, key: str, wanted: Network, records: Examples) -> Callable[..., nn.Module]:
    builders = builders_for(records, _SEED)
    if wanted.builder not in builders:
        raise FileFormatError(path, f"{key} = {wanted.builder!r}", f"{', '.join(builders)}, or file.py:function")
    return builders[wanted.builder]


def _like(records: Examples) -> str:
    return f"images of shape {tuple(records.inputs.shape[1:])} and {records.classes} classes"
