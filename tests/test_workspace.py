"""Control regions: what pyhf says of them, with shared parameters constrained once."""

from __future__ import annotations

import json

import numpy as np
import pyhf
import pytest

from sml_kernel.sbi.likelihood.estimates import estimate
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.ratios import Rates, Ratios
from sml_kernel.sbi.likelihood.strengths import signal_strength
from sml_kernel.sbi.likelihood.workspace import control_regions
from sml_kernel.sbi.problems.origins import InputError

pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")
PROCESSES = ("signal", "background")
ROOT_CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}


def workspace() -> dict:
    """One region of three bins: a free background, a shared and an own nuisance, MC errors."""
    modifiers = [
        {"name": "k", "type": "normfactor", "data": None},
        {"name": "jes", "type": "normsys", "data": {"lo": 0.9, "hi": 1.15}},
        {"name": "jes", "type": "histosys",
         "data": {"lo_data": [48, 31, 19], "hi_data": [52, 28, 21]}},
        {"name": "own", "type": "normsys", "data": {"lo": 0.95, "hi": 1.04}},
        {"name": "mc", "type": "staterror", "data": [2.0, 1.5, 1.2]},
    ]  # fmt: skip
    sample = {"name": "background", "data": [50.0, 30.0, 20.0], "modifiers": modifiers}
    return {
        "channels": [{"name": "control", "samples": [sample]}],
        "observations": [{"name": "control", "data": [58, 33, 21]}],
        "measurements": [{"name": "fit", "config": {"poi": "k", "parameters": []}}],
        "version": "1.0.0",
    }


def unbinned(**others) -> Likelihood:
    rng = np.random.default_rng(3)
    x = rng.normal(size=300) + (rng.random(300) < 0.3)
    variation = np.ones((2, 1, 2, 300))
    variation[0, 0] = [np.exp(t * (x - 1) - t**2 / 2) for t in (-0.1, 0.1)]
    ratios = Ratios(PROCESSES, np.array([np.exp(x - 0.5), np.ones(300)]), ("jes",), variation)
    rates = Rates(np.array([90.0, 210.0]), variation=np.array([[[0.9, 1.1]], [[1, 1]]], float))
    return Likelihood(ratios, rates, signal_strength(PROCESSES),
                      normalisations={"k": ("background",)}, **others)  # fmt: skip


SHARED = ("k", "jes")


def test_the_binned_part_is_that_of_pyhf() -> None:
    """Differences of −2 ln L, with and without the regions, from pyhf's own; one constraint."""
    plain, combined = unbinned(), unbinned(control=control_regions(workspace(), SHARED))
    own = pyhf.Workspace(workspace())
    model = own.model(modifier_settings=ROOT_CODES)
    data = own.data(model)
    rng, found, wanted = np.random.default_rng(1), [], []
    for _ in range(6):
        values = dict(zip(combined.parameters, combined.start, strict=True))
        values |= {name: value + 0.4 * rng.normal() for name, value in values.items()}
        values["k"] = abs(values["k"])
        values |= {name: abs(values[name]) + 0.1 for name in values if name.startswith("mc[")}
        both = combined.value(np.array(list(values.values())))
        alone = plain.value(np.array([values[name] for name in plain.parameters]))
        found.append(both - (alone - values["jes"] ** 2))  # the unbinned one counts it as well
        pars = [values[name] for name in model.config.par_names]
        wanted.append(-2 * float(np.asarray(model.logpdf(pars, data)).item()))
    assert np.diff(found) == pytest.approx(np.diff(wanted), abs=1e-6)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_names_in_both_are_one_parameter() -> None:
    combined = unbinned(control=control_regions(workspace(), SHARED))
    assert combined.parameters == ("mu", "k", "jes", "own", "mc[0]", "mc[1]", "mc[2]")
    assert combined.constrained == ()  # pyhf has them all
    assert combined.centre("jes") == 0
    at = combined.start + 0.05
    steps = 1e-5 * np.eye(len(at))
    differences = [(combined.value(at + s) - combined.value(at - s)) / 2e-5 for s in steps]
    assert combined.gradient(at) == pytest.approx(np.array(differences), abs=1e-4)


def test_a_control_region_constrains_what_it_shares() -> None:
    alone, together = (
        estimate(unbinned()),
        estimate(unbinned(control=control_regions(workspace(), SHARED))),
    )
    assert alone.valid
    assert together.valid
    assert together.nuisances["k"][1] < 0.9 * alone.nuisances["k"][1]
    assert together.error < alone.error
    low, high = alone.value - 3 * alone.error, alone.value + 3 * alone.error
    assert low < together.value < high


def test_toys_throw_counts_and_auxiliary_data() -> None:
    """Means of many: pyhf's expected data; widths: Poisson, 1, and the Monte Carlo errors."""
    regions = control_regions(workspace(), SHARED)
    at = np.array([regions.initial[name] for name in regions.parameters])
    rng = np.random.default_rng(5)
    thrown = np.array([regions.thrown(at, rng).data for _ in range(3000)])
    expected = np.asarray(regions.model.expected_data(at))
    widths = np.sqrt(expected)
    sigmas = {name: regions.model.config.param_set(name).width() for name in ("jes", "own", "mc")}
    order = regions.model.config.auxdata_order
    widths[3:] = np.concatenate([sigmas[name] for name in order])
    assert np.abs((thrown.mean(axis=0) - expected) / widths * np.sqrt(3000)).max() < 4
    assert thrown.std(axis=0) == pytest.approx(widths, rel=4 / np.sqrt(6000))


def test_names_that_clash_or_are_missing_are_listed(tmp_path) -> None:
    with pytest.raises(InputError, match=r"jes on both sides: say shared=\['jes'\], or rename"):
        unbinned(control=control_regions(workspace(), ["k"]))
    with pytest.raises(InputError, match="shared tes not in the control regions, which have jes"):
        unbinned(control=control_regions(workspace(), [*SHARED, "tes"]))
    with pytest.raises(InputError, match="shared own not in the unbinned channel, which have jes"):
        unbinned(control=control_regions(workspace(), [*SHARED, "own"]))
    renamed = json.loads(json.dumps(workspace()).replace('"own"', '"mu"'))
    with pytest.raises(InputError, match="mu is free in the unbinned channel and constrained by"):
        unbinned(control=control_regions(renamed, [*SHARED, "mu"]))
    path = tmp_path / "workspace.json"
    path.write_text(json.dumps(workspace() | {"version": "2"}))
    with pytest.raises(InputError, match="pyhf refuses the workspace"):
        control_regions(path)
