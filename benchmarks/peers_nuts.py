"""NUTS through 400 Heun steps of a network: `vb.sample_mcmc` against the same model written by hand for numpyro.

Eight Montbrio-Pazo-Roxin populations, dense random weights, r seen every 10 steps with Gaussian noise of known
scale. Ten parameters: G, Delta, and eta of each population. The script by hand is `jax.lax.scan` over a Heun step and
`numpyro.sample`; numbers are float32, the chains of both run in one program (`chain_method="vectorized"`), with the
same prior, data and sizes. Both start from prior draws.

Every repeat is a new process of each, in turn, pinned to the same core: a first run, which compiles, then four runs
with other keys, which count: how long the warm-up takes depends on where the chains start. Times are CPU seconds of
the four; the effective sample size is the sum of the smallest bulk ESS over parameters of each, by ArviZ.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table, weights, worker

HERE = str(Path(__file__).resolve())
N, DT, STEPS, SAMPLE, NOISE = 8, 0.05, 400, 10, 0.05
WARMUP, DRAWS, CHAINS = 300, 300, 4
J, R0, V0 = 14.5, 0.1, -2.0
TRUE = {"G": 0.6, "Delta": 0.8}
SEEDS = (2, 3, 4, 5)
WANTED = 1.0


def eta() -> Any:
    """The excitability of each population in the data."""
    import numpy as np

    return np.linspace(-5.0, -4.2, N, dtype=np.float32)


def by_hand(G: Any, Delta: Any, eta: Any) -> Any:
    """r at every tenth step `[40, 8]`, in plain JAX."""
    import jax
    import jax.numpy as jnp

    w = jnp.asarray(weights(N), jnp.float32)

    def drift(r: Any, v: Any) -> tuple[Any, Any]:
        dr = Delta / jnp.pi + 2.0 * r * v
        return dr, v**2 - (jnp.pi * r) ** 2 + J * r + eta + G * (w @ r)

    def step(y: Any, _: Any) -> tuple[Any, Any]:
        r, v = y
        dr, dv = drift(r, v)
        dr2, dv2 = drift(jnp.maximum(r + DT * dr, 0.0), v + DT * dv)
        r, v = jnp.maximum(r + 0.5 * DT * (dr + dr2), 0.0), v + 0.5 * DT * (dv + dv2)
        return (r, v), r

    start = (jnp.full(N, R0), jnp.full(N, V0))
    return jax.lax.scan(step, start, None, length=STEPS)[1][SAMPLE - 1 :: SAMPLE]


def data() -> Any:
    """The data: the truth with noise."""
    import numpy as np

    clean = np.asarray(by_hand(TRUE["G"], TRUE["Delta"], eta()))
    return clean + NOISE * np.random.default_rng(3).standard_normal(clean.shape).astype(np.float32)


def priors() -> dict[str, Any]:
    import numpyro.distributions as dist

    return {"G": dist.Uniform(0.0, 1.5), "Delta": dist.LogNormal(0.0, 0.3), "eta": dist.Normal(-4.6, 0.4).expand([N])}


def numpyro() -> Any:
    """A run of the script by hand, of a seed: theta and the sampler's statistics."""
    import jax
    import jax.numpy as jnp
    import numpyro as npy
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS, init_to_sample

    y = jnp.asarray(data())

    def model(y: Any) -> None:
        theta = {name: npy.sample(name, d.to_event(len(d.batch_shape))) for name, d in priors().items()}
        npy.sample("y", dist.Normal(by_hand(theta["G"], theta["Delta"], theta["eta"]), NOISE).to_event(2), obs=y)

    mcmc = MCMC(
        NUTS(model, init_strategy=init_to_sample),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )

    def run(seed: int) -> tuple[dict[str, Any], Any]:
        mcmc.run(jax.random.key(seed), y, extra_fields=("num_steps", "diverging"))
        return mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)

    return run


