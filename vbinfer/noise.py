"""Noise processes, and the standard normals that drive them.

A normal variate is a pure function of (draw key, step, state variable, node); `_random` has the generator.
"""

import abc
import math
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, did_you_mean, is_traced, param, paths, spread
from vbinfer._random import normals

Named = dict[str, Array]
"""State variable to array `[N, ...batch]`."""
KeyWords = tuple[Array, Array]
"""The 64 bits of a key as two uint32 words, one pair or one for each draw."""
Process = Callable[[Any, Named, Named], tuple[Any, Named]]
"""(carry, standard normals, state) to (carry, increments of one step)."""
Inverse = Callable[[Named, Named], tuple[Named, Array]]
"""(increments of one step, state) to (standard normals, log |d normals / d increments|)."""

START = 0xFFFFFFFF
"""The step whose normals draw a stationary start; no simulation gets there (int32 steps)."""


class AbstractNoise(Parametrised):
    """Base of noise processes: increments from standard normals."""

    needs_start_key: ClassVar[bool] = False
    """Whether `init` uses its normals, so that a run from the beginning needs a key even with `noise_path`."""
    pulses: ClassVar[bool] = False
    """Whether increments arrive at the end of the step as spikes do, a row of c, instead of driving the state."""

    @abc.abstractmethod
    def noisy(self, x: Mapping[str, Any]) -> tuple[str, ...]:
        """The driven state variables, given the state or its shapes.

        Raises:
            ValueError: a variable that the state lacks.
        """

    @abc.abstractmethod
    def process(self, dt: float) -> Process:
        """The increments of steps of `dt` ms."""

    def init(self, z: Named) -> Any:
        """The carry at time zero from standard normals `[N]`."""
        return None

    def check_nodes(self, n: int) -> None:
        """Raise ValueError unless its matrices fit `n` nodes."""

    def check_amplitudes(self) -> None:
        """Raise ValueError where a path would have no density."""

    def inverse(self, dt: float) -> Inverse:
        """The normals behind the increments of steps of `dt` ms.

        Raises:
            ValueError: increments do not follow from the states alone.
        """
        raise ValueError(
            f"{type(self).__name__} noise has a state of its own, so the states alone are no Markov chain; use "
            "vb.noise.Additive or Multiplicative, or sample the noise itself with vb.likelihoods.NoisePath"
        )


def _amplitudes(sigma: Any, D: Any) -> Any:
    """sigma, or sqrt(2 D)."""
    if (sigma is None) == (D is None):
        raise ValueError("Additive noise takes sigma or D, one of the two; write Additive(sigma=0.01)")

    def root(value: Any) -> Array:
        if not is_traced(value) and np.any(np.asarray(value) < 0):
            raise ValueError(f"Additive noise was given D={np.min(value):g}; D = sigma^2 / 2 cannot be negative")
        return jnp.sqrt(2.0 * jnp.asarray(value))

    if D is None:
        return sigma
    return {name: root(value) for name, value in D.items()} if isinstance(D, Mapping) else root(D)


def _named(sigma: Any, variables: tuple[str, ...], given: str = "sigma") -> tuple[str, ...]:
    """The variables that `sigma` names, in the model's order.

    One value, in place of a mapping, stands for all of them.
    """
    if not isinstance(sigma, Mapping):
        return variables
    if not sigma:
        raise ValueError(f"noise {given} names no state variable; write noise=None for a deterministic simulation")
    for name in sigma:
        if name not in variables:
            raise ValueError(f"noise {given} names state variable {name!r}. {did_you_mean(name, variables)}")
    return tuple(name for name in variables if name in sigma)


def _of(sigma: Any, name: str, like: Array) -> Array:
    """The amplitude of a variable, to meet its normals."""
    return spread(sigma[name] if isinstance(sigma, Mapping) else sigma, like)


