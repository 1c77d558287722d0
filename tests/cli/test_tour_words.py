"""What the tour says follows from what was measured, in every case that can come up."""

import pytest

from privet.attacks.membership import MembershipScores
from privet.cli.tour import output_defenses as stop
from privet.cli.tour.scene import Leakage, Row
from privet.statistics import Estimate, clopper_pearson, roc_curve, tpr_at_fpr


def row(protection: str, low: float, high: float) -> Row:
    import numpy as np

    scores = MembershipScores("made up", np.arange(200.0), np.arange(200.0))
    return Row(
        protection,
        "something",
        Leakage(
            scores,
            clopper_pearson(50, 100),
            Estimate((low + high) / 2, low, high, 0.95, 200),
            tpr_at_fpr(scores.members, scores.non_members, 0.01),
            roc_curve(scores.members, scores.non_members),
        ),
    )


CLEAN, LEAKS, LEAKS_MORE, LEAKS_LESS = (0.48, 0.52), (0.60, 0.64), (0.66, 0.70), (0.52, 0.56)


@pytest.mark.parametrize(
    ("plain", "defended", "heading", "found"),
    [
        (CLEAN, [CLEAN, CLEAN], "The same network, saying less", "found nothing here"),
        (LEAKS, [CLEAN, CLEAN], "Saying less can help", "Behind each defense this attack finds nothing"),
        (LEAKS, [LEAKS, LEAKS_MORE], "Saying less does not stop it", "behind: first, second"),
        (LEAKS, [LEAKS_MORE, CLEAN], "Saying less can help", "behind: first."),
        (CLEAN, [LEAKS, CLEAN], "The same network, saying less", "behind: first."),
        (LEAKS, [LEAKS_LESS, LEAKS], "Saying less does not stop it", "behind: first, second"),
    ],
)
def test_heading_and_verdict_agree_with_the_intervals(
    plain: tuple[float, float], defended: list[tuple[float, float]], heading: str, found: str
) -> None:
    rows = tuple(row(name, *ends) for name, ends in zip(("first", "second"), defended, strict=True))
    undefended = row("none", *plain)
    assert stop._heading(undefended, rows) == heading
    assert found in stop._verdict(undefended, rows)
    better = any(ends[0] > plain[1] for ends in defended)
    assert bool(stop._surprise(undefended, rows)) == better
    assert "no more members than chance explains" in stop._credible((undefended, *rows))
