"""Calibration of a nonlinear field: NUTS over 81 coefficients of excitability, behind 32 contacts.

A sphere of 80 mm radius with 162 points, each an Epileptor2D in the form of the virtual epileptic patient, permittivity
diffusing along the surface. Excitability x0 is a Matern field of degree 8 (sd 0.3 around -2.1, length 60 mm): some
patches lie above the threshold of seizures, -2.06. Contacts see x1 every 2 ms for 12 ms with noise of sd 0.3.
Posteriors are those of batched NUTS, `vb.sampling.ChainSampler` with one chain
for each of 25 data sets together, in coordinates w of its own for each: z = m + L w,
where L L^T is the inverse of the Gauss-Newton precision at its minimum m. A block that
is done lies in --store and is not done again, so that the command may be stopped at any time. The same draws pulled
towards their mean are the control that must fail.

    .venv/bin/python benchmarks/table_field_sbc.py --store /tmp/field_sbc       (--data-sets 50 --draws 100)
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import vbinfer as vb

MODES, CONTACTS, SIGMA, DT, PERIOD, T1, BLOCK = 81, 32, 0.3, 0.2, 2.0, 12.0, 25
NEWTON = 10
PULL = 0.7


def field_problem(domain, modes=MODES, D=200.0):
    """Prior field, forward model, prior and likelihood of excitability on a surface of 80 mm radius."""
    rng = np.random.default_rng(0)
    place = rng.normal(size=(CONTACTS, 3))
    place *= 110.0 / np.linalg.norm(place, axis=1)[:, None]
    seen = np.asarray(domain.areas) / ((place[:, None] - np.asarray(domain.positions)) ** 2).sum(-1)
    part = vb.RandomField(*domain.modes(modes), length=60.0, sd=0.3, mean=-2.1)
    sim = vb.Simulator(
        vb.models.Epileptor2D(form="vep"),
        integrator=vb.Heun(dt=DT),
        field=vb.fields.Field(domain, vb.fields.LaplaceBeltrami(domain, D=D)),
        monitors={"seeg": vb.monitors.SEEG(seen / seen.sum(1, keepdims=True), "x1", period=PERIOD)},
    )
    fwd = vb.ForwardModel(sim, t1=T1, summary=jnp.ravel, to_paths=part.to_paths("x0.z", "model.x0"))
    prior = vb.Prior({"x0.z": part.standard()})
    return part, fwd, prior, vb.likelihoods.Gaussian(lambda theta: fwd(theta, None), sigma=SIGMA)


def nonlinearity(fwd, prior):
    """Share of the sd of the signals over the prior that the best linear function of the coefficients misses."""
    z = prior.sample(key=jax.random.key(7), n=1_200)["x0.z"]
    y = np.asarray(jax.jit(jax.vmap(lambda z: fwd({"x0.z": z}, None)))(z), float)
    design = np.column_stack([np.ones(len(z)), z])
    fitted = np.linalg.lstsq(design[:1_000], y[:1_000], rcond=None)[0]
    left = y[1_000:] - design[1_000:] @ fitted
    return float(np.sqrt((left**2).mean() / y.var(0).mean()))


def whitened(predict, y):
    """Minimum m of the squares by damped Gauss-Newton steps, and L with L L^T = (I + J^T J / sigma^2)^-1."""
    energy = lambda z: 0.5 * (z**2).sum() + 0.5 * ((y - predict(z)) ** 2).sum() / SIGMA**2  # noqa: E731

    def precision(z):
        J = jax.jacfwd(predict)(z) / SIGMA
        return J, jnp.eye(len(z)) + J.T @ J

    def step(_, z):
        J, A = precision(z)
        move = jnp.linalg.solve(A, J.T @ (y - predict(z)) / SIGMA - z)
        tries = z + jnp.array([1.0, 0.5, 0.25, 0.1, 0.02, 0.0])[:, None] * move
        return tries[jnp.argmin(jnp.nan_to_num(jax.vmap(energy)(tries), nan=jnp.inf))]

    m = jax.lax.fori_loop(0, NEWTON, step, jnp.zeros(MODES))
    root = jnp.linalg.cholesky(precision(m)[1])
    return m, jax.scipy.linalg.solve_triangular(root, jnp.eye(MODES), lower=True).T


def log_normal(v):
    return -0.5 * (v**2).sum()


class Blocks:
    """Batched NUTS in whitened coordinates; blocks of data sets are kept."""

    def __init__(self, predict, likelihood, store, thinning):
        self.store, self.facts = Path(store), []
        self.store.mkdir(parents=True, exist_ok=True)
        self.whiten = jax.jit(lambda x: jax.lax.map(lambda y: whitened(predict, y), x))

        def log_likelihood(theta, x):  # of w under N(0, I), so that the posterior is that of z = m + L w
            z = x["m"] + x["L"] @ theta["w"]
            return likelihood({"x0.z": z}, x["y"]) + log_normal(z) - log_normal(theta["w"])

        self.sampler = vb.sampling.ChainSampler(
            vb.Prior({"w": dist.Normal(0.0, 1.0).expand([MODES])}),
            log_likelihood,
            num_warmup=100,
            num_chains=1,
            batch_size=BLOCK,
            max_thinning=thinning,
        )

    def sample_batch(self, x, *, n, key):
        parts = []
        for first in range(0, len(x), BLOCK):
            at = self.store / f"block-{first:04d}.npz"
            if not at.exists():
                began = time.process_time()
                y = jnp.asarray(x[first : first + BLOCK])
                m, L = self.whiten(y)
                print(f"{at.name}: whitened after {time.process_time() - began:.0f} CPU s", flush=True)
                run = self.sampler.run_batch({"y": y, "m": m, "L": L}, n=n, key=jax.random.fold_in(key, first))
                z = m[:, None] + jnp.einsum("bij,bnj->bni", L, run.theta["w"])
                facts = np.stack([run.rhat, run.ess, run.diverging, run.draws, run.num_steps])
                np.savez(at, z=z, facts=facts, cpu=time.process_time() - began)
                print(
                    f"{at.name}: worst R-hat {run.rhat.max():.3f}, ESS {run.ess.min():.0f}, "
                    f"{run.num_steps.mean():.0f} steps a draw",
                    flush=True,
                )
            with np.load(at) as kept:
                parts.append(kept["z"])
                self.facts.append((kept["facts"], float(kept["cpu"])))
        return {"x0.z": np.concatenate(parts)}


class Pulled:
    """The draws of a source, nearer to their mean: too sure of themselves."""

    def __init__(self, source):
        self.source = source

    def sample_batch(self, x, *, n, key):
        z = self.source.sample_batch(x, n=n, key=key)["x0.z"]
        centre = z.mean(1, keepdims=True)
        return {"x0.z": centre + PULL * (z - centre)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=50)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--thinning", type=int, default=8, help="chains are at most so many times longer than --draws")
    parser.add_argument("--store", required=True)
    args = parser.parse_args()
    part, fwd, prior, likelihood = field_problem(vb.fields.Sphere(8, radius=80.0))
    print(f"the best linear prediction of the signals misses {nonlinearity(fwd, prior):.2f} of their sd")

    def simulator(theta, key):
        return likelihood.sample(theta, key)

    held = vb.sample_prior_predictive(prior, simulator, n=args.data_sets, key=jax.random.key(1), progress=False)
    # the likelihood, and what is asked of such a map: how much of the surface is epileptogenic
    quantities = {
        "log_likelihood": lambda theta, x: likelihood(theta, x),
        "epileptogenic": lambda theta, x: jax.nn.sigmoid(20.0 * (part.field(theta["x0.z"]) + 2.06)).mean(),
    }
    source = Blocks(lambda z: fwd({"x0.z": z}, None), likelihood, args.store, args.thinning)
    z = source.sample_batch(held.x, n=args.draws, key=jax.random.key(2))["x0.z"]
    facts, cpu = np.concatenate([f for f, _ in source.facts], axis=1), sum(c for _, c in source.facts)
    print(f"ESS {facts[1].min():.1f} to {facts[1].max():.1f}, {facts[2].sum():.0f} divergences,")
    print(f"{facts[3].max():.0f} draws, {facts[4].mean():.0f} gradients per draw, {cpu:.0f} CPU s")
    if facts[1].min() < args.draws / 2:
        print(f"draws are dependent: ranks want an ESS of at least {args.draws // 2}; raise --thinning")
    for name, asked in {"NUTS": source, f"its draws pulled to {PULL}": Pulled(source)}.items():
        result = vb.diagnostics.sbc(
            asked, held, num_posterior_samples=args.draws, key=jax.random.key(2), quantities=quantities
        )
        print(f"{name}: {result.verdict}, {len(result.tests)} tests, {args.data_sets} data sets")
        for finding in result.findings:
            print("  ", finding)
    fields = np.asarray(jax.vmap(jax.vmap(part.field))(jnp.asarray(z)))
    prior_sd = float(np.sqrt((np.asarray(part.phi) ** 2 @ np.asarray(part.variances())).mean()))
    print(f"sd of a point's excitability: {prior_sd:.2f} before, {fields.std(1).mean():.2f} after (mean)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
