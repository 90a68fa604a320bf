"""Calibration studies: simulation-based calibration, and all tests."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer.diagnostics.figure import Figure
from vbinfer.diagnostics.result import Names, Status, percent
from vbinfer.diagnostics.thresholds import FEWEST_DATA_SETS, NOTHING_LEARNED, WANTED_DATA_SETS
from vbinfer.draws.draws import Draws
from vbinfer.draws.sample import sample_prior_predictive
from vbinfer.execute.batches import key_ints
from vbinfer.io import npz
from vbinfer.priors.prior import Prior

from .band import rank_figure
from .coverage import coverage_of, tarp_of
from .held_out import HeldOut, described, held_out
from .rank_tests import (
    Quantity,
    dependence_tests,
    hpd_tests,
    marginal_tests,
    pair_tests,
    quantity_tests,
    tarp_tests,
    telling_features,
)
from .result import Calibration, Learned, learned, local_rows
from .tests import (
    RULE,
    AbstractTested,
    RawTest,
    TestResult,
    adjust,
    caveats,
    faults,
    judge,
    summary,
    verdict_of,
)

_LISTED = 6
_STILL = f"its posterior means follow neither data nor truths (less than {percent(NOTHING_LEARNED)} of the variance)"


def calibrate(
    source: Any,
    draws: Draws | tuple[Prior, Any, int],
    *,
    key: PRNGKey,
    num_posterior_samples: int = 500,
    density: bool = True,
    quantities: Mapping[str, Quantity] | None = None,
    store: str | Path | None = None,
) -> Calibration:
    """Check whether posteriors are right on average over the prior.

    One study, one verdict.
    Per parameter: location, width and shape of the ranks of the truth, and whether the summaries x still predict them;
    per pair: correlations; jointly: highest-density regions and TARP. Every p-value is exact for a right posterior,
    and Holm's adjustment shares a false-alarm rate of 5 % over all of them. `warn` is an adjusted p below 0.05, fewer
    than 100 data sets, draws worth less than half their number, or nothing learned over the prior; `fail` is below
    0.001. Each row says what it would have found with 90 % probability.

    Blind to: a simulator that is not like the brain (`vb.diagnostics.misspecification`), errors at one x_o that cancel
    over the
    prior (`vb.diagnostics.lc2st`), errors below `detects`. Passing is not learning: where data say nothing the prior
    is the right
    posterior, passes, and is reported with "nothing learned". Scores against the TRUE parameter, also given, are
    no test: a right posterior is not calibrated at a fixed truth, only at a fixed x.

    Args:
        source: what `vb.NPE().fit` returns, or any object with `.sample(x_o, n=, key=)` (`.sample_batch`, `.log_prob`
            and `.prior` are used where they exist), or a function `(x_o, n, key) -> vb.Posterior`.
        draws: held-out draws, never used in training, of which failed ones are left out and counted; or
            `(prior, simulator, n)`, to simulate n of them here: 300 or more.
        key: of held-out simulations, posterior draws, ties and reference points.
        num_posterior_samples: draws per data set; chains are thinned evenly to it.
        density: use the source's `.log_prob` for highest-density regions; False where it is slow. Mahalanobis distance
            takes its place.
        quantities: further test quantities by name, as for `vb.diagnostics.sbc`.
        store: a folder. Finished chunks are kept, a second call goes on from them with the same result, bit for bit.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.tests`, `.ranks`, `.coverage`, `.tarp`, `.learned`, `.local`; `.save`.

    Raises:
        TypeError, ValueError: as `vb.diagnostics.sbc`; a store of another study.

    Talts et al. 2018, doi:10.48550/arXiv.1804.06788; Modrák et al. 2023, doi:10.1214/23-BA1404; Hermans et al. 2022,
    doi:10.48550/arXiv.2110.06581; Lemos et al. 2023, doi:10.48550/arXiv.2302.03026; Holm 1979, Scand. J. Statist. 6:65.

    Example:
        calibration = vb.calibrate(amortized, (prior, fwd, 300), key=jax.random.key(3))
        print(calibration)
    """
    key = _check.key(key)
    # two keys: the same key with draws given draws the same posteriors as with draws made here
    k_simulate, k_study = jax.random.split(key)
    prior, times = None, [time.perf_counter()]
    if isinstance(draws, tuple):
        prior, draws = _simulated(draws, k_simulate, store)
    times.append(time.perf_counter())
    held = held_out(
        source,
        draws,
        num_posterior_samples=num_posterior_samples,
        key=k_study,
        prior=prior,
        density=density,
        store=None if store is None else Path(store) / "posteriors",
    )
    times.append(time.perf_counter())
    info: dict[str, Any] = {
        "source": described(source),
        "key": key_ints(key),
        "versions": npz.versions("scipy"),
        "ess": held.ess,
        "density": held.log_q is not None,
    }
    result = judged(held, info, quantity_tests(held, quantities, draws.shapes))
    stages = np.diff([*times, time.perf_counter()]).tolist()
    info["seconds"] = dict(zip(("simulate", "sample", "test"), stages, strict=True))
    return result


def judged(held: HeldOut, info: dict[str, Any], further: list[RawTest]) -> Calibration:
    """All tests of a study, and `further` ones."""
    raw = marginal_tests(held) + dependence_tests(held) + hpd_tests(held) + tarp_tests(held)
    tests, known = adjust(raw + pair_tests(held) + further), learned(held)
    status = verdict_of(held, tests)
    if status == "pass" and known.nothing_at_all:
        status = "warn"
    found = faults(tests, telling_features(held)) + _taught(known)
    found += [*caveats(held), summary(tests, len(held))]
    return Calibration(
        names=held.names,
        features=held.features,
        verdict=status,
        findings=tuple(found),
        tests=tests,
        ranks=held.ranks,
        u=held.u,
        coverage=coverage_of(held, tests),
        tarp=tarp_of(held, tests),
        learned=known,
        local=local_rows(held),
        num_posterior_samples=held.draws.shape[1],
        failed=held.failed,
        info=info,
    )


def _taught(known: Learned) -> list[str]:
    """What was learned, or that it was nothing."""
    said = []
    if known.impossible:
        said.append(f"{known.impossible} truths lie where their posterior has no density at all: its tails are cut off")
    gain = "" if known.info_gain is None else f"; information gain {known.info_gain:.3g} nats"
    if known.nothing_at_all:
        most = 100 * max(row.moved for row in known.rows)
        return [
            *said,
            f"nothing learned: the posterior is no better than the prior (its means move by {most:.0f} % of the "
            f"variance at most{gain}). It can be right and useless: find other features, more data or a better fit",
        ]
    said += [f"nothing learned about {name}: {_STILL}" for name in known.nothing[:_LISTED]]
    if len(known.nothing) > _LISTED:
        said.append(f"nothing learned about {len(known.nothing) - _LISTED} further parameters")
    order = sorted(known.rows, key=lambda row: row.mean_shrinkage)
    worst, best = order[0], order[-1]
    return [
        *said,
        f"learned most about {best.name} (mean shrinkage {best.mean_shrinkage:.2f}), least about {worst.name} "
        f"({worst.mean_shrinkage:.2f}){gain}",
    ]


def _simulated(given: tuple[Any, ...], key: PRNGKey, store: str | Path | None) -> tuple[Prior, Draws]:
    """Held-out draws of (prior, simulator, n), made here."""
    if len(given) != 3 or not isinstance(given[0], Prior):
        what = ", ".join(type(part).__name__ for part in given)
        raise TypeError(f"draws is ({what}); expected vb.Draws, or (prior, simulator, n) such as (prior, fwd, 300)")
    prior, simulator, n = given[0], given[1], _check.count(given[2], "n", "300")
    if n < FEWEST_DATA_SETS:
        raise ValueError(
            f"n={n} held-out simulations were asked for; at least {FEWEST_DATA_SETS} are needed, {WANTED_DATA_SETS} or "
            "more are wanted"
        )
    folder = None if store is None else Path(store) / "held-out"
    return prior, sample_prior_predictive(prior, simulator, n, key=key, store=folder, progress=False)


@dataclasses.dataclass(frozen=True)
class Sbc(AbstractTested):
    """Result of `vb.diagnostics.sbc`.

    Attributes:
        names: flattened parameters.
        ranks: `[n, D]`, draws below the truth, 0..L.
        u: `[n, D]`, the same as uniform numbers (ties and the place within a rank at random).
        num_posterior_samples: L.
        tests: rows of `TestResult`.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    question = "Are ranks of truths uniform, and independent of the data?"
    rule = RULE
    names: Names
    ranks: np.ndarray
    u: np.ndarray
    num_posterior_samples: int
    tests: tuple[TestResult, ...]
    verdict: Status
    findings: Names

    @property
    def facts(self) -> dict[str, Any]:
        """How many data sets, and draws of each."""
        return {"n": len(self.ranks), "L": self.num_posterior_samples}

    def figure(self) -> Figure:
        """Ranks of the truth of each parameter."""
        return rank_figure(self.u, self.names, f"Ranks of the truth among {self.num_posterior_samples} posterior draws")


def sbc(
    source: Any,
    draws: Draws,
    *,
    num_posterior_samples: int = 500,
    key: PRNGKey,
    quantities: Mapping[str, Quantity] | None = None,
) -> Sbc:
    """Simulation-based calibration: ranks of truths among posterior draws.

    If posteriors are right, these are uniform:

        theta* ~ p(theta), x ~ p(x | theta*), theta_1..L ~ q(theta | x):   r_f = #{l: f(theta_l, x) < f(theta*, x)}

    is uniform on 0..L for every test quantity f, and independent of x. Ranks become exact normal scores s = Phi^-1(u),
    and the tests are: per parameter, the mean of s (location), its sum of squares (width), the simultaneous ECDF band
    (shape), an F-test of s, and of |u - 1/2|, on the features of x; per pair, the rank of the product of the deviations
    (correlation); and the rank of log q where the source has a density. A posterior that ignores a feature, or that is
    the prior itself, passes the first three of these for ever: only ranks that involve x see it.

    Blind to: faults at one x_o that cancel over the prior (`vb.diagnostics.lc2st` looks at one x_o); a wrong simulator
    (`vb.diagnostics.misspecification`); faults smaller than each row's `detects`.

    Args:
        source: `.sample(x_o, n=, key=)`, faster with `.sample_batch(x, n=, key=)`; or a function `(x_o, n, key)`.
        draws: held out, never used in training; failed ones are left out and counted.
        num_posterior_samples: L, per data set; chains are thinned evenly to it.
        key: randomness of the draws, of ties and of the place within a rank.
        quantities: further test quantities by name, JAX functions `(theta, x) -> number` of one theta (a dict by path)
            and one x `[F]`, ranked like a parameter; a wrong posterior whose margins and correlations are right may
            show in them only. They share the false-alarm rate with all other tests.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.tests`, `.ranks [n, D]`. A right posterior gets less than a pass in 5 % of
        studies: the tests share that rate (Holm).

    Raises:
        TypeError: what is no source or no draws.
        ValueError: fewer than 50 valid draws, draws of another study, posteriors that are not finite or too short.

    Talts et al. 2018, doi:10.48550/arXiv.1804.06788; Modrák et al. 2023, doi:10.1214/23-BA1404 (test quantities that
    depend on the data); Säilynoja et al. 2022, doi:10.1007/s11222-022-10090-6 (bands).

    Example:
        >>> import jax, numpy as np, vbinfer as vb
        >>> rng = np.random.default_rng(0)
        >>> g = rng.normal(size=200)
        >>> draws = vb.Draws.from_arrays({"g": g}, (g + rng.normal(size=200))[:, None])
        >>> def exact(x_o, n, key):
        ...     return vb.Posterior({"g": x_o[0] / 2 + np.sqrt(0.5) * np.asarray(jax.random.normal(key, (1, n)))})
        >>> vb.diagnostics.sbc(exact, draws, num_posterior_samples=50, key=jax.random.key(0)).verdict
        'pass'
    """
    held = held_out(source, draws, num_posterior_samples=num_posterior_samples, key=key)
    raw = marginal_tests(held) + dependence_tests(held) + pair_tests(held)
    raw += quantity_tests(held, quantities, draws.shapes)
    if held.log_q is not None:
        raw += hpd_tests(held)
    tests = adjust(raw)
    judged = judge(held, tests, telling_features(held))
    return Sbc(held.names, held.ranks, held.u, held.draws.shape[1], tests, *judged)
