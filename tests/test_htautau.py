"""H → ττ and its backgrounds: real collisions, known shapes, and nuisances that act as they say."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sml_kernel import sbi
from sml_kernel.sbi.higgs import generator, samples
from sml_kernel.sbi.higgs.detector import Objects, reconstruct, vary
from sml_kernel.sbi.higgs.features import JET_PT_GEV, features, selected
from sml_kernel.sbi.higgs.generator import JETS, PROCESSES, TAU_TO_LEPTON, Truth
from sml_kernel.sbi.higgs.simulated import expected_yields, htautau
from sml_kernel.sbi.problems.problem import Problem

EVENTS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collisions")


@pytest.fixture(scope="module")
def problem(folder: Path) -> Problem:
    """At least EVENTS of each process, and all their variations."""
    return htautau(EVENTS, seed=1, cache=folder, progress=False)


@pytest.fixture(scope="module")
def ttbar(folder: Path, problem: Problem) -> Objects:
    return samples.sample("ttbar", EVENTS, 1, folder).objects


def column(problem: Problem, name: str, of: str) -> np.ndarray:
    events = problem.of_class(of)
    return events.features[:, events.feature_names.index(name)].astype(float)


# ------------------------------------------------------------------------------------- physics


def test_masses_and_missing_momentum_are_those_of_their_bosons(problem: Problem) -> None:
    masses = {name: column(problem, "DER_mass_vis", name) for name in ("htautau", "ztautau")}
    for process, mass in masses.items():
        assert ((mass > 40) & (mass < 125)).mean() > 0.9, process
    assert stats.mannwhitneyu(*masses.values(), alternative="greater").pvalue < 1e-4  # 125, 91 GeV
    boosted = column(problem, "PRI_met", "ttbar").mean()
    assert boosted > 2 * column(problem, "PRI_met", "ztautau").mean()  # neutrinos of heavy tops
    assert column(problem, "PRI_n_jets", "ttbar").mean() > 2  # two of b quarks
    # one W to lepton and neutrino has its edge at 80 GeV; taus' leptons keep close to the neutrinos
    transverse = [column(problem, "DER_mass_transverse_met_lep", p) for p in ("diboson", "ztautau")]
    assert np.median(transverse[0]) > 45 > 30 > np.median(transverse[1])


@pytest.mark.parametrize(("process", "sign"), [("htautau", -1), ("ztautau", 1)])
def test_spins_of_taus_are_correlated_as_those_of_their_boson(process: str, sign: int) -> None:
    """The taus of a spin-0 boson have equal helicities, of a Z opposite ones.

    In τ → πν the pion's share of the energy is x = (1 + cos θ)/2, with cos θ distributed as
    1 ± h cos θ for τ∓: the correlation of x is −1/3 and +1/3, but for masses.
    """
    import pythia8mc

    pions = ("15:onMode = off", "15:0:onMode = 1", "Random:seed = 3")
    pythia = pythia8mc.Pythia("", False)
    for setting in (*generator._COMMON, *PROCESSES[process].settings, *pions):
        assert pythia.readString(setting)
    assert pythia.init()
    shares = []
    while len(shares) < 900:
        assert pythia.next()
        generator._forget_quarks(pythia.event)
        taus = [i for i, p in enumerate(pythia.event) if p.idAbs() == 15 and p.isFinal()]
        assert pythia.forceHadronLevel()
        of_pions = [
            sum(
                pythia.event[d].e()
                for d in pythia.event[i].daughterList()
                if d and pythia.event[d].idAbs() == 211
            )
            / pythia.event[i].e()
            for i in sorted(taus, key=lambda i: pythia.event[i].id())
        ]
        shares.append(of_pions)
    found = np.corrcoef(np.array(shares).T)[0, 1]
    assert abs(found - sign / 3) < 4 / math.sqrt(900)


def test_yields_are_cross_sections_times_acceptance(problem: Problem, folder: Path) -> None:
    """Weights sum to the collisions that pass, over those made, of all that are expected."""
    leptons = {"htautau": 52.4 * 0.0627 * 2 * 0.648, "ztautau": 2008.4 * 2 * 0.648}
    for process, picobarn in leptons.items():
        found = samples.sample(process, EVENTS, 1, folder)
        passed = selected(found.objects).sum()
        wanted = picobarn * TAU_TO_LEPTON * 1e4 * passed / found.collisions
        expected = problem.yields()[process].expected
        # subprocesses of the Higgs boson weigh differently by up to a factor of two
        assert expected == pytest.approx(wanted, rel=1e-3 if process == "ztautau" else 0.15)


# -------------------------------------------------------------------------------- reproduction


def test_the_same_seed_gives_the_same_events_and_more_begin_alike(
    problem: Problem, folder: Path
) -> None:
    few, other = (samples.sample("ztautau", 1, seed).objects for seed in (1, 2))
    kept = samples.sample("ztautau", EVENTS, 1, folder).objects
    assert len(kept.ids) > len(few.ids)
    for field in dataclasses.fields(Objects):
        made, read = (getattr(each, field.name) for each in (few, kept))
        if field.name != "shares":  # of more collisions, each is less
            assert (made == read[: len(made)]).all(), field.name
    assert not set(other.ids) & set(kept.ids)
    assert not set(other.had[:, 0]) & set(kept.had[:, 0])


def test_a_damaged_file_is_named_and_not_replaced(
    problem: Problem, folder: Path, tmp_path: Path
) -> None:
    (path,) = folder.glob("diboson-*.parquet")
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:500])
    with pytest.raises(sbi.InputError, match=r"diboson-.*\.parquet is damaged .*delete it"):
        samples.sample("diboson", EVENTS, 1, tmp_path)


def test_weights_follow_the_luminosity(problem: Problem, folder: Path) -> None:
    double = htautau(
        EVENTS, 1, nuisances=(), processes=["ttbar"], luminosity_fb=20, cache=folder, progress=False
    )
    one = problem.yields()["ttbar"].expected
    assert double.yields()["ttbar"].expected == pytest.approx(2 * one)
    assert (double.features == problem.of_class("ttbar").features).all()


# ---------------------------------------------------------------------------------- nuisances


def test_the_tau_scale_moves_the_tau_and_the_missing_momentum_against_it(ttbar: Objects) -> None:
    nominal, moved = features(ttbar), features(vary(ttbar, tes=2))
    assert moved["PRI_had_pt"] == pytest.approx(1.02 * nominal["PRI_had_pt"])
    assert moved["DER_pt_h"] == pytest.approx(nominal["DER_pt_h"])  # tau plus missing stays
    assert moved["DER_mass_vis"] == pytest.approx(math.sqrt(1.02) * nominal["DER_mass_vis"])
    assert (moved["PRI_jet_all_pt"] == nominal["PRI_jet_all_pt"]).all()
    back = features(vary(vary(ttbar, tes=2), tes=-100 * (1 - 1 / 1.02)))
    assert back["PRI_met"] == pytest.approx(nominal["PRI_met"])


def test_the_jet_scale_moves_jets_across_the_threshold(ttbar: Objects) -> None:
    nominal, moved = features(ttbar), features(vary(ttbar, jes=5))
    two = nominal["PRI_n_jets"] >= 2
    assert moved["PRI_jet_leading_pt"][two] == pytest.approx(
        1.05 * nominal["PRI_jet_leading_pt"][two]
    )
    assert moved["DER_mass_jet_jet"][two] == pytest.approx(1.05 * nominal["DER_mass_jet_jet"][two])
    counts = (1.05 * ttbar.jets[..., 0] > JET_PT_GEV).sum(axis=1)
    assert (moved["PRI_n_jets"] == counts).all()
    assert (counts > nominal["PRI_n_jets"]).any()


def test_soft_missing_momentum_is_spread_by_its_width(ttbar: Objects) -> None:
    def change(value: float) -> np.ndarray:
        return vary(ttbar, soft_met=value).missing - ttbar.missing

    rows = 2 * len(ttbar.ids)
    assert change(1.0).std() == pytest.approx(1, abs=4 / math.sqrt(2 * rows))
    assert change(-2.0) == pytest.approx(-2 * change(1.0))


def test_variations_are_of_the_same_events_after_the_preselection(problem: Problem) -> None:
    for name in ("tes", "jes", "soft_met"):
        nominal, up = problem.of_class("ttbar"), problem.of_class(f"ttbar@{name}=+1")
        if name == "tes":
            assert set(nominal.event_ids) < set(up.event_ids)
        else:
            assert (nominal.event_ids == up.event_ids).all()
        assert (up.features[: len(nominal.features)] != nominal.features[: len(up.features)]).any()
    had = column(problem, "PRI_had_pt", "ztautau@tes=-1")
    assert had.min() > 26
    processes = [set(problem.of_class(p).event_ids) for p in ("htautau", "ztautau", "ttbar")]
    assert not set.intersection(*processes)


def test_normalisations_change_yields_alone(problem: Problem) -> None:
    nominal = expected_yields(problem)
    moved = expected_yields(problem, 2.0, ttbar_scale=1, diboson_scale=-1, bkg_scale=2)
    factors = {"htautau": 2, "ztautau": 1.002, "ttbar": 1.02 * 1.002, "diboson": 0.75 * 1.002}
    for name in problem.classes:
        assert moved[name] == pytest.approx(factors[name.split("@")[0]] * nominal[name])


# ------------------------------------------------------------------------------------- detector


def test_missing_momentum_balances_what_is_seen_but_for_the_soft_term() -> None:
    """What smearing takes from tau, lepton and jets is missing; the widths are those stated."""
    rng, rows = np.random.default_rng(4), 4000
    objects = np.tile([50.0, 0.0, 0.0], (rows, 1))
    jets = np.zeros((rows, JETS, 3))
    jets[:, 0] = 100.0, 1.0, math.pi / 2
    truth = Truth(
        *np.full((2, rows), 11),
        np.ones(rows, bool),
        objects,
        objects,
        jets,
        np.zeros((rows, 2)),
        {},
    )
    seen = reconstruct(truth, np.arange(rows), np.ones(rows), rng)
    x = seen.missing[:, 0] + seen.had[:, 0] + seen.lep[:, 0] - 100
    y = seen.missing[:, 1] + seen.jets[:, 0, 0] - 100
    tolerance = 4 / math.sqrt(2 * rows)
    assert [x.std(), y.std()] == pytest.approx([7, 7], rel=tolerance)
    widths = seen.had[:, 0].std() / 50, seen.lep[:, 0].std() / 50, seen.jets[:, 0, 0].std() / 100
    wanted = 0.10, math.hypot(0.10 / math.sqrt(50), 0.01), math.hypot(0.075, 0.05)
    assert widths == pytest.approx(wanted, rel=tolerance)
    assert not seen.jets[:, 1:].any()


# ------------------------------------------------------------------------------------- features


def test_features_of_an_event_by_hand() -> None:
    """At η = 0, a right angle apart, missing momentum along the lepton; a jet too soft to count."""
    event = Objects(
        ids=np.array([0]),
        shares=np.ones(1),
        had=np.array([[40.0, 0.0, 0.0]]),
        lep=np.array([[30.0, 0.0, math.pi / 2]]),
        jets=np.array([[[100.0, 2.0, 0.0], [50.0, -2.0, math.pi], [25.9, 0.0, 0.0]]]),
        missing=np.array([[0.0, 20.0]]),
        noise=np.zeros((1, 2)),
    )
    wanted = {
        "PRI_met": 20,
        "PRI_met_phi": math.pi / 2,
        "PRI_n_jets": 2,
        "PRI_jet_all_pt": 150,
        "PRI_jet_subleading_pt": 50,
        "DER_mass_transverse_met_lep": 0,
        "DER_mass_vis": math.sqrt(2 * 40 * 30),
        "DER_pt_h": math.hypot(40, 50),
        "DER_deltaeta_jet_jet": 4,
        "DER_mass_jet_jet": math.sqrt(2 * 100 * 50 * (math.cosh(4) + 1)),
        "DER_prodeta_jet_jet": -4,
        "DER_deltar_had_lep": math.pi / 2,
        "DER_pt_tot": math.hypot(90, 50),
        "DER_sum_pt": 220,
        "DER_pt_ratio_lep_had": 0.75,
        "DER_met_phi_centrality": 1,
        "DER_lep_eta_centrality": 1,
    }
    found = features(event)
    assert {name: found[name][0] for name in wanted} == pytest.approx(wanted)
    alone = features(dataclasses.replace(event, jets=event.jets / 4))
    assert alone["PRI_n_jets"] == 0
    undefined = [name for name, values in alone.items() if values == -25]
    assert len(undefined) == 6 + 4
    assert len(alone) == 28


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"processes": ["wjets"]}, "there is no process 'wjets'; there are htautau"),
        ({"nuisances": ["tau"]}, "give nuisances of tes, jes, soft_met"),
        ({"events": 0}, "0 events, seed 1: give 1 or more"),
        ({"seed": -1}, "seed -1"),
        ({"luminosity_fb": 0}, "a luminosity above zero"),
    ],
)
def test_what_is_not_known_is_refused(given: dict, complaint: str) -> None:
    with pytest.raises(sbi.InputError, match=complaint):
        htautau(**given)


def test_without_pythia_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sml-kernel\[physics\]'"):
        htautau(1)
