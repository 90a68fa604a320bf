"""Simulation-based calibration: ranks of truths among posterior draws."""

import dataclasses
from typing import Any

import numpy as np

from vbinfer._names import PRNGKey
from vbinfer.diagnostics.calibration.heldout import HeldOut, held_out
from vbinfer.diagnostics.calibration.joint import hpd_tests, hpd_uniforms, pair_tests
from vbinfer.diagnostics.calibration.marginal import (
    dependence_tests,
    marginal_tests,
    marginal_uniforms,
    telling_features,
)
from vbinfer.diagnostics.calibration.rows import TestRow, adjust, verdict
from vbinfer.diagnostics.calibration.scores import ranks
from vbinfer.diagnostics.calibration.words import circumstances, closing, numbers, overall, sentences, text
from vbinfer.diagnostics.result import AbstractResult
from vbinfer.draws.draws import Draws


@dataclasses.dataclass(frozen=True)
class Sbc(AbstractResult):
    """Result of `vb.sbc`.

    Attributes:
        names: flattened parameters.
        ranks: `[n, D]`, draws below the truth, 0..L.
        u: `[n, D]`, the same as uniform numbers (ties and the place within a rank at random).
        num_posterior_samples: L.
        tests: rows of `TestRow`.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    u: np.ndarray
    num_posterior_samples: int
    tests: tuple[TestRow, ...]
    verdict: str
    findings: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """JSON-able."""
        return numbers(self.verdict, self.findings, self.tests, n=len(self.ranks), L=self.num_posterior_samples)

    def __str__(self) -> str:
        return text(f"SBC: {self.verdict}", self.findings, self.tests)


def sbc(source: Any, draws: Draws, *, num_posterior_samples: int = 500, key: PRNGKey) -> Sbc:
    """Simulation-based calibration: if posteriors are right, the rank of the truth among their draws is uniform.

        theta* ~ p(theta), x ~ p(x | theta*), theta_1..L ~ q(theta | x):   r_f = #{l: f(theta_l, x) < f(theta*, x)}

    is uniform on 0..L for every test quantity f, and independent of x. Ranks become exact normal scores s = Phi^-1(u),
    and the tests are: per parameter, the mean of s (location), its sum of squares (width), the simultaneous ECDF band
    (shape), an F-test of s, and of |u - 1/2|, on the features of x; per pair, the rank of the product of the deviations
    (correlation); and the rank of log q where the source has a density. A posterior that ignores a feature, or that is
    the prior itself, passes the first three of these for ever: only ranks that involve x see it.

    Blind to: faults at one x_o that cancel over the prior (`vb.lc2st` looks at one x_o); a wrong simulator
    (`vb.misspecification`); faults smaller than each row's `detects`.

    Args:
        source: `.sample(x_o, n=, key=)`, faster with `.sample_batch(x, n=, key=)`; or a function `(x_o, n, key)`.
        draws: held out, never used in training; failed ones are left out and counted.
        num_posterior_samples: L, per data set; chains are thinned evenly to it.
        key: randomness of the draws, of ties and of the place within a rank.

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
        >>> vb.sbc(exact, draws, num_posterior_samples=50, key=jax.random.key(0)).verdict
        'pass'
    """
    held = held_out(source, draws, num_posterior_samples=num_posterior_samples, key=key)
    u = marginal_uniforms(held)
    raw = marginal_tests(held, u) + dependence_tests(held, u) + pair_tests(held)
    if held.log_q is not None:
        raw += hpd_tests(held, hpd_uniforms(held))
    tests = adjust(raw)
    found = sentences(tests, telling_features(held, u)) + circumstances(held) + [closing(tests, len(held))]
    return Sbc(held.names, all_ranks(held), u, held.draws.shape[1], tests, overall(held, verdict(tests)), tuple(found))


def all_ranks(held: HeldOut) -> np.ndarray:
    """Ranks `[n, D]`, 0..L."""
    pooled = held.pooled
    return np.stack([ranks(pooled[:, :, d]) for d in range(pooled.shape[2])], axis=1)
