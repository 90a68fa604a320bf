"""The sphere: Gauss-Legendre grids and harmonics as matrix products."""

import functools
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._check import count, positive
from vbinfer.fields.base import AbstractDomain, as_array, columns
from vbinfer.fields.bases import Harmonics
from vbinfer.fields.pairs import OnSphere


class Sphere(AbstractDomain):
    """Gauss-Legendre grid on a sphere, exact to degree lmax.

    Rings of latitude at the Gauss-Legendre nodes, north first, longitudes 2 pi j / n_lon from 0; point i * n_lon + j.
    area_ij = R^2 w_i 2 pi / n_lon, so that integrals of products of fields up to lmax are exact.

    A field up to lmax is a sum of (lmax + 1)^2 real spherical harmonics. What lies above, an operator sends to 0 and
    leaves unchanged in `flow` (exp(0) = 1).

        x [lat, lon] --Fourier--> [order m, lat] --Legendre--> [order m, degree l] --g_l--> and back

    Both transforms are matrix products with the batch as last axis. With gains that all draws share, Legendre, gains
    and Legendre back are one matrix per order.

    Args:
        lmax: highest degree of the harmonics.
        n_lat: rings, above lmax; by default lmax + 1.
        n_lon: points of a ring, at least 2 lmax + 1; by default 2 n_lat.
        radius: mm.

    Raises:
        ValueError: a grid too coarse for lmax.

    >>> sphere = Sphere(lmax=7, radius=10.0)
    >>> sphere.n_nodes, round(float(sphere.areas.sum() / (4 * 3.14159265 * 10.0**2)), 5)
    (128, 1.0)
    """

    lmax: int = eqx.field(static=True)
    n_lat: int = eqx.field(static=True)
    n_lon: int = eqx.field(static=True)
    radius: float = eqx.field(static=True)
    areas: Array
    positions: Array
    fourier: Array
    """`[2 lmax + 1, n_lon]`, orthonormal cosines and sines: orders 0, 1, 1, 2, 2, ..."""
    analysis: Array
    """`[2 lmax + 1, lmax + 1, n_lat]`, Legendre functions of every order times quadrature weights."""
    synthesis: Array
    """`[2 lmax + 1, n_lat, lmax + 1]`, Legendre functions."""

    def __init__(self, lmax: int, n_lat: int | None = None, n_lon: int | None = None, radius: float = 100.0):
        self.lmax = count(lmax, "lmax", 31, least=0)
        self.n_lat = count(self.lmax + 1 if n_lat is None else n_lat, "n_lat", 32)
        self.n_lon = count(2 * self.n_lat if n_lon is None else n_lon, "n_lon", 64)
        self.radius = positive(radius, "radius", 100.0, "mm")
        if self.lmax >= self.n_lat:
            raise ValueError(f"lmax={lmax} needs more than {self.n_lat} rings; give n_lat={self.lmax + 1} or more")
        if self.n_lon < 2 * self.lmax + 1:
            least = 2 * self.lmax + 1
            raise ValueError(f"lmax={lmax} needs more than n_lon={n_lon} points per ring; give n_lon={least} or more")
        z, w, table = _tables(self.lmax, self.n_lat)
        orders, waves = self._orders(), self._waves()
        longitude = 2.0 * math.pi * np.arange(self.n_lon) / self.n_lon
        s = np.sqrt(1.0 - z**2)
        place = [np.outer(s, np.cos(longitude)), np.outer(s, np.sin(longitude)), np.outer(z, np.ones(self.n_lon))]
        self.positions = as_array(self.radius * np.stack([p.ravel() for p in place], axis=1))
        self.areas = as_array(np.repeat(self.radius**2 * w * 2.0 * math.pi / self.n_lon, self.n_lon))
        # P_lm and Fourier functions each with norm 1: the harmonic is their product over the radius
        self.fourier = as_array(waves * math.sqrt(2.0 * math.pi / self.n_lon))
        self.synthesis = as_array(table[orders])
        self.analysis = as_array((table * w[:, None])[orders].swapaxes(1, 2))

    def _orders(self) -> np.ndarray:
        """Order m of every Fourier function, `[2 lmax + 1]`."""
        return (np.arange(2 * self.lmax + 1) + 1) // 2

    def _waves(self) -> np.ndarray:
        """Normalised Fourier functions, `[2 lmax + 1, n_lon]`."""
        angle = 2.0 * math.pi * np.outer(self._orders(), np.arange(self.n_lon)) / self.n_lon
        sine = (np.arange(2 * self.lmax + 1) % 2 == 0)[:, None]
        waves = np.where(sine, np.sin(angle), np.cos(angle)) / math.sqrt(math.pi)
        waves[0] = 1.0 / math.sqrt(2.0 * math.pi)
        return waves

    def as_grid(self, x: Any) -> Array:
        """A field as `[lat, lon, ...batch]`."""
        x = self.checked(x)
        return x.reshape(self.n_lat, self.n_lon, *x.shape[1:])

    def degrees(self) -> np.ndarray:
        """Degree of every mode: 0, 1, 1, 1, 2, ..."""
        return np.repeat(np.arange(self.lmax + 1), 2 * np.arange(self.lmax + 1) + 1)

    def modes(self, k: int) -> tuple[Array, Array]:
        """Real spherical harmonics over the radius `[N, k]`; l(l+1)/R^2.

        Degrees ascending, in each the orders -l to l (sines, then cosines).
        """
        k = count(k, "k", 64, most=(self.lmax + 1) ** 2)
        _, _, table = _tables(self.lmax, self.n_lat)
        waves, phi = self._waves(), np.empty((self.n_nodes, k))
        pairs = [(n, m) for n in range(self.lmax + 1) for m in range(-n, n + 1)][:k]
        for column, (n, m) in enumerate(pairs):
            wave = waves[2 * abs(m) - (m > 0)]  # order m > 0: row 2 m - 1 is the cosine, row 2 m the sine
            phi[:, column] = np.outer(table[abs(m), :, n], wave).ravel() / self.radius
        n = self.degrees()[:k]
        return as_array(phi), as_array(n * (n + 1.0) / self.radius**2)

    def distances_from(self, node: int) -> np.ndarray:
        unit = np.asarray(self.positions, float) / self.radius
        away = np.linalg.norm(unit - unit[node], axis=1)
        return 2.0 * self.radius * np.arcsin(np.minimum(away / 2.0, 1.0))

    # ---- filters: what operators on the sphere are

    def laplace_gain(self) -> Array:
        """-l(l+1)/R^2 of every degree, `[lmax + 1]`."""
        n = np.arange(self.lmax + 1)
        return as_array(-n * (n + 1.0) / self.radius**2)

    def folded(self, gain: Array) -> Array:
        """Filter matrices `[order, lat, lat]` of gains by degree.

        Those of each draw, `[lmax + 1, B]`, stay as they are.
        """
        if gain.ndim == 2:
            return gain
        return jnp.einsum("mil,l,mlj->mij", self.synthesis, gain, self.analysis)

    def grown(self, gain: Array, t: Any) -> Array:
        """Filter matrices of exp(t gain) - 1.

        Either may differ by draw, t as `[1, B]`.
        """
        t = as_array(t)
        return self.folded(jnp.expm1(t * (gain[:, None] if t.ndim and gain.ndim < 2 else gain)))

    def filtered(self, folded: Array, x: Array) -> Array:
        """A field with each degree multiplied by its gain.

        What lies above lmax becomes 0.
        """
        return columns(lambda flat: self._filtered(folded, flat), x)

    def _filtered(self, folded: Array, x: Array) -> Array:
        if folded.ndim == 2:  # gains of each draw [degree, B] meet coefficients [order, degree, B]
            return self.synthesised(folded[None] * self.analysed(x))
        return self._around(folded @ self._along(x))

    def _along(self, x: Array) -> Array:
        """Fields `[N, B]` to `[order, lat, B]`."""
        return jnp.einsum("mj,ijb->mib", self.fourier, x.reshape(self.n_lat, self.n_lon, -1))

    def _around(self, c: Array) -> Array:
        """`[order, lat, B]` to fields `[N, B]`."""
        return jnp.einsum("mj,mib->ijb", self.fourier, c).reshape(self.n_nodes, -1)

    def analysed(self, x: Array) -> Array:
        """Coefficients `[order, degree, B]` of fields `[N, B]`."""
        return self.analysis @ self._along(x)

    def synthesised(self, c: Array) -> Array:
        """Fields `[N, B]` of coefficients."""
        return self._around(self.synthesis @ c)

    def basis(self, modes: int | None) -> Harmonics:
        if modes is not None:
            raise ValueError(f"modes={modes} was given with a Sphere, which uses all its harmonics; set its lmax")
        return Harmonics(-self.laplace_gain()[None, :, None], self)

    @property
    def n_modes(self) -> int:
        return (self.lmax + 1) ** 2

    @property
    def most_modes(self) -> int:
        return self.n_modes

    def laplace_weights(self) -> Array:
        return self.folded(self.laplace_gain())

    def laplacian(self, weights: Array, x: Array) -> Array:
        return self.filtered(weights, x)

    def heat_weights(self, s: Array) -> Array:
        return self.grown(self.laplace_gain(), s)

    def heat(self, weights: Array, x: Array, stiffest: float, steps: int | None) -> Array:
        return x + self.filtered(weights, x)

    def stiffest(self) -> float:
        return self.lmax * (self.lmax + 1.0) / self.radius**2

    def pairs(self, profile: Any, cutoff: float | None) -> OnSphere:
        return OnSphere(self, cutoff)


