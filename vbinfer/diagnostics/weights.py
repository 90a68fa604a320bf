"""Importance weights of a corrected posterior."""

import dataclasses

import numpy as np

from vbinfer.posterior import Posterior

from .figure import Axis, Figure, Line, Panel
from .result import AbstractResult, Status, worst
from .thresholds import ESS_FAIL, ESS_WARN, PARETO_K, PARETO_K_FAIL


@dataclasses.dataclass(frozen=True)
class ImportanceWeights(AbstractResult):
    """Result of `vb.diagnostics.importance_weights`.

    Attributes:
        khat: Pareto shape of the tail of the weights.
        ess: effective draws, of n.
        n: draws of equal weight that were taken.
        distinct: different ones among them.
        log_evidence: estimate of log p(x_o), with its standard error `log_evidence_error`.
        log_weights: of the proposals `[m]`, normalised.
    """

    question = "Did the correction by the likelihood work?"
    rule = (
        f"Warn: Pareto khat above {PARETO_K:g}, or fewer than {ESS_WARN} effective draws. Fail: above "
        f"{PARETO_K_FAIL:g}, or fewer than {ESS_FAIL}."
    )
    beside = ("log_weights",)

    verdict: Status
    findings: tuple[str, ...]
    khat: float
    ess: float
    n: int
    distinct: int
    log_evidence: float
    log_evidence_error: float
    log_weights: np.ndarray

    def figure(self) -> Figure:
        """Share of the weight that the heaviest proposals carry."""
        heaviest = np.cumsum(np.exp(np.sort(self.log_weights)[::-1]))
        share = np.linspace(0.0, 1.0, len(heaviest) + 1)[1:]
        marks = (
            Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "reference", "equal weights", dashed=True),
            Line(share, heaviest, "posterior", "these weights"),
        )
        alt = f"Share of the weight of the heaviest of {len(share):,} proposals; Pareto khat {self.khat:.2f}"
        axes = Axis("share of the proposals", limits=(0.0, 1.0)), Axis("share of the weight", limits=(0.0, 1.05))
        caption = "Proposals of the network from the heaviest to the lightest: the closer to the diagonal, the better."
        return Figure([Panel(marks, *axes, alt)], caption)


def importance_weights(posterior: Posterior) -> ImportanceWeights:
    """Judge the weights of a posterior corrected by `refine`.

    Blind to what no proposal has found: weights can be even and a mode missing.

    Args:
        posterior: what `amortized.refine` returned.

    Raises:
        ValueError: a posterior that was not made by importance weights.

    Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn. Res. 25(72), arXiv:1507.02646.
    """
    info = posterior.info
    if "khat" not in info or posterior.log_evidence is None:
        raise ValueError(
            f"the posterior was made by {info.get('method', 'another method')} and has no importance weights; give "
            "that of amortized.refine(x_o, log_likelihood, n=n, key=key)"
        )
    khat, ess, n = float(info["khat"]), float(info["ess"]), posterior.num_samples
    error, distinct = float(info["log_evidence_error"]), int(info["distinct"])
    words = [
        f"Pareto khat is {khat:.2f}, {ess:,.0f} of {n:,} draws are effective ({distinct:,} distinct), and "
        f"log p(x_o) = {posterior.log_evidence:.2f} ± {error:.2f}"
    ]
    tail = "fail" if khat > PARETO_K_FAIL else "warn" if khat > PARETO_K else "pass"
    size = "fail" if ess < ESS_FAIL else "warn" if ess < ESS_WARN else "pass"
    if tail != "pass":
        words.append("the network is far from the posterior: start chains from these draws with vb.sample_mcmc(init=)")
    elif size != "pass":
        words.append("the network is much wider than the posterior: take more draws, or train it for longer")
    if info["not_finite"]:
        words.append(f"the likelihood was not finite at {info['not_finite']:,} of {info['num_proposals']:,} proposals")
    return ImportanceWeights(
        worst((tail, size)),
        tuple(words),
        khat,
        ess,
        n,
        distinct,
        posterior.log_evidence,
        error,
        np.asarray(info["log_weights"]),
    )
