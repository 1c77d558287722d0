"""The controls of an audit: the same attacks on worlds in which it is known what is to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from privet.attacks.membership.learned import Method
from privet.audit.assess import Assessment, assess
from privet.audit.exchange import exchange_control
from privet.audit.findings import ExchangeControl, NullControl
from privet.audit.null import NULL_CONFIDENCE, null_control
from privet.audit.planted import plant
from privet.audit.procedure import FEWEST_BLOCKS, procedure_null
from privet.audit.runs import Run, chosen_methods, headline_of, run_attacks
from privet.audit.terms import Terms
from privet.audit.world import World

__all__ = ["Controls", "controlled"]


@dataclass(frozen=True, eq=False)
class Controls:
    """What the controls found.

    Attributes:
        null: where membership was shuffled.
        planted: what each attack says where some members were memorised outright, by name.
        exchange: where shadow models trained on a record changed places with others; None without shadow models.
    """

    null: NullControl
    planted: Mapping[str, Assessment]
    exchange: ExchangeControl | None


def controlled(
    world: World, runs: Mapping[str, Run], methods: Sequence[Method], rows: NDArray[np.intp], terms: Terms
) -> Controls:
    """Run every attack again, in full, where there is nothing to find, and where there is a leak to find.

    Where there is a leak to find the learned attacks keep the parameters that they chose on the target.

    Args:
        world: what the attacks saw.
        runs: what they brought.
        methods: of the learned attacks.
        rows: the members to be memorised.
        terms: how the audit is done.

    Returns:
        What the controls found.
    """
    shuffled = run_attacks(world.shuffled(terms.seed), methods, seed=terms.seed)
    null = null_control(
        {name: run.scores for name, run in shuffled.items()},
        accuracies={name: run.details["accuracy"] for name, run in shuffled.items() if "accuracy" in run.details},
        headline=headline_of(runs),
        confidence=terms.confidence,
        seed=terms.seed,
    )
    planted = run_attacks(plant(world, rows, terms.seed), chosen_methods(runs), seed=terms.seed)
    found = assess({name: run.scores for name, run in planted.items()}, confidence=terms.confidence, seed=terms.seed)
    return Controls(_with_rotation(null, world, terms), found, exchange_control(world) if world.shadows else None)


def _with_rotation(null: NullControl, world: World, terms: Terms) -> NullControl:
    """The null control of the rotation too, where there are enough shadow models to rotate."""
    shadows = world.shadows
    if shadows is None or np.unique(shadows.blocks).size < FEWEST_BLOCKS:
        return null
    auc = procedure_null(shadows, world.answers.form, confidence=NULL_CONFIDENCE, seed=terms.seed)
    return replace(null, found=(*null.found, "every shadow model in turn")) if auc.low > 0.5 else null
