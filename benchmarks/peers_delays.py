"""The Jansen-Rit network of 84 regions with delays, Heun, on one core: vbinfer, JAX written plainly, tvboptim, TVB.

The same problem for all: dense random weights, lengths uniform in 5 to 150 mm, 3 mm/ms (lags of 17 to 500 steps
of 0.1 ms, rounded to steps), linear coupling through y1, no noise, 64 draws with a G of their own, the mean of y1 at
the end of each ms returned. Speed is the same for all draws, or each draw's own between 3 and 6 mm/ms, so that no lag
is shared.

"gather" is what comes to mind first in JAX: one draw keeps a ring of past y1 `[slots, 84]`, reads the delayed sources
of every region as `[84, 84]`, multiplies by the weights and sums; `vmap` does the draws. It evaluates the coupling in
both stages of Heun, as vbinfer does, and is checked against it. tvboptim and TVB evaluate it once per step; tvboptim is
timed with the circular buffer that it recommends where delays are swept, and with its default one. Where draws share
their lags, vbinfer reads the 10 steps between samples at once (24 would do), and the few connections with lags of up to
24 steps one by one. TVB runs one simulation.

Every repeat is a new process of each package, in turn, pinned to the same core; the first call, which compiles, is
apart. A network step is one Heun step of all regions of one draw.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _peers import CALLS, Case, compare, environment, measure
from _timing import interleaved, options, pin, weights, worker

HERE = str(Path(__file__).resolve())
N, DT, BATCH, SAMPLE, STEPS = 84, 0.1, 64, 10, 1_000
SHORTEST, LONGEST, SPEED, FASTEST = 5.0, 150.0, 3.0, 6.0
SLOTS = round(LONGEST / SPEED / DT) + 1
LOW, HIGH = 0.0, 2e-3
JR = {"A": 3.25, "B": 22.0, "a": 0.1, "b": 0.05, "v0": 5.52, "nu_max": 0.0025, "r": 0.56, "J": 135.0, "mu": 0.22}
PARTS = {"a_1": 1.0, "a_2": 0.8, "a_3": 0.25, "a_4": 0.25}
START = (0.05, 12.0, 8.0, 0.0, 0.0, 0.0)
SHARED, OWN = "one speed", "a speed per draw"


def lengths() -> Any:
    """Tract lengths `[84, 84]`, mm, the longest exactly 150."""
    import numpy as np

    length = np.random.default_rng(1).uniform(SHORTEST, LONGEST, (N, N))
    length[0, -1] = LONGEST
    return length


def draws() -> tuple[Any, Any]:
    """G and speed of each of the 64 draws."""
    import numpy as np

    return np.linspace(LOW, HIGH, BATCH, dtype=np.float32), np.linspace(SPEED, FASTEST, BATCH, dtype=np.float32)


def drift(y: Any, c: Any) -> Any:
    """Right-hand side of Jansen and Rit (1995), coupling c with the input of the excitatory interneurons."""
    import jax.numpy as jnp

    p = {**JR, **PARTS}

    def sigmoid(v: Any) -> Any:
        return 2.0 * p["nu_max"] / (1.0 + jnp.exp(p["r"] * (p["v0"] - v)))

    y0, y1, y2, y3, y4, y5 = y
    excite, inhibit, a, b = p["A"] * p["a"], p["B"] * p["b"], p["a"], p["b"]
    drive = p["mu"] + p["a_2"] * p["J"] * sigmoid(p["a_1"] * p["J"] * y0) + c
    back = p["a_4"] * p["J"] * sigmoid(p["a_3"] * p["J"] * y0)
    return jnp.stack(
        [
            y3,
            y4,
            y5,
            excite * sigmoid(y1 - y2) - 2.0 * a * y3 - a**2 * y0,
            excite * drive - 2.0 * a * y4 - a**2 * y1,
            inhibit * back - 2.0 * b * y5 - b**2 * y2,
        ]
    )


def gather() -> dict[str, Case]:
    """Delays by a vmapped read from a ring of each draw's own, in plain JAX."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    w, length, sources = jnp.asarray(weights(N), jnp.float32), jnp.asarray(lengths(), jnp.float32), jnp.arange(N)
    G, speeds = map(jnp.asarray, draws())

    def one(G: Any, speed: Any, seed: Any) -> Any:
        lags = jnp.rint(length / speed / DT).astype(jnp.int32)
        y0 = jnp.broadcast_to(jnp.array(START)[:, None], (6, N)) * (1.0 + 0.0 * seed)

        def couple(ring: Any, now: Any) -> Any:
            return G * (w * ring[(now - lags) % SLOTS, sources]).sum(axis=1)

        def step(carry: Any, now: Any) -> Any:
            y, ring = carry
            first = drift(y, couple(ring, now))
            middle = y + DT * first
            ring = ring.at[(now + 1) % SLOTS].set(middle[1])
            y = y + 0.5 * DT * (first + drift(middle, couple(ring, now + 1)))
            return (y, ring.at[(now + 1) % SLOTS].set(y[1])), None

        def stretch(carry: Any, begin: Any) -> Any:
            carry = jax.lax.scan(step, carry, begin + jnp.arange(SAMPLE))[0]
            return carry, carry[0][1]

        ring = jnp.broadcast_to(y0[1], (SLOTS, N))
        return jax.lax.scan(stretch, (y0, ring), jnp.arange(0, STEPS, SAMPLE))[1].mean(axis=0)

    def case(axis: int | None, speed: Any) -> Case:
        run = jax.jit(jax.vmap(one, in_axes=(0, axis, None)))
        return (lambda seed: np.asarray(run(G, speed, jnp.float32(seed)))), BATCH * STEPS

    return {f"gather, {SHARED}": case(None, jnp.float32(SPEED)), f"gather, {OWN}": case(0, speeds)}


