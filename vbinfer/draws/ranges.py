"""Priors against the declared ranges of a simulator."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vbinfer._param import range_text
from vbinfer.priors.prior import Prior

TOLERATED = 1e-6
"""Prior mass outside a range that is left to fail as single draws."""


def check_ranges(prior: Prior, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a prior with mass outside declared ranges.

    Up to 1e-6 of it is tolerated.

    Args:
        prior: the prior.
        ranges: path to `(low, high)`; paths that the prior does not have are ignored.

    Raises:
        ValueError: naming the parameter, the mass outside and the truncated prior to write instead.
    """
    names = [name for name in prior.shapes if name in ranges]
    bounds = {name: (float(ranges[name][0]), float(ranges[name][1])) for name in names}
    bounds = {name: both for name, both in bounds.items() if math.isfinite(both[0]) or math.isfinite(both[1])}
    if not bounds:
        return
    # from the CDF, not from draws: 1e-6 would take millions of them
    outside = prior.mass_outside(
        {name: low for name, (low, _) in bounds.items()}, {name: high for name, (_, high) in bounds.items()}
    )
    bad = {name: float(np.max(outside[name])) for name in bounds if np.max(outside[name]) > TOLERATED}
    if not bad:
        return
    lines = [
        f"the prior of {name!r} has {mass:.2g} of its mass outside {range_text(*bounds[name])}, where the parameter is "
        f"declared; write {_remedy(name, prior.dists[name], *bounds[name])}"
        for name, mass in bad.items()
    ]
    raise ValueError("\n".join(lines))


def _remedy(name: str, prior: Any, low: float, high: float) -> str:
    """The truncated prior to write instead."""
    base, shape = prior, tuple(prior.batch_shape) + tuple(prior.event_shape)
    # by name: numpyro wraps an expanded or vector-valued prior, and the person wrote what is inside
    while type(base).__name__ in ("Independent", "ExpandedDistribution"):
        base = base.base_dist
    kind = type(base).__name__
    ends = [f"{side}={_number(value)}" for side, value in (("low", low), ("high", high)) if math.isfinite(value)]
    tail = f".expand({list(shape)})" if shape else ""
    centre = getattr(base, "base_dist", base)  # of a truncated normal the normal, whose cuts may be tighter
    if type(centre).__name__ == "Normal" and (centre is base or kind.endswith("TruncatedDistribution")):
        ends = _tighter(base, low, high) if centre is not base else ends
        arguments = ", ".join([_number(centre.loc), _number(centre.scale), *ends])
        return f'"{name}": dist.TruncatedNormal({arguments}){tail}'
    if kind == "Uniform":
        # the overlap of both; without one there is nothing to suggest but the range itself
        low, high = max(low, float(np.min(base.low))), min(high, float(np.max(base.high)))
        if low < high:
            return f'"{name}": dist.Uniform({_number(low)}, {_number(high)}){tail}'
    if math.isfinite(low) and math.isfinite(high):
        return f'"{name}": dist.Uniform({_number(low)}, {_number(high)}){tail}, or another prior within the range'
    return f'"{name}": dist.TruncatedNormal(loc, scale, {", ".join(ends)}){tail}, or another prior within the range'


def _tighter(base: Any, low: float, high: float) -> list[str]:
    low = max(low, float(np.max(getattr(base, "low", -np.inf))))
    high = min(high, float(np.min(getattr(base, "high", np.inf))))
    return [f"{side}={_number(value)}" for side, value in (("low", low), ("high", high)) if math.isfinite(value)]


def _number(value: Any) -> str:
    """A number as one writes it.

    The shortest text that gives it back in single precision, with a decimal point.
    """
    values = np.unique(np.asarray(value, np.float32))
    return str(float(str(values[0]))) if len(values) == 1 else "..."
