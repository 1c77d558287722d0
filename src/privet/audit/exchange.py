"""The exchange control: shadow models trained on a record and those that were not change places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from privet.audit.findings import ExchangeControl
from privet.audit.runs import LABEL_ONLY, LIRA, OFFLINE_LIRA, RMIA, shadow_scores
from privet.audit.world import World

__all__ = ["exchange_control"]

_SIGN = {LIRA: -1.0, LABEL_ONLY: -1.0, RMIA: 1.0}


def exchange_control(world: World) -> ExchangeControl:
    """Look whether every attack keeps answers of models trained on a record apart from those of models that were not.

    * A likelihood ratio changes its sign if all memberships are turned round.
    * The mean over both kinds, which RMIA divides by, stays as it is.
    * The offline attack stays as it is if the answers of models trained on a record are replaced by others.

    Args:
        world: with shadow models.

    Returns:
        The attacks for which this does not hold.
    """
    here = world.shadows
    if here is None:
        return ExchangeControl(())
    scores = shadow_scores(world)
    turned = shadow_scores(replace(world, shadows=replace(here, membership=~here.membership)))
    broken = [name for name, sign in _SIGN.items() if name in scores and not _equal(turned[name], sign * scores[name])]
    if OFFLINE_LIRA in scores:
        others = here.changed(lambda signals: np.where(here.membership[:, :, None], signals[::-1], signals))
        replaced = shadow_scores(replace(world, shadows=others))
        if not _equal(replaced[OFFLINE_LIRA], scores[OFFLINE_LIRA]):
            broken.append(OFFLINE_LIRA)
    return ExchangeControl(tuple(broken))


def _equal(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    return bool(np.allclose(first, second, rtol=1e-6, atol=1e-6 * max(1.0, float(np.abs(second).max()))))