class Additive(AbstractNoise):
    """White noise of constant amplitude.

    dx = f dt + sigma dW;   the increment of a step is sigma sqrt(dt) N(0, 1)

    Itô and Stratonovich agree. The normal variate belongs to (draw key, absolute step, state variable, node), so
    neither batch width, monitor period nor resuming changes it, and the same key gives the same noise for every
    theta.

    Args:
        sigma: diffusion coefficient in units of the state variable per sqrt(ms): one value for all state variables,
            one per node, or a mapping from state variable to either; variables not named get none.
        D: the alternative convention, sigma = sqrt(2 D) (TVB's `nsig` is this D).
        correlation: `[node, node]`, correlation of the noise across nodes, the same for every state variable: the
            covariance of the increments of nodes i, j is sigma_i sigma_j correlation_ij dt. Symmetric, with unit
            diagonal, positive definite.
        areas: mm^2, one for each node of a field (`domain.areas`): the noise is white in space too, with increments
            sigma sqrt(dt / area_i) N(0, 1), so that the variance of an integral over a patch is the same at every
            resolution; sigma is then in state units mm per sqrt(ms). Nodes without area have sigma as it is.
    """

    sigma: Param | dict[str, Param] = param(doc="diffusion coefficient, state units per sqrt(ms)", low=0.0)
    correlation: Param | None = param(None, axes=("node", "node"), doc="correlation across nodes, within [-1, 1]")
    areas: Param | None = param(None, unit="mm2", low=0.0, doc="area that each node stands for")

    def __init__(self, sigma: Any = None, *, D: Any = None, correlation: Any = None, areas: Any = None):
        self.sigma = _amplitudes(sigma, D)
        self.correlation, self.areas = correlation, areas

    def _scale(self, name: str, like: Array, dt: float) -> Array:
        """Standard deviation of the increments of a variable."""
        scale = _of(self.sigma, name, like) * dt**0.5
        if self.areas is None:
            return scale
        areas = spread(self.areas, like)
        return scale / jnp.sqrt(jnp.where(areas > 0.0, areas, 1.0))

    def validate(self) -> None:
        if self.correlation is None or is_traced(self.correlation):
            return
        c = np.asarray(self.correlation, float)
        if c.ndim != 2 or c.shape[0] != c.shape[1]:
            raise ValueError(f"Additive.correlation is {list(c.shape)}; it must be square, [node, node]")
        if np.abs(c - c.T).max() > 1e-6 or np.abs(np.diag(c) - 1.0).max() > 1e-6:
            raise ValueError("Additive.correlation must be symmetric with ones on its diagonal; sigma is the amplitude")
        if (lowest := np.linalg.eigvalsh(c).min()) < 1e-6:
            raise ValueError(
                f"Additive.correlation has the eigenvalue {lowest:.3g}; it must be positive definite. "
                "Shrink it, for example 0.99 * correlation + 0.01 * np.eye(n)"
            )

    def noisy(self, x: Mapping[str, Any]) -> tuple[str, ...]:
        return _named(self.sigma, tuple(x))

    def check_nodes(self, n: int) -> None:
        if self.correlation is not None and self.correlation.shape != (n, n):
            raise ValueError(
                f"the noise correlation is {list(self.correlation.shape)}; expected [{n}, {n}], [node, node]"
            )

    def check_amplitudes(self) -> None:
        for path, leaf in paths(self).items():
            concrete = path not in ("correlation", "areas") and not is_traced(leaf.value)
            if concrete and np.any(np.asarray(leaf.value) == 0.0):
                raise ValueError(
                    f"noise.{path} is 0 somewhere: a path without noise has no density; give every node an amplitude"
                )

    def process(self, dt: float) -> Process:
        root = None if self.correlation is None else _cholesky(self.correlation)

        def increments(carry: None, z: Named, x: Named) -> tuple[None, Named]:
            mixed = z if root is None else {name: _mix(root, value) for name, value in z.items()}
            return None, {name: self._scale(name, value, dt) * value for name, value in mixed.items()}

        return increments

    def inverse(self, dt: float) -> Inverse:
        """Normals behind increments `[N]`; infinite where sigma is 0."""
        root = None if self.correlation is None else _cholesky(self.correlation)

        def normals_of(dW: Named, x: Named) -> tuple[Named, Array]:
            # dW = s * (L z) for each of V variables:  log |dz / dW| = -sum log s - V log det L
            z, log_det = _divided(dW, {name: self._scale(name, w, dt) for name, w in dW.items()})
            if root is None:
                return z, log_det
            z = {name: jax.scipy.linalg.solve_triangular(root, value, lower=True) for name, value in z.items()}
            return z, log_det - len(z) * jnp.log(jnp.diagonal(root)).sum()

        return normals_of


