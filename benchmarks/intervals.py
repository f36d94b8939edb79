"""Coverage with learned ratios: the fraction f of a mixture, f = .3, 1,000 events, known exactly.

    python benchmarks/intervals.py [--ensembles 50] [--toys 200] [--members 80] [--bad-epochs 1]

One ensemble and 1,000 toys: whether [68.27 %] covers, and σ(f̂) beside the exact .0338. Then
ensembles that are trained anew, each on a training sample of its own, with and without the nuisance
for the networks' spread. Last an ensemble that was stopped too soon, which the scorecard must fail.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

import sml_kernel as sml
from sml_kernel import records, sbi
from sml_kernel.sbi import learned
from sml_kernel.sbi.likelihood.coverage import Coverage, measure_coverage
from sml_kernel.sbi.likelihood.fisher import fisher_information
from sml_kernel.sbi.likelihood.model import Likelihood
from sml_kernel.sbi.likelihood.refits import refit
from sml_kernel.sbi.likelihood.toys import asimov
from sml_kernel.sbi.scorecard.spread import components
from sml_kernel.workers import Workers

FAMILY, AT, EVENTS = sbi.MixtureFraction(1.0), 0.3, 1000
SETTINGS = {"hidden": (16, 16), "batch": 512, "learning_rate": 3e-3, "epochs": 30, "patience": 3}


def main() -> None:
    given = arguments()
    run = records.start(given.folder, kind="coverage", parameters=vars(given))
    exact = fisher_information(FAMILY, AT, EVENTS).sigma("shape")
    writer, workers = run.writer("coverage"), sml.launch("laptop", cpus=given.cpus)
    with writer, workers:
        fits = [trained(given, workers, run.folder, number) for number in range(given.ensembles)]
        one = cover(fits[:1], given.toys_of_one, spread=False)
        found = one.plain.ensembles[0]
        print(
            f"one ensemble, {found.toys} toys: {found.fraction:.3f}, band {band(one)}; σ(f̂) "
            f"{found.error:.4f}, exact {exact:.4f}, ratio {found.error / exact:.3f}; bias "
            f"{found.bias:+.4f}, pull {found.pull_mean:+.3f} ± {found.pull_width:.3f}"
        )
        writer.append("sigma", measured=found.error, exact=exact)
        many = cover(fits, given.toys, spread=True)
        for each in (many.plain, many.spread):
            assert each is not None
            biases = [one.bias for one in each.ensembles]
            spreads = [one.spread for one in each.ensembles]
            print(
                f"{len(biases)} ensembles × {given.toys} toys, {each.variant}: {each.fraction:.3f} "
                f"± {each.error:.3f}, {'pass' if each.passed else 'FAIL'}; bias scatters by "
                f"{np.std(biases, ddof=1):.4f}, mean spread {np.mean(spreads):.4f}"
            )
        for name, coverage in (("one", one), ("many", many)):
            for kind, rows in coverage.rows().items():
                for row in rows:
                    writer.append(kind, study=name, **row)
        bad = trained(given, workers, run.folder, 999, epochs=given.bad_epochs, learning_rate=1e-4)
        cards = {"good": fits[0].scorecard(progress=False), "bad": bad.scorecard(progress=False)}
        for name, card in cards.items():
            failed = sorted({check.name for check in card.checks if check.passed is False})
            print(f"{name} ensemble: {'passed' if card.passed else 'FAILED'} {', '.join(failed)}")
            writer.append("card", ensemble=name, passed=card.passed, failed=failed)
    run.finish("done")
    print(f"recorded in {run.folder}")


def trained(
    given: argparse.Namespace, workers: Workers, folder: Path, number: int, **others: float
) -> sbi.Fit:
    """An ensemble with a training sample, bootstrap and initialisations of its own."""
    problem = sbi.draw(FAMILY, events=given.events, seed=1000 + number)
    asked = SETTINGS | {"initialisations": 4} | others
    made = sbi.Ensemble(problem, given.members, campaign=number, **asked)
    return made.fit(workers, folder / f"ensemble-{number:03d}", progress=False)


def cover(fits: list[sbi.Fit], toys: int, *, spread: bool) -> Coverage:
    """Toys drawn from a pool of which no network has seen an event."""
    names = fits[0].campaign.events.problem.classes
    drawn = [FAMILY.sample(k, 100_000, np.random.default_rng([7, k]))[0] for k in (0, 1)]
    x = np.concatenate(drawn)
    densities = np.exp([FAMILY.log_density(x, name) for name in names])
    truth = densities / densities.mean(axis=0)  # what makes the pool, half of each, a class
    pools = [learned.ratios(fit, x, progress=False) for fit in fits]
    rates = sbi.Rates(np.ones(len(names)))
    observed = pools[0].take(np.arange(EVENTS))
    model = Likelihood(observed, rates, sbi.fraction(names), "shape")
    sigmas = [sigma(fit, model, x) for fit in fits] if spread else None
    return measure_coverage(
        model,
        pools.__getitem__,
        truth,
        AT,
        ensembles=len(fits),
        toys=toys,
        spread=None if sigmas is None else sigmas.__getitem__,
        progress=False,
    )


def sigma(fit: sbi.Fit, model: Likelihood, x: np.ndarray) -> float:
    """σ of f̂ that the networks bring, by the crossed design, on what is expected at f."""
    some = x[::10]
    pool = learned.ratios(fit, some, progress=False)
    expected = asimov(model, pool, np.array([AT]))
    replicas = learned.replicas(fit, some, 1000)
    likelihood = Likelihood(expected, model.rates, model.strengths, "shape")
    again = refit(likelihood, replicas.reshape(-1, *replicas.shape[2:]), progress=False)
    parts = components(again.values.reshape(replicas.shape[:2]))
    return float(np.sqrt(max(float(parts.total(crossed=True)), 0.0)))


def band(coverage: Coverage) -> str:
    low, high = coverage.plain.band
    return f"[{low:.3f}, {high:.3f}]"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("ensembles", 50),
        ("toys", 200),
        ("toys-of-one", 1000),
        ("members", 80),
        ("events", 25_000),
        ("bad-epochs", 1),
        ("cpus", os.cpu_count() or 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", default=f"runs/intervals-{time.strftime('%Y%m%d-%H%M%S')}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
