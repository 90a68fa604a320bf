"""Posterior SBC: simulation-based calibration around one observation."""

import dataclasses
from typing import Any

import numpy as np

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.priors.prior import Prior

from .calibration.band import rank_figure
from .calibration.held_out import check_ranked
from .calibration.rank_tests import (
    dependence_tests,
    hpd_tests,
    marginal_tests,
    pair_tests,
    telling_features,
)
from .calibration.tests import (
    RULE,
    AbstractTested,
    TestResult,
    adjust,
    caveats,
    faults,
    summary,
    verdict_of,
)
from .figure import Figure
from .recovery import in_z, like_prior
from .replicates import Question, Replicates, by_chains, by_importance, likelihood_of
from .result import Names, Status, observation, percent
from .thresholds import (
    FEWEST_DATA_SETS,
    PARETO_K,
    UNEVEN_SHARE,
    WANTED_DATA_SETS,
)


@dataclasses.dataclass(frozen=True)
class PosteriorSbc(AbstractTested):
    """Result of `vb.diagnostics.posterior_sbc`.

    Attributes:
        names: flattened parameters.
        ranks: `[n, D]`, draws below the parameter that made the replicate, 0..L.
        u: `[n, D]`, the same as uniform numbers.
        num_posterior_samples: L.
        tests: rows of `TestResult`, about the posteriors given x_o and one replicate.
        method: `chains` or `importance`: how those posteriors were drawn from.
        pareto_k: of the importance weights of each replicate; empty for chains.
        left_out: replicates whose k is above 0.7.
        failed: replicates whose simulation failed.
        verdict: `pass`, `warn` or `fail`.
        findings: sentences.
    """

    question = "Is the method right for data like this recording?"
    rule = (
        f"{RULE} Warn, too: more than {percent(UNEVEN_SHARE)} of the replicates with uneven weights (Pareto k above "
        f"{PARETO_K:g}), or nothing learned."
    )
    names: Names
    ranks: np.ndarray
    u: np.ndarray
    num_posterior_samples: int
    tests: tuple[TestResult, ...]
    method: str
    pareto_k: np.ndarray
    left_out: int
    failed: int
    verdict: Status
    findings: Names

    @property
    def facts(self) -> dict[str, Any]:
        """How many replicates, and how their posteriors were made."""
        finite = self.pareto_k[np.isfinite(self.pareto_k)]
        return {
            "n": len(self.ranks),
            "L": self.num_posterior_samples,
            "method": self.method,
            "left_out": self.left_out,
            "failed": self.failed,
            "median_pareto_k": float(np.median(finite)) if len(finite) else None,
        }

    def figure(self) -> Figure:
        """Ranks of each parameter."""
        return rank_figure(self.u, self.names, "Ranks in the posteriors given recording and replicate")


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
    """Posterior SBC: calibration for data like this observation.

        theta_i ~ q(theta | x_o),   x_i ~ p(x | theta_i),   theta_i1..L ~ q(theta | x_o, x_i)

    If inference is right, theta_i and its L draws are exchangeable given both data sets: its rank is uniform and
    independent of x_i. `vb.diagnostics.sbc` asks this of parameters from all over the prior; here they and their data
    come from
    where the posterior is. The tests and their shared false-alarm rate of 5 % are those of `vb.diagnostics.sbc`.

    The posterior given two data sets is p(theta) p(x_o | theta) p(x_i | theta). A source with a likelihood
    (`vb.sampling.ChainSampler`, what `vb.NLE` and `vb.NRE` fit) is sampled by chains under the sum of both. One with
    a density of theta (`vb.NPE`) stands for q(theta | x_o) q(theta | x_i) / p(theta): draws of q(. | x_o) are
    weighed and taken
    again, so that ranks stay exactly uniform under an exact q. Replicates whose weights are too uneven to say anything
    (Pareto k above 0.7) are left out and counted.

    Blind to: a posterior at x_o that is wrong while the likelihood, or q at the replicates, is right (it then is only
    another prior); what is wrong nearer to x_o than its replicates are; misspecification
    (`vb.diagnostics.misspecification`): an
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
        found = vb.diagnostics.posterior_sbc(amortized, prior, fwd, x_o, key=jax.random.key(5))
        found.verdict, found.findings
    """
    key = _check.key(key)
    per = _check.count(num_posterior_samples, "num_posterior_samples", "250")
    row = np.atleast_1d(np.asarray(x_o))
    row = observation(x_o, [f"x[{i}]" for i in range(row.shape[-1])])
    question = Question(_a_prior(prior), simulator, row, _check.count(n, "n", "300"), per)
    if question.n < FEWEST_DATA_SETS:
        raise ValueError(
            f"n={n} replicates were asked for; at least {FEWEST_DATA_SETS} are needed, {WANTED_DATA_SETS} or more are "
            "wanted"
        )
    check_ranked(per)
    if likelihood_of(source) is not None:
        found = by_chains(source, question, key)
    elif callable(getattr(source, "log_prob", None)):
        found = by_importance(source, question, key)
    else:
        raise TypeError(
            f"source is a {type(source).__name__} with neither .log_likelihood nor .log_prob, so that nothing can be "
            "conditioned on two data sets; write vb.sampling.ChainSampler(prior, log_likelihood) or use what "
            "vb.NPE().fit "
            "returns; vb.diagnostics.lc2st needs draws only"
        )
    held = found.held
    if len(held) < FEWEST_DATA_SETS:
        raise ValueError(_too_few(found))
    return _judged(found, question)


