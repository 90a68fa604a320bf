"""What every fitted estimator of the sbi package holds: the network, and the meaning of what goes in and out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vbinfer._names import Theta
from vbinfer.io import npz
from vbinfer.neural.sbi.inputs import Inputs
from vbinfer.neural.sbi.methods import METHODS, Method
from vbinfer.neural.sbi.network import check_saveable, rebuild
from vbinfer.posterior import Posterior
from vbinfer.priors.prior import Prior


@dataclasses.dataclass(frozen=True)
class Core:
    """A trained network: of which method and options, over which prior, fed how.

    Attributes:
        name: the method.
        spec: the options of the network.
        net: the network of sbi, from z and h.
        prior, inputs: what z and h are.
        info: JSON-able notes of the fit.
    """

    name: str
    spec: dict[str, Any]
    net: Any
    prior: Prior
    inputs: Inputs
    info: dict[str, Any]

    @property
    def method(self) -> Method:
        """The method's row in the table."""
        return METHODS[self.name]

    def to_theta(self, z: Any) -> Theta:
        """Leaves `[..., *shape]` of flat z `[..., D]`."""
        return self.prior.constrain(self.prior.unravel_z(jnp.asarray(z)))[0]

    def to_z(self, theta: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat z `[..., D]` (0 where theta is outside the prior), log |d theta / d z|, and whether theta is inside."""
        inside = np.asarray(jnp.isfinite(self.prior.log_prob(theta)))
        z = self.prior.unconstrain(theta)
        log_det = np.asarray(self.prior.constrain(z)[1])
        flat = np.asarray(self.prior.ravel_z(z), np.float32)
        return np.nan_to_num(np.where(inside[..., None], flat, 0.0)), log_det, inside

    def pair(self, theta: Mapping[str, Any], x: Any) -> tuple[np.ndarray, ...]:
        """`(z, x, log_det, inside)` with rows of theta and x paired and flattened, and their leading shape last."""
        rows = self.inputs.scaler.check(x, ndim=max(1, np.ndim(x)))
        flat, log_det, inside = self.to_z(theta)
        lead = np.broadcast_shapes(flat.shape[:-1], rows.shape[:-1])
        flat, rows = (np.broadcast_to(a, (*lead, a.shape[-1])).reshape(-1, a.shape[-1]) for a in (flat, rows))
        log_det, inside = (np.broadcast_to(a, lead) for a in (log_det, inside))
        return flat, rows, log_det, inside

    def result(self, theta: Theta, log_prob: Any, x: np.ndarray, outside: tuple[str, ...], kind: str) -> Posterior:
        """The posterior of leaves `[chain, draw, ...]`."""
        info = {"method": f"{self.name} (sbi)", "kind": kind, "outside_training": list(outside), **self.info}
        leaves = {name: np.asarray(value) for name, value in theta.items()}
        return Posterior(leaves, log_prob=np.asarray(log_prob), x_o=x, prior=self.prior, info=info)

    def save(self, path: str | Path) -> None:
        """Write names and numbers, no code."""
        check_saveable(self.spec)
        arrays = {f"net/{name}": value.cpu().numpy() for name, value in self.net.state_dict().items()}
        arrays |= self.inputs.scaler.standardise.to_arrays()
        header = {
            "method": self.name,
            "prior": self.prior.to_spec(),
            "network": self.spec,
            "inputs": self.inputs.to_header(),
            "info": self.info,
            "versions": npz.versions("sbi", "torch"),
        }
        npz.write(path, "sbi", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Core":
        """The inverse of `save`."""
        prior, inputs = Prior.from_spec(header["prior"]), Inputs.from_saved(header["inputs"], arrays)
        net = rebuild(header["method"], header, arrays, inputs, prior.z_dim)
        return cls(header["method"], dict(header["network"]), net, prior, inputs, dict(header["info"]))
