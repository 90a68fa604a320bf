"""Networks of sbi in terms of theta and x.

Networks are trained on z, in which the prior is standard normal, and on h, standardised summaries:

    density, field   q(z | h)          log q(theta | x) = log q(z | h) - log |d theta / d z|
    likelihood       p(h | z)          log p(x | theta) = log p(h | z) + log |d h / d x|
    ratio            p(h | z) / p(h)   log r(theta, x)
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey, Theta
from vbinfer._param import is_traced
from vbinfer.io import npz
from vbinfer.neural.sbi.inputs import DiscreteZ, Inputs
from vbinfer.neural.sbi.networks import METHODS, Method, check_saveable
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.neural.sbi.views import SbiView
from vbinfer.posterior import Posterior
from vbinfer.priors._torch import to_torch
from vbinfer.priors.prior import Prior

ROWS = 20_000
"""Rows that go through a network together."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AbstractFitted(abc.ABC):
    """A trained network of the sbi package.

    Attributes:
        name: the method.
        spec: the options of the network.
        net: the network of sbi, over z and h: h = `to_h(x)`, theta = `to_theta(z)`.
        prior: the prior of the draws.
        inputs: what the network sees of x.
        info: JSON-able notes of the fit.
        discrete: coordinates of z that the network sees as categories, of MNPE.
    """

    name: str
    spec: dict[str, Any]
    net: Any
    prior: Prior
    inputs: Inputs
    discrete: DiscreteZ
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    @abc.abstractmethod
    def sample(self, x_o: Any, *, n: int, key: PRNGKey, **options: Any) -> Posterior:
        """Draw from the posterior of one observation."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features of x."""
        return self.inputs.names

    @property
    def method(self) -> Method:
        """The method's row in the table."""
        return METHODS[self.name]

    @property
    def is_posterior(self) -> bool:
        """Whether the network is over z, not over h."""
        return self.method.family in ("density", "field")

    def posterior(self, kind: str | None = None, **options: Any) -> SbiView:
        """One of sbi's own posteriors, sampled in the same way.

        `.sbi(x_o)` of the result is sbi's object.

        Args:
            kind: `"direct"` (NPE, NPE_A, NPE_B, NPE_PFN), `"mcmc"`, `"rejection"`, `"importance"` or `"vi"` (NPE,
                NPE_A, NPE_B, likelihoods and ratios); `"ode"` or `"sde"` (FMPE, NPSE). The method's own by default;
                MNPE has none.
            options: of sbi's class and of its `sample` (`train` for `"vi"`): `num_chains`, `warmup_steps`, `thin`,
                `oversampling_factor`, `vi_method`, `steps`, ....

        Raises:
            ValueError: a kind that this method does not have, or an option that sbi does not have.
        """
        return SbiView(self, kind, options)

    def outside(self, x_o: Any) -> tuple[str, ...]:
        """Name the features of x_o outside the training draws."""
        return self.inputs.scaler.outside(x_o)

    def to_h(self, x: Any) -> np.ndarray:
        """What the network sees of x `[..., F]`."""
        return self.inputs(self.inputs.scaler.check(x, ndim=max(1, np.ndim(x))))

    def to_theta(self, z: Any) -> Theta:
        """theta, leaves `[..., *shape]`, of z `[..., D]`."""
        return self.prior.from_z(z)[0]

    def value(self, z: Any, h: Any) -> Any:
        """Log density or ratio `[N]` of tensors, with gradient."""
        if self.method.family == "density":
            return self.net.log_prob(z[None], condition=h)[0]
        if self.method.family == "field":
            return self._flow(h).log_prob(z)
        if self.method.family == "likelihood":
            return self.net.log_prob(h[None], condition=z)[0]
        return self.net.unnormalized_log_ratio(z, h)

    def _flow(self, h: Any) -> Any:
        """Flow of a field: an ODE from noise to z.

        log q(z) = log N(noise) + integral of tr(d f / d z) of d z / d t = f(z, h, t), with the exact trace; both to the
        tolerance of an adaptive Runge-Kutta solver (relative 1e-5). For a score it is the probability-flow ODE, so the
        density is that of the draws.
        """
        from sbi.inference.potentials.vector_field_potential import VectorFieldBasedPotential

        return VectorFieldBasedPotential(self.net, None).neural_ode(h)

    def score(self, z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """`value` of arrays, in parts, without gradient."""
        import torch

        # in parts: a network of 20,000 rows keeps some hundred MB of activations
        seen = self.discrete.encode(z)
        with torch.no_grad():
            parts = [
                self.value(to_torch(seen[i : i + ROWS]), to_torch(h[i : i + ROWS])).numpy()
                for i in range(0, len(z), ROWS)
            ]
        return (np.concatenate(parts) if parts else np.zeros(0, np.float32)) + self.discrete.log_within(z)

    def log_density(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Log density or ratio of pairs (theta, x).

        -inf outside the prior.
        """
        rows = self.inputs.scaler.check(x, ndim=max(1, np.ndim(x)))
        inside = np.asarray(jnp.isfinite(self.prior.log_prob(theta)))
        flat = self.prior.to_z(theta)
        log_det = np.asarray(self.prior.from_z(flat)[1])
        # outside the prior z is not finite: the middle stands for it, and -inf is the answer
        flat = np.nan_to_num(np.where(inside[..., None], np.asarray(flat, np.float32), np.float32(0.0)))
        lead = np.broadcast_shapes(flat.shape[:-1], rows.shape[:-1])
        flat, rows = (np.broadcast_to(a, (*lead, a.shape[-1])).reshape(-1, a.shape[-1]) for a in (flat, rows))
        with quiet_torch(None):
            value = self.score(flat, self.inputs(rows)).reshape(lead)
        if self.is_posterior:
            value = value - log_det
        if self.method.family == "likelihood":
            value = value + self.inputs.log_det(x)
        return jnp.where(inside & ~np.isnan(value), value, -jnp.inf)

    def log_posterior(self, theta: Mapping[str, Any], x: np.ndarray) -> Array:
        """Log posterior over theta, of x or trials of it.

        Normalised for posterior networks; prior plus score, summed over trials, for the others.
        """
        if self.is_posterior:
            return self.log_density(theta, x)
        return self.prior.log_prob(theta) + sum(self.log_density(theta, row) for row in np.atleast_2d(x))

    def traced_score(self, theta: Mapping[str, Any], x: Any) -> Array:
        """Likelihood or ratio of traced theta, for NUTS.

        log p(x | theta) or log r, of one concrete x `[F]`.

        Differentiable once, in theta. Each evaluation calls torch on the host, so that NUTS can run on it.

        Raises:
            TypeError: x is traced too.
        """
        if is_traced(x):
            raise TypeError(
                "x is traced by JAX; a network of sbi takes a concrete x: close over it, as sample_mcmc does"
            )
        row = self.inputs.scaler.check(x, ndim=1)
        with jax.ensure_compile_time_eval():
            h = self.inputs(row[None])
            shift = float(self.inputs.log_det(row)) if self.method.family == "likelihood" else 0.0
        inside = jnp.isfinite(self.prior.log_prob(theta))
        # a gradient through `where` is NaN if either side is: outside the prior the middle of it stands for theta
        middle = self.to_theta(jnp.zeros(self.prior.z_dim))
        safe = {
            name: jnp.where(inside.reshape(inside.shape + (1,) * (jnp.ndim(value) - inside.ndim)), value, middle[name])
            for name, value in theta.items()
        }
        return jnp.where(inside, _on_host(self.value, h)(self.prior.to_z(safe)) + shift, -jnp.inf)

    def result(self, theta: Theta, log_prob: Any, x: np.ndarray, outside: tuple[str, ...], kind: str) -> Posterior:
        """The posterior of leaves `[chain, draw, ...]`."""
        info = {"method": f"{self.name} (sbi)", "kind": kind, "outside_training": list(outside), **self.info}
        leaves = {name: np.asarray(value) for name, value in theta.items()}
        return Posterior(leaves, log_prob=np.asarray(log_prob), x_o=x, prior=self.prior, info=info)

    def save(self, path: str | Path) -> None:
        """Write to one `.npz` of arrays and JSON.

        `vb.load(path)` makes the network again with sbi's builder.

        Raises:
            TypeError: a network, or a part of one, that is the user's own code.
        """
        check_saveable(self.name, self.spec)
        arrays = {f"net/{name}": value.cpu().numpy() for name, value in self.net.state_dict().items()}
        arrays |= self.inputs.scaler.standardise.to_arrays()
        header = {
            "method": self.name,
            "prior": self.prior.to_spec(),
            "network": self.spec,
            "inputs": self.inputs.to_header(),
            "discrete": self.discrete.edges,
            "info": self.info,
            "versions": npz.versions("sbi", "torch"),
        }
        npz.write(path, "sbi", header, arrays)


def _on_host(network: Callable[[Any, Any], Any], h: np.ndarray) -> Any:
    """z `[..., D]` to the network's value `[...]`, for JAX.

    value(z)   callback: torch's value and its slope, together
    forward    the same callback, the slope is kept
    backward   outer * slope
    """

    def both(z: Any) -> tuple[np.ndarray, np.ndarray]:
        import torch

        z = np.asarray(z)
        flat = to_torch(z.reshape(-1, z.shape[-1])).requires_grad_()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.enable_grad():
                value = network(flat, to_torch(np.broadcast_to(h, (len(flat), h.shape[-1]))))
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
