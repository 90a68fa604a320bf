"""Measures of Markov chains: R-hat, ESS, MCSE, E-BFMI, divergences.

Rank-normalised versions of Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), doi:10.1214/20-BA1221, by ArviZ.
"""

from typing import NamedTuple

import numpy as np

from vbinfer import _arviz, _check
from vbinfer.posterior import Posterior

from .result import ByLeaf
from .thresholds import LOCATED, LOCATED_P

_FEWEST_DIVERGENT = 5


def rhat(posterior: Posterior) -> ByLeaf:
    """Rank-normalised split R-hat; above 1.01 the chains disagree.

    The larger of R-hat and its version folded around the median, which sees different widths.

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
    """Effective sample size: independent draws worth as much.

    At least 100 per chain are wanted.

    Args:
        posterior: draws.
        kind: `"bulk"` for means and medians, `"tail"` for the 5 % and 95 % quantiles.

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.
    """
    kind = _check.one_of(kind, "kind", ("bulk", "tail"))
    return {name: value[()] for name, value in _arviz.ess(posterior.theta, kind).items()}


def effective_draws(posterior: Posterior, n: int) -> float:
    """Effective number among the n draws kept.

    That of the chains, at most n; all n of a method without chains.
    """
    if posterior.num_chains == 1 and posterior.sample_stats is None:
        return float(n)
    return float(min([n, *(np.min(value) for value in ess(posterior).values())]))


def mcse(posterior: Posterior, kind: str = "mean") -> ByLeaf:
    """Monte-Carlo standard error of the posterior mean or sd.

    For the mean it is sd / sqrt(ESS).

    Args:
        posterior: draws.
        kind: `"mean"` or `"sd"`.

    Returns:
        By path: a number, or an array `[...]` for a parameter that is one.
    """
    kind = _check.one_of(kind, "kind", ("mean", "sd"))
    return {name: value[()] for name, value in _arviz.mcse(posterior.theta, kind).items()}


def ebfmi(posterior: Posterior) -> np.ndarray:
    """Energy fraction of missing information of each chain `[chain]`.

    E-BFMI = sum_n (E_n - E_{n-1})^2 / sum_n (E_n - mean E)^2

    How fast resampling the momentum explores energies: near 1 or above for light tails; below 0.3 the chain moves
    slowly between energy levels, as in funnels and heavy tails, and R-hat may not see it yet. Blind to everything
    within an energy level. NaN for an energy that never changes; energies that are not finite are left out.

    Args:
        posterior: chains of a Hamiltonian sampler, with `sample_stats["energy"]` `[chain, draw]`.

    Raises:
        ValueError: no energies.

    Betancourt 2016, doi:10.48550/arXiv.1604.00695.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> energy = np.array([[0.0, 1.0, 0.0, 1.0, 0.0]])
        >>> posterior = vb.Posterior({"a": energy}, sample_stats={"energy": energy})
        >>> vb.diagnostics.ebfmi(posterior).round(3).tolist()         # 4 / (2 * 0.6^2 + 3 * 0.4^2)
        [3.333]
    """
    stats = posterior.sample_stats or {}
    if "energy" not in stats:
        raise ValueError(
            "this posterior has no sample_stats['energy']; E-BFMI is of Hamiltonian chains: "
            "sample with kernel=vb.sampling.NUTS() or vb.sampling.HMC()"
        )
    energy = np.asarray(stats["energy"], np.float64)
    return np.array([_ebfmi(chain[np.isfinite(chain)]) for chain in energy])


def _ebfmi(energy: np.ndarray) -> float:
    around = ((energy - energy.mean()) ** 2).sum() if len(energy) else 0.0
    return float((np.diff(energy) ** 2).sum() / around) if around > 0 else np.nan


class Located(NamedTuple):
    """A parameter whose divergent draws lie elsewhere.

    Attributes:
        name: flattened name.
        above: chance that a divergent draw lies above another one, 1/2 for no difference.
        diverging: median of the divergent draws.
        others: median of the other draws.
        p: of the rank-sum test (Mann-Whitney), times the number of parameters.
    """

    name: str
    above: float
    diverging: float
    others: float
    p: float

    @property
    def sentence(self) -> str:
        """In words."""
        side = "high" if self.above > 0.5 else "low"
        return f"divergences sit at {side} {self.name} (median {self.diverging:.3g} there, {self.others:.3g} elsewhere)"


def locate_divergences(posterior: Posterior) -> tuple[Located, ...]:
    """Parameters in which divergent draws differ, most telling first.

    A parameter is named when the chance that a divergent draw lies above another differs from 1/2 by more than 0.15 and
    the rank-sum test has p < 0.01 over all parameters together (Mann & Whitney 1947, doi:10.1214/aoms/1177730491). The
    test takes draws as independent, hence the first condition. Blind to divergences on both sides of a parameter, and
    to fewer than five of them.

    Args:
        posterior: chains with `sample_stats["diverging"]`.

    Example:
        >>> import numpy as np, vbinfer as vb
        >>> sigma = np.linspace(0.0, 1.0, 100)[None]
        >>> posterior = vb.Posterior({"sigma": sigma}, sample_stats={"diverging": sigma < 0.1})
        >>> locate_divergences(posterior)[0].sentence
        'divergences sit at low sigma (median 0.0455 there, 0.551 elsewhere)'
    """
    from scipy.stats import mannwhitneyu

    diverging = np.asarray((posterior.sample_stats or {})["diverging"], bool).reshape(-1)
    few, many = sorted((diverging.sum(), (~diverging).sum()))
    if few < _FEWEST_DIVERGENT:
        return ()
    flat = posterior.ravel().astype(float)
    inside, outside = flat[diverging], flat[~diverging]
    test = mannwhitneyu(inside, outside)
    # the Mann-Whitney statistic counts pairs in which the divergent draw is above
    above, p = test.statistic / (few * many), np.minimum(1.0, test.pvalue * flat.shape[1])
    columns = (above, np.median(inside, axis=0), np.median(outside, axis=0), p)
    found = [Located(*row) for row in zip(posterior.names, *(column.tolist() for column in columns), strict=True)]
    told = [one for one in found if abs(one.above - 0.5) > LOCATED and one.p < LOCATED_P]
    return tuple(sorted(told, key=lambda one: -abs(one.above - 0.5)))
