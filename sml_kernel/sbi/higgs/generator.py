"""Collisions that make a Higgs boson, a Z, top quarks or two Ws, and of these a lepton and a tau.

Pythia 8 makes them, at leading order with parton showers, at 13 TeV. It is GPL and comes only with
the extra ``physics``. Spins of the two taus of a boson stay correlated (Pythia's amplitudes).

Taus of negative charge decay to an electron or muon, those of positive charge to hadrons, and the
weight stands for the reverse too. What cannot pass the preselection is dropped before its quarks
become hadrons, which costs most of the time. Multiple parton interactions are off: the noise of the
soft term in `detector` stands for them and for pile-up.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Branching fractions of the Particle Data Group (2022).
TAU_TO_LEPTON = 0.1782 + 0.1739
W_TO_LEPTON = 0.1086  # one flavour
_TAU_TO_HADRONS = 1 - TAU_TO_LEPTON

#: At 13 TeV in pb: LHC Higgs Working Group, CERN-2017-002 (m = 125 GeV, N³LO and NNLO); FEWZ, NNLO
#: for m(ττ) > 50 GeV; Top++, NNLO+NNLL at 172.5 GeV; Gehrmann et al., PRL 113 (2014) 212001, NNLO.
_GLUON_FUSION_PB, _VECTOR_BOSON_FUSION_PB, _HIGGS_TO_TAUS = 48.58, 3.782, 0.06272
_Z_TO_TAUS_PB, _TTBAR_PB, _WW_PB = 2008.4, 831.76, 118.7

COLLISIONS = 500  # of a chunk: each is made by a Pythia of its own, so depends on nothing before it
JETS = 6  # that are kept of an event, by transverse momentum
_LOOSE_PT_GEV, _MAX_ETA, _MIN_DELTA_R = 18.0, 2.5, 0.4
_JET_PT_GEV, _JET_RADIUS, _JET_MAX_ETA = 15.0, 0.4, 4.5
_NEUTRINOS = {12, 14, 16}
_COMMON = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    "Random:setSeed = on",
    "PartonLevel:MPI = off",
    "HadronLevel:all = off",
    "15:onMode = off",
    "15:onPosIfAny = 11 13",
    "15:onNegIfAny = 111 211 311 321",
)
_WS = ("24:onMode = off", "24:onIfAny = 15", "24:onNegIfAny = 11 13")


@dataclass(frozen=True)
class Process:
    """What Pythia is told, and the cross section of each of its subprocesses.

    Attributes
    ----------
    settings
        Pythia's, besides those in common.
    cross_sections_pb
        Pythia's codes → pb of these together, with the branching fractions of everything but a
        tau to a lepton, and both charges.
    """

    settings: tuple[str, ...]
    cross_sections_pb: dict[tuple[int, ...], float]


_BOTH_CHARGES = 2 * _TAU_TO_HADRONS
_TWO_WS = _BOTH_CHARGES * W_TO_LEPTON * 3 * W_TO_LEPTON
PROCESSES = {
    "htautau": Process(
        (
            "HiggsSM:gg2H = on",
            "HiggsSM:ff2Hff(t:ZZ) = on",
            "HiggsSM:ff2Hff(t:WW) = on",
            "25:m0 = 125.",
            "25:onMode = off",
            "25:onIfMatch = 15 -15",
        ),
        {
            (902,): _BOTH_CHARGES * _HIGGS_TO_TAUS * _GLUON_FUSION_PB,
            (906, 907): _BOTH_CHARGES * _HIGGS_TO_TAUS * _VECTOR_BOSON_FUSION_PB,
        },
    ),
    "ztautau": Process(
        (
            "WeakSingleBoson:ffbar2gmZ = on",
            "PhaseSpace:mHatMin = 50.",
            "23:onMode = off",
            "23:onIfMatch = 15 -15",
            "Check:history = off",  # for _forget_quarks
        ),
        {(221,): _BOTH_CHARGES * _Z_TO_TAUS_PB},
    ),
    "ttbar": Process(
        ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_WS), {(601, 602): _TWO_WS * _TTBAR_PB}
    ),
    "diboson": Process(("WeakDoubleBoson:ffbar2WW = on", *_WS), {(233,): _TWO_WS * _WW_PB}),
}


@dataclass(frozen=True)
class Truth:
    """N events of one chunk as they were made, with a lepton and a hadronic tau; GeV and radians.

    Attributes
    ----------
    code
        [N] Pythia's number of the subprocess.
    lepton_id
        [N] 11 or 13.
    from_tau
        [N] whether a tau decayed to the lepton.
    had, lep
        [N, 3] pT, η and φ of the tau's visible part and of the lepton.
    jets
        [N, JETS, 3] the same of anti-kT jets (R = 0.4, pT > 15 GeV, \\|η\\| < 4.5) away from both,
        largest pT first; zeros where there are less.
    neutrinos
        [N, 2] x and y of the momentum of all neutrinos.
    generated
        Code → number of collisions, those included that were dropped.
    """

    code: np.ndarray
    lepton_id: np.ndarray
    from_tau: np.ndarray
    had: np.ndarray
    lep: np.ndarray
    jets: np.ndarray
    neutrinos: np.ndarray
    generated: dict[int, int]


def generate(process: str, seed: int) -> Truth:
    """One chunk of `COLLISIONS`.

    Parameters
    ----------
    process
        A key of `PROCESSES`.
    seed
        1 … 900,000,000 (Pythia's range). The same gives the same events.

    Raises
    ------
    ModuleNotFoundError
        Pythia is not installed.
    RuntimeError
        Pythia refuses its settings or gives up.
    """
    import_pythia()
    pythia = _pythia(process, seed)
    generated: Counter[int] = Counter()
    events = []
    for _ in range(COLLISIONS):
        if not pythia.next():
            raise RuntimeError(f"Pythia gave up on {process} with seed {seed}; take another seed")
        code = pythia.infoPython().code()
        generated[code] += 1
        pair = _pair(pythia.event)
        if not pair:
            continue
        _forget_quarks(pythia.event)
        if not pythia.forceHadronLevel():
            generated[code] -= 1  # rare; as if the collision had never been
        elif event := _visible(pythia.event, *pair):
            events.append((code, *event))
    codes, ids, from_tau, *momenta = list(zip(*events, strict=True)) or [()] * 7
    had, lep, jets, neutrinos = (
        np.array(column, float).reshape(len(events), *shape)
        for column, shape in zip(momenta, ((3,), (3,), (JETS, 3), (2,)), strict=True)
    )
    labels = np.array(codes, int), np.array(ids, int), np.array(from_tau, bool)
    return Truth(*labels, had, lep, jets, neutrinos, dict(generated))


def import_pythia() -> Any:
    """The module ``pythia8mc``, or the error that says how to install it."""
    if importlib.util.find_spec("pythia8mc") is None:
        raise ModuleNotFoundError(
            "Pythia 8 makes these events and is not installed (it is GPL, hence an extra): "
            "pip install 'sml-kernel[physics]', or read files with read_fair_universe",
            name="pythia8mc",
        )
    import pythia8mc

    return pythia8mc


def _pythia(process: str, seed: int) -> Any:
    pythia = import_pythia().Pythia("", False)
    for setting in (*_COMMON, f"Random:seed = {seed}", *PROCESSES[process].settings):
        if not pythia.readString(setting):
            raise RuntimeError(f"Pythia does not know {setting!r}; it needs version 8.3 or later")
    if not pythia.init():
        raise RuntimeError(f"Pythia refused its settings for {process}")
    return pythia


def _forget_quarks(event: Any) -> None:
    """Leave out where a Z came from.

    Pythia then takes the amplitude of Z → ττ for the spins of the taus, instead of that of
    qq̄ → γ*/Z → ττ, which makes hadronisation and decays take 18 times as long. Their correlation
    stays; what goes is how their polarisation depends on the angle to the beam.
    """
    for particle in event:
        if particle.id() == 23:
            particle.mothers(0, 0)


def _pair(event: Any) -> tuple[int, int] | None:
    """Places of the positive tau and of the negative lepton of any flavour, where both may pass."""
    places: dict[bool, int] = {}
    for place, particle in enumerate(event):
        identity = particle.id()
        if identity in (-15, 11, 13, 15) and particle.isFinal():
            known = places.setdefault(identity < 0, place)
            if particle.pT() > event[known].pT():
                places[identity < 0] = place
    if len(places) < 2 or not all(
        event[p].pT() > _LOOSE_PT_GEV and abs(event[p].eta()) < _MAX_ETA + 0.2
        for p in places.values()
    ):
        return None
    return places[True], places[False]


def _visible(event: Any, tau: int, lepton: int) -> tuple | None:
    """Lepton's id, whether of a tau, and the momenta of `Truth`; None if out of acceptance."""
    had = event[tau].p()
    for place in event[tau].daughterList():
        if event[place].idAbs() in _NEUTRINOS:
            had = had - event[place].p()
    from_tau = event[lepton].idAbs() == 15
    if from_tau:
        lepton = next(d for d in event[lepton].daughterList() if event[d].idAbs() in (11, 13))
    lep = event[lepton].p()
    near = math.hypot(had.eta() - lep.eta(), _turn(had.phi() - lep.phi())) < _MIN_DELTA_R
    if near or any(v.pT() < _LOOSE_PT_GEV or abs(v.eta()) > _MAX_ETA for v in (had, lep)):
        return None
    objects = [(v.pT(), v.eta(), v.phi()) for v in (had, lep)]
    unseen = [p for p in event if p.isFinal() and p.idAbs() in _NEUTRINOS]
    neutrinos = sum(p.px() for p in unseen), sum(p.py() for p in unseen)
    return event[lepton].idAbs(), from_tau, *objects, _jets(event, objects), neutrinos


def _jets(event: Any, objects: list[tuple[float, float, float]]) -> list[tuple[float, ...]]:
    """The `JETS` leading ones that are neither of the objects, filled up with zeros."""
    visible, own_masses, prints_a_banner = 2, 2, False
    slow = import_pythia().SlowJet(
        -1, _JET_RADIUS, _JET_PT_GEV, 5.0, visible, own_masses, None, prints_a_banner, True
    )
    slow.analyze(event)
    found: list[tuple[float, ...]] = []
    for place in range(slow.sizeJet()):
        momentum = slow.p(place)
        jet = (momentum.pT(), momentum.eta(), momentum.phi())
        apart = all(math.hypot(jet[1] - o[1], _turn(jet[2] - o[2])) > _JET_RADIUS for o in objects)
        if apart and abs(jet[1]) < _JET_MAX_ETA:
            found.append(jet)
    return (found + [(0.0, 0.0, 0.0)] * JETS)[:JETS]


def _turn(angle: float) -> float:
    """An angle in −π … π."""
    return math.remainder(angle, 2 * math.pi)
