"""Sequential rounds: simulate where one observation's posterior is, and refit."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike, Theta
from vbinfer.draws.draws import Draws
from vbinfer.draws.request import DrawRequest
from vbinfer.draws.sample import simulate_draws
from vbinfer.execute.executor import Executor
from vbinfer.neural.fit_info import FitInfo
from vbinfer.neural.nle import NLE
from vbinfer.neural.npe import NPE
from vbinfer.neural.nre import NRE
from vbinfer.neural.sbi.estimator import SbiEstimator
from vbinfer.neural.sbi.networks import find_method
from vbinfer.neural.scaler import check_observation
from vbinfer.neural.truncated import TruncatedPrior, small_share
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior

_FAR = 0.1
"""Share of another observation's posterior outside the last region from which on there is a warning."""


@dataclasses.dataclass(frozen=True)
class RoundsFit:
    """What `fit_rounds` found.

    Attributes:
        amortized: the estimator fitted last, to the draws of all rounds. It answers for `x_o`; elsewhere it has seen
            little.
        draws: the draws of all rounds, numbered in `draws.round`.
        infos: `FitInfo` of each round.
        proposals: where each round after the first was simulated.
        x_o: the observation of the rounds.
        findings: what there is to know before the result is believed, in sentences; empty if nothing.
    """

    amortized: Any
    draws: Draws
    infos: tuple[FitInfo, ...]
    proposals: tuple[Any, ...]
    x_o: np.ndarray
    findings: tuple[str, ...] = ()

    def sample(self, x_o: Any = None, *, n: int, key: PRNGKey) -> Posterior:
        """Draw from the posterior of the rounds' own observation.

        Of another x_o too, with a warning if it is far.

        Args:
            x_o: `[F]`; the observation of the rounds by default.
            n: number of draws.
            key: randomness.
        """
        posterior = self.amortized.sample(self.x_o if x_o is None else x_o, n=n, key=key)
        region = self.proposals[-1] if self.proposals else None
        if x_o is not None and isinstance(region, TruncatedPrior) and not np.array_equal(posterior.x_o, self.x_o):
            outside = 1.0 - float(region.contains(region.prior.unravel(posterior.ravel())).mean())
            if outside > _FAR:
                warnings.warn(
                    f"{100 * outside:.0f}% of the posterior of this x_o lies outside the region that the last round "
                    "was simulated in; it was trained for another observation. Run vb.neural.fit_rounds for this one",
                    stacklevel=2,
                )
        return posterior