def vbinfer() -> dict[str, Case]:
    """The same with vbinfer."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.JansenRit(**JR, **PARTS),
        vb.Connectome(weights(N), lengths(), speed=SPEED),
        coupling=vb.coupling.Linear(G=0.0),
        integrator=vb.Heun(dt=DT),
        delays=vb.Delays(max=LONGEST / SPEED),
        monitors={"y1": vb.monitors.Subsample(period=SAMPLE * DT, var="y1")},
    )
    init = sim.model.State(*(jnp.full(N, value) for value in START))
    forward = vb.ForwardModel(sim, t1=STEPS * DT, summary=lambda y: y.mean(axis=0), init=init)
    G, speeds = map(jnp.asarray, draws())

    def case(theta: dict[str, Any]) -> Case:
        keys = jax.random.split(jax.random.key(0), BATCH)
        return (lambda _: np.asarray(forward.batch(theta, keys))), BATCH * STEPS

    shared = {"coupling.G": G}
    return {f"vbinfer, {SHARED}": case(shared), f"vbinfer, {OWN}": case({**shared, "connectome.speed": speeds})}


def tvboptim() -> dict[str, Case]:
    """The same with tvboptim: its network, prepared once, mapped over G and speed."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from tvboptim.experimental.network_dynamics import DenseLengthGraph, Network, prepare
    from tvboptim.experimental.network_dynamics.coupling import DelayedLinearCoupling
    from tvboptim.experimental.network_dynamics.dynamics.tvb import JansenRit
    from tvboptim.experimental.network_dynamics.solvers import Heun

    G, speeds = map(jnp.asarray, draws())
    longest = LONGEST / SPEED

    def case(buffer: str, own_speed: bool) -> Case:
        graph = DenseLengthGraph(
            jnp.asarray(weights(N), jnp.float32), jnp.asarray(lengths(), jnp.float32), SPEED, max_delay_bound=longest
        )
        coupling = DelayedLinearCoupling(incoming_states="y1", G=0.0, buffer_strategy=buffer)
        model = JansenRit(**JR, **PARTS, INITIAL_STATE=START, VARIABLES_OF_INTEREST=("y1",))
        solve, config = prepare(
            Network(model, {"delayed": coupling}, graph),
            Heun(),
            t0=0.0,
            t1=STEPS * DT,
            dt=DT,
        )

        def one(G: Any, speed: Any) -> Any:
            own = jax.tree.map(lambda leaf: leaf, config)
            own.coupling.delayed.G = G
            own.graph.speed = speed
            return solve(own).ys[SAMPLE - 1 :: SAMPLE, 0].mean(axis=0)

        run = jax.jit(jax.vmap(one, in_axes=(0, 0 if own_speed else None)))
        speed = speeds if own_speed else jnp.float32(SPEED)
        return (lambda _: np.asarray(run(G, speed))), BATCH * STEPS

    return {
        f"tvboptim, {SHARED}": case("circular", False),
        f"tvboptim, {OWN}": case("circular", True),
        f"tvboptim, rolled buffer, {SHARED}": case("roll", False),
    }


