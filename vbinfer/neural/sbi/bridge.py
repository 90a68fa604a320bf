"""A torch network inside a traced JAX function, with its gradient: so that NUTS can run on sbi's likelihoods."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from vbinfer.neural.sbi.core import Core
from vbinfer.neural.sbi.engine import ENGINES
from vbinfer.neural.sbi.quiet import to_torch


def is_traced(theta: Mapping[str, Any]) -> bool:
    """Whether a transformation of JAX is going over theta."""
    return any(isinstance(value, Tracer) for value in theta.values())


def traced_score(core: Core, theta: Mapping[str, Any], x: Any) -> Array:
    """log p(x | theta) or log r(theta, x) for traced theta and one concrete x `[F]`; differentiable once, in theta.

    Each evaluation calls torch on the host.

    Raises:
        TypeError: x is traced too.
    """
    if isinstance(x, Tracer):
        raise TypeError("x is traced by JAX; a network of sbi takes a concrete x: close over it, as sample_mcmc does")
    row = core.inputs.scaler.check(x, ndim=1)
    with jax.ensure_compile_time_eval():
        h = core.inputs(row[None])
        shift = float(core.inputs.log_det(row)) if core.method.family == "likelihood" else 0.0
    inside = jnp.isfinite(core.prior.log_prob(theta))
    middle = core.prior.constrain(core.prior.unravel_z(jnp.zeros(core.prior.z_dim)))[0]
    safe = {name: jnp.where(_wide(inside, value), value, middle[name]) for name, value in theta.items()}
    z = core.prior.ravel_z(core.prior.unconstrain(safe))
    return jnp.where(inside, _host(core, h)(z) + shift, -jnp.inf)


def _wide(inside: Array, value: Any) -> Array:
    """`inside` with the trailing axes of a leaf."""
    return inside.reshape(inside.shape + (1,) * (jnp.ndim(value) - inside.ndim))


def _host(core: Core, h: np.ndarray) -> Any:
    """z `[..., D]` to the network's value `[...]`."""
    engine = ENGINES[core.method.family](core.net)

    def both(z: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        z = np.asarray(z)
        flat = to_torch(z.reshape(-1, z.shape[-1])).requires_grad_()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.enable_grad():
                value = engine.value(flat, to_torch(np.broadcast_to(h, (len(flat), h.shape[-1]))))
                (slope,) = torch.autograd.grad(value.sum(), flat)
        finally:
            torch.set_num_threads(threads)
        value = value.detach().numpy().reshape(z.shape[:-1]).astype(z.dtype)
        return value, slope.numpy().reshape(z.shape).astype(z.dtype)

    def call(z: Array) -> tuple[Array, Array]:
        out = (jax.ShapeDtypeStruct(z.shape[:-1], z.dtype), jax.ShapeDtypeStruct(z.shape, z.dtype))
        return jax.pure_callback(both, out, z, vmap_method="expand_dims")

    @jax.custom_vjp
    def value(z: Array) -> Array:
        return call(z)[0]

    value.defvjp(call, lambda slope, outer: (outer[..., None] * slope,))
    return value