def fit_rounds(
    prior: Prior,
    simulator: SimulatorLike,
    x_o: Any,
    *,
    key: Array,
    estimator: Any = None,
    rounds: int = 5,
    n: int = 1_000,
    epsilon: float = 1e-4,
    store: str | Path | None = None,
    batch_size: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> RoundsFit:
    """Fit the posterior of one observation in rounds.

    Fewer simulations than one round, for this x_o only. Round 0 simulates n draws of the prior; each later one n draws
    of a proposal made of the estimator fitted before, and the estimator is trained anew on the draws of all rounds.

    `vb.NPE`, and `vb.neural.SbiEstimator` with NPE, NPE_A, FMPE, NPSE: the proposal is the prior truncated to the
    region that holds all but epsilon of the posterior (`vb.neural.TruncatedPrior`). All proposals are proportional to
    the prior there, so the plain loss is right, and nothing leaks. Too small a region in an early round,
    from an overconfident network, is never made up for: give the first round enough draws, or use an ensemble.

    `vb.NLE`, and `SbiEstimator` with NLE, MNLE: the proposal is the current posterior; a likelihood may be learned from
    draws of any proposal. It costs a sampling run per 1,024 draws.

    Ratio estimators are refused: they would learn the ratio to the proposal's evidence.

    Args:
        prior: `vb.Prior`.
        simulator: `(theta, key) -> x [F]`, as for `vb.sample_prior_predictive`.
        x_o: observed summary `[F]`.
        key: a JAX key; round k uses `fold_in(key, k)`.
        estimator: `vb.NPE()` by default.
        rounds: number of rounds; 1 is the plain fit.
        n: draws per round.
        epsilon: share of the posterior that a truncated proposal leaves out.
        store: a folder; round k keeps its draws in `round-k`, and JAX estimators their training in
            `round-k-training.npz`. The same call again reads what is there and goes on, with the same numbers.
        batch_size, executor, progress: as for `vb.sample_prior_predictive`.

    Returns:
        `RoundsFit(amortized, draws, infos)`. A later round in which every simulation fails ends the rounds with a
        warning; what was fitted before it is returned, with the failed draws.

    Raises:
        ValueError: an x_o with NaN or of another width, rounds < 1, a ratio estimator, a store of another study.
        RuntimeError: every draw of the prior failed.

    Deistler, Goncalves & Macke 2022, doi:10.48550/arXiv.2210.04815 (truncated proposals); Papamakarios, Sterratt &
    Murray 2019, doi:10.48550/arXiv.1805.07226 (sequential neural likelihood).

    Example:
        fit = vb.neural.fit_rounds(prior, simulator, x_o, rounds=4, n=500, key=jax.random.key(0))
        posterior = fit.sample(n=4_000, key=jax.random.key(1))
    """
    key, rounds, n = _check.key(key), _check.count(rounds, "rounds", "5"), _check.count(n, "n")
    epsilon = small_share(epsilon)
    estimator = NPE() if estimator is None else estimator
    family, x_o = _family(estimator), _observation(x_o, getattr(simulator, "names", None))
    parts: list[Draws] = []
    infos: list[FitInfo] = []
    proposals: list[Any] = []
    findings: list[str] = []
    fitted: Any = None
    for number in range(rounds):
        # a key per round and use: a run that is begun again repeats what its store lacks, number for number
        k_sim, k_fit, k_propose = jax.random.split(jax.random.fold_in(key, number), 3)
        if number:
            proposals.append(_proposal(family, fitted, x_o, k_propose, epsilon, number))
        where = None if store is None else Path(store) / f"round-{number}"
        proposal = proposals[-1] if number else None
        request = DrawRequest.of(prior, simulator, n, key=k_sim, proposal=proposal, store=where, batch_size=batch_size)
        part = simulate_draws(request, executor, progress)
        parts.append(part if number else _first_round(part, prior, x_o, store))
        if not part.valid.any():
            findings.append(
                f"every draw of round {number} failed; the result is that of round {number - 1}. Look at one of "
                f"draws.theta where draws.round == {number}, and mend the simulator there"
            )
            warnings.warn(findings[-1], stacklevel=2)
            break
        # sbi keeps no state of training
        keeps = where is not None and not isinstance(estimator, SbiEstimator)
        kept: dict[str, Any] = {"checkpoint": f"{where}-training.npz"} if keeps else {}
        fitted, info = estimator.fit(Draws.concatenate(parts), prior, key=k_fit, **kept)
        infos.append(info)
    if infos[-1].info_gain <= 0.0 or not infos[-1].converged:
        findings.insert(0, f"last fit: {infos[-1].sentence}")
    fitted.info.update(rounds=len(infos), x_o=x_o.tolist())
    return RoundsFit(fitted, Draws.concatenate(parts), tuple(infos), tuple(proposals), x_o, tuple(findings))


@dataclasses.dataclass(frozen=True)
class PosteriorProposal:
    """The posterior of a learned likelihood as a proposal."""

    amortized: Any
    x_o: np.ndarray
    round: int

    def sample(self, *, key: PRNGKey, n: int) -> Theta:
        """Draws in random order, chains pooled: leaves `[n, ...]`."""
        k_draw, k_order = jax.random.split(key)
        posterior = self.amortized.sample(self.x_o, n=n, key=k_draw)
        # chains are long rows: shuffled, so that the first draws are not those of one chain
        order = np.asarray(jax.random.permutation(k_order, posterior.num_chains * posterior.num_samples))[:n]
        return self.amortized.prior.unravel(posterior.ravel()[order])

    def log_prob(self, theta: Theta) -> Array:
        """log p(theta) + log q(x_o | theta), unnormalised."""
        return self.amortized.prior.log_prob(theta) + self.amortized.log_likelihood(theta, self.x_o)


def _proposal(family: str, fitted: Any, x_o: np.ndarray, key: PRNGKey, epsilon: float, number: int) -> Any:
    if family == "likelihood":
        return PosteriorProposal(fitted, x_o, number)
    return TruncatedPrior(fitted.prior, fitted, x_o, key=key, epsilon=epsilon, round=number)


def _family(estimator: Any) -> str:
    """`"posterior"` or `"likelihood"`, or an error."""
    kind = type(estimator).__name__
    if isinstance(estimator, SbiEstimator):
        kind, family = f"SbiEstimator({estimator.method!r})", find_method(estimator.method).family
    else:
        family = {NPE: "posterior", NLE: "likelihood", NRE: "ratio"}.get(type(estimator), "unknown")
    if family == "ratio":
        raise ValueError(
            f"fit_rounds was given {kind}, which learns p(x | theta) over the evidence of whatever proposal the draws "
            "come from; use vb.NLE(), or vb.NPE()"
        )
    if family == "unknown":
        what = f"the class {estimator.__name__}" if isinstance(estimator, type) else kind
        raise TypeError(
            f"fit_rounds was given estimator {what}; expected vb.NPE(), vb.NLE() or vb.neural.SbiEstimator(...)"
        )
    return "likelihood" if family == "likelihood" else "posterior"


def _observation(x_o: Any, names: Any) -> np.ndarray:
    array = np.asarray(x_o)
    if array.ndim != 1:
        raise ValueError(f"x_o has shape {list(array.shape)}; expected one summary [F]: rounds serve one observation")
    return check_observation(array, names or tuple(f"x[{i}]" for i in range(len(array))), ndim=1)


def _first_round(part: Draws, prior: Prior, x_o: np.ndarray, store: str | Path | None) -> Draws:
    """Check the draws of the prior, and add log_q."""
    check_observation(x_o, part.names, ndim=1)
    if not part.valid.any():
        kept = f"; they are kept in {str(store)!r}" if store is not None else ""
        raise RuntimeError(
            f"all {len(part)} draws of the prior failed{kept}. Look at one, simulator(prior.sample(key=key), key), "
            "then narrow the prior or mend the simulator"
        )
    return dataclasses.replace(part, log_q=np.asarray(prior.log_prob(part.theta)))
