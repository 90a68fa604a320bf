"""A virtual epileptic patient of 84 regions, 85 unknowns, from simulation to coverage: a table of docs/results.md.

The problem is `vb.tasks.vep()`: the two-dimensional Epileptor in 84 regions, seen with noise. Without noise the map
from theta to x is exact, and coverage says nothing.

Trained on 10,000 draws, checked on 300 others: coverage of the central 90 % and shrinkage 1 - var_post / var_prior.

    .venv/bin/python benchmarks/table_vep.py [--generic] [--missing]

`--generic` adds a coupling NSF, which is told nothing of regions. `--missing` adds a network that takes recordings of
some regions, asked about others with 30 % of them unseen: with a region its signal is gone, and the input of all those
that it is connected with.
"""

import argparse
import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vbinfer as vb

SECOND = 1e3  # ms
G = "coupling.G"


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


def groups_of(forward: vb.ForwardModel, n: int) -> dict[str, tuple[str, ...]]:
    """Features that are lost with each region."""
    series = jax.random.normal(jax.random.key(7), (79, n))
    return forward.summary.groups(series, [f"region {i}" for i in range(n)])


def unseen(held: vb.Draws, groups: dict[str, tuple[str, ...]], share: float = 0.3) -> vb.Draws:
    """Held-out draws that lack a share of the regions, others in each."""
    table = np.array([np.isin(held.names, members) for members in groups.values()])
    rng, dead = np.random.default_rng(8), round(share * len(table))
    gone = [table[rng.choice(len(table), dead, replace=False)].any(axis=0) for _ in range(len(held))]
    return dataclasses.replace(held, x=np.where(gone, np.nan, held.x))


def check(amortized: vb.neural.AmortizedPosterior, prior: vb.Prior, held: vb.Draws, n: int = 500) -> Checked:
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
    parser.add_argument("--missing", action="store_true", help="also with 30 % of the regions unseen")
    parser.add_argument("--draws", type=int, default=10_000)
    asked = parser.parse_args()
    task = vb.tasks.vep()
    prior, forward = task.prior, task.simulator
    estimators = {
        "regional": vb.NPE(
            density=vb.densities.Regional(84), training=vb.densities.Training(max_epochs=20, learning_rate=4e-3)
        ),
    }
    if asked.generic:
        training = vb.densities.Training(max_epochs=60, learning_rate=2e-3, weight_decay=5.0)
        estimators["NSF"] = vb.NPE(density=vb.densities.NSF(layers=2, width=128, depth=1), training=training)
    groups = groups_of(forward, connectome.n_nodes)
    if asked.missing:
        estimators["30 % unseen"] = dataclasses.replace(estimators["regional"], missing=groups)
    clock = Clock()
    draws = vb.sample_prior_predictive(prior, forward, asked.draws, key=jax.random.key(1), progress=False)
    held = vb.sample_prior_predictive(prior, forward, 300, key=jax.random.key(2), progress=False)
    clock.stage(f"simulate {asked.draws} + 300")
    recruited, held_back = changed_by_the_network(prior, forward)
    clock.stage(f"the network recruits {recruited:.2f} and holds back {held_back:.2f} regions per draw")
    for name, estimator in estimators.items():
        amortized, info = estimator.fit(draws, prior, key=jax.random.key(3))
        clock.stage(f"{name}: train {len(info.val)} epochs")
        found = check(amortized, prior, unseen(held, groups) if estimator.missing else held)
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
