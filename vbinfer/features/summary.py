"""Summary: features of a recording as one named vector."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from vbinfer import _check

from .base import Feature, Preprocess
from .numeric import centred
from .preprocess import Steps


class Custom(Feature):
    """A user's callable `y[T, N] -> [F]` as a feature.

    Its numbers are named `[0]`, `[1]`, ...
    """

    function: Callable[[Array], Array]

    def __call__(self, y: Array, period: float) -> Array:
        return _as_vector(self.function(y))

    def names(self, n: int | None = None) -> tuple[str, ...]:
        """The callable's own `names`, else by its width."""
        given = getattr(self.function, "names", None)
        if given is not None and not callable(given):
            return tuple(given)
        if n is None:
            raise ValueError("how many numbers a callable gives is only known with the number of nodes; give it")
        y = jax.ShapeDtypeStruct((1_000, n), jnp.result_type(float))
        width = jax.eval_shape(lambda y: _as_vector(self.function(y)), y).shape[0]
        return tuple(f"[{i}]" for i in range(width)) if width != 1 else ("",)


def _as_vector(x: ArrayLike) -> Array:
    vector = jnp.atleast_1d(jnp.asarray(x))
    if vector.ndim != 1:
        raise ValueError(f"a feature gave an array of shape {list(vector.shape)}; return shape [F], e.g. x.ravel()")
    return vector.astype(jnp.result_type(float))


def _as_feature(name: str, given: object) -> Feature:
    if isinstance(given, type) and issubclass(given, Feature):
        return given()
    if isinstance(given, type):
        raise TypeError(f"feature {name!r} is the class {given.__name__}; give a feature such as vb.features.fc_stat")
    if isinstance(given, Feature):
        return given
    if isinstance(given, Preprocess):
        raise TypeError(f"feature {name!r} is {type(given).__name__}, which gives a recording; pass it as preprocess=")
    if callable(given):
        return Custom(cast(Callable[[Array], Array], given))
    raise TypeError(
        f"feature {name!r} is {given!r}; give a feature such as vb.features.fc_stat, or a function of y[T, N] -> [F]"
    )


