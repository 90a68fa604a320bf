"""Distributions as JSON: family and arguments, nothing executed."""

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

_WRAPPERS: dict[type, tuple[str, ...]] = {
    dist.LeftTruncatedDistribution: ("base_dist", "low"),
    dist.RightTruncatedDistribution: ("base_dist", "high"),
    dist.TwoSidedTruncatedDistribution: ("base_dist", "low", "high"),
    dist.MultivariateNormal: ("loc", "scale_tril"),
}


def to_spec(d: dist.Distribution) -> dict[str, Any]:
    """A JSON-able description of a numpyro distribution.

    >>> to_spec(dist.Uniform(0.0, 2.0))
    {'name': 'Uniform', 'args': {'low': 0.0, 'high': 2.0}}
    """
    name = type(d).__name__
    if isinstance(d, dist.ExpandedDistribution):
        return {"name": name, "base": to_spec(d.base_dist), "batch_shape": list(d.batch_shape)}
    if isinstance(d, dist.Independent):
        return {"name": name, "base": to_spec(d.base_dist), "ndims": d.reinterpreted_batch_ndims}
    if getattr(dist, name, None) is not type(d) or type(d) is dist.TransformedDistribution:
        raise TypeError(
            f"{name} is not one of numpyro's named distributions and cannot be written to a file; "
            "write the prior with numpyro.distributions families (LogNormal, TruncatedNormal, ...)"
        )
    names = _WRAPPERS.get(type(d)) or _arguments(type(d))
    return {"name": name, "args": {arg: _encode(name, arg, getattr(d, arg, None)) for arg in names}}


def from_spec(spec: dict[str, Any]) -> dist.Distribution:
    """The distribution that `to_spec` described."""
    name = spec["name"]
    if name == "ExpandedDistribution":
        return from_spec(spec["base"]).expand(tuple(spec["batch_shape"]))
    if name == "Independent":
        return from_spec(spec["base"]).to_event(int(spec["ndims"]))
    family = getattr(dist, name, None)
    if not (isinstance(family, type) and issubclass(family, dist.Distribution)):
        raise ValueError(f"the file names a distribution {name!r}; this numpyro has no such family")
    return family(**{arg: _decode(value) for arg, value in spec["args"].items()})


def identity(d: dist.Distribution) -> tuple[Any, ...]:
    """Hashable description: equal for equal families and parameters.

    A distribution that `to_spec` cannot describe is told by the object itself, which its holder keeps alive.

    >>> identity(dist.Normal(0, 1.0)) == identity(dist.Normal(0.0, 1)) != identity(dist.Normal(0.0, 2.0))
    True
    """
    try:
        return _hashable(to_spec(d))
    except TypeError:
        return type(d), id(d)


def _hashable(item: Any) -> Any:
    if isinstance(item, dict):
        return tuple((name, _hashable(value)) for name, value in item.items())
    return tuple(map(_hashable, item)) if isinstance(item, list) else item


def _arguments(family: type) -> tuple[str, ...]:
    signature = inspect.signature(family.__init__)
    return tuple(name for name in signature.parameters if name not in ("self", "validate_args"))


def _encode(family: str, arg: str, value: Any) -> Any:
    if isinstance(value, dist.Distribution):
        return to_spec(value)
    array = None if value is None else np.asarray(value)
    if array is None or array.dtype.kind not in "fiub":
        raise TypeError(
            f"{family} keeps no number under {arg!r}, so it cannot be written to a file; keep the prior in code, or "
            "write another family: LKJ for LKJCholesky, TruncatedNormal for a transformed Normal"
        )
    if array.dtype == np.float32:
        array = np.array([float(str(number)) for number in array.flat]).reshape(array.shape)  # 0.3, not 0.30000001
    return array.tolist()


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return from_spec(value)
    return jnp.asarray(value, dtype=jnp.result_type(float)) if isinstance(value, list) else value
