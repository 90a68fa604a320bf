"""Posterior SBC: simulation-based calibration around one observation instead of over the prior."""

import dataclasses
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.approximate.importance import K_MAX
from vbinfer.diagnostics.calibration.heldout import FEWEST, FEWEST_DRAWS
from vbinfer.diagnostics.calibration.joint import hpd_tests, hpd_uniforms, pair_tests
from vbinfer.diagnostics.calibration.marginal import (
    dependence_tests,
    marginal_tests,
    marginal_uniforms,
    telling_features,
)
from vbinfer.diagnostics.calibration.rows import TestRow, adjust, verdict
from vbinfer.diagnostics.calibration.sbc import all_ranks
from vbinfer.diagnostics.calibration.words import FEW, closing, numbers, overall, sentences, text
from vbinfer.diagnostics.contraction import in_z, like_prior
from vbinfer.diagnostics.replicates import Question, Replicates, by_chains, by_importance, likelihood_of
from vbinfer.diagnostics.result import AbstractResult
from vbinfer.priors.prior import Prior

_LEFT_OUT = 0.2
"""Share of replicates with uneven weights from which nothing is passed."""


@dataclasses.dataclass(frozen=True)
class PosteriorSbc(AbstractResult):
    """Result of `vb.posterior_sbc`.

    Attributes:
        names: flattened parameters.
        ranks: `[n, D]`, draws below the parameter that made the replicate, 0..L.
        u: `[n, D]`, the same as uniform numbers.
        num_posterior_samples: L.
        tests: rows of `TestRow`, about the posteriors given x_o and one replicate.
        method: `chains` or `importance`: how those posteriors were drawn from.
        pareto_k: of the importance weights of each replicate; empty for chains.
        left_out: replicates whose k is above 0.7.
        failed: replicates whose simulation failed.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    u: np.ndarray
    num_posterior_samples: int
    tests: tuple[TestRow, ...]
    method: str
    pareto_k: np.ndarray
    left_out: int
    failed: int
    verdict: str
    findings: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """JSON-able."""
        counts = {"n": len(self.ranks), "L": self.num_posterior_samples, "left_out": self.left_out}
        finite = self.pareto_k[np.isfinite(self.pareto_k)]
        k = {"median_pareto_k": float(np.median(finite))} if len(finite) else {}
        about = {**counts, "failed": self.failed, "method": self.method, **k}
        return numbers(self.verdict, self.findings, self.tests, **about)

    def __str__(self) -> str:
        return text(f"Posterior SBC: {self.verdict}", self.findings, self.tests)


def posterior_sbc(
    source: Any,
    prior: Prior,
    simulator: SimulatorLike,
    x_o: Any,
    *,
    n: int = 300,
    num_posterior_samples: int = 250,
    key: PRNGKey,
) -> PosteriorSbc:
    """Posterior simulation-based calibration: is the method right for data like this observation?

        theta_i ~ q(theta | x_o),   x_i ~ p(x | theta_i),   theta_i1..L ~ q(theta | x_o, x_i)

    If inference is right, theta_i and its L draws are exchangeable given both data sets: its rank is uniform and
    independent of x_i. `vb.sbc` asks this of parameters from all over the prior; here they and their data come from
    where the posterior is. The tests and their shared false-alarm rate of 5 % are those of `vb.sbc`.

    The posterior given two data sets is p(theta) p(x_o | theta) p(x_i | theta). A source with a likelihood
    (`vb.ChainSampler`, what `vb.NLE` and `vb.NRE` fit) is sampled by chains under the sum of both. One with a density
    of theta (`vb.NPE`) stands for q(theta | x_o) q(theta | x_i) / p(theta): draws of q(. | x_o) are weighed and taken
    again, so that ranks stay exactly uniform under an exact q. Replicates whose weights are too uneven to say anything
    (Pareto k above 0.7) are left out and counted.

    Blind to: a posterior at x_o that is wrong while the likelihood, or q at the replicates, is right (it then is only
    another prior); what is wrong nearer to x_o than its replicates are; misspecification (`vb.misspecification`): an
    x_o unlike every simulation has replicates unlike it. A fault is diluted: where posteriors have 0.7 times the sd
    that they should have, that given both data sets has 0.86 times.

    Args:
        source: see above.
        prior: the prior of the source.
        simulator: `(theta, key) -> x [F]`; `.batch` is used where there is one.
        x_o: the observation `[F]`.
        n: replicates; 300 or more.
        num_posterior_samples: L, per replicate. Four times as many draws are weighed where there is no likelihood.
        key: randomness.

    Returns:
        `.passed`, `.verdict`, `.findings`, `.tests`, `.ranks [n, D]`, `.pareto_k`.

    Raises:
        TypeError: a source that cannot condition on two data sets: neither likelihood nor density.
        ValueError: fewer than 50 replicates that work, x_o of another width or with NaN.

    Säilynoja, Schmitt, Bürkner & Vehtari 2025, "Posterior SBC: Simulation-Based Calibration Checking Conditional on
    Data", doi:10.48550/arXiv.2502.03279.

    Example:
        found = vb.posterior_sbc(amortized, prior, fwd, x_o, key=jax.random.key(5))
        found.verdict, found.findings
    """
    key = _check.key(key)
    per = _check.count(num_posterior_samples, "num_posterior_samples", "250")
    question = Question(_a_prior(prior), simulator, _observation(x_o), _check.count(n, "n", "300"), per)
    if question.n < FEWEST:
        raise ValueError(f"n={n} replicates were asked for; at least {FEWEST} are needed, 300 or more are wanted")
    if per < FEWEST_DRAWS:
        raise ValueError(f"num_posterior_samples={per} was given; a rank among so few says little: write 250")
    if likelihood_of(source) is not None:
        found = by_chains(source, question, key)
    elif callable(getattr(source, "log_prob", None)):
        found = by_importance(source, question, key)
    else:
        raise TypeError(
            f"source is a {type(source).__name__} with neither .log_likelihood nor .log_prob, so that nothing can be "
            "conditioned on two data sets; write vb.ChainSampler(prior, log_likelihood) or use what vb.NPE().fit "
            "returns; vb.lc2st needs draws only"
        )
    held = found.held
    if len(held) < FEWEST:
        raise ValueError(_too_few(found))
    return _judged(found, question)


def _judged(found: Replicates, question: Question) -> PosteriorSbc:
    held = found.held
    u = marginal_uniforms(held)
    raw = marginal_tests(held, u) + dependence_tests(held, u) + pair_tests(held) + hpd_tests(held, hpd_uniforms(held))
    tests = adjust(raw)
    nothing = like_prior(in_z(question.prior, found.at_x_o))
    light = overall(held, verdict(tests))
    if light == "pass" and (nothing or found.left_out > _LEFT_OUT * len(found.pareto_k)):
        light = "warn"
    right = verdict(tests) == "pass"
    said = [
        f"Around this observation {'the posterior is as sure as it should be' if right else 'the posterior is wrong'}: "
        f"{len(held)} replicates were simulated from its own draws, and those draws ranked in the posteriors given "
        "the observation and a replicate",
        *(["nothing learned: at this observation the posterior is the prior"] if nothing else []),
        *sentences(tests, telling_features(held, u)),
        *_circumstances(found),
        closing(tests, len(held), "replicates"),
    ]
    return PosteriorSbc(
        held.names, all_ranks(held), u, held.draws.shape[1], tests, found.method, found.pareto_k, found.left_out,
        held.failed, light, tuple(said),
    )  # fmt: skip


def _circumstances(found: Replicates) -> list[str]:
    held, said = found.held, []
    if found.left_out:
        said.append(
            f"{found.left_out} of {len(found.pareto_k)} replicates move the posterior so far that weighing its "
            f"draws cannot follow (Pareto k above {K_MAX}) and were left out; take a larger num_posterior_samples"
        )
    if held.failed:
        total = held.failed + len(held) + found.left_out
        said.append(f"{held.failed} of {total} replicates failed and were left out")
    if len(held) < FEW:
        said.append(f"{len(held)} replicates are few: only gross faults can be seen; take 300 or more")
    if held.ess < 0.5 * held.draws.shape[1]:
        said.append(
            f"the draws of at least one posterior are worth {held.ess:.0f} independent ones: autocorrelated draws make "
            "ranks U-shaped; give vb.ChainSampler more num_warmup or max_thinning"
        )
    return said


def _too_few(found: Replicates) -> str:
    held = found.held
    if found.left_out:
        return (
            f"{found.left_out} of {len(found.pareto_k)} replicates have a Pareto k above {K_MAX}: the draws at x_o "
            f"cannot be weighed into the posterior given both data sets, and {len(held)} are left of at least {FEWEST} "
            f"needed; write num_posterior_samples={4 * held.draws.shape[1]}, or use vb.NLE, whose likelihoods add up"
        )
    return (
        f"{held.failed} of {held.failed + len(held)} replicates failed; at least {FEWEST} that work are needed: look "
        "at why simulations fail at the posterior, or write a larger n"
    )


def _a_prior(prior: Any) -> Prior:
    if not isinstance(prior, Prior):
        raise TypeError(f"prior is a {type(prior).__name__}; expected the vb.Prior that the source was made with")
    return prior


def _observation(x_o: Any) -> np.ndarray:
    row = np.asarray(x_o, dtype=np.result_type(np.asarray(x_o).dtype, np.float32))
    if row.ndim != 1 or not len(row):
        raise ValueError(f"x_o has shape {list(row.shape)}; expected one observation [F]")
    if not np.isfinite(row).all():
        raise ValueError(
            f"x_o has NaN or infinite values in {int((~np.isfinite(row)).sum())} features; clean the recording"
        )
    return row
