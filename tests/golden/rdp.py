"""Regenerates rdp.json: epsilon by the RDP accountant of dp-accounting at its default orders.

Run: python tests/golden/rdp.py
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

CASES = [  # sampling rate, noise multiplier, steps, delta
    (256 / 60_000, 1.3, 3_515, 1e-5),
    (256 / 60_000, 1.1, 14_062, 1e-5),
    (256 / 60_000, 0.7, 10_546, 1e-5),
    (0.01, 4.0, 10_000, 1e-5),
    (0.04, 1.5, 2_250, 1e-5),
    (0.1, 3.0, 512, 1e-6),
    (0.01, 1.0, 1_000, 1e-9),
]


def main() -> None:
    cases = []
    for rate, noise, steps, delta in CASES:
        event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
        epsilon = RdpAccountant().compose(event, steps).get_epsilon(delta)
        cases.append(
            {
                "sampling_rate": rate,
                "noise_multiplier": noise,
                "steps": steps,
                "delta": delta,
                "epsilon": round(float(epsilon), 5),
            }
        )
    source = f"dp-accounting {importlib.metadata.version('dp-accounting')}, RdpAccountant at its default orders"
    text = json.dumps({"source": source, "regenerate": "tests/golden/rdp.py", "cases": cases}, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
