"""What networks of the sbi package say of (z, h): a density of z, a field that makes one, a likelihood, a ratio."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vbinfer.neural.sbi.quiet import to_torch

_ROWS = 20_000
"""Rows that go through a network together."""


@dataclasses.dataclass(frozen=True)
class Density:
    """A network with a density: flows and mixtures."""

    net: Any

    def sample(self, h: np.ndarray, n: int) -> np.ndarray:
        """Draws `[B, n, D]`."""
        import torch

        size = max(1, _ROWS // n)
        with torch.no_grad():
            parts = [
                self.net.sample(torch.Size((n,)), condition=to_torch(h[i : i + size])).numpy()
                for i in range(0, len(h), size)
            ]
        return np.concatenate(parts, axis=1).swapaxes(0, 1)

    def log_prob(self, z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """log q `[N]`."""
        return _in_parts(lambda z, h: self.net.log_prob(z[None], condition=h)[0], z, h)


@dataclasses.dataclass(frozen=True)
class Field:
    """A velocity or a score: z solves an ODE from noise, d z / d t = f(z, h, t).

    log q(z) = log N(noise) + integral of tr(d f / d z), with the exact trace; both to the tolerance of an adaptive
    Runge-Kutta solver (relative 1e-5). For a score it is the probability-flow ODE, so the density is that of the draws.
    """

    net: Any

    def sample(self, h: np.ndarray, n: int) -> np.ndarray:
        """Draws `[B, n, D]`."""
        import torch

        rows = np.repeat(h, n, axis=0)
        with torch.no_grad():
            parts = [
                self._flow(to_torch(rows[i : i + _ROWS])).sample().reshape(-1, *self.net.input_shape).numpy()
                for i in range(0, len(rows), _ROWS)
            ]
        return np.concatenate(parts).reshape(len(h), n, -1)

    def log_prob(self, z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """log q `[N]`."""
        return _in_parts(lambda z, h: self._flow(h).log_prob(z), z, h)

    def _flow(self, h: Any) -> Any:
        from sbi.inference.potentials.vector_field_potential import VectorFieldBasedPotential

        return VectorFieldBasedPotential(self.net, None).neural_ode(h)


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A network with a density of h given z."""

    net: Any

    def log_prob(self, z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """log p `[N]` of h `[N, H]` given z `[N, D]`."""
        return _in_parts(self.value, z, h)

    def value(self, z: Any, h: Any) -> Any:
        """The same of tensors, with gradient."""
        return self.net.log_prob(h[None], condition=z)[0]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A classifier of pairs from the joint against pairs from the marginals."""

    net: Any

    def log_prob(self, z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """log of the ratio `[N]`: the classifier's logit."""
        return _in_parts(self.value, z, h)

    def value(self, z: Any, h: Any) -> Any:
        """The same of tensors, with gradient."""
        return self.net.unnormalized_log_ratio(z, h)


ENGINES = {"density": Density, "field": Field, "likelihood": Likelihood, "ratio": Ratio}


def _in_parts(evaluate: Callable[[Any, Any], Any], z: np.ndarray, h: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        parts = [
            evaluate(to_torch(z[i : i + _ROWS]), to_torch(h[i : i + _ROWS])).numpy() for i in range(0, len(z), _ROWS)
        ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
