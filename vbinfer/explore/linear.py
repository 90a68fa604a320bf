"""Linear response at a fixed point: spectra, covariances, eigenvalues."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import spread
from vbinfer.explore import drift as _drift
from vbinfer.explore.drift import Drift, Jacobian
from vbinfer.explore.equilibria import newton, polished, settled
from vbinfer.explore.observed import Seen, named, seen
from vbinfer.explore.roots import rightmost
from vbinfer.explore.stationary import covariance
from vbinfer.noise import Coloured
from vbinfer.simulation.compiled import Compiled, is_inside
from vbinfer.simulation.initial import initial_state
from vbinfer.simulation.simulator import Simulator

MS = 1e-3
"""Seconds in a ms: Hz to 1/ms, and spectra per 1/ms to spectra per Hz."""
AT_ONCE = 16
"""Frequencies that are solved for together."""
FOLDS = 3
"""Multiples of the sampling rate, on either side, that are folded back."""
SLOW = 2e-3
"""1/ms: about where haemodynamics end."""
NODES = 1024
"""Frequencies of an integral over the spectrum, inside a user's program."""
MOST_NODES = 2**15
"""The same at most, where it is refined until it does not change."""


class Linear(eqx.Module):
    """Linear response of a network to its noise.

    Small deviations from a fixed point obey dx/dt = A x(t - lags) + K xi. Frequencies f are in Hz, time in ms, rates in
    1/ms; spectra are one-sided per Hz, S_ij of x_i conj(x_j), so that their integral over f is the covariance.
    """

    x: Any
    """The fixed point, a State."""
    jacobian: Jacobian
    """The linear part of the drift."""
    noise: Any
    """K `[n, m]`, state units per sqrt(ms); of coloured noise the standard deviations of m inputs, per ms."""
    tau: Any
    """Correlation time of each input, ms, `[m]`; None for white noise."""
    seen: Seen | None
    """What a monitor records of the states; None for the states themselves."""
    roots: Any
    """Eigenvalues 1/ms, the rightmost first."""

    def eigenvalues(self) -> Any:
        """Eigenvalues, 1/ms, the rightmost first.

        All n without delays. With delays there are infinitely many: those that were found, the rightmost among them.
        """
        return _moving(self.jacobian, self.roots) if is_inside(self) else self.roots

    def transfer(self, f: Any) -> Any:
        """Response to each noise input, `[F, M, m]`."""
        return _result(_transfer, self, f)

    def cross_spectrum(self, f: Any) -> Any:
        """S(f), `[F, M, M]`, one-sided, state units squared per Hz.

        Raises:
            ValueError: the fixed point is not stable, or there is no noise.
        """
        return _result(_cross_spectrum, _stationary(self), f)

    def psd(self, f: Any) -> Any:
        """The diagonal of S(f), `[F, M]`, one-sided per Hz."""
        return _result(_psd, _stationary(self), f)

    def coherence(self, f: Any) -> Any:
        """|S_ij|^2 / (S_ii S_jj), `[F, M, M]`."""
        return _result(_coherence, _stationary(self), f)

    def covariance(self) -> Any:
        """Stationary covariance, `[M, M]`.

        From the Lyapunov equation, with delays as the integral of the spectrum.
        """
        return self.lagged(0.0)

    def lagged(self, tau: float) -> Any:
        """Lagged covariance E y(t + tau) y(t)^T, `[M, M]`.

        tau in ms, of either sign.
        """
        tau = _check.number(tau, "tau", 10.0, "a finite number of ms")
        lin = _stationary(self)
        if lin.jacobian.lags is None and (lin.seen is None or lin.seen.is_instant):
            return _result(_lagged, lin, tau)
        return _integrated(lin, tau)

    def correlation(self) -> Any:
        """Stationary correlation, `[M, M]`: functional connectivity."""
        P = self.covariance()
        sd = (P.diagonal()) ** 0.5
        return P / (sd[:, None] * sd)


