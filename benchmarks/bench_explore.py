"""Time of covariances and of stability maps, against SciPy.

Covariance of a linear system of 168 states: SciPy's Lyapunov solver (the value alone), and the value with its gradient
to 84 x 84 weights, both in 64 bits. A stability map of 84 coupled Montbrio-Pazo-Roxin nodes over G and eta, 4 starts at
each point, without and with delays; and Newton's method alone against `scipy.optimize.root` with the analytic Jacobian,
from the same starts. One core, CPU time, medians of interleaved repeats; compilation apart.
"""

import sys
from functools import partial
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table, weights

N, POINTS, DELAYED = 84, 6, 2
WANTED = {"covariance": 3.0, "newton": 10.0, "map": 35.0, "map with delays": 360.0}


def covariances() -> dict[str, Any]:
    """Calls by name."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from scipy.linalg import solve_continuous_lyapunov

    from vbinfer.explore.stationary import covariance

    n = 2 * N
    w = weights(N)
    rest = np.random.default_rng(1).normal(size=(n, n)) * 0.02 - np.diag(np.linspace(0.2, 4.0, n))
    Q = np.diag(np.linspace(0.1, 1.0, n))

    def loss(w: Any, rest: Any, Q: Any) -> Any:
        return (covariance(rest.at[:N, N:].add(0.1 * w), Q) ** 2).sum()

    with jax.enable_x64(True):
        given = tuple(map(jnp.asarray, (w, rest, Q)))
        ready = jax.jit(jax.value_and_grad(loss)).lower(*given).compile()
        value = float(ready(*given)[0])
    A = rest.copy()
    A[:N, N:] += 0.1 * w
    exact = (solve_continuous_lyapunov(A, -Q) ** 2).sum()
    assert abs(value / exact - 1.0) < 1e-10, f"the two differ by {value / exact - 1.0:.2g}"
    return {
        "SciPy, value": lambda: solve_continuous_lyapunov(A, -Q),
        "vbinfer, value and gradient": lambda: jax.block_until_ready(ready(*given)),
    }


def simulator(delays: bool) -> Any:
    """The network."""
    import numpy as np

    import vbinfer as vb

    lengths = np.random.default_rng(2).uniform(10.0, 150.0, (N, N))
    return vb.Simulator(
        vb.models.MontbrioPazoRoxin(J=14.5, eta=-4.6, Delta=0.7),
        vb.Connectome(weights(N), lengths, speed=5.0),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=0.01),
        delays=vb.Delays() if delays else None,
    )


def mapped(sim: Any, points: int) -> Any:
    """The map, `[points, points]`."""
    import jax
    import numpy as np

    import vbinfer as vb

    grid = {"coupling.G": np.linspace(0.1, 1.0, points), "model.eta": np.linspace(-6.0, -4.0, points)}
    return vb.stability(sim, grid, key=jax.random.key(0), starts=4)


def newtons() -> dict[str, Any]:
    """Newton's method from 8 starts, ours and SciPy's."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from scipy.optimize import root

    from vbinfer.explore import drift
    from vbinfer.explore.equilibria import ends_of, start_states

    sim, w = simulator(False), weights(N)
    with drift.x64():
        precise = drift.precise(sim)
        starts = np.asarray(start_states(precise, jax.random.key(1), 8))

    def f(y: Any) -> Any:
        r, V = y[:N], y[N:]
        dV = V**2 - (np.pi * r) ** 2 + 14.5 * r - 4.6 + 0.5 * (w @ r)
        return np.concatenate([0.7 / np.pi + 2.0 * r * V, dV])

    def jacobian(y: Any) -> Any:
        r, V = y[:N], y[N:]
        below = np.diag(14.5 - 2.0 * np.pi**2 * r) + 0.5 * w
        return np.block([[np.diag(2.0 * V), np.diag(2.0 * r)], [below, np.diag(2.0 * V)]])

    def ours() -> Any:
        with drift.x64():
            return ends_of(precise, jnp.asarray(starts))

    return {"SciPy, 8 starts": lambda: [root(f, y, jac=jacobian) for y in starts], "vbinfer, 8 starts": ours}


def main() -> int:
    args = options(__doc__, repeats=3)
    pin(args.core)
    where = host()
    header(f"linear systems and maps, one core, {args.repeats} interleaved repeats", where)
    calls = {**covariances(), **newtons()}
    for call in calls.values():
        call()
    took = interleaved({name: partial(cpu_seconds, call) for name, call in calls.items()}, args.repeats)
    table(("", "ms", "range"), [(k, f"{1e3 * median(v):.1f}", spread(v, 1e-3)) for k, v in took.items()])
    ratios = {
        "covariance": median(took["vbinfer, value and gradient"]) / median(took["SciPy, value"]),
        "newton": median(took["SciPy, 8 starts"]) / median(took["vbinfer, 8 starts"]),
    }
    print(f"value and gradient take {ratios['covariance']:.2f} times SciPy's value; wanted: at most 3")
    print(f"Newton's method is {ratios['newton']:.1f} times as fast as SciPy's; wanted: at least 10")
    for name, delays, points in (("map", False, POINTS), ("map with delays", True, DELAYED)):
        sim = simulator(delays)
        mapped(sim, 1)  # compile
        each = cpu_seconds(partial(mapped, sim, points)) / points**2
        ratios[name] = each * 1024.0
        print(f"{name}: {1e3 * each:.0f} ms a point, {ratios[name]:.0f} s for 32 x 32; wanted: {WANTED[name]:.0f} s")
    finish(args.json, where, {"seconds": took, "ratios": ratios})
    missed = [ratios[k] > WANTED[k] for k in WANTED if k != "newton"] + [ratios["newton"] < WANTED["newton"]]
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
