"""Simulation-based calibration: ranks of truths among posterior draws."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.diagnostics.calibration.band import rank_figure
from vbinfer.diagnostics.calibration.held_out import held_out
from vbinfer.diagnostics.calibration.joint import hpd_tests, pair_tests
from vbinfer.diagnostics.calibration.marginal import (
    Quantity,
    dependence_tests,
    marginal_tests,
    quantity_tests,
    telling_features,
)
from vbinfer.diagnostics.calibration.tests import RULE, AbstractTested, TestResult, adjust, judge
from vbinfer.diagnostics.figure import Figure
from vbinfer.diagnostics.result import Names, Status
from vbinfer.draws.draws import Draws


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