@functools.lru_cache(maxsize=32)
def _tables(lmax: int, n_lat: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes z (north first), weights, Legendre functions at them."""
    z, w = np.polynomial.legendre.leggauss(n_lat)
    z, w = z[::-1], w[::-1]
    return z, w, legendre_functions(lmax, z)


def legendre_functions(lmax: int, z: np.ndarray) -> np.ndarray:
    """Associated Legendre functions, orthonormal on [-1, 1].

    `[order m, z, degree l]`, 0 where l < m; without the sign (-1)^m. The recursion upwards in l is stable.

        P_mm = sqrt((2m+1) / 2m) sin P_m-1,m-1;   P_lm = a (z P_l-1,m - b P_l-2,m)
    """
    table = np.zeros((lmax + 1, len(z), lmax + 1))
    diagonal = np.full(len(z), math.sqrt(0.5))
    for m in range(lmax + 1):
        if m:
            diagonal = diagonal * np.sqrt((2.0 * m + 1.0) / (2.0 * m) * (1.0 - z**2))
        table[m, :, m] = diagonal
        for n in range(m + 1, lmax + 1):
            a = math.sqrt((4.0 * n**2 - 1.0) / (n**2 - m**2))
            b = math.sqrt(((n - 1.0) ** 2 - m**2) / (4.0 * (n - 1.0) ** 2 - 1.0))
            before = table[m, :, n - 2] if n > m + 1 else 0.0
            table[m, :, n] = a * (z * table[m, :, n - 1] - b * before)
    return table
