"""Parameters as functions of maps over regions."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer.models.base import names_of


class RegionalMaps:
    """Regional parameters as sums of maps, for `ForwardModel(to_paths=)`.

    p_i = theta_0 + theta_1 map_1i + theta_2 map_2i + ...

    The parametric mean field of Kong et al. 2021 is `ReducedWongWang` with w, I_o and sigma as functions of myelin and
    of the first gradient of functional connectivity: three numbers each in place of one per region. Its values are
    those of `ReducedWongWang` (w_i, I_i) and `noise.Additive` (sigma_i, per square root of ms), and its G that of
    `coupling.Linear`.

    Args:
        maps: name to one value per region, as they are: z-scored or not.
        paths: the parameters that are `[1 + number of maps]` numbers in theta, the constant first, then those of the
            maps in order. All others pass through.

    Raises:
        ValueError: no maps, maps of unequal lengths, or that are not finite.

    >>> import vbinfer as vb
    >>> maps = vb.models.RegionalMaps({"myelin": [0.25, 0.5], "gradient": [-1.0, 1.0]}, paths=("model.w",))
    >>> regional = maps({"model.w": [0.5, 1.0, 0.25], "coupling.G": 2.0})
    >>> regional["model.w"].tolist()  # 0.5 + 1.0 myelin + 0.25 gradient
    [0.5, 1.25]

    doi:10.1038/s41467-021-26704-y
    """

    def __init__(self, maps: Mapping[str, Sequence[float] | np.ndarray | Array], *, paths: tuple[str, ...]):
        rows = [np.asarray(row, float) for row in maps.values()]
        if not rows or len({row.shape for row in rows}) > 1 or rows[0].ndim != 1 or not np.isfinite(rows).all():
            given = ", ".join(f"{name} {list(np.shape(row))}" for name, row in maps.items()) or "none"
            raise ValueError(f"RegionalMaps was given {given}; expected maps of one finite value per region each")
        self.basis, self.paths = np.vstack([np.ones_like(rows[0]), *rows]), names_of(paths)

    def __call__(self, theta: Mapping[str, Any]) -> dict[str, Array]:
        """Theta with one value per region at `paths`."""
        values = {name: jnp.asarray(value) for name, value in theta.items()}
        return values | {path: values[path] @ jnp.asarray(self.basis, values[path].dtype) for path in self.paths}
