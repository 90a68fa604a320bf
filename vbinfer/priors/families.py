"""Distributions that a prior can be made of, by name."""

from collections.abc import Callable

import numpyro.distributions as dist

_FUNCTIONS = ("TruncatedNormal", "TruncatedCauchy", "TruncatedDistribution")  # classes in all but name


def families() -> dict[str, Callable[..., dist.Distribution]]:
    """Name to constructor of every public numpyro distribution."""
    classes = {
        name: item
        for name, item in vars(dist).items()
        if isinstance(item, type) and issubclass(item, dist.Distribution)
    }
    return classes | {name: getattr(dist, name) for name in _FUNCTIONS}
