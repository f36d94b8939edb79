"""H → ττ over Z → ττ, top quarks and dibosons, in the manner of the FAIR Universe challenge."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from sml_kernel.sbi.higgs.detector import WIDTHS, Objects, vary
from sml_kernel.sbi.higgs.features import PRESELECTION, features, selected
from sml_kernel.sbi.higgs.samples import Sample, sample
from sml_kernel.sbi.problems.origins import InputError
from sml_kernel.sbi.problems.problem import Problem

#: Relative standard deviation of each normalisation, and what it multiplies: arXiv:2410.02867.
NORMALISATIONS = {
    "ttbar_scale": (0.02, ("ttbar",)),
    "diboson_scale": (0.25, ("diboson",)),
    "bkg_scale": (0.001, ("ztautau", "ttbar", "diboson")),
}
SIGNAL = "htautau"


def htautau(
    events: int = 2000,
    seed: int = 1,
    *,
    processes: Sequence[str] = (SIGNAL, "ztautau", "ttbar", "diboson"),
    nuisances: Sequence[str] = tuple(WIDTHS),
    luminosity_fb: float = 10.0,
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> Problem:
    """Collisions at 13 TeV with an electron or muon, a hadronic tau, jets and missing momentum.

    Needs Pythia 8, the extra ``physics``. The physics is described where it is done:
    `generator`, `detector` and `features`.

    Parameters
    ----------
    events
        Of each process, that pass the preselection (hadronic tau above 26 GeV, lepton above
        20 GeV); up to a few hundred more come.
    seed
        0 … 2³⁰ − 1. The same gives the same events.
    processes
        Of ``htautau``, ``ztautau``, ``ttbar`` and ``diboson``.
    nuisances
        Of ``tes``, ``jes`` and ``soft_met``: for each, every process is there also with it moved by
        ±1 standard deviation, as ``htautau@tes=+1``, with the event numbers of the nominal class.
        The preselection is applied after the move. Those of normalisation: see `expected_yields`.
    luminosity_fb
        Integrated luminosity in inverse fb: weights sum to the events expected in it, at μ = 1.
    cache
        Folder where the events are kept, a parquet file a process; None keeps nothing.
    progress
        Show it, and how many events passed the preselection.

    Returns
    -------
    Problem
        With the 28 features of the challenge.

    Raises
    ------
    InputError
        A process or nuisance parameter is unknown, a number out of range, or a file in `cache`
        damaged.
    ModuleNotFoundError
        Pythia is not installed.
    """
    unknown = set(nuisances) - set(WIDTHS)
    if unknown or luminosity_fb <= 0 or not processes:
        raise InputError(
            f"nuisances {list(nuisances)}, {luminosity_fb} per fb, processes {list(processes)}: "
            f"give nuisances of {', '.join(WIDTHS)}, a luminosity above zero, and a process"
        )
    samples = {}
    for process in dict.fromkeys(processes):
        samples[process] = sample(process, events, seed, cache, progress)
        if progress:
            print(_preselected(process, samples[process], luminosity_fb))
    shifts = [{}, *({name: sign} for name in dict.fromkeys(nuisances) for sign in (1.0, -1.0))]
    tables = {
        _class(process, shift): vary(each.objects, **shift)
        for shift in shifts
        for process, each in samples.items()
    }
    return as_problem(tables, luminosity_fb)


def as_problem(classes: Mapping[str, Objects], luminosity_fb: float) -> Problem:
    """Class → objects as a `Problem` of those that pass the preselection."""
    names: Sequence[str] = ()
    columns, weights, ids, labels = [], [], [], []
    for place, objects in enumerate(classes.values()):
        keep = selected(objects)
        found = features(objects)
        names = tuple(found)
        columns.append(np.stack([values[keep] for values in found.values()], axis=1))
        weights.append(objects.shares[keep] * luminosity_fb)
        ids.append(objects.ids[keep])
        labels.append(np.full(keep.sum(), place))
    return Problem.of(
        np.concatenate(columns),
        np.concatenate(labels),
        np.concatenate(weights),
        classes=list(classes),
        feature_names=names,
        event_ids=np.concatenate(ids),
    )


def expected_yields(
    problem: Problem,
    mu: float = 1.0,
    *,
    ttbar_scale: float = 0.0,
    diboson_scale: float = 0.0,
    bkg_scale: float = 0.0,
) -> dict[str, float]:
    """Expected events of each class at a signal strength and with normalisations moved.

    Parameters
    ----------
    problem
        With classes named like those of `htautau`, or read by `read_fair_universe`.
    mu
        Multiplies ``htautau``.
    ttbar_scale, diboson_scale, bkg_scale
        Standard deviations; a yield is multiplied by 1 + `NORMALISATIONS` · value. Features do not
        change.

    Returns
    -------
    dict
        Class → events.
    """
    values = {"ttbar_scale": ttbar_scale, "diboson_scale": diboson_scale, "bkg_scale": bkg_scale}
    moved = {}
    for name, point in zip(problem.classes, problem.points, strict=True):
        factor = mu if point.process == SIGNAL else 1.0
        for nuisance, (width, processes) in NORMALISATIONS.items():
            factor *= 1 + width * values[nuisance] * (point.process in processes)
        moved[name] = factor * problem.yields()[name].expected
    return moved


def _class(process: str, shift: Mapping[str, float]) -> str:
    moved = ",".join(f"{name}={value:+g}" for name, value in shift.items())
    return f"{process}@{moved}" if moved else process


def _preselected(process: str, found: Sample, luminosity_fb: float) -> str:
    passed = selected(found.objects)
    cuts = ", ".join(f"{name} > {value:g} GeV" for name, value in PRESELECTION.items())
    share, number = passed.mean() * len(passed) / found.collisions, passed.sum()
    expected = found.objects.shares[passed].sum() * luminosity_fb
    return (
        f"{process}: {number:,} of {found.collisions:,} collisions ({share:.1%}) pass {cuts}; "
        f"{expected:,.0f} expected in {luminosity_fb:g} fb⁻¹"
    )
