"""Random fields: Gaussian priors over maps on a surface."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vbinfer._check import number, positive


@dataclasses.dataclass(frozen=True, eq=False)
class RandomField:
    """A Matern field in the eigenfunctions of a surface.

    field = mean + sum_k sqrt(S_k) z_k phi_k,   z_k standard normal,   S_k = c (2 nu / length^2 + eigenvalue_k)^-(nu+1)

    with c such that the variance, averaged over the surface, is sd^2 (Whittle 1963; Borovitskiy et al. 2020). The same
    prior at every resolution of the surface; what lies above the modes is left out. Being the z of the prior already,
    the coefficients suit samplers as they are. It takes arrays, those of `domain.modes(k)`.

    Args:
        phi: eigenfunctions of -Laplacian `[N, K]`, orthonormal under the areas, the first one constant.
        eigenvalues: `[K]`, 1/mm^2.
        length: correlation length, mm.
        nu: smoothness.
        sd: standard deviation, in units of the field.
        mean: of the field.

    Raises:
        ValueError: shapes that do not fit, a first mode that is not constant, numbers out of range.

    >>> import vbinfer as vb
    >>> modes = vb.fields.Sphere(lmax=7).modes(49)
    >>> part = vb.RandomField(*modes, length=30.0, sd=0.4, mean=-4.6)
    >>> prior = vb.Prior({"eta.z": part.standard()})
    >>> part.to_paths("eta.z", "model.eta")({"eta.z": [0.0] * 49})["model.eta"].shape
    (128,)

    doi:10.48550/arXiv.2006.10160
    """

    phi: Any
    eigenvalues: Any
    length: float
    nu: float = 1.5
    sd: float = 1.0
    mean: float = 0.0

    def __post_init__(self) -> None:
        phi, eigenvalues = np.asarray(self.phi), np.asarray(self.eigenvalues)
        if phi.ndim != 2 or eigenvalues.shape != phi.shape[1:] or not phi.shape[1]:
            raise ValueError(
                f"phi is {list(phi.shape)} and eigenvalues {list(eigenvalues.shape)}; expected [N, K] and [K], "
                "vb.RandomField(*domain.modes(81), length=30.0)"
            )
        first = phi[:, 0][phi[:, 0] != 0.0]  # 0 at points without area
        if not len(first) or np.ptp(first) > 1e-3 * np.abs(first).max():
            raise ValueError("the first mode is not constant; give phi in the order of `domain.modes`")
        positive(self.length, "length", 30.0, "mm")
        positive(self.nu, "nu", 1.5)
        number(self.sd, "sd", 1.0, "a number of at least 0", least=0.0)
        number(self.mean, "mean", 0.0)

    @property
    def area(self) -> float:
        """Area of the surface, mm^2: 1 / phi_0^2."""
        return float(1.0 / np.abs(np.asarray(self.phi)[:, 0]).max() ** 2)

    def variances(self, length: Any = None, sd: Any = None) -> Array:
        """Variances S_k of the coefficients, `[K]`.

        Their sum is sd^2 times the area.
        """
        length, sd = (own if given is None else given for own, given in ((self.length, length), (self.sd, sd)))
        eigenvalues = jnp.asarray(self.eigenvalues)
        # the largest is 1: powers of areas and lengths would leave the range of float32
        s = (1.0 + eigenvalues * jnp.square(length) / (2.0 * self.nu)) ** -(self.nu + 1.0)
        return jnp.square(sd) * self.area * s / s.sum()

    def standard(self) -> dist.Distribution:
        """The prior of z: `[K]` standard normals."""
        return dist.Normal(0.0, 1.0).expand([np.shape(self.phi)[1]])

    def field(self, z: Any, length: Any = None, sd: Any = None, mean: Any = None) -> Array:
        """The field `[N]` of coefficients z `[K]`."""
        root = math.sqrt(self.area) * jnp.asarray(self.phi)  # of order 1
        weight = jnp.sqrt(self.variances(length, sd) / self.area)
        return (self.mean if mean is None else mean) + root @ (weight * jnp.asarray(z))

    def to_paths(self, z: str, path: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Function for `to_paths=` that puts the field at `path`.

        It takes the place of its coefficients. Where theta has them, `<name>.length`, `<name>.sd` and `<name>.mean`
        take the place of the numbers given, `z` being `<name>.z`: hyperparameters with priors of their own. Other names
        of theta pass through, so that several fields are one function of the next.
        """
        name = z.rpartition(".")[0]
        hyper = {f"{name}.{part}": part for part in ("length", "sd", "mean")} if name else {}
        field = self.field

        def paths_of(theta: Mapping[str, Any]) -> dict[str, Any]:
            if z not in theta:
                raise ValueError(
                    f"theta lacks {z!r}, the coefficients of the field at {path!r}; it has {', '.join(theta)}"
                )
            given = {part: theta[key] for key, part in hyper.items() if key in theta}
            rest = {key: value for key, value in theta.items() if key != z and key not in hyper}
            return rest | {path: field(theta[z], **given)}

        return paths_of