def linearise(sim: Simulator, theta: Any = None, x: Any = None, monitor: str | None = None) -> Linear:
    """Linear response of a network at a fixed point.

    Delays are exact, tract_lengths / speed. The fixed point moves with theta (implicit function theorem), and all
    results are differentiable in theta inside `jax.grad` and `jax.jit`, in the precision of the session, where an
    unstable point gives NaN. Otherwise results are NumPy's, computed in 64 bits. Multiplicative noise has the amplitude
    that it has at the fixed point.

    Args:
        sim: the simulator. Stimulus and time stand at 0.
        theta: parameters by path, as for `vb.bind`.
        x: State near the fixed point, as one of `vb.fixed_points(sim, key=key)`; by default the one to which the
            model's start settles.
        monitor: name of the monitor whose recording is described; None observes the state variables in order, each
            `[N]`. Means over a period, gains and haemodynamics (linear around their steady state) are filters; what
            is faster than the period of the samples is folded into their spectrum (three times on either side).

    Raises:
        ValueError: a model without a smooth drift; no fixed point there; unknown paths.

    Example:
        >>> import vbinfer as vb
        >>> ou = vb.Simulator(vb.models.Linear(gamma=-0.5), integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(0.2))
        >>> lin = vb.linearise(ou)
        >>> lin.covariance().round(6).tolist(), lin.eigenvalues().real.tolist()
        ([[0.04]], [-0.5])
    """
    sim = _drift.checked(sim, "linearise")
    if monitor is not None:
        named(sim.monitors, monitor)
    if is_inside(sim, theta, x):
        lin = _linear(_drift.bound(sim, theta), None if x is None else initial_state(sim, x), monitor)
        return eqx.tree_at(lambda a: a.roots, lin, _roots(lin.jacobian), is_leaf=lambda a: a is None)
    with _drift.x64():
        sim = _drift.bound(_drift.precise(sim), theta)
        start = None if x is None else initial_state(sim, x)
        lin = jax.tree.map(np.asarray, _run(sim, start, monitor))
    if not all(np.isfinite(a).all() for a in lin.x):
        raise ValueError(
            "no fixed point was reached from " + ("the model's start" if x is None else "x") + "; give x= one of "
            "vb.fixed_points(sim, key=jax.random.key(0)), if there is any"
        )
    return eqx.tree_at(lambda a: a.roots, lin, rightmost(lin.jacobian)[0], is_leaf=lambda a: a is None)


def _linear(sim: Simulator, x: Any, monitor: str | None) -> Linear:
    drift, start = _drift.drift_of(sim), sim.model.init(sim.n_nodes)
    flat = settled(drift, _drift.flat_of(start, start)) if x is None else _drift.flat_of(x, start)
    flat = polished(drift, newton(drift, jax.jacfwd(drift), jax.lax.stop_gradient(flat))[0])
    small = jnp.abs(drift(flat)) <= 1e3 * jnp.finfo(flat.dtype).eps * (
        jnp.abs(jax.jacfwd(drift)(flat)) @ (1.0 + jnp.abs(flat)) + 1e-3
    )
    flat = jnp.where(small.all() & (drift.distance(flat) <= 1e-4), flat, jnp.nan)
    noise, tau = _noise(drift, flat)
    by = None if monitor is None else seen(drift, flat, drift.sim.monitors[monitor])
    return Linear(drift.state(flat), drift.jacobian(flat), noise, tau, by, None)


def _noise(drift: Drift, flat: Array) -> tuple[Array, Array | None]:
    """How noise enters states, `[n, m]`, and its correlation times."""
    sim, x = drift.sim, drift.state(flat)
    if (noise := sim.noise) is None:
        return jnp.zeros((len(flat), 0)), None
    named = dict(zip(sim.model.variables(), x, strict=True))
    z = {name: jnp.zeros_like(named[name]) for name in noise.noisy(named)}

    def enters(z: dict[str, Array]) -> Array:
        # increments of a step of 1 ms are those of a square root of one ms; coloured noise starts with its amplitude
        made = noise.init(z) if isinstance(noise, Coloured) else noise.process(1.0)(None, z, named)[1]
        return _drift.flat_of([made.get(name, jnp.zeros(())) for name in named], x)

    columns = jax.jacfwd(enters)(z)
    K = jnp.concatenate([columns[name].reshape(len(flat), -1) for name in z], axis=1)
    if not isinstance(noise, Coloured):
        return K, None
    return K, jnp.concatenate([jnp.broadcast_to(spread(noise.tau, a), a.shape).ravel() for a in z.values()])