def tvb() -> dict[str, Case]:
    """One simulation with TVB, the G and speed of the last draw of those that share a speed."""
    import numpy as np
    from tvb.datatypes.connectivity import Connectivity
    from tvb.simulator.coupling import Linear
    from tvb.simulator.integrators import HeunDeterministic
    from tvb.simulator.models.jansen_rit import JansenRit
    from tvb.simulator.monitors import SubSample
    from tvb.simulator.simulator import Simulator

    place = {"centres": np.zeros((N, 3)), "region_labels": np.array([f"r{i}" for i in range(N)])}
    connectivity = Connectivity(weights=weights(N), tract_lengths=lengths(), speed=np.array([SPEED]), **place)
    parameters = {name: np.array([value]) for name, value in {**JR, **PARTS}.items()}
    sim = Simulator(
        model=JansenRit(variables_of_interest=["y1"], **parameters),
        connectivity=connectivity,
        coupling=Linear(a=np.array([HIGH]), b=np.array([0.0])),
        integrator=HeunDeterministic(dt=DT),
        monitors=[SubSample(period=SAMPLE * DT)],
        simulation_length=STEPS * DT,
        initial_conditions=np.broadcast_to(np.array(START)[None, :, None, None], (SLOTS, 6, N, 1)).copy(),
    )

    def run(_: int) -> Any:
        sim.configure()  # starts anew from the initial conditions
        (_, ys), *_ = sim.run()
        return np.asarray(ys)[:, 0, :, 0].mean(axis=0)[None]

    return {"tvb, one simulation": (run, STEPS)}


def agree(values: dict[str, list[float]]) -> None:
    """Stop unless all computed the same: up to float32 with the coupling in both stages, else to first order in dt."""
    import numpy as np

    for kind in (SHARED, OWN):
        truth = np.array(values[f"gather, {kind}"])
        assert np.ptp(truth) > 0.1, "the draws do not differ"
        for name, value in values.items():
            if name.endswith(kind):
                worst = float(abs(np.array(value) - truth).max())
                tolerance = 1e-2 if name.startswith("tvboptim") else 1e-3
                assert worst < tolerance, f"{name} differs by {worst:.2g} mV from the gather"
    last = abs(values["tvb, one simulation"][0] - values[f"gather, {SHARED}"][-1])
    assert last < 1e-2, f"tvb differs by {last:.2g} mV from the gather"


INFO = Path("/proc/cpuinfo")
WIDE = INFO.exists() and "avx512f" in INFO.read_text()
TARGETS = {
    (f"vbinfer, {SHARED}", f"gather, {SHARED}"): 14.0 if WIDE else 9.0,
    (f"vbinfer, {OWN}", f"gather, {OWN}"): 3.0,
    (f"vbinfer, {SHARED}", f"tvboptim, {SHARED}"): 8.0,
    (f"vbinfer, {SHARED}", f"tvboptim, rolled buffer, {SHARED}"): 8.0,
    (f"vbinfer, {OWN}", f"tvboptim, {OWN}"): None,
    (f"vbinfer, {SHARED}", "tvb, one simulation"): None,
}


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        cases = {"vbinfer": vbinfer, "gather": gather, "tvboptim": tvboptim, "tvb": tvb}[args.worker]()
        speed = measure(cases)
        mean = {name: [float(draw.mean()) for draw in run(0)] for name, (run, _) in cases.items()}
        print(json.dumps({"speed": speed, "mean": mean}))
        return
    peer, start = environment(), partial(worker, script=HERE, core=args.core)
    cases = {
        "vbinfer": partial(start, sys.executable, name="vbinfer"),
        "gather": partial(start, sys.executable, name="gather"),
        "tvboptim": partial(start, peer, name="tvboptim"),
        "tvb": partial(start, peer, name="tvb"),
    }
    runs = interleaved(cases, args.repeats)
    agree({name: value for values in runs.values() for name, value in values[0]["mean"].items()})
    about = (
        f"Jansen-Rit, {N} regions, delays up to {LONGEST / SPEED:g} ms, dt = {DT:g} ms, Heun, {BATCH} draws, one core"
    )
    about = f"{about}, {args.repeats} interleaved repeats of {CALLS} calls"
    compare(about, {name: [value["speed"] for value in values] for name, values in runs.items()}, TARGETS, args.json)


if __name__ == "__main__":
    main()