def _cholesky(matrix: Array) -> Array:
    """The Cholesky factor of `[N, N]` or `[N, N, B]`."""
    # correlations may be drawn, and then differ from draw to draw of a batch: batch last, as everywhere inside the loop
    if matrix.ndim == 2:
        return jnp.linalg.cholesky(matrix)
    return jnp.moveaxis(jnp.linalg.cholesky(jnp.moveaxis(matrix, -1, 0)), 0, -1)


def _mix(root: Array, z: Array) -> Array:
    return jnp.einsum("ijb,jb->ib", root, z) if root.ndim == 3 else root @ z


def _divided(dW: Named, scale: Named) -> tuple[Named, Array]:
    """dW / scale, and the logarithm of its derivative."""
    full = {name: jnp.broadcast_to(scale[name], value.shape) for name, value in dW.items()}
    z = {name: value / full[name] for name, value in dW.items()}
    return z, -jnp.asarray(sum(jnp.log(jnp.abs(value)).sum() for value in full.values()))


class Multiplicative(AbstractNoise):
    """White noise whose amplitude follows the state, in Itô's sense.

    dx = f dt + g(x) dW

    g is evaluated at the start of the step, and the increment g(x_n) sqrt(dt) N(0, 1) is the same in every stage of
    the integrator: for geometric Brownian motion dx = s x dW the mean stays at x_0 (Stratonovich calculus would give
    x_0 exp(s^2 t / 2)). Strong order 1/2.

    Args:
        gfun: state to amplitudes, `gfun(x)` with x the model's State of leaves `[N, ...batch]`, elementwise; returns a
            State, or a mapping from state variable to amplitude for those that get noise, in state units per
            sqrt(ms). An `equinox.Module` with `param` fields gives leaves that can be inferred (`noise.gfun.<name>`).

    Example:
        >>> import vbinfer as vb
        >>> noise = vb.noise.Multiplicative(lambda x: {"x": 0.5 * x.x})
    """

    gfun: Callable[[Any], Any]

    def validate(self) -> None:
        if not callable(self.gfun):
            raise TypeError(
                f"Multiplicative was given {self.gfun!r}; expected a function of the state, "
                'Multiplicative(lambda x: {"x": 0.5 * x.x}), or vb.noise.Additive(sigma) for a constant amplitude'
            )

    def _amplitude(self, x: Mapping[str, Any]) -> dict[str, Array]:
        given = self.gfun(namedtuple("State", tuple(x))(**x))
        named = given._asdict() if hasattr(given, "_asdict") else given
        if not isinstance(named, Mapping):
            raise TypeError(
                f"gfun returned {type(given).__name__}; expected a State or a mapping such as "
                f'{{"{next(iter(x))}": amplitude}}'
            )
        return {name: jnp.asarray(amplitude) for name, amplitude in named.items()}

    def noisy(self, x: Mapping[str, Any]) -> tuple[str, ...]:
        given = jax.eval_shape(self._amplitude, x)
        names = _named(given, tuple(x), "gfun")
        for name in names:
            shape, like = given[name].shape, x[name].shape
            if shape and (len(shape) != len(like) or any(n not in (1, m) for n, m in zip(shape, like, strict=True))):
                raise ValueError(f"gfun gives {name!r} the shape {list(shape)}; expected a number or {list(like)}")
        return names

    def process(self, dt: float) -> Process:
        def increments(carry: None, z: Named, x: Named) -> tuple[None, Named]:
            g = self._amplitude(x)
            return None, {name: (g[name] * dt**0.5) * value for name, value in z.items()}

        return increments

    def inverse(self, dt: float) -> Inverse:
        """Normals behind increments `[N]`; infinite where g(x) is 0."""

        def normals_of(dW: Named, x: Named) -> tuple[Named, Array]:
            g = self._amplitude(x)
            return _divided(dW, {name: g[name] * dt**0.5 for name in dW})

        return normals_of


