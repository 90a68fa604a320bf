"""A density of maps: one network for all regions."""

import dataclasses
import re
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer._names import PRNGKey
from vbinfer.neural.densities.base import AbstractConditional, AbstractDensity
from vbinfer.neural.densities.mixture import MDN, GaussianMixture
from vbinfer.priors.prior import Prior

_INDEXED = re.compile(r"(.*)\[(\d+)\]")


@dataclasses.dataclass(frozen=True)
class Regional(AbstractDensity):
    """What the brain shares, then each region given it.

    q(y | c) = q(g | r) prod_i q(y_i | c_i, e_i, r, g), where g are the parameters of the whole brain, y_i those of
    region i, c_i what the summary says of it, e_i a learned vector of its own, and r = mean_i net(c_i, e_i) what all
    regions together say. Both q are Gaussian mixtures read from a network, and the networks are the same for every
    region: N regions make N examples of each draw, and the number of weights hardly grows with N. Regions are
    independent given g and x: right where x tells the input that a region received, too narrow or too wide in sums over
    regions where it does not.

    The last N, 2 N, ... coordinates of y are maps over the regions, and those before them g; c likewise (what
    `pool="nodes"` makes). So the prior names the parameters of the whole brain first, and has fewer than N of them;
    `NPE.fit` checks that.

    Args:
        nodes: regions N.
        components: Gaussians of each mixture.
        width: hidden units of each network.
        depth: hidden layers of each network (tanh).
        pooled: length of r.
        identity: length of e_i.
    """

    nodes: int
    components: int = 2
    width: int = 32
    depth: int = 2
    pooled: int = 8
    identity: int = 4

    def check(self, prior: Prior) -> None:
        """Refuse a prior of another order.

        Fewer than N numbers of the whole brain come first, then maps `[N]`.
        """
        maps = {name: shape[-1:] == (self.nodes,) for name, shape in prior.z_shapes.items()}
        whole = sum(int(np.prod(prior.z_shapes[name])) for name, is_map in maps.items() if not is_map)
        if not any(maps.values()) or list(maps.values()) != sorted(maps.values()) or whole >= self.nodes:
            given = ", ".join(f"{name!r} {list(shape)}" for name, shape in prior.z_shapes.items())
            raise ValueError(
                f"Regional(nodes={self.nodes}) was given the prior of {given}; expected fewer than {self.nodes} "
                f"numbers of the whole brain first, then maps [{self.nodes}]: put the maps last in vb.Prior({{...}})"
            )

    def check_features(self, names: Sequence[str]) -> bool:
        """Refuse features of another layout, where names tell it.

        What `pool="nodes"` makes is `f[0], ..., f[N - 1]` of one feature, then of the next; numbers of the whole brain
        come before. Returns whether the names tell.
        """
        found = [_INDEXED.fullmatch(name) for name in names]
        stems: dict[str, list[tuple[int, int]]] = {}
        for place, match in enumerate(found):
            if match:
                stems.setdefault(match[1], []).append((place, int(match[2])))
        n, total = self.nodes, len(names)
        maps = {stem: rows for stem, rows in stems.items() if sorted(i for _, i in rows) == list(range(n))}
        in_order = all(
            rows == [(rows[0][0] + i, i) for i in range(n)] and (total - rows[0][0]) % n == 0 for rows in maps.values()
        )
        last = [match[1] if match else "" for match in found[total % n :]]
        if maps and not (in_order and set(last) <= set(maps)):
            first = ", ".join(map(repr, names[total % n :][:3]))
            raise ValueError(
                f"Regional(nodes={n}) was given features in the order {first}, ...; expected numbers of the whole "
                f"brain first, then one feature of all {n} regions, then the next, as pool='nodes' has it"
            )
        widths = {len(rows) for rows in stems.values()}
        of_others = not maps and bool(last) and all(last) and len(widths) == 1
        if of_others and (width := widths.pop()) % n:
            raise ValueError(
                f"Regional(nodes={n}) was given features of {width} regions each, as {names[-1]!r}; expected {n}: "
                f"write Regional(nodes={width}), or summarise the nodes that the maps of the prior are over"
            )
        return bool(maps)

    @eqx.filter_jit
    def build(self, key: PRNGKey, dim: int, cond_dim: int) -> "RegionalMixture":
        (maps, shared), (features, rest) = divmod(dim, self.nodes), divmod(cond_dim, self.nodes)
        if maps == 0 or features == 0:
            raise ValueError(
                f"Regional(nodes={self.nodes}) was given {dim} parameters and {cond_dim} features; expected at least "
                "one of each per region. Use pool='nodes' in the Summary, or another density"
            )
        k_identity, k_reader, k_whole, k_local = jax.random.split(key, 4)
        identity = 0.3 * jax.random.normal(k_identity, (self.nodes, self.identity))
        seen, told = features + self.identity, self.pooled + rest
        reader = eqx.nn.MLP(seen, self.pooled, self.width, self.depth, activation=jnp.tanh, key=k_reader)
        mixture = MDN(self.components, self.width, self.depth)
        whole = mixture.build(k_whole, shared, told) if shared else None
        return RegionalMixture(identity, reader, whole, mixture.build(k_local, maps, seen + told + shared), shared)


class RegionalMixture(AbstractConditional):
    """The density that `Regional` describes."""

    identity: Array
    """e `[N, E]`."""
    reader: eqx.nn.MLP
    whole: GaussianMixture | None
    local: GaussianMixture
    shared: int = eqx.field(static=True)
    """Number of parameters of the whole brain."""

    def log_prob(self, y: Array, c: Array) -> Array:
        """log q(y | c) of one pair."""
        each, told = self._read(c)
        # y is [g, map 0 over regions, map 1 over regions, ...]
        g, own = y[: self.shared], y[self.shared :].reshape(-1, len(each)).T
        value = jnp.zeros(()) if self.whole is None else self.whole.log_prob(g, told)
        told = jnp.concatenate([told, g])
        return value + jnp.sum(jax.vmap(lambda y_i, c_i: self.local.log_prob(y_i, jnp.append(c_i, told)))(own, each))

    def sample(self, c: Array, key: PRNGKey, n: int) -> Array:
        """n draws `[n, D]` given one context."""
        each, told = self._read(c)
        k_whole, k_local = jax.random.split(key)
        g = jnp.zeros((n, 0)) if self.whole is None else self.whole.sample(told, k_whole, n)

        def one(g: Array, key: PRNGKey) -> Array:
            region = lambda c_i, k: self.local.sample(jnp.concatenate([c_i, told, g]), k, 1)[0]  # noqa: E731
            return jnp.append(g, jax.vmap(region)(each, jax.random.split(key, len(each))).T)

        return jax.vmap(one)(g, jax.random.split(k_local, n))

    def _read(self, c: Array) -> tuple[Array, Array]:
        """Context of each region, and of all together."""
        # c is [rest, feature 0 of all regions, feature 1 of all regions, ...]; the last maps are cut into regions
        maps = len(c) // len(self.identity) * len(self.identity)
        rest, own = jnp.split(c, [len(c) - maps])
        each = jnp.concatenate([own.reshape(-1, len(self.identity)).T, self.identity], axis=1)
        return each, jnp.append(rest, jnp.mean(jax.vmap(self.reader)(each), axis=0))
