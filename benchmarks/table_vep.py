"""A virtual epileptic patient of 84 regions, 85 unknowns, from simulation to coverage: a table of docs/results.md.

The two-dimensional Epileptor in 84 regions; unknown are the excitability x0 of each, U(-5, -1), and the global coupling
G, U(0, 2). 80 s of x1 are seen once a second with measurement noise of sd 0.3, a tenth of what a seizure rises by:
without it the map from theta to x is exact, and coverage says nothing. A region is described by its mean signal in
eight windows of 10 s, and by the input that the known connectome makes of its neighbours' in the same windows.

Trained on 10,000 draws, checked on 300 others: coverage of the central 90 % and shrinkage 1 - var_post / var_prior.

    .venv/bin/python benchmarks/table_vep.py [--generic]

`--generic` adds a coupling NSF, which is told nothing of regions.
"""

import argparse
import dataclasses
import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

import vbinfer as vb
from vbinfer._typing import PRNGKey
from vbinfer.infer.conditional import AbstractConditional, AbstractDensity
from vbinfer.infer.mixture_density import GaussianMixture

SECOND = 1e3  # ms
G, X0 = "coupling.G", "model.x0"


@dataclasses.dataclass(frozen=True)
class Regional(AbstractDensity):
    """What the brain shares, then each region given it: q(y | c) = q(g | r) prod_i q(y_i | c_i, e_i, r, g).

    g are the parameters of the whole brain, y_i those of region i, c_i what the summary says of it, e_i a learned
    vector of its own, and r = mean_i net(c_i, e_i) what all regions together say. Both q are Gaussian mixtures read
    from a network, and the networks are the same for every region: N regions make N examples of each draw, and the
    number of weights hardly grows with N. Regions are independent given g and x: right where x tells the input that a
    region received, too narrow or too wide in sums over regions where it does not.

    The last N, 2 N, ... coordinates of y are maps over the regions, and those before them g; c likewise (what
    `pool="nodes"` makes). So the prior names the parameters of the whole brain first, and has fewer than N of them.

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
        mixture = vb.MDN(self.components, self.width, self.depth)
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
        """What is known of each region `[N, K + E]`, and of all together."""
        maps = len(c) // len(self.identity) * len(self.identity)
        rest, own = jnp.split(c, [len(c) - maps])
        each = jnp.concatenate([own.reshape(-1, len(self.identity)).T, self.identity], axis=1)
        return each, jnp.append(rest, jnp.mean(jax.vmap(self.reader)(each), axis=0))


class NetworkInput(eqx.Module):
    """`feature` of the input that each region gets from what is seen of the others: sum_j w_ij (y_j - y_i)."""

    weights: Array
    feature: vb.features.area

    def __call__(self, y: Array) -> Array:
        strength = jnp.sum(self.weights, axis=1)
        return self.feature(y @ self.weights.T - strength[None] * y, SECOND)


def patient(connectome: vb.Connectome, noise: float = 0.3) -> tuple[vb.Prior, vb.ForwardModel]:
    """Prior and forward model; one unit of the Epileptor's time is 1 s."""
    simulator = vb.Simulator(
        vb.models.Epileptor2D(form="vep", tau=90.0, tt=1.0 / SECOND),
        connectome,
        coupling=vb.coupling.Difference(G=1.0),
        integrator=vb.Heun(dt=0.1 * SECOND),
        monitors={"x1": vb.monitors.Subsample(SECOND, var="x1")},
    )
    windows = [(begin * SECOND, min(begin + 10, 79) * SECOND) for begin in range(0, 80, 10)]
    area = vb.features.area(intervals=windows, pool="nodes")
    summary = vb.Summary(period=SECOND, area=area, input=NetworkInput(jnp.asarray(connectome.weights), area))
    observe = lambda theta, y, key: y + noise * jax.random.normal(key, y.shape)  # noqa: E731
    excitability = dist.Uniform(-5.0, -1.0).expand([connectome.n_nodes]).to_event(1)
    prior = vb.Prior({G: dist.Uniform(0.0, 2.0), X0: excitability})
    return prior, vb.ForwardModel(simulator, t1=80 * SECOND, summary=summary, observe=observe)