class Summary(eqx.Module):
    """Features of a recording, in order, as a named vector.

    x = concatenate(f(preprocess(y), period) for f in features). Works under `jit`, `vmap` and `grad` and never raises
    on values: a recording with NaN gives NaN in the features that read it, one with constant nodes gives finite numbers
    and finite gradients (`flags` counts both).

    Args:
        period: time between two samples, ms; checked against the monitor's or the recording's by those who know it.
        preprocess: `vb.features.bandpass(low, high)` or any callable `y[T, N] -> y[T, N]`, or a list of them, applied
            once and in this order, before all features.
        n_nodes: number of nodes; only needed for `names` and `width` when a feature's width follows it, as that of
            `vb.features.fc` does.
        **features: name to feature: a `vb.features.f(...)`, a bare `vb.features.f`, or any callable `y[T, N] -> [F]`.

    >>> import jax
    >>> from vbinfer import features
    >>> summary = Summary(period=720.0, fc=features.fc_stat, fcd=features.fcd_stat(window=60e3, step=5e3))
    >>> summary.names[:2], summary.names[-1], summary.width
    (('fc.mean', 'fc.std'), 'fcd.q95', 20)
    >>> summary(jax.random.normal(jax.random.key(0), (400, 10))).shape
    (20,)
    """

    period: float = eqx.field(static=True)
    preprocess: Callable[..., Array] | None
    n_nodes: int | None = eqx.field(static=True)
    feature_names: tuple[str, ...] = eqx.field(static=True)  # two tuples: a dict would be sorted on its way through jit
    features: tuple[Feature, ...]

    def __init__(
        self,
        period: float = 720.0,
        preprocess: Callable[..., Array] | Sequence[Any] | None = None,  # functions; the check names what is none
        n_nodes: int | None = None,
        **features: Any,  # a Feature, its class, or a callable; anything else is answered with a remedy
    ):
        if not features:
            raise ValueError("Summary was given no feature; name at least one, as in Summary(fc=vb.features.fc_stat)")
        steps: tuple[Any, ...] = tuple(preprocess) if isinstance(preprocess, list | tuple) else (preprocess,)
        for step in () if preprocess is None else steps:
            if not callable(step):
                raise TypeError(
                    f"preprocess is {step!r}; give vb.features.bandpass(low, high) or a function of y[T, N]"
                )
            if isinstance(step, Feature | type):
                raise TypeError(f"preprocess is the feature {step!r}; pass it by a name of its own, as in f={step!r}")
        self.period = _check.positive(period, "period", 720.0, "ms")
        several = isinstance(preprocess, list | tuple)
        self.preprocess = Steps(steps) if several else None if preprocess is None else steps[0]
        self.n_nodes = None if n_nodes is None else _check.count(n_nodes, "n_nodes", 80)
        self.feature_names = tuple(features)
        self.features = tuple(_as_feature(name, given) for name, given in features.items())

    def __call__(self, y: ArrayLike) -> Array:
        """The features `x`, `[F]`, of one recording `y`, `[T, N]`."""
        y = self._prepared(y)
        return jnp.concatenate([_as_vector(feature(y, self.period)) for feature in self.features])

    def _prepared(self, y: ArrayLike) -> Array:
        y = _as_recording(y)
        if self.n_nodes is not None and y.shape[1] != self.n_nodes:
            raise ValueError(f"the recording has {y.shape[1]} nodes, the summary was built with n_nodes={self.n_nodes}")
        if self.preprocess is None:
            return y
        if isinstance(self.preprocess, Preprocess):
            return self.preprocess(y, self.period)
        return _as_recording(self.preprocess(y))

    @property
    def names(self) -> tuple[str, ...]:
        """One name per number, such as `"fc.mean"`.

        Where widths follow the number of nodes, `n_nodes` must have been given.
        """
        return self.names_for(self.n_nodes)

    @property
    def width(self) -> int:
        """How many numbers there are."""
        return len(self.names)

    def names_for(self, n: int | None) -> tuple[str, ...]:
        """`names` for recordings of `n` nodes, before `preprocess`."""
        if n is not None and isinstance(self.preprocess, Preprocess):
            n = self.preprocess.nodes(n)
        found: list[str] = []
        for name, feature in zip(self.feature_names, self.features, strict=True):
            try:
                own = feature.names(n)
            except ValueError as error:
                if n is not None:
                    raise
                raise ValueError(
                    f"the width of feature {name!r} follows the number of nodes; "
                    "write Summary(..., n_nodes=80) or ask for names_for(80)"
                ) from error
            found += [name + (part if part == "" or part.startswith("[") else f".{part}") for part in own]
        return tuple(found)

    def groups(self, y: ArrayLike, labels: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Features that are lost with each node, by its label.

        What is NaN when the node is: for `vb.NPE(missing=summary.groups(y))`, which then takes recordings with dead
        channels. Numbers that pool all nodes are lost with any of them; give features by node or pair too.

        Args:
            y: a complete recording `[T, N]`, simulated or measured.
            labels: of the nodes; 0, 1, ... without.

        >>> import jax
        >>> from vbinfer import features
        >>> y = jax.random.normal(jax.random.key(0), (100, 3))
        >>> Summary(fc=features.fc()).groups(y)["0"]
        ('fc[0,1]', 'fc[0,2]')
        """
        y = _as_recording(y)
        n, names, read = y.shape[1], self.names_for(y.shape[1]), eqx.filter_jit(self)
        if labels is not None and len(labels) != n:
            raise ValueError(f"{len(labels)} labels were given for the {n} nodes of the recording; give one for each")
        nodes = jnp.arange(n)
        lost = [jnp.isnan(read(jnp.where(nodes == i, jnp.nan, y))).tolist() for i in range(n)]
        return {
            label: tuple(name for name, flag in zip(names, flags, strict=True) if flag)
            for label, flags in zip(map(str, range(n)) if labels is None else labels, lost, strict=True)
            if any(flags)
        }

    def flags(self, y: ArrayLike) -> dict[str, Array]:
        """Number of `constant` nodes and of nodes with `nan`.

        Correlations with a constant node count as 0 in every feature. Counted before `preprocess`.
        """
        y = _as_recording(y)
        return {"constant": centred(y)[2].sum(), "nan": jnp.isnan(y).any(axis=0).sum()}


def _as_recording(y: ArrayLike) -> Array:
    array = jnp.asarray(y, jnp.result_type(float))
    if array.ndim != 2:
        raise ValueError(
            f"a Summary takes one recording [T, N]; it was given {list(array.shape)}; "
            "index the monitor you mean, or jax.vmap over a leading batch axis"
        )
    return array