def _roots(jacobian: Jacobian) -> Array:
    """Eigenvalues in a program, the rightmost first, as constants."""
    fixed = jax.lax.stop_gradient(jacobian)
    if jacobian.lags is None:
        return _eigenvalues(fixed)
    n = len(jacobian.local)

    def host(jacobian: Jacobian) -> np.ndarray:
        parts = jax.tree.map(lambda a: np.asarray(a, np.float64), jacobian)
        out = np.full(n, np.nan, complex)
        if all(np.isfinite(a).all() for a in parts):
            roots = rightmost(parts)[0][:n]
            out[: len(roots)] = roots
        return out.astype(kind)

    kind = jnp.result_type(jacobian.local, jnp.complex64)
    shape = jax.ShapeDtypeStruct((n,), kind)
    return jax.pure_callback(host, shape, fixed, vmap_method="sequential")


def _eigenvalues(jacobian: Jacobian) -> Array:
    values = jnp.linalg.eigvals(jacobian.whole())
    return values[jnp.argsort(-values.real)]


def _moving(jacobian: Jacobian, roots: Array) -> Array:
    """Eigenvalues that move with the parameters.

    Of delays one Newton step for g = 0, [[s - A(s), b], [c, 0]] (x, g) = (0, 1), a system that is regular at a simple
    root.
    """
    if jacobian.lags is None:
        return _eigenvalues(jacobian)
    n = len(jacobian.local)
    b, c = jax.random.normal(jax.random.key(0), (2, n), jacobian.local.dtype)

    def g(s: Array) -> Array:
        top = jnp.concatenate([s * jnp.eye(n) - jacobian.at(s), b[:, None].astype(s.dtype)], axis=1)
        whole = jnp.concatenate([top, jnp.append(c, 0.0)[None].astype(s.dtype)], axis=0)
        return jnp.linalg.solve(whole, jnp.zeros(n + 1, s.dtype).at[n].set(1.0))[n]

    def moved(root: Array) -> Array:
        value, slope = jax.jvp(g, (root,), (jnp.ones_like(root),))
        return root - value / slope

    return jax.vmap(moved)(roots)


def _stationary(lin: Linear) -> Linear:
    """The response, if it has a stationary state."""
    if is_inside(lin):
        stable = (lin.roots.real < 0.0) | jnp.isnan(lin.roots.real)
        stable = stable.all() & ~jnp.isnan(lin.roots[0].real)
        return eqx.tree_at(lambda a: a.noise, lin, jnp.where(stable, lin.noise, jnp.nan))
    if lin.roots[0].real >= 0.0:
        raise ValueError(
            f"the fixed point is not stable, its rightmost eigenvalue is {lin.roots[0]:.4g} per ms, and noise leads "
            "away from it: there is no stationary spectrum; take x= a stable one of vb.fixed_points, or others"
        )
    if not lin.noise.shape[1]:
        raise ValueError("the simulator has no noise, so that nothing varies; give it vb.noise.Additive(sigma)")
    return lin


def _result(fn: Callable[..., Array], lin: Linear, argument: Any) -> Any:
    """fn(lin, argument), traced, or NumPy's in 64 bits."""
    if is_inside(lin, argument):
        return fn(lin, jnp.asarray(argument, float))
    with _drift.x64():
        return np.asarray(_program(fn)(lin, jnp.asarray(argument, float)))


@functools.cache
def _program(fn: Callable[..., Array]) -> Compiled:
    return Compiled(fn)


def _response(lin: Linear, s: Array) -> Array:
    """Response to unit white noise, `[M, m]`.

    s = i omega.
    """
    n = len(lin.jacobian.local)
    matrix = s * jnp.eye(n) - lin.jacobian.at(s)
    noise = lin.noise.astype(matrix.dtype)
    if lin.tau is not None:
        noise = noise * jnp.sqrt(2.0 / lin.tau) / (s + 1.0 / lin.tau)
    if lin.seen is None:
        return jnp.linalg.solve(matrix, noise)
    seen = lin.seen.gain(s)[:, None] * lin.seen.matrix
    return jnp.linalg.solve(matrix.T, seen.T).T @ noise


def _transfer(lin: Linear, f: Array) -> Array:
    return _at_each(lambda f: _response(lin, 2j * jnp.pi * MS * f), f)


def _at_each(fn: Callable[[Array], Array], f: Array) -> Array:
    """fn at each frequency, a few at a time."""
    return jax.lax.map(fn, jnp.atleast_1d(f), batch_size=AT_ONCE)


def _spectrum(lin: Linear, f: Array) -> Array:
    """S at one frequency."""
    H = _response(lin, 2j * jnp.pi * MS * f)
    return 2.0 * MS * (H @ H.conj().T)


