r"""The 28 features of the FAIR Universe challenge, by its names (arXiv:2410.02867, appendix).

``PRI_`` are primary: momenta in GeV, angles in radians, and the number of jets. ``DER_`` are
derived from these, with all objects massless. What is undefined for want of jets is −25, as in the
challenge; its published events get the derived features that were published with them.

.. math::
    m_T = \sqrt{2 p_T^{lep} E_T^{miss} (1 - \cos Δφ)}, \qquad
    C_φ = \frac{A + B}{\sqrt{A² + B²}}, \qquad
    C_η = \exp\Big[\frac{-4}{(η_1 - η_2)²}\Big(η_{lep} - \frac{η_1 + η_2}{2}\Big)²\Big],

with A = sin(φ_miss − φ_lep) s, B = sin(φ_had − φ_miss) s, s = sign sin(φ_had − φ_lep): C_φ is √2
where the missing momentum points between the two, C_η is 1 where the lepton is between the jets.
"""

from __future__ import annotations

import numpy as np

from sml_kernel.sbi.higgs.detector import Objects

#: What is asked of an event, after nuisance parameters have moved it; and of a jet, to count.
PRESELECTION = {"PRI_had_pt": 26.0, "PRI_lep_pt": 20.0}
JET_PT_GEV = 26.0
UNDEFINED = -25.0

_VECTOR = ("pt", "eta", "phi")
PRIMARY = (
    *(f"PRI_{n}_{w}" for n in ("lep", "had", "jet_leading", "jet_subleading") for w in _VECTOR),
    *("PRI_n_jets", "PRI_jet_all_pt", "PRI_met", "PRI_met_phi"),
)
DERIVED = (
    "DER_mass_transverse_met_lep",
    "DER_mass_vis",
    "DER_pt_h",
    "DER_deltaeta_jet_jet",
    "DER_mass_jet_jet",
    "DER_prodeta_jet_jet",
    "DER_deltar_had_lep",
    "DER_pt_tot",
    "DER_sum_pt",
    "DER_pt_ratio_lep_had",
    "DER_met_phi_centrality",
    "DER_lep_eta_centrality",
)


def selected(objects: Objects) -> np.ndarray:
    """[N] whether hadronic tau and lepton pass the `PRESELECTION`."""
    had, lep = PRESELECTION["PRI_had_pt"], PRESELECTION["PRI_lep_pt"]
    return (objects.had[:, 0] > had) & (objects.lep[:, 0] > lep)


def features(objects: Objects) -> dict[str, np.ndarray]:
    """Name → values [N] float64: those of `PRIMARY`, then of `DERIVED`."""
    primary = _primary(objects)
    return primary | derived(primary)


def _primary(objects: Objects) -> dict[str, np.ndarray]:
    counts = objects.jets[..., 0] > JET_PT_GEV  # sorted by pT: the first ones
    found = {
        f"PRI_{name}_{what}": momenta[:, column]
        for name, momenta in (("lep", objects.lep), ("had", objects.had))
        for column, what in enumerate(_VECTOR)
    }
    for rank, name in enumerate(("leading", "subleading")):
        for column, what in enumerate(_VECTOR):
            values = np.where(counts[:, rank], objects.jets[:, rank, column], UNDEFINED)
            found[f"PRI_jet_{name}_{what}"] = values
    x, y = objects.missing.T
    return found | {
        "PRI_n_jets": counts.sum(axis=1).astype(float),
        "PRI_jet_all_pt": (objects.jets[..., 0] * counts).sum(axis=1),
        "PRI_met": np.hypot(x, y),
        "PRI_met_phi": np.arctan2(y, x),
    }


def derived(primary: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The 12 derived features [N] of the 16 primary ones [N]."""
    had, lep = _momentum(primary, "had"), _momentum(primary, "lep")
    leading, subleading = (
        _momentum(primary, f"jet_{name}") * (primary["PRI_n_jets"] >= count)
        for count, name in ((1, "leading"), (2, "subleading"))
    )
    met = primary["PRI_met"] * np.stack(
        [np.cos(primary["PRI_met_phi"]), np.sin(primary["PRI_met_phi"])]
    )
    turn = np.remainder(primary["PRI_lep_phi"] - primary["PRI_had_phi"] + np.pi, 2 * np.pi) - np.pi
    pair = had[:2] + lep[:2] + met
    found = {
        "DER_mass_transverse_met_lep": _transverse_mass(lep[:2], met),
        "DER_mass_vis": _mass(had + lep),
        "DER_pt_h": np.hypot(*pair),
        **_of_two_jets(primary, leading + subleading),
        "DER_deltar_had_lep": np.hypot(primary["PRI_lep_eta"] - primary["PRI_had_eta"], turn),
        "DER_pt_tot": np.hypot(*(pair + leading[:2] + subleading[:2])),
        "DER_sum_pt": primary["PRI_had_pt"] + primary["PRI_lep_pt"] + primary["PRI_jet_all_pt"],
        "DER_pt_ratio_lep_had": primary["PRI_lep_pt"] / primary["PRI_had_pt"],
        "DER_met_phi_centrality": _azimuthal_centrality(primary),
    }
    return {name: found[name] for name in DERIVED}


def _of_two_jets(primary: dict[str, np.ndarray], both: np.ndarray) -> dict[str, np.ndarray]:
    first, second = primary["PRI_jet_leading_eta"], primary["PRI_jet_subleading_eta"]
    from_centre = primary["PRI_lep_eta"] - (first + second) / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # where there are no two jets
        centrality = np.exp(-4 * from_centre**2 / (first - second) ** 2)
    found = {
        "DER_deltaeta_jet_jet": np.abs(first - second),
        "DER_mass_jet_jet": _mass(both),
        "DER_prodeta_jet_jet": first * second,
        "DER_lep_eta_centrality": centrality,
    }
    enough = primary["PRI_n_jets"] >= 2
    return {name: np.where(enough, values, UNDEFINED) for name, values in found.items()}


def _azimuthal_centrality(primary: dict[str, np.ndarray]) -> np.ndarray:
    had, lep, met = (primary[f"PRI_{name}_phi"] for name in ("had", "lep", "met"))
    sign = np.sign(np.sin(had - lep))
    a, b = np.sin(met - lep) * sign, np.sin(had - met) * sign
    return (a + b) / np.hypot(a, b)


def _transverse_mass(lep: np.ndarray, met: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(2 * (np.hypot(*lep) * np.hypot(*met) - (lep * met).sum(axis=0)), 0))


def _momentum(primary: dict[str, np.ndarray], name: str) -> np.ndarray:
    """[4, N] x, y, z and energy of a massless object; meaningless where it is undefined."""
    pt, eta, phi = (primary[f"PRI_{name}_{what}"] for what in _VECTOR)
    return pt * np.stack([np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)])


def _mass(momentum: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(momentum[3] ** 2 - (momentum[:3] ** 2).sum(axis=0), 0))