class Coloured(AbstractNoise):
    """An Ornstein-Uhlenbeck process as input.

    dx = (f + xi) dt;   dxi = -xi/tau dt + sigma sqrt(2/tau) dW

    xi has standard deviation sigma and autocovariance sigma^2 exp(-|s|/tau). It starts in its stationary state, is
    advanced exactly, xi' = e xi + sigma sqrt(1 - e^2) N(0, 1) with e = exp(-dt/tau), and enters a step through the mean
    of its values at both ends. With tau far below the model's time scales it acts as white noise of diffusion
    coefficient sigma sqrt(2 tau), provided that dt stays below tau: the variance that it adds is too large by a factor
    h coth(h), h = dt / 2 tau, 2 % at dt = tau/2 and 8 % at dt = tau.

    With `noise_path` the normals of a path are those of the steps, and the key draws the start alone.

    Args:
        sigma: standard deviation of xi in state units per ms; one value, one per node, or a mapping from state
            variable to either, as for `Additive`.
        tau: correlation time, ms.
    """

    needs_start_key: ClassVar[bool] = True
    sigma: Param | dict[str, Param] = param(doc="standard deviation of the input, state units per ms", low=0.0)
    tau: Param = param(unit="ms", low=1e-6, doc="correlation time of the input")

    def noisy(self, x: Mapping[str, Any]) -> tuple[str, ...]:
        return _named(self.sigma, tuple(x))

    def init(self, z: Named) -> Named:
        return {name: jnp.broadcast_to(_of(self.sigma, name, value) * value, value.shape) for name, value in z.items()}

    def process(self, dt: float) -> Process:
        # the exact transition of an Ornstein-Uhlenbeck process; expm1 keeps digits where dt is far below tau
        keep, kick = jnp.exp(-dt / self.tau), jnp.sqrt(-jnp.expm1(-2.0 * dt / self.tau))

        def increments(xi: Named, z: Named, x: Named) -> tuple[Named, Named]:
            new = {
                name: spread(keep, value) * xi[name] + _of(self.sigma, name, value) * spread(kick, value) * value
                for name, value in z.items()
            }
            # the trapezoid of xi over the step
            return new, {name: (0.5 * dt) * (xi[name] + new[name]) for name in new}

        return increments


EXACT = 16.0
"""Mean count of a step up to which Poisson counts are exact."""
_COUNTS = 56
"""Counts that are told apart up to that mean: a normal variate, at most 6.66, gives no larger one."""


