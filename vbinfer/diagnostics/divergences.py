"""Where in parameter space transitions diverge."""

from typing import NamedTuple

import numpy as np

from vbinfer.posterior import Posterior

_FEWEST = 5
_TELLS = 0.15
"""How far from 1/2 the chance must be that a divergent draw lies above another one, for a parameter to be named."""
_LEVEL = 0.01


class Located(NamedTuple):
    """A parameter whose divergent draws lie elsewhere than the others.

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


def locate(posterior: Posterior) -> tuple[Located, ...]:
    """The parameters in which divergent draws differ from the others, the most telling first.

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
        >>> locate(posterior)[0].sentence
        'divergences sit at low sigma (median 0.0455 there, 0.551 elsewhere)'
    """
    from scipy.stats import mannwhitneyu

    diverging = np.asarray((posterior.sample_stats or {})["diverging"], bool).reshape(-1)
    if min(diverging.sum(), (~diverging).sum()) < _FEWEST:
        return ()
    flat = posterior.ravel().astype(float)
    found = []
    for name, column in zip(posterior.names, flat.T, strict=True):
        inside, outside = column[diverging], column[~diverging]
        test = mannwhitneyu(inside, outside)
        above = float(test.statistic) / (inside.size * outside.size)
        p = min(1.0, float(test.pvalue) * flat.shape[1])
        if abs(above - 0.5) > _TELLS and p < _LEVEL:
            found.append(Located(name, above, float(np.median(inside)), float(np.median(outside)), p))
    return tuple(sorted(found, key=lambda one: -abs(one.above - 0.5)))