def _folded(lin: Linear, f: Array) -> Array:
    """S of the samples at one frequency, aliases included."""
    if lin.seen is None or lin.seen.period is None:
        return _spectrum(lin, f)
    aliases = jnp.arange(-FOLDS, FOLDS + 1) / (MS * lin.seen.period)
    return jax.lax.map(lambda k: _spectrum(lin, f + k), aliases).sum(axis=0)


def _cross_spectrum(lin: Linear, f: Array) -> Array:
    return _at_each(functools.partial(_folded, lin), f)


def _psd(lin: Linear, f: Array) -> Array:
    return _at_each(lambda f: jnp.diagonal(_folded(lin, f)).real, f)


def _coherence(lin: Linear, f: Array) -> Array:
    S = _cross_spectrum(lin, f)
    power = jnp.diagonal(S, axis1=1, axis2=2).real
    return jnp.abs(S) ** 2 / (power[:, :, None] * power[:, None, :])


def _lagged(lin: Linear, tau: Array) -> Array:
    """Lagged covariance without delays: expm(A tau) P."""
    A, K = lin.jacobian.whole(), lin.noise
    n, m = K.shape
    if lin.tau is not None:
        # the inputs are states too, and white noise drives these
        rate = jnp.diag(-1.0 / lin.tau)
        A = jnp.block([[A, K], [jnp.zeros((m, n)), rate]])
        K = jnp.concatenate([jnp.zeros((n, m)), jnp.diag(jnp.sqrt(2.0 / lin.tau))])
    P = covariance(A, K @ K.T)
    P = 0.5 * (P + P.T)
    ahead = jax.scipy.linalg.expm(jnp.abs(tau) * A) @ P
    P = jnp.where(tau == 0.0, P, jnp.where(tau < 0.0, ahead.T, ahead))[:n, :n]
    return P if lin.seen is None else lin.seen.matrix @ P @ lin.seen.matrix.T


def _integral(lin: Linear, tau: Array, nodes: Array) -> Array:
    """Lagged covariance, by integrating the spectrum over f.

    Of S(f) exp(2 pi i f tau).

    f = scale tan(pi u / 2) at the middles u of equal parts of [0, 1]: S is even and smooth on that circle, and the
    error falls exponentially with their number. White noise leaves K K^T / omega^2 at high frequencies, which turns
    with the lag: the spectrum of dx = -a x dt + K dW is taken off, and its covariance added.
    """
    # between slow and fast rates
    rates = jnp.abs(lin.roots)
    a = jax.lax.stop_gradient(jnp.exp(jnp.nanmean(jnp.log(jnp.where(rates > 0.0, rates, jnp.nan)))))
    a = a if lin.seen is None or lin.seen.blood is None else jnp.full_like(a, SLOW)
    scale = a / (2.0 * jnp.pi * MS)
    C = lin.noise if lin.seen is None else lin.seen.matrix @ lin.noise
    filtered = lin.tau is not None or (lin.seen is not None and not lin.seen.is_instant)
    high = jnp.zeros((len(C), len(C)), C.dtype) if filtered else C @ C.T

    def part(angle: Array) -> Array:
        f = scale * jnp.tan(angle)
        omega = 2.0 * jnp.pi * MS * f
        rest = _spectrum(lin, f) - 2.0 * MS * high / (a**2 + omega**2)
        return (rest * jnp.exp(1j * omega * tau)).real * (0.5 * jnp.pi * scale / jnp.cos(angle) ** 2)

    # summed in pieces
    pieces = 0.5 * jnp.pi * nodes.reshape(-1, AT_ONCE)
    total = lambda total, piece: (total + jax.vmap(part)(piece).sum(axis=0), None)  # noqa: E731
    found = jax.lax.scan(jax.checkpoint(total), jnp.zeros_like(high), pieces)[0] / len(nodes)
    return found + high * jnp.exp(-a * jnp.abs(tau)) / (2.0 * a)


def _middles(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


def _integrated(lin: Linear, tau: float) -> Any:
    """The lagged covariance as an integral over the spectrum."""
    if is_inside(lin):
        return _integral(lin, jnp.asarray(tau, float), jnp.asarray(_middles(NODES), float))
    before, n = None, 256
    while n <= MOST_NODES:
        with _drift.x64():
            now = np.asarray(_program(_integral)(lin, jnp.asarray(tau, float), jnp.asarray(_middles(n))))
        if before is not None and np.abs(now - before).max() <= 1e-8 * np.abs(now).max():
            return now
        before, n = now, 3 * n if n < 700 else 2 * n
    return before


_run = Compiled(_linear)