def changed_by_the_network(prior: vb.Prior, forward: vb.ForwardModel, n: int = 512) -> tuple[float, float]:
    """Regions per draw that seize only because of the coupling, and that do not seize only because of it."""
    seizes = vb.Summary(period=SECOND, seizes=vb.features.onset(only=("recruited",), pool="nodes"))
    seen = vb.ForwardModel(forward.sim, t1=forward.t1, summary=seizes)
    theta, keys = prior.sample(key=jax.random.key(4), n=n), jax.random.split(jax.random.key(5), n)
    coupled = np.asarray(seen.batch(theta, keys)) > 0
    alone = np.asarray(seen.batch(theta | {G: jnp.zeros(n)}, keys)) > 0
    return float((coupled & ~alone).sum() / n), float((alone & ~coupled).sum() / n)


class Checked(NamedTuple):
    """Over held-out draws, by parameter, G first: share inside the central 90 %, and mean shrinkage."""

    coverage: np.ndarray
    shrinkage: np.ndarray
    joint: float
    """Coverage of the mean of x0 over regions: intervals of single regions do not see how regions go together."""


def check(amortized: vb.AmortizedPosterior, prior: vb.Prior, held: vb.Draws, n: int = 500) -> Checked:
    """Coverage of the central 90 % and shrinkage, over held-out draws."""
    drawn = amortized.sample_batch(held.x, n=n, key=jax.random.key(6))
    draws, true = np.asarray(prior.ravel(drawn)), np.asarray(prior.ravel(held.theta))
    before = np.asarray(prior.ravel(prior.variance()))
    shrinkage = 1 - draws.var(axis=1, ddof=1).mean(axis=0) / before
    joint = _covered(draws[..., 1:].mean(axis=-1), true[:, 1:].mean(axis=-1))
    return Checked(_covered(draws, true), shrinkage, float(joint))


def _covered(draws: np.ndarray, true: np.ndarray) -> np.ndarray:
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    return np.mean((low < true) & (true < high), axis=0)


class Clock:
    """Prints what each stage took."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def stage(self, name: str) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        print(f"| {name} | {cpu - self.cpu:.0f} s CPU, {wall - self.wall:.0f} s wall |", flush=True)
        self.cpu, self.wall = cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generic", action="store_true", help="also a coupling NSF")
    parser.add_argument("--draws", type=int, default=10_000)
    asked = parser.parse_args()
    connectome = vb.Connectome.synthetic(84, key=jax.random.key(84), asymmetric=True, spread=2.0).normalise("row")
    prior, forward = patient(connectome)
    estimators = {
        "regional": vb.NPE(density=Regional(84), training=vb.Training(max_epochs=20, learning_rate=4e-3)),
    }
    if asked.generic:
        training = vb.Training(max_epochs=60, learning_rate=2e-3, weight_decay=5.0)
        estimators["NSF"] = vb.NPE(density=vb.NSF(layers=2, width=128, depth=1), training=training)
    clock = Clock()
    draws = vb.sample_prior_predictive(prior, forward, asked.draws, key=jax.random.key(1), progress=False)
    held = vb.sample_prior_predictive(prior, forward, 300, key=jax.random.key(2), progress=False)
    clock.stage(f"simulate {asked.draws} + 300")
    recruited, held_back = changed_by_the_network(prior, forward)
    clock.stage(f"the network recruits {recruited:.2f} and holds back {held_back:.2f} regions per draw")
    for name, estimator in estimators.items():
        amortized, info = estimator.fit(draws, prior, key=jax.random.key(3))
        clock.stage(f"{name}: train {len(info.val)} epochs")
        found = check(amortized, prior, held)
        clock.stage(f"{name}: 300 posteriors of 500 draws, coverage")
        c, s = found.coverage, found.shrinkage
        print(f"| {name}: held-out information gain | {info.info_gain:.1f} nats |")
        print(f"| {name}: coverage of 90 %, mean +- sd over 85 (G) | {c.mean():.3f} +- {c.std():.3f} ({c[0]:.3f}) |")
        print(f"| {name}: coverage of 90 % of the mean of x0 over regions | {found.joint:.3f} |")
        print(
            f"| {name}: shrinkage of x0, median (least); G | {np.median(s[1:]):.3f} ({s[1:].min():.3f}); {s[0]:.3f} |"
        )


if __name__ == "__main__":
    main()
