"""Time of the log-density of a long path, all steps side by side, against the same one step after another.

`vb.likelihoods.transition_log_prob` of Montbrio-Pazo-Roxin under Euler with additive noise: one node through 524,288
steps, and 84 regions with dense random weights through 16,384. The sequential evaluation is a `lax.scan` over the same
steps, written out for this model. Values and gradients (with respect to the path, eta and sigma) are compared; time is
CPU time of this process, pinned to one core: means of 10 calls in a row, medians of interleaved repeats.
"""

import sys
from functools import partial
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table, weights

CASES = {"1 node x 524,288": (1, 524_288), "84 regions x 16,384": (84, 16_384)}
DT, WANTED, CALLS = 0.01, 3.0, 10


def simulator(n: int) -> Any:
    """The network, its coupling at once."""
    import numpy as np

    import vbinfer as vb

    w = weights(n) if n > 1 else np.zeros((1, 1))
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(J=14.5, eta=-4.6, Delta=0.7),
        vb.Connectome(w, np.zeros_like(w)),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.integrators.Euler(dt=DT),
        noise=vb.noise.Additive({"r": 0.01, "V": 0.3}),
    )


def sequential(n: int) -> Any:
    """The same log-density as a scan: `(theta, path) -> number`."""
    import jax
    import jax.numpy as jnp

    w = jnp.asarray(weights(n) if n > 1 else [[0.0]], jnp.result_type(float))

    def log_prob(theta: Any, path: Any) -> Any:
        eta, scale = theta["model.eta"], {"r": theta["noise.sigma.r"] * DT**0.5, "V": 0.3 * DT**0.5}

        def step(total: Any, pair: Any) -> Any:
            (r, V), (new_r, new_V) = pair
            dr = 0.7 / jnp.pi + 2.0 * r * V
            dV = V**2 - (jnp.pi * r) ** 2 + 14.5 * r + eta + 0.5 * (w @ r)
            z_r, z_V = (new_r - r - DT * dr) / scale["r"], (new_V - V - DT * dV) / scale["V"]
            log_z = -0.5 * (z_r**2 + z_V**2) - jnp.log(scale["r"] * scale["V"] * 2.0 * jnp.pi)
            return total + log_z.sum(), None

        before, after = (tuple(path[k][s] for k in "rV") for s in (slice(None, -1), slice(1, None)))
        return jax.lax.scan(step, jnp.zeros(()), (before, after))[0]

    return log_prob


def prepared(n: int, steps: int) -> tuple[dict[str, Any], list[Any]]:
    """Compiled evaluations by name, ready to be called, and what they give."""
    import jax
    import jax.numpy as jnp

    import vbinfer as vb

    sim = simulator(n)
    path = vb.simulate(sim, t1=(steps + 1) * DT, key=jax.random.key(0)).ys["raw"]
    path = {"r": jnp.maximum(path["r"], 1e-3), "V": path["V"]}
    theta = {"model.eta": jnp.asarray(-4.6), "noise.sigma.r": jnp.asarray(0.01)}

    def parallel(theta: Any, path: Any) -> Any:
        return vb.likelihoods.transition_log_prob(vb.bind(sim, theta), path)

    calls, values = {}, []
    for name, fn in (("parallel", parallel), ("sequential", sequential(n))):
        for what, made in (("value", fn), ("gradient", jax.grad(fn, argnums=(0, 1)))):
            ready = jax.jit(made).lower(theta, path).compile()
            values.append(jax.block_until_ready(ready(theta, path)))
            calls[f"{name}, {what}"] = partial(lambda f: jax.block_until_ready(f(theta, path)), ready)
    return calls, values


def agreement(values: list[Any]) -> float:
    """The largest relative difference of the two values and of the largest entries of the gradients."""
    import jax
    import numpy as np

    (a, da), (b, db) = values[:2], values[2:]
    gaps = [abs(float(a) - float(b)) / abs(float(b))]
    for x, y in zip(jax.tree.leaves(da), jax.tree.leaves(db), strict=True):
        gaps.append(float(np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(np.asarray(y)).max()))
    return max(gaps)


def seconds_of(call: Any) -> float:
    """CPU seconds of a call, one of several in a row."""
    return cpu_seconds(lambda: [call() for _ in range(CALLS)]) / CALLS


def main() -> int:
    args = options(__doc__)
    pin(args.core)
    where = host()
    header(f"log-density of a path, one core, {args.repeats} interleaved repeats", where)
    import jax

    results: dict[str, Any] = {}
    for case, (n, steps) in CASES.items():
        with jax.enable_x64(True):
            gap = agreement(prepared(n, 2_048)[1])
        assert gap < 1e-9, f"{case}: the two evaluations differ by {gap:.2g}"
        calls, _ = prepared(n, steps)
        took = interleaved({name: partial(seconds_of, call) for name, call in calls.items()}, args.repeats)
        print(f"{case} (values and gradients equal to {gap:.0e} in float64)")
        table(
            ("", "ms", "range", "ns per node and step"),
            [
                (k, f"{1e3 * median(v):.2f}", spread(v, 1e-3), f"{1e9 * median(v) / n / steps:.2f}")
                for k, v in took.items()
            ],
        )
        ratios = {
            what: median(took[f"sequential, {what}"]) / median(took[f"parallel, {what}"])
            for what in ("value", "gradient")
        }
        print(f"side by side is {ratios['value']:.1f} times as fast, its gradient {ratios['gradient']:.1f} times\n")
        results[case] = {"seconds": took, "ratios": ratios, "gap": gap}
    gain = results[next(iter(CASES))]["ratios"]["value"]
    print(f"the gain for one node is {gain:.1f}; wanted: at least {WANTED:g}")
    finish(args.json, where, results)
    return int(gain < WANTED)


if __name__ == "__main__":
    sys.exit(main())
