"""Epsilon of long runs: certified, by privet and by its peers; live; and the noise that meets a target."""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant

from benchmarks.harness import Call, Work
from privet.accounting import PLD, RDP, Event, Poisson, calibration

NAME = "accounting"
_RATE, _DELTA = 256 / 60_000, 1e-5
_SIGMA, _STEPS, _TARGET = 1.1, 14_000, 2.0
_DECAYING = 10_000
_SAMPLE = 100  # of the distinct events, evenly spread, where all of them would take many minutes
_NOT_INSTALLED = "not installed; ./run bench installs the extra [bench]"

SetUp = Callable[[], Call]


def works() -> list[Work]:
    """A decaying run, a constant one, an open-ended one, and calibration."""
    return [_decaying(), _constant(), *_live(), _noise(), _scale()]


def _decaying() -> Work:
    """The peers' rows that compose a sample take, for all events, at least 10,000 / sample times as long."""
    part = f"({_SAMPLE} of the {_DECAYING:,} events only: times {_DECAYING // _SAMPLE:,} to extrapolate)"
    events = [Event(sigma, Poisson(_RATE)) for sigma in _sigmas()]
    some = _sigmas()[:: _DECAYING // _SAMPLE]
    methods: dict[str, SetUp] = {
        "privet upper": lambda: lambda: PLD().upper_epsilon(events, _DELTA),
        "privet both ends": lambda: lambda: PLD().epsilon(events, _DELTA),
        "privet rdp": lambda: lambda: RDP().epsilon(events, _DELTA),
        f"dp-accounting pld, event by event {part}": lambda: lambda: _dp_accounting([(sigma, 1) for sigma in some]),
    }
    missing = _with_opacus(methods, {f"opacus rdp {part}": "RDPAccountant"}, [(sigma, _RATE, 1) for sigma in some])
    return Work(f"decaying-{_DECAYING}", methods, baseline="privet upper", rounds=3, missing=missing)


def _constant() -> Work:
    events = [Event(_SIGMA, Poisson(_RATE), _STEPS)]
    methods: dict[str, SetUp] = {
        "privet both ends": lambda: lambda: PLD().epsilon(events, _DELTA),
        "dp-accounting pld (upper end)": lambda: lambda: _dp_accounting([(_SIGMA, _STEPS)]),
    }
    opacus = {
        "opacus prv (upper end, error 0.01)": "PRVAccountant",
        "opacus rdp": "RDPAccountant",
        "opacus gdp (a CLT estimate, no bound)": "GaussianAccountant",
    }
    missing = _with_opacus(methods, opacus, [(_SIGMA, _RATE, _STEPS)])
    try:
        peer = importlib.import_module("prv_accountant")
    except ImportError:
        missing["prv-accountant"] = _NOT_INSTALLED
    else:
        methods["prv-accountant (both ends, error 0.01)"] = lambda: lambda: _prv(peer)
    return Work(f"constant-{_STEPS}", methods, baseline="privet both ends", rounds=3, missing=missing)


def _live() -> list[Work]:
    """A planned run looked up, an open-ended one with a new sigma each step; none where the modules are missing."""
    found = []
    try:
        trajectory: Any = importlib.import_module("privet.accounting.trajectory")
    except ImportError:
        pass
    else:
        methods: dict[str, SetUp] = {"privet trajectory": lambda: _look_up(trajectory)}
        found.append(Work("live-lookup", methods, baseline="privet trajectory", rounds=1001))
    try:
        live: Any = importlib.import_module("privet.accounting.live")
    except ImportError:
        return found
    methods = {"privet open run": lambda: _append(live)}
    return [*found, Work("live-append", methods, baseline="privet open run", rounds=301)]


def _look_up(trajectory: Any) -> Call:
    events = [Event(sigma, Poisson(_RATE)) for sigma in _sigmas()]
    known = trajectory.Trajectory.of(events, _DELTA, marks=8)
    steps = itertools.cycle(range(0, _DECAYING, 37))
    return lambda: known.at(next(steps))


def _append(live: Any) -> Call:
    """One release more and the epsilon after it, from the 300th step on."""
    run, sigmas = live.OpenRun(_RATE, _DELTA), iter(_sigmas())
    for _ in range(300):
        run.append(next(sigmas))
    run.upper_epsilon()

    def call() -> object:
        run.append(next(sigmas))
        return run.upper_epsilon()

    return call


def _noise() -> Work:
    def peer() -> object:
        def event(sigma: float) -> Any:
            sampled = dp_accounting.PoissonSampledDpEvent(_RATE, dp_accounting.GaussianDpEvent(sigma))
            return dp_accounting.SelfComposedDpEvent(sampled, _STEPS)

        bracket = dp_accounting.ExplicitBracketInterval(0.5, 5.0)
        return dp_accounting.calibrate_dp_mechanism(PLDAccountant, event, _TARGET, _DELTA, bracket, tol=1e-4)

    methods: dict[str, SetUp] = {
        "privet": lambda: lambda: calibration.noise_multiplier(Poisson(_RATE), _STEPS, _DELTA, _TARGET),
        "dp-accounting pld (from 0.5 to 5, tolerance 1e-4)": lambda: peer,
    }
    return Work(f"calibration-{_STEPS}", methods, baseline="privet", rounds=3)


def _scale() -> Work:
    def scale() -> object:
        return calibration.schedule_scale(_sigmas(), Poisson(_RATE), _DELTA, _TARGET)

    return Work(f"calibration-decaying-{_DECAYING}", {"privet": lambda: scale}, baseline="privet", rounds=7)


def _sigmas() -> list[float]:
    sigmas: list[float] = (2.0 * 0.3 ** (np.arange(_DECAYING) / (_DECAYING - 1))).tolist()
    return sigmas


def _dp_accounting(counted: Sequence[tuple[float, int]]) -> float:
    accountant = PLDAccountant()
    for sigma, count in counted:
        accountant.compose(dp_accounting.PoissonSampledDpEvent(_RATE, dp_accounting.GaussianDpEvent(sigma)), count)
    return float(accountant.get_epsilon(_DELTA))


def _with_opacus(
    methods: dict[str, SetUp], kinds: dict[str, str], history: list[tuple[float, float, int]]
) -> dict[str, str]:
    """Adds a method an accountant of Opacus, and says which are missing and why."""
    try:
        opacus = importlib.import_module("opacus.accountants")
    except ImportError:
        return dict.fromkeys(kinds, _NOT_INSTALLED)

    def of(kind: str) -> SetUp:
        def call() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that GDP may underestimate; that the best order ends its range
                accountant = getattr(opacus, kind)()
                accountant.history = list(history)
                return accountant.get_epsilon(_DELTA)

        return lambda: call

    methods.update({name: of(kind) for name, kind in kinds.items()})
    return {}


def _prv(peer: Any) -> object:
    release = peer.PoissonSubsampledGaussianMechanism(sampling_probability=_RATE, noise_multiplier=_SIGMA)
    accountant = peer.PRVAccountant([release], 0.01, _DELTA / 1000, max_self_compositions=[_STEPS])
    return accountant.compute_epsilon(_DELTA, [_STEPS])
