"""Simulation-based calibration of NUTS through 400 Heun steps of a network: one posterior for each of 100 data sets.

Four Montbrio-Pazo-Roxin populations, asymmetric weights; unknown are G and eta of each population; r and V are seen
every 1 ms for 20 ms with Gaussian noise. Two likelihoods: the right one, and one whose noise is half of what it is.

    .venv/bin/python benchmarks/table_sbc_nuts.py            (--data-sets 100 --draws 100 --cores 1)
"""

import argparse
import sys
import time

import vbinfer as vb

SIGMA, T1 = 0.05, 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=100)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--cores", type=int, default=1)
    args = parser.parse_args()
    if args.cores > 1:
        vb.use_cores(args.cores)
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist

    weights = np.array([[0.0, 0.9, 0.2, 0.0], [0.1, 0.0, 0.7, 0.3], [0.5, 0.0, 0.0, 0.8], [0.2, 0.6, 0.0, 0.0]])
    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(J=5.0, Delta=1.0),
        vb.Connectome(weights, np.zeros((4, 4))),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=0.05),
        monitors={"y": vb.monitors.Subsample(period=1.0, var=("r", "V"))},
    )
    prior = vb.Prior({"coupling.G": dist.LogNormal(-0.7, 0.3), "model.eta": dist.Normal(-4.0, 0.7).expand([4])})

    def mean(theta):
        y = vb.simulate(vb.bind(sim, theta), t1=T1, key=None).ys["y"]
        return jnp.concatenate([y["r"].ravel(), y["V"].ravel()])

    def simulator(theta, key):
        clean = mean(theta)
        return clean + SIGMA * jax.random.normal(key, clean.shape)

    def likelihood(sd):
        return lambda theta, x: dist.Normal(mean(theta), sd).log_prob(x).sum()

    held = vb.sample_prior_predictive(prior, simulator, n=args.data_sets, key=jax.random.key(1), progress=False)
    for name, sd in (("right noise", SIGMA), ("half the noise", SIGMA / 2)):
        sampler, began, cpu = vb.sampling.ChainSampler(prior, likelihood(sd)), time.perf_counter(), time.process_time()
        result = vb.diagnostics.sbc(sampler, held, num_posterior_samples=args.draws, key=jax.random.key(2))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(f"{name}: {result.verdict}, {args.data_sets} data sets, {wall:.0f} s wall, {cpu:.0f} s CPU")
        for finding in result.findings:
            print("  ", finding)
    return 0


if __name__ == "__main__":
    sys.exit(main())