def vbinfer() -> Any:
    """The same with vbinfer."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist

    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.MontbrioPazoRoxin(J=J, Delta=1.0, eta=jnp.full(N, -4.6)),
        vb.Connectome(weights(N), np.zeros((N, N))),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=DT),
        monitors={"r": vb.monitors.Subsample(period=SAMPLE * DT, var="r")},
    )
    init = sim.model.State(jnp.full(N, R0), jnp.full(N, V0))
    paths = {"G": "coupling.G", "Delta": "model.Delta", "eta": "model.eta"}
    prior = vb.Prior({paths[name]: d for name, d in priors().items()})

    def log_likelihood(theta: Any, y: Any) -> Any:
        r = vb.simulate(vb.bind(sim, theta), t1=STEPS * DT, key=None, init=init).ys["r"]
        return dist.Normal(r, NOISE).log_prob(y).sum()

    y = jnp.asarray(data())

    def run(seed: int) -> tuple[dict[str, Any], Any]:
        posterior = vb.sample_mcmc(
            prior,
            log_likelihood,
            y,
            num_warmup=WARMUP,
            num_samples=DRAWS,
            num_chains=CHAINS,
            chain_method="vectorized",
            key=jax.random.key(seed),
        )
        return {name: posterior.theta[path] for name, path in paths.items()}, posterior.sample_stats

    return run


CASES = {"vbinfer": vbinfer, "numpyro by hand": numpyro}


def measure(name: str) -> dict[str, Any]:
    """CPU seconds of the first run and of the second one, its effective sample size and number of gradients."""
    import arviz as az
    import numpy as np

    run = CASES[name]()
    compiled = cpu_seconds(lambda: run(1))
    out: list[Any] = []
    took = cpu_seconds(lambda: out.extend(run(seed) for seed in SEEDS))
    sets = [az.convert_to_dataset({key: np.asarray(value) for key, value in theta.items()}) for theta, _ in out]
    flat = [
        np.concatenate([np.asarray(theta[key]).reshape(CHAINS * DRAWS, -1) for key in ("G", "Delta", "eta")], 1)
        for theta, _ in out
    ]
    every = np.concatenate(flat)
    return {
        "seconds": took,
        "first": compiled,
        "ess": sum(min(float(value.min()) for value in az.ess(data).data_vars.values()) for data in sets),
        "steps": sum(int(np.asarray(stats["num_steps"]).sum()) for _, stats in out),
        "divergences": sum(int(np.asarray(stats["diverging"]).sum()) for _, stats in out),
        "rhat": max(float(value.max()) for data in sets for value in az.rhat(data).data_vars.values()),
        "mean": every.mean(0).tolist(),
        "sd": every.std(0).tolist(),
    }


def main() -> int:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        print(json.dumps(measure(args.worker)))
        return 0
    where = host()
    header(f"NUTS through {STEPS} steps of {N} populations, {CHAINS} chains of {WARMUP} + {DRAWS}, one core", where)
    start = partial(worker, sys.executable, HERE, core=args.core)
    runs = interleaved({name: partial(start, name=name) for name in CASES}, args.repeats)
    rows, speed = [], {}
    for name, values in runs.items():
        speed[name] = [value["ess"] / value["seconds"] for value in values]
        took = [value["seconds"] for value in values]
        rows.append(
            (
                name,
                f"{median(took):.1f}",
                spread(took),
                f"{median([value['first'] for value in values]):.1f}",
                f"{median([value['ess'] for value in values]):.0f}",
                f"{median([value['steps'] for value in values]):,.0f}",
                f"{median([value['rhat'] for value in values]):.3f}",
                f"{median(speed[name]):.2f}",
            )
        )
    table(("", "CPU s", "range", "first CPU s", "ESS", "leapfrogs", "R-hat", "ESS per s"), rows)
    ratios = [ours / theirs for ours, theirs in zip(speed["vbinfer"], speed["numpyro by hand"], strict=True)]
    ours, theirs = (runs[name][0] for name in CASES)
    apart = max(abs(a - b) / s for a, b, s in zip(ours["mean"], theirs["mean"], theirs["sd"], strict=True))
    print(f"posterior means are at most {apart:.2f} posterior sd apart")
    print(f"ESS per second over the script's: {median(ratios):.2f} ({spread(ratios)}); wanted: at least {WANTED:g}")
    finish(args.json, where, {"ratios": ratios, "wanted": WANTED, "runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