class Poisson(AbstractNoise):
    """Independent Poisson trains of spikes into every neuron.

    c_i = weight * n_i at the end of every step, n_i Poisson of mean rate dt

    Pulses arrive as spikes of other neurons do: they are lost while the neuron is refractory, and may cause a spike of
    the step. Neuron, step and key decide the count through the normal variate z of the neuron's first state variable:
    n = k where P(n < k) <= Phi(z) < P(n <= k), exact up to a mean of 16 per step. Above, n is rounded from the
    Cornish-Fisher expansion lam + sqrt(lam) z + (z^2 - 1)/6 - z (2 + z^2)/(72 sqrt(lam)), which gives another count in
    one of 500 steps or less. Counts are constants to derivatives; `weight` is not.

    Args:
        rate: spikes per ms, one number or one per neuron.
        weight: what a spike adds to the neuron, as the model says: mV for `vb.spiking.LIF`.
    """

    pulses: ClassVar[bool] = True
    rate: Param = param(unit="1/ms", low=0.0, doc="spikes into a neuron per ms")
    weight: Param = param(1.0, doc="size of a pulse, mV")

    def noisy(self, x: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(x)[:1]

    def process(self, dt: float) -> Process:
        lam = jax.lax.stop_gradient(self.rate) * dt
        shown = jnp.minimum(lam, EXACT).astype(jnp.float32)
        # n > k where z is above the normal quantile of P(n <= k), from the upper tail, which keeps its digits
        k = jnp.arange(_COUNTS, dtype=jnp.float32).reshape(-1, *(1,) * lam.ndim)
        above = -jax.scipy.special.ndtri(jax.scipy.special.gammainc(k + 1.0, shown[None]))

        def pulses(carry: None, z: Named, x: Named) -> tuple[None, Named]:
            ((name, value),) = z.items()
            value = jax.lax.stop_gradient(value)
            shape = lambda a: spread(a, value)  # noqa: E731

            def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
                k, n = state
                return k + 1, n + (value > shape(above[k])).astype(value.dtype)

            any_left = lambda state: (state[0] < _COUNTS) & (value > shape(above[state[0]])).any()  # noqa: E731
            n = jax.lax.while_loop(any_left, more, (jnp.zeros((), jnp.int32), jnp.zeros_like(value)))[1]
            mean = shape(lam)
            root = jnp.sqrt(jnp.maximum(mean, 1.0))
            many = jnp.round(mean + root * value + (value**2 - 1.0) / 6.0 - value * (2.0 + value**2) / (72.0 * root))
            return None, {name: shape(self.weight) * jnp.where(mean > EXACT, jnp.maximum(many, 0.0), n)}

        return pulses

    def inverse(self, dt: float) -> Inverse:
        raise ValueError(
            "Poisson counts do not follow from the states; simulate, or sample the noise with vb.likelihoods.NoisePath"
        )


class Generator:
    """Standard normals of the state variables in `names`.

    States are shaped like `x`. The M variates of a step are numbered variable by variable, node by node: with states
    `[N]` j = variable * N + node. Variate j comes from counter j if j < H, else from counter j - H, with
    H = ceil(M / 2): one counter serves two variates.

        counter     0   1   2  ...  H-1
        real        0   1   2  ...  H-1          variates j < H
        imaginary   H  H+1 H+2 ... 2H-1          variates j >= H

    `draw` makes them for many steps as complex numbers, `unpack` takes those of one step apart. With a loop between
    the two, every pair is made once; handed over as real numbers, XLA would compute the generator anew wherever a step
    reads a variate (four times in a step of Heun).
    """

    def __init__(self, words: KeyWords, names: tuple[str, ...], x: Named):
        k0, k1 = words
        # keys of a batch `[1, B]` meet counters `[step, counter, 1]`: batch last
        self.batch = (1,) * (k0.ndim > 0)
        self.words = (k0[None], k1[None]) if k0.ndim else (k0, k1)
        self.shapes = {name: a.shape[:-1] if k0.ndim else a.shape for name, a in x.items()}
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        ends = dict(zip(x, np.cumsum(sizes), strict=True))
        self.half = -(-sum(sizes) // 2)
        self.wanted = {name: ends[name] + np.arange(-math.prod(self.shapes[name]), 0) for name in names}
        # counters of which no variate is wanted are never drawn
        self.counters = np.unique(np.concatenate(list(self.wanted.values())) % self.half)
        self.dtype = next(iter(x.values())).dtype

    def draw(self, first: Array, n: int) -> Array:
        """Pairs of `n` steps from `first` on, `[n, counter, ...batch]`."""
        steps = first.astype(jnp.uint32) + jnp.arange(n, dtype=jnp.uint32)
        index = jnp.asarray(self.counters, jnp.uint32).reshape((1, -1, *self.batch))
        return jax.lax.complex(*normals(*self.words, steps.reshape((-1, 1, *self.batch)), index))

    def unpack(self, pairs: Array) -> Named:
        """Normals of one step, shaped as states.

        From pairs `[counter, ...batch]`.
        """
        real, imag = pairs.real.astype(self.dtype), pairs.imag.astype(self.dtype)
        out = {}
        for name, j in self.wanted.items():
            # where each counter stands among those that are drawn
            halves = [(real, j[j < self.half]), (imag, j[j >= self.half] - self.half)]
            rows = [_rows(a, np.searchsorted(self.counters, c)) for a, c in halves if c.size]
            flat = rows[0] if len(rows) == 1 else jnp.concatenate(rows)
            out[name] = flat.reshape(*self.shapes[name], *flat.shape[1:])
        return out


def _rows(a: Array, where: np.ndarray) -> Array:
    """Consecutive rows, as a slice: a gather would cost more."""
    return jax.lax.slice_in_dim(a, int(where[0]), int(where[-1]) + 1)
