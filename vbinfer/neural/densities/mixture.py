"""Mixture density networks."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity

_START = 0.5


@dataclasses.dataclass(frozen=True)
class MDN(AbstractDensity):
    """Mixture of Gaussians, read from a network.

    q(y | c) = sum_k w_k(c) N(y; m_k(c), (U_k' U_k)^-1). U_k is triangular with a positive diagonal, read from a network
    of c like the weights and means. The quickest density to train and to evaluate; right for one or a few bell-shaped
    modes, poor for sharp edges and curved ridges. The network has about K D^2 / 2 outputs; with tens of parameters take
    `diagonal=True`, whose K D outputs leave correlations within a component out.

    Args:
        components: Gaussians of the mixture, K.
        width: hidden units of the network.
        depth: hidden layers of the network (tanh).
        diagonal: no correlations within a component.

    Bishop 1994, Mixture density networks, NCRG/94/004, Aston University.
    """

    components: int = 5
    width: int = 50
    depth: int = 2
    diagonal: bool = False

    @eqx.filter_jit
    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> "GaussianMixture":
        """Build components near the standard normal.

        Each is about its own centre, whatever the context.
        """
        k_network, k_centre = jax.random.split(key)
        # outputs per component: log weight | mean [D] | log diagonal of U [D] | above it [D (D - 1) / 2]
        above = 0 if self.diagonal else dim * (dim - 1) // 2
        size = self.components * (1 + 2 * dim + above)
        network = eqx.nn.MLP(cond_dim, size, self.width, self.depth, activation=jnp.tanh, key=k_network)
        centres = _START * jax.random.normal(k_centre, (self.components, dim))
        start = jnp.zeros((self.components, size // self.components)).at[:, 1 : 1 + dim].set(centres)
        network = eqx.tree_at(
            lambda net: (net.layers[-1].weight, net.layers[-1].bias),
            network,
            (jnp.zeros_like(network.layers[-1].weight), start.reshape(-1)),
        )
        return GaussianMixture(network, dim, self.components)


class GaussianMixture(AbstractConditional):
    """The mixture that a network of c describes."""

    network: eqx.nn.MLP
    dim: int = eqx.field(static=True)
    components: int = eqx.field(static=True)

    def log_prob(self, y: Array, c: Array) -> Array:
        """log q(y | c) of one pair."""
        log_weight, mean, root = self._parts(c)
        # U is a root of the precision, P = U' U: U (y - mean) is standard normal
        noise = jnp.einsum("kij,kj->ki", root, y - mean)
        # U is triangular: log det of the precision's root is the sum over its diagonal
        log_det = jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1)
        each = log_weight + log_det - 0.5 * jnp.sum(noise**2, axis=1)
        return jax.nn.logsumexp(each) - 0.5 * self.dim * jnp.log(2.0 * jnp.pi)

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws `[n, D]` given one context."""
        k_which, k_noise = jax.random.split(key)
        log_weight, mean, root = self._parts(c)
        which = jax.random.categorical(k_which, log_weight, shape=(n,))
        noise = jax.random.normal(k_noise, (n, self.dim))
        # every component for every draw: picking a [D, D] root per draw would need n D^2 numbers
        each = jax.vmap(lambda one: jax.scipy.linalg.solve_triangular(one, noise.T).T)(root)
        return mean[which] + each[which, jnp.arange(n)]

    def _parts(self, c: Array) -> tuple[Array, Array, Array]:
        """Log weights `[K]`, means `[K, D]`, roots `[K, D, D]`."""
        out = self.network(c).reshape(self.components, -1)
        mean, log_diagonal, above = jnp.split(out[:, 1:], [self.dim, 2 * self.dim], axis=1)
        root = jax.vmap(jnp.diag)(jnp.exp(log_diagonal))
        if above.shape[1]:
            rows, columns = jnp.triu_indices(self.dim, 1)
            root = root.at[:, rows, columns].set(above)
        return jax.nn.log_softmax(out[:, 0]), mean, root
