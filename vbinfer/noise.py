"""Noise as a pure function of (draw key, step, state variable, node)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, did_you_mean, param
from vbinfer._random import normals


class Additive(Parametrised):
    """White noise of constant amplitude: dx = f dt + sigma dW, the increment of a step sigma sqrt(dt) N(0, 1).

    Itô and Stratonovich agree. The normal variate belongs to (draw key, absolute step, state variable, node), so
    neither batch width, monitor period nor resuming changes it, and the same key gives the same noise for every
    theta.

    Args:
        sigma: diffusion coefficient in units of the state variable per sqrt(ms): one value for all state variables,
            one per node, or a mapping from state variable to either; variables not named get none.
        D: the alternative convention, sigma = sqrt(2 D) (TVB's `nsig` is this D).
    """

    sigma: Param | dict[str, Param] = param(doc="diffusion coefficient, state units per sqrt(ms)", low=0.0)

    def __init__(self, sigma: Any = None, *, D: Any = None):
        if (sigma is None) == (D is None):
            raise ValueError("Additive noise takes sigma or D, one of the two; write Additive(sigma=0.01)")
        if D is not None:
            sigma = {k: jnp.sqrt(2.0 * jnp.asarray(v)) for k, v in D.items()} if isinstance(D, Mapping) else None
            sigma = jnp.sqrt(2.0 * jnp.asarray(D)) if sigma is None else sigma
        self.sigma = sigma

    def check_variables(self, variables: tuple[str, ...]) -> None:
        """Raise ValueError when sigma names a state variable that the model does not have."""
        for name in self.sigma if isinstance(self.sigma, Mapping) else ():
            if name not in variables:
                raise ValueError(f"noise sigma names state variable {name!r}. {did_you_mean(name, variables)}")

    def increments(
        self, words: tuple[Array, Array], step: Array, dt: float, like: dict[str, Array]
    ) -> dict[str, Array]:
        """sigma sqrt(dt) z for each noisy state variable of `like` (name to array of its shape `[N, ...batch]`)."""
        names = tuple(like)
        amplitude = self.sigma if isinstance(self.sigma, Mapping) else dict.fromkeys(names, self.sigma)
        out = {}
        for name, x in like.items():
            if name in amplitude:
                z = standard_normals(words, step, names.index(name), len(names), x)
                out[name] = amplitude[name] * (dt**0.5 * z)
        return out


def standard_normals(words: tuple[Array, Array], step: Array, variable: int, n_variables: int, like: Array) -> Array:
    """The normals of one state variable in one step, in the shape of `like`, `[N, ...batch]`.

    Variate j = variable * N + node of the step is the first half of counter j if j < H, else the second half of
    counter j - H, with H = ceil(n_variables N / 2): one counter serves two variates.
    """
    n = like.shape[0]
    half = -(-n_variables * n // 2)
    tail = (1,) * (like.ndim - 1)
    counter = step.astype(jnp.uint32)

    def block(start: int, stop: int, which: int) -> Array:
        index = jnp.arange(start, stop, dtype=jnp.uint32).reshape((-1, *tail))
        return normals(*words, counter, index)[which]

    start, stop = variable * n, (variable + 1) * n
    parts = []
    if start < half:
        parts.append(block(start, min(stop, half), 0))
    if stop > half:
        parts.append(block(max(start, half) - half, stop - half, 1))
    z = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return z.astype(like.dtype)
