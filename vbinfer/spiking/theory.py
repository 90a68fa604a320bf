"""Rate and CV of a LIF neuron in closed form."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_FAR = -9.0
"""Where the inner integrand is below 1e-35; its square root is still a float32."""


def _quadrature(low: Array, high: Array) -> tuple[Array, Array]:
    """Nodes and weights between two limits, as a last axis."""
    half = 0.5 * (high - low)[..., None]
    return low[..., None] + half * (1.0 + jnp.asarray(_NODES, half.dtype)), half * jnp.asarray(_WEIGHTS, half.dtype)


def siegert(
    mu: Any, sigma: Any, *, tau: Any, v_th: Any, v_reset: Any, v_rest: Any = 0.0, t_ref: Any = 0.0
) -> tuple[Array, Array]:
    """Rate (1/ms) and CV of a `LIF` in white noise.

    tau dv = (v_rest + mu - v) dt + sigma sqrt(tau) dW,   that is `Additive({"v": sigma / sqrt(tau)})`
    1/rate = t_ref + tau sqrt(pi) int_r^th exp(x^2) (1 + erf x) dx
    CV^2 = 2 pi (rate tau)^2 int_r^th exp(x^2) int_-inf^x exp(y^2) (1 + erf y)^2 dy dx

    between r = (v_reset - v_rest - mu)/sigma and th = (v_th - v_rest - mu)/sigma, which must lie in (-9, 9).
    Elementwise and differentiable. With steps of dt a threshold that is tested once per step acts as one higher by
    0.5826 sigma sqrt(dt/tau).

    Siegert 1951, doi:10.1103/PhysRev.81.617; Brunel 2000, doi:10.1023/A:1008925309027

    >>> rate, cv = siegert(15.0, 7.0, tau=20.0, v_th=20.0, v_reset=10.0, t_ref=2.0)
    >>> round(float(1e3 * rate), 2), round(float(cv), 3)
    (15.94, 0.834)
    """
    mu, sigma = jnp.asarray(mu, jnp.result_type(float)), jnp.asarray(sigma, jnp.result_type(float))
    low, high = jnp.broadcast_arrays((v_reset - v_rest - mu) / sigma, (v_th - v_rest - mu) / sigma)
    x, w = _quadrature(low, high)
    y, v = _quadrature(jnp.minimum(x - 1.0, _FAR), x)
    # exp(y^2) (1 + erf y)^2 = (exp(y^2/2) erfc(-y))^2, so that no factor leaves the range of float32
    inner = ((jnp.exp(0.5 * y**2) * erfc(-y)) ** 2 * v).sum(axis=-1)
    rate = 1.0 / (t_ref + tau * jnp.sqrt(jnp.pi) * (jnp.exp(x**2) * erfc(-x) * w).sum(axis=-1))
    return rate, rate * tau * jnp.sqrt(2.0 * jnp.pi * (jnp.exp(x**2) * inner * w).sum(axis=-1))
