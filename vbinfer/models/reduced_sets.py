"""Networks of unlike neurons, each reduced to three modes."""

from functools import cache
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._param import Param, param, spread
from vbinfer.models.base import AbstractVectorField, couples

MODES = 3


@cache
def _thirds(points: int = 1500) -> tuple[np.ndarray, ...]:
    """Width, probability and mean of a standard normal's thirds.

    `[mode]` each, on quantiles k / (points + 1) with the trapezoidal rule, as TVB: the outer thirds end at the
    outermost quantile.
    """
    from scipy.special import ndtri

    z = ndtri(np.arange(1, points + 1) / (points + 1))
    third = np.repeat(np.eye(MODES), points // MODES, axis=1)
    width = np.trapezoid(third, z)
    probability = np.trapezoid(third * np.exp(-0.5 * z**2), z) / np.sqrt(2.0 * np.pi)
    return width, probability, np.trapezoid(third * z, z) / width


def _known(form: str) -> str:
    return _check.one_of(form, "form", ("paper", "tvb"))


class _ReducedSet(AbstractVectorField):
    """Three modes of two populations.

    A mode is 1/h on a third of the distribution of inputs and zero elsewhere: its square integrates to one.
    """

    rows: ClassVar[int | None] = 1
    mu: eqx.AbstractVar[Array]
    sigma: eqx.AbstractVar[Array]
    K11: eqx.AbstractVar[Array]
    K12: eqx.AbstractVar[Array]
    K21: eqx.AbstractVar[Array]
    form: eqx.AbstractVar[str]

    def shapes(self, n: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.variables(), (n, MODES))

    def at_nodes(self, x: Any) -> dict[str, Array]:
        return {name: v.sum(axis=1) for name, v in x._asdict().items()}

    def _modes(self, xi: Array, alpha: Array, outside: Array) -> tuple[Array, Array, Array, Array]:
        """h and input of the modes, and what they exchange.

        All as they meet states `[N, mode, ...batch]`.
        """
        width, probability, position = (
            jnp.asarray(v, xi.dtype).reshape(1, MODES, *(1,) * (xi.ndim - 2)) for v in _thirds()
        )
        mu, sigma, K11, K12, K21 = (spread(k, xi) for k in (self.mu, self.sigma, self.K11, self.K12, self.K21))
        h = jnp.sqrt(sigma * width)
        g = probability / h
        mean = h * (g * xi).sum(axis=1, keepdims=True)
        to, of = (g, h) if self.form == "tvb" else (h, g)
        inhibition = to * (of * alpha).sum(axis=1, keepdims=True)
        into_xi = K11 * (mean - xi) - K12 * (inhibition - xi)
        return h, h * (mu + sigma * position) + outside[:, None], into_xi, K21 * (mean - alpha)


class FitzHughNagumoState(NamedTuple):
    """Excitatory xi, eta and inhibitory alpha, beta.

    Each `[N, 3]`, dimensionless.
    """

    xi: Array
    eta: Array
    alpha: Array
    beta: Array


class ReducedSetFitzHughNagumo(_ReducedSet):
    """Excitatory and inhibitory FitzHugh-Nagumo neurons in three modes.

    Neurons whose inputs z are normal, N(mu, sigma^2) (Stefanescu & Jirsa 2008). For mode i, of a third of them:

    dxi_i/dt = tau (xi_i - e_i xi_i^3 / 3 - eta_i + I_i + c + u) + K11 (h_i X - xi_i) - K12 (h_i Y - xi_i)
    deta_i/dt = (xi_i - b eta_i + a h_i) / tau
    dalpha_i/dt = tau (alpha_i - e_i alpha_i^3 / 3 - beta_i + I_i + c + u) + K21 (h_i X - alpha_i)
    dbeta_i/dt = (alpha_i - b beta_i + a h_i) / tau
    X = sum_k g_k xi_k,   Y = sum_k g_k alpha_k
    h_i = (z_i+ - z_i-)^(1/2),   g_i = P(third i) / h_i,   e_i = 1 / h_i^2,   I_i = h_i (mean z of third i)

    z_i-, z_i+ are the ends of third i. c is the coupling of xi. Coupling, monitors and sensors see the sums over modes,
    `[N]`; the state has `[N, 3]`. Integrals are those of TVB's grid of 1500 quantiles, in closed form, so that mu and
    sigma may be inferred.

    This is `form="paper"`. Names and defaults are TVB's, `form="tvb"` among them: there h_i Y is g_i sum_k h_k alpha_k,
    the transpose of what projecting the mean of the inhibitory neurons on mode i gives.

    doi:10.1371/journal.pcbi.1000219
    """

    State: ClassVar = FitzHughNagumoState
    tau: Param = param(3.0, low=1e-6, doc="separation of time scales")
    a: Param = param(0.45, doc="constant drive of the recovery")
    b: Param = param(0.9, doc="decay of the recovery")
    K11: Param = param(0.5, doc="excitatory to excitatory")
    K12: Param = param(0.15, doc="inhibitory to excitatory")
    K21: Param = param(0.15, doc="excitatory to inhibitory")
    sigma: Param = param(0.35, low=1e-6, doc="standard deviation of the inputs")
    mu: Param = param(0.0, doc="mean of the inputs")
    form: str = eqx.field(static=True, converter=_known, default="tvb")
    cvar: tuple[str, ...] = couples("xi")

    def dfun(self, t: Array, x: FitzHughNagumoState, c: Array, u: Array) -> FitzHughNagumoState:
        h, drive, into_xi, into_alpha = self._modes(x.xi, x.alpha, c[0] + u)
        tau, a, b = (spread(leaf, x.xi) for leaf in (self.tau, self.a, self.b))

        def neurons(v: Array, w: Array) -> tuple[Array, Array]:
            return tau * (v - v**3 / (3.0 * h**2) - w + drive), (v - b * w + a * h) / tau

        (dxi, deta), (dalpha, dbeta) = neurons(x.xi, x.eta), neurons(x.alpha, x.beta)
        return FitzHughNagumoState(dxi + into_xi, deta, dalpha + into_alpha, dbeta)


class HindmarshRoseState(NamedTuple):
    """Excitatory xi, eta, tau and inhibitory alpha, beta, gamma.

    Each `[N, 3]`, dimensionless.
    """

    xi: Array
    eta: Array
    tau: Array
    alpha: Array
    beta: Array
    gamma: Array


class ReducedSetHindmarshRose(_ReducedSet):
    """Excitatory and inhibitory Hindmarsh-Rose neurons in three modes.

    Bursting neurons whose inputs are normal, N(mu, sigma^2) (Stefanescu & Jirsa 2008). For mode i:

    dxi_i/dt = eta_i - a xi_i^3 / h_i^2 + b xi_i^2 / h_i - tau_i + I_i + c + u + K11 (h_i X - xi_i) - K12 (h_i Y - xi_i)
    deta_i/dt = c h_i - d xi_i^2 / h_i - eta_i
    dtau_i/dt = r (s (xi_i - xo h_i) - tau_i)

    and alike alpha, beta, gamma of the inhibitory neurons, with K21 (h_i X - alpha_i) in place of the last two terms.
    h, X, Y and I, what coupling and monitors see and `form` are those of `ReducedSetFitzHughNagumo`. The coefficient of
    xi^2 in deta/dt is d / h_i; the paper has d h_i, a mistake according to TVB, which corrects it too. Names and
    defaults are TVB's.

    doi:10.1371/journal.pcbi.1000219
    """

    State: ClassVar = HindmarshRoseState
    r: Param = param(0.006, low=0.0, doc="rate of the slow adaptation")
    a: Param = param(1.0, doc="cubic coefficient")
    b: Param = param(3.0, doc="quadratic coefficient of the fast variable")
    c: Param = param(1.0, doc="constant drive of the spiking variable")
    d: Param = param(5.0, doc="quadratic coefficient of the spiking variable")
    s: Param = param(4.0, doc="strength of the adaptation")
    xo: Param = param(-1.6, doc="leftmost equilibrium of one neuron")
    K11: Param = param(0.5, doc="excitatory to excitatory")
    K12: Param = param(0.1, doc="inhibitory to excitatory")
    K21: Param = param(0.15, doc="excitatory to inhibitory")
    sigma: Param = param(0.3, low=1e-6, doc="standard deviation of the inputs")
    mu: Param = param(3.3, doc="mean of the inputs")
    form: str = eqx.field(static=True, converter=_known, default="tvb")
    cvar: tuple[str, ...] = couples("xi")

    def dfun(self, t: Array, x: HindmarshRoseState, c: Array, u: Array) -> HindmarshRoseState:
        h, drive, into_xi, into_alpha = self._modes(x.xi, x.alpha, c[0] + u)
        own = (self.r, self.a, self.b, self.c, self.d, self.s, self.xo)
        r, a, b, constant, d, s, xo = (spread(leaf, x.xi) for leaf in own)

        def neurons(v: Array, fast: Array, slow: Array) -> tuple[Array, Array, Array]:
            square, target = v**2 / h, s * (v - xo * h)
            return (
                fast - a * v**3 / h**2 + b * square - slow + drive,
                constant * h - d * square - fast,
                r * (target - slow),
            )

        dxi, deta, dtau = neurons(x.xi, x.eta, x.tau)
        dalpha, dbeta, dgamma = neurons(x.alpha, x.beta, x.gamma)
        return HindmarshRoseState(dxi + into_xi, deta, dtau, dalpha + into_alpha, dbeta, dgamma)