def _judged(found: Replicates, question: Question) -> PosteriorSbc:
    held = found.held
    tests = adjust(marginal_tests(held) + dependence_tests(held) + pair_tests(held) + hpd_tests(held))
    nothing = like_prior(in_z(question.prior, found.at_x_o))
    status, right = verdict_of(held, tests), all(row.status == "pass" for row in tests)
    if status == "pass" and (nothing or found.left_out > UNEVEN_SHARE * len(found.pareto_k)):
        status = "warn"
    said = [
        f"Around this observation {'the posterior is as sure as it should be' if right else 'the posterior is wrong'}: "
        f"{len(held)} replicates were simulated from its own draws, and those draws ranked in the posteriors given "
        "the observation and a replicate",
        *(["nothing learned: at this observation the posterior is the prior"] if nothing else []),
        *faults(tests, telling_features(held)),
        *_circumstances(found),
        summary(tests, len(held), "replicates"),
    ]
    return PosteriorSbc(
        held.names, held.ranks, held.u, held.draws.shape[1], tests, found.method, found.pareto_k, found.left_out,
        held.failed, status, tuple(said),
    )  # fmt: skip


def _circumstances(found: Replicates) -> list[str]:
    said = []
    if found.left_out:
        said.append(
            f"{found.left_out} of {len(found.pareto_k)} replicates move the posterior so far that weighing its "
            f"draws cannot follow (Pareto k above {PARETO_K:g}) and were left out; take a larger num_posterior_samples"
        )
    return said + caveats(found.held, "replicates", "replicates", found.left_out)


def _too_few(found: Replicates) -> str:
    held = found.held
    if found.left_out:
        return (
            f"{found.left_out} of {len(found.pareto_k)} replicates have a Pareto k above {PARETO_K:g}: the draws at "
            f"x_o cannot be weighed into the posterior given both data sets, and {len(held)} are left of at least "
            f"{FEWEST_DATA_SETS} needed; write num_posterior_samples={4 * held.draws.shape[1]}, or use vb.NLE, "
            "whose likelihoods add up"
        )
    return (
        f"{held.failed} of {held.failed + len(held)} replicates failed; at least {FEWEST_DATA_SETS} that work are "
        "needed: look at why simulations fail at the posterior, or write a larger n"
    )


def _a_prior(prior: Any) -> Prior:
    if not isinstance(prior, Prior):
        raise TypeError(f"prior is a {type(prior).__name__}; expected the vb.Prior that the source was made with")
    return prior
