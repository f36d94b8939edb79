"""What a detector makes of the objects of an event: resolution, and nuisance parameters.

Transverse momenta are smeared by normal factors of width σ/pT (pT in GeV; angles stay),

======================  =======================
hadronic tau            0.10
electron                0.10/√pT ⊕ 0.01
muon                    0.01 ⊕ 10⁻⁴ pT
jet                     0.75/√pT ⊕ 0.05
======================  =======================

of the order of what ATLAS reports (electrons: JINST 14 (2019) P12006; jets: Eur. Phys. J. C 81
(2021) 689). Missing momentum is that of the neutrinos plus what the smearing took away, plus a
soft term of 7 GeV in x and in y, which stands for pile-up and the underlying event. No object is
lost, and none is faked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sml_kernel.sbi.higgs.generator import Truth

#: What one standard deviation is: of a scale, relative; of the soft missing momentum, GeV. Those of
#: the challenge (arXiv:2410.02867), whose log-normal soft term has this median.
WIDTHS = {"tes": 0.01, "jes": 0.01, "soft_met": 1.0}
_SOFT_TERM_GEV = 7.0


@dataclass(frozen=True, eq=False)
class Objects:
    """N events as seen by the detector; GeV and radians. Numbers of events are `ids` [N] int64.

    Attributes
    ----------
    ids
        [N] which simulated event it is.
    shares
        [N] of the expected events of the process: weights per inverse fb of luminosity.
    had, lep
        [N, 3] pT, η and φ of the hadronic tau and of the lepton.
    jets
        [N, J, 3] the same of jets; zeros where there are less than J.
    missing
        [N, 2] missing momentum in x and y.
    noise
        [N, 2] standard normal: the direction and size that more soft missing momentum takes.
    """

    ids: np.ndarray
    shares: np.ndarray
    had: np.ndarray
    lep: np.ndarray
    jets: np.ndarray
    missing: np.ndarray
    noise: np.ndarray


def reconstruct(
    truth: Truth, ids: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> Objects:
    """Smear the N events of `truth`, whose numbers are `ids` [N] and expectations `shares` [N]."""
    rows = len(ids)
    normal = rng.standard_normal((rows, 2 + truth.jets.shape[1]))
    soft, noise = rng.standard_normal((2, rows, 2))
    had = _scaled(truth.had, 1 + 0.10 * normal[:, 0])
    lep = _scaled(truth.lep, 1 + _lepton_width(truth) * normal[:, 1])
    with np.errstate(divide="ignore"):  # no jet, no momentum: 0 × inf is never taken
        width = np.hypot(0.75 / np.sqrt(truth.jets[..., 0]), 0.05)
    width = np.where(truth.jets[..., 0] > 0, width, 0)
    jets = _scaled(truth.jets, np.maximum(1 + width * normal[:, 2:], 0))
    changes = ((had, truth.had), (lep, truth.lep), (jets, truth.jets))
    lost = sum((_plane(true) - _plane(seen)).reshape(rows, -1, 2).sum(1) for seen, true in changes)
    missing = truth.neutrinos + lost + _SOFT_TERM_GEV * soft
    order = np.argsort(-jets[..., 0], axis=1)
    jets = np.take_along_axis(jets, order[..., None], axis=1)
    return Objects(ids, shares, had, lep, jets, missing, noise)


def vary(objects: Objects, tes: float = 0.0, jes: float = 0.0, soft_met: float = 0.0) -> Objects:
    """The same events with nuisance parameters moved, in standard deviations (see `WIDTHS`).

    Parameters
    ----------
    objects
        Nominal events.
    tes, jes
        Energy scale of hadronic taus and of jets: momenta are multiplied by 1 + WIDTHS · value, and
        the missing momentum takes up the difference.
    soft_met
        Added to the missing momentum in x and y: WIDTHS · value · `Objects.noise`. Either sign
        spreads it alike.
    """
    had = _scaled(objects.had, np.full(len(objects.ids), 1 + WIDTHS["tes"] * tes))
    jets = _scaled(objects.jets, np.full(objects.jets.shape[:2], 1 + WIDTHS["jes"] * jes))
    missing = objects.missing + WIDTHS["soft_met"] * soft_met * objects.noise
    missing += _plane(objects.had) - _plane(had)
    missing += (_plane(objects.jets) - _plane(jets)).sum(axis=1)
    return replace(objects, had=had, jets=jets, missing=missing)


def _lepton_width(truth: Truth) -> np.ndarray:
    pt = truth.lep[:, 0]
    electron, muon = np.hypot(0.10 / np.sqrt(pt), 0.01), np.hypot(0.01, 1e-4 * pt)
    return np.where(truth.lepton_id == 11, electron, muon)


def _scaled(momenta: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """[..., 3] pT, η, φ with pT multiplied by [...]."""
    copy = momenta.copy()
    copy[..., 0] *= factors
    return copy


def _plane(momenta: np.ndarray) -> np.ndarray:
    """x and y [..., 2] of pT, η, φ [..., 3]."""
    pt, phi = momenta[..., 0], momenta[..., 2]
    return np.stack([pt * np.cos(phi), pt * np.sin(phi)], axis=-1)
