"""Whether chains have converged, and how much their averages can be trusted: R-hat, effective sample size, MCSE.

Rank-normalised versions of Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221, by ArviZ.
"""

from vbinfer import _arviz
from vbinfer.diagnostics.contraction import ByLeaf
from vbinfer.posterior import Posterior


def rhat(posterior: Posterior) -> ByLeaf:
    """R-hat: the larger of rank-normalised split R-hat and its folded version; above 1.01 the chains disagree.

    Args:
        posterior: at least two chains, better four, started apart.

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.

    Raises:
        ValueError: one chain, with which R-hat cannot see that another mode exists.
    """
    if posterior.num_chains < 2:
        raise ValueError("this posterior has one chain; R-hat compares chains: sample with num_chains=4")
    return {name: value[()] for name, value in _arviz.rhat(posterior.theta).items()}


def ess(posterior: Posterior, kind: str = "bulk") -> ByLeaf:
    """Effective sample size: the number of independent draws that would know as much; at least 100 per chain is wanted.

    Args:
        posterior: draws.
        kind: `"bulk"` for means and medians, `"tail"` for the 5 % and 95 % quantiles.

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.
    """
    if kind not in ("bulk", "tail"):
        raise ValueError(f"kind={kind!r} was given; expected kind='bulk' or kind='tail'")
    return {name: value[()] for name, value in _arviz.ess(posterior.theta, kind).items()}


def mcse(posterior: Posterior, kind: str = "mean") -> ByLeaf:
    """Monte-Carlo standard error of the posterior mean or sd: sd / sqrt(ESS) for the mean.

    Args:
        posterior: draws.
        kind: `"mean"` or `"sd"`.

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.
    """
    if kind not in ("mean", "sd"):
        raise ValueError(f"kind={kind!r} was given; expected kind='mean' or kind='sd'")
    return {name: value[()] for name, value in _arviz.mcse(posterior.theta, kind).items()}
