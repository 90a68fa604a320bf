"""Cells of vb.cable on one core: throughput, gradients, the tree solve, and Jaxley beside it where it is installed.

1,024 single compartments of the squid axon with conductances and currents of their own, 100 ms; for 20 ms a branched
cell of 601 compartments, the same channel everywhere, 64 draws, 16 and one; its gradient with a checkpoint; a solve of
10,000 compartments of an unbranched cable against 1,000. dt = 0.025 ms, float32, second order. Jaxley 0.14 runs the
single compartments by `jax.vmap` and its own Crank-Nicolson, gates in their steady state. Cases run in turn; the first
call, which compiles, is apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table

DT, MS, LONG = 0.025, 20.0, 100.0
SINGLE, BATCH = 1_024, 64


def sections(n: int) -> list[dict[str, Any]]:
    """A soma and n sections of four compartments, each on a random one of those before."""
    import numpy as np

    rng = np.random.default_rng(0)
    found: list[dict[str, Any]] = [{"length": 30.0, "radius": 8.0, "parent": None, "region": "soma"}]
    for k in range(1, n + 1):
        parent = 0 if k < 6 else int(rng.integers(max(1, k // 2 - 3), max(2, k // 2 + 3)))
        found.append({"length": rng.uniform(40, 120), "radius": rng.uniform(0.3, 1.5), "n": 4, "parent": parent})
    return found


def forward(comp: Any, ms: float = MS) -> Any:
    """The forward model of a cell with the squid axon's channels everywhere, recorded at one site."""
    import vbinfer as vb

    cell = vb.cable.Cell(comp, {"all": vb.cable.HH()}, sites={"soma": 0})
    monitors = {"v": vb.monitors.Subsample(1.0, var="V")}
    stimulus = vb.stimuli.Pulse(1.0, 50.0, 0.1)
    sim = vb.Simulator(cell, integrator=vb.Native(dt=DT), stimulus=stimulus, monitors=monitors)
    return vb.ForwardModel(sim, t1=ms, summary=lambda v: v[:, 0])


def batch(comp: Any, n: int, ms: float = MS) -> tuple[Callable[[], Any], int]:
    """n draws, and compartments times steps."""
    import jax
    import jax.numpy as jnp

    model, keys = forward(comp, ms), jax.random.split(jax.random.key(0), n)
    theta = {"model.all.hh.g_na": jnp.linspace(0.1, 0.14, n), "stimulus.amplitude": jnp.linspace(0.05, 0.2, n)}
    return lambda: model.batch(theta, keys).block_until_ready(), n * comp.n * round(ms / DT)


def gradient(comp: Any) -> tuple[Callable[[], Any], int]:
    """The gradient of 16 draws, steps in segments of 28."""
    import jax
    import jax.numpy as jnp

    import vbinfer as vb

    sim, names = forward(comp).sim, ("model.all.hh.g_na", "model.all.hh.g_k", "model.radius_scale")

    def loss(v: Any) -> Any:
        bound = vb.bind(sim, dict(zip(names, v, strict=True)))
        return jnp.mean(vb.simulate(bound, t1=MS, key=None, checkpoint=(28,)).ys["v"] ** 2)

    at = jnp.linspace(0.9, 1.1, 16)[:, None] * jnp.asarray([0.12, 0.036, 1.0])
    program = jax.jit(jax.vmap(jax.grad(loss)))
    return lambda: program(at).block_until_ready(), 16 * comp.n * round(MS / DT)


def solve(n: int) -> tuple[Callable[[], Any], int]:
    """A solve and its derivative on a cable of n compartments."""
    import jax
    import jax.numpy as jnp

    import vbinfer as vb
    from vbinfer.cable.tree import tree_of

    comp = vb.cable.cylinder(20.0 * n, 1.0, n)
    R = vb.cable.Cell(comp, {"all": vb.cable.Leak()}).parts_now().resistance
    program = jax.jit(jax.grad(lambda e, b: tree_of(comp).solve(e, b, R).sum()))
    e, b = jnp.full(n, 1e-2), jnp.linspace(0.1, 1.0, n)
    return lambda: program(e, b).block_until_ready(), n


def jaxley() -> tuple[Callable[[], Any], int] | None:
    """The single compartments in Jaxley, if it is there."""
    try:
        import jaxley as jx
        from jaxley.channels import HH
    except ImportError:
        return None
    import jax
    import jax.numpy as jnp

    one = jx.Compartment()
    one.insert(HH())
    for name, value in {"length": 20.0, "radius": 10.0, "v": -65.0}.items():
        one.set(name, value)
    one.init_states()
    one.record(verbose=False)
    one.make_trainable("HH_gNa", verbose=False)
    one.to_jax()
    steps = round(LONG / DT)
    pulse = (jnp.arange(steps) >= round(1.0 / DT)).astype(float)

    def run(g: Any, amplitude: Any) -> Any:
        stimulus = one.data_stimulate(amplitude * pulse, None)
        options = {"delta_t": DT, "t_max": LONG, "solver": "crank_nicolson"}
        return jx.integrate(one, params=[{"HH_gNa": g[None]}], data_stimuli=stimulus, **options)[0, :: round(1.0 / DT)]

    program = jax.jit(jax.vmap(run))
    at = jnp.linspace(0.1, 0.14, SINGLE), jnp.linspace(0.05, 0.2, SINGLE)
    return lambda: program(*at).block_until_ready(), SINGLE * steps


def main() -> None:
    args = options(__doc__, repeats=3)
    where = host() | {"pinned": pin(args.core)}
    import vbinfer as vb

    header("cells of vb.cable, one core", where)
    cell, one = vb.cable.sections(sections(150)), vb.cable.single(20.0, 10.0)
    cases = {
        f"{SINGLE} compartments": batch(one, SINGLE, LONG),
        f"{SINGLE} compartments, jaxley": jaxley(),
        f"{cell.n} compartments, {BATCH} draws": batch(cell, BATCH),
        f"{cell.n} compartments, 16 draws": batch(cell, 16),
        f"{cell.n} compartments, 1 draw": batch(cell, 1),
        f"{cell.n} compartments, gradient of 16": gradient(cell),
        "solve and derivative, 1,000": solve(1_000),
        "solve and derivative, 10,000": solve(10_000),
    }
    present = {name: case for name, case in cases.items() if case is not None}
    compiled = {name: cpu_seconds(fn) for name, (fn, _) in present.items()}
    took = interleaved({name: partial(cpu_seconds, fn) for name, (fn, _) in present.items()}, args.repeats)
    rows = [
        [
            name,
            f"{compiled[name]:.1f}",
            f"{1e3 * median(took[name]):.1f}",
            spread(took[name], 1e-3),
            f"{n / median(took[name]) / 1e6:.1f}",
        ]
        for name, (_, n) in present.items()
    ]
    table(("case", "first call (s)", "CPU ms", "of repeats", "million compartment-steps per s"), rows)
    finish(args.json, where, {"compiled": compiled, "seconds": took})


if __name__ == "__main__":
    main()
