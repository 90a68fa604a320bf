"""Damped waves along a surface."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer import _ode
from vbinfer._param import Param, param
from vbinfer.fields.base import AbstractDomain
from vbinfer.fields.bases import AbstractBasis
from vbinfer.models.base import AbstractStepper, AbstractVectorField, state_class

WAVE = ("phi", "dphi")


class _Propagator(NamedTuple):
    """One step of a mode: a 2 by 2 matrix.

    And where the mode rests under a source of 1.
    """

    a11: Array
    a12: Array
    a21: Array
    a22: Array
    rest: Array


class DampedWave(AbstractStepper):
    """Activity that travels along axons with a finite speed.

    1/gamma^2 phi'' + 2/gamma phi' + phi - r^2 Laplacian phi = Q      (Robinson, Rennie & Wright 1997)

    Q is the first coupling variable of a model at every point, which receives c + phi, or the stimulus without a model.
    State variables are the model's, then phi and dphi = phi' (1/ms). gamma r is the speed of the wave. Every mode has
    the exact propagator of the damped oscillator with frequency gamma r sqrt(eigenvalue), the source held over the
    step, so that no step is too long for the wave (no Courant limit); the model takes steps of Heun with phi of the
    start and of the end. What lies above the modes is left out of the wave. Of a connectome, c_0 drives the wave where
    there is no model.

    Parameters of the model are `model.local.<name>`. To be driven by `integrator=vb.Native(dt)`.

    Args:
        model: the equations of a point, or None for the wave alone.
        domain: a `Sphere`, all of whose harmonics are used, or a mesh.
        gamma: rate of decay, 1/ms.
        r: range of the axons, mm.
        modes: number of a mesh's modes; None is all up to 1,000 points, else 400.

    doi:10.1103/PhysRevE.56.826
    """

    local: Any
    domain: AbstractDomain
    basis: AbstractBasis
    gamma: Param = param(unit="1/ms", low=1e-9, axes=(), doc="rate of decay of the wave")
    r: Param = param(unit="mm", low=0.0, axes=(), doc="range of the axons")
    propagator: Any = None

    def __init__(
        self,
        model: AbstractVectorField | None,
        domain: AbstractDomain,
        gamma: Any,
        r: Any,
        modes: int | None = None,
    ):
        self.local, self.domain, self.gamma, self.r = model, domain, gamma, r
        if not isinstance(domain, AbstractDomain):
            raise TypeError(f"DampedWave was given the domain {domain!r}; expected vb.fields.Sphere(lmax=31) or a mesh")
        self.basis, self.propagator = domain.basis(modes), None

    def validate(self) -> None:
        model, n = self.local, self.domain.n_nodes
        if model is None:
            return
        if not isinstance(model, AbstractVectorField):
            raise TypeError(f"DampedWave was given {model!r}; expected a model with a drift, WilsonCowan(), or None")
        if taken := set(WAVE) & set(model.variables()):
            raise ValueError(
                f"{type(model).__name__} has a variable {taken.pop()!r} of its own, the wave's; take another"
            )
        if not model.cvar:
            raise ValueError(f"{type(model).__name__} couples no variable, which would be the source; give it a cvar")
        if model.n_nodes not in (None, n):
            raise ValueError(f"{type(model).__name__} has {model.n_nodes} nodes and the domain {n} points")

    @property
    def n_nodes(self) -> int:
        return self.domain.n_nodes

    @property
    def cvar(self) -> tuple[str, ...]:
        return ("phi",) if self.local is None else self.local.cvar

    @property
    def rows(self) -> int | None:
        return 1 if self.local is None else self.local.rows

    @property
    def State(self) -> Any:
        return state_class((*(() if self.local is None else self.local.variables()), *WAVE))

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        return {**({} if self.local is None else self.local.shapes(n)), **dict.fromkeys(WAVE, (n,))}

    def leaf_size(self, path: str, n: int) -> int:
        own = path.removeprefix("local.")
        return n if own == path else self.local.leaf_size(own, n)

    def init(self, n: int) -> Any:
        return self.State(*(() if self.local is None else self.local.init(n)), jnp.zeros(n), jnp.zeros(n))

    def _own(self, x: Any) -> Any:
        """The model's part of a state or increment."""
        return None if self.local is None else self.local.State(*x[:-2])

    def at_nodes(self, x: Any) -> dict[str, Array]:
        own = {} if self.local is None else self.local.at_nodes(self._own(x))
        return {**own, "phi": x.phi, "dphi": x.dphi}

    def project(self, x: Any) -> Any:
        return x if self.local is None else self.State(*self.local.project(self._own(x)), *x[-2:])

    def prepared(self, dt: float) -> "DampedWave":
        """The wave with the propagator of steps of dt.

        With y = phi - rest Q and s = gamma r sqrt(eigenvalue):

            y(t)  = e^(-gamma t) [(cos s t + gamma sin(s t)/s) y + sin(s t)/s y']
            y'(t) = e^(-gamma t) [-(s^2 + gamma^2) sin(s t)/s y + (cos s t - gamma sin(s t)/s) y']
        """
        eigenvalue = self.basis.eigenvalue
        # of each draw [1, B]: as the last axis of coefficients
        gamma, r = (p.reshape((1,) * (eigenvalue.ndim - 1) + (-1,)) if p.ndim else p for p in (self.gamma, self.r))
        s = gamma * r * jnp.sqrt(eigenvalue)
        decay, cos, sin = jnp.exp(-gamma * dt), jnp.cos(s * dt), dt * jnp.sinc(s * dt / jnp.pi)
        made = _Propagator(
            decay * (cos + gamma * sin),
            decay * sin,
            -decay * (s**2 + gamma**2) * sin,
            decay * (cos - gamma * sin),
            1.0 / (1.0 + r**2 * eigenvalue),
        )
        return eqx.tree_at(lambda w: w.propagator, self, made, is_leaf=lambda leaf: leaf is None)

    def cross_spectrum(self, f: Any, gain: Any, sigma: Any = 1.0) -> Array:
        """Cross-spectra of sensors of the wave, `[F, M, M]`.

        S_ij(f) = 2 sigma^2 sum_k g_ik g_jk / |gamma^2 (1 + r^2 eigenvalue_k) - w^2 + 2 i gamma w|^2,   w = 2 pi f

        g_ik is the gain `[M, N]` times eigenfunction k. One-sided per Hz, of a wave without a model that is driven by
        `vb.noise.Additive({"dphi": sigma}, areas=domain.areas)`; differentiable in gamma, r and sigma. f in Hz.

        Raises:
            ValueError: a gain of another number of points; a wave with a model of its own (`vb.linearise`).
        """
        if self.local is not None:
            raise ValueError("cross_spectrum is of a wave without a model; write DampedWave(None, domain, gamma=, r=)")
        gain = jnp.asarray(gain, self.domain.areas.dtype)
        if gain.ndim != 2 or gain.shape[1] != self.n_nodes:
            raise ValueError(f"gain is {list(gain.shape)}; expected [sensor, {self.n_nodes}], of the domain's points")
        phi, eigenvalue = self.basis.functions()
        own = jnp.square(self.gamma) * (1.0 + jnp.square(self.r) * eigenvalue)
        w = 2e-3 * jnp.pi * jnp.atleast_1d(jnp.asarray(f, gain.dtype))[:, None]
        power = 2e-3 * jnp.square(sigma) / (jnp.square(own - w**2) + jnp.square(2.0 * self.gamma * w))
        seen = gain @ phi
        return jnp.einsum("mk,fk,nk->fmn", seen, power, seen)

    def step(self, t: Array, x: Any, c: Array, u: Array, dW: Any, dt: float) -> Any:
        phi, own = x.phi, self._own(x)
        source = c[0] + u if self.local is None else self.local.at_nodes(own)[self.local.cvar[0]]
        kick = None if dW is None else dW.dphi
        later, dlater = self._travelled(phi, x.dphi, jnp.broadcast_to(source, phi.shape), kick)
        if dW is not None:
            later = later + dW.phi
        if self.local is None:
            return self.State(later, dlater)

        def field(stage: float, y: Any) -> Any:
            return self.local.dfun(t + stage * dt, y, c.at[0].add(later if stage else phi), u)

        noise = None if dW is None else self._own(dW)
        return self.State(*_ode.heun(field, own, dt, noise, self.local.project), later, dlater)

    def _travelled(self, phi: Array, dphi: Array, source: Array, kick: Array | None) -> tuple[Array, Array]:
        """phi and dphi one step later."""
        p, fields = self.propagator, [phi, dphi, source]
        if kick is not None and kick.ndim:  # noise of variables without noise is the number 0
            fields.append(kick)
        flat = [a.reshape(len(a), -1) for a in fields]
        # all in one transform, as columns
        y, dy, q, *noise = jnp.split(self.basis.analysed(jnp.concatenate(flat, axis=1)), len(flat), axis=-1)
        q = p.rest * q
        after = p.a11 * (y - q) + p.a12 * dy + q
        dafter = sum(noise, p.a21 * (y - q) + p.a22 * dy)
        both = self.basis.synthesised(jnp.concatenate([after, dafter], axis=-1))
        first, last = jnp.split(both, 2, axis=-1)
        return first.reshape(phi.shape), last.reshape(phi.shape)
