"""A network of two models with delays, 84 regions, Heun, on one core: vbinfer, and TVB with one of the two everywhere.

Dense random weights, lengths uniform in 5 to 150 mm, 3 mm/ms (lags of 17 to 500 steps of 0.1 ms), linear coupling, no
noise, the mean of what every node sends at the end of each ms. vbinfer: 42 nodes of Montbrio-Pazo-Roxin and 42 of
Wilson-Cowan between each other, 64 draws with a G of their own together. TVB 2.10 has one model for all nodes: it runs
84 nodes of the one or of the other, one simulation after the other, and evaluates the coupling once per step, vbinfer
twice.

Every repeat is a new process of each package, in turn, pinned to the same core; the first call, which compiles, is
apart. A network step is one Heun step of all regions of one draw: 10,000 are a simulated second.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _peers import Case, compare, environment, measure
from _timing import interleaved, options, pin, weights, worker
from peers_delays import DT, LONGEST, SAMPLE, SPEED, STEPS, lengths

HERE = str(Path(__file__).resolve())
N, BATCH = 84, 64
LOW, HIGH = 0.1, 0.4


def vbinfer() -> dict[str, Case]:
    """Both models in one network, 64 draws."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    groups = {"cortex": vb.models.MontbrioPazoRoxin(), "thalamus": vb.models.WilsonCowan()}
    where = ["cortex", "thalamus"] * (N // 2)
    sim = vb.Simulator(
        vb.models.Mixed(groups, where=where, sends={"cortex": "r", "thalamus": "E"}),
        vb.Connectome(weights(N), lengths(), speed=SPEED),
        coupling=vb.coupling.Linear(G=0.0),
        integrator=vb.Heun(dt=DT),
        delays=vb.Delays(max=LONGEST / SPEED),
        monitors={"sent": vb.monitors.Subsample(period=SAMPLE * DT, var="sent")},
    )
    forward = vb.ForwardModel(sim, t1=STEPS * DT, summary=lambda y: y.mean(axis=0))
    theta = {"coupling.G": jnp.linspace(LOW, HIGH, BATCH)}
    keys = jax.random.split(jax.random.key(0), BATCH)
    return {"vbinfer, mixed, 64 draws": ((lambda _: np.asarray(forward.batch(theta, keys))), BATCH * STEPS)}


def tvb() -> dict[str, Case]:
    """One model on all nodes, one simulation."""
    import numpy as np
    from tvb.datatypes.connectivity import Connectivity
    from tvb.simulator import models
    from tvb.simulator.coupling import Linear
    from tvb.simulator.integrators import HeunDeterministic
    from tvb.simulator.monitors import SubSample
    from tvb.simulator.simulator import Simulator

    def case(model: Any, start: list[float]) -> Case:
        place = {"centres": np.zeros((N, 3)), "region_labels": np.array([f"r{i}" for i in range(N)])}
        slots = round(LONGEST / SPEED / DT) + 1
        sim = Simulator(
            model=model,
            connectivity=Connectivity(weights=weights(N), tract_lengths=lengths(), speed=np.array([SPEED]), **place),
            coupling=Linear(a=np.array([HIGH])),
            integrator=HeunDeterministic(dt=DT),
            monitors=[SubSample(period=SAMPLE * DT)],
            simulation_length=STEPS * DT,
            initial_conditions=np.broadcast_to(np.array(start)[None, :, None, None], (slots, 2, N, 1)).copy(),
        )

        def run(_: int) -> Any:
            sim.configure()  # starts anew from the initial conditions
            ((_, ys),) = sim.run()
            assert np.isfinite(ys).all()
            return ys

        return run, STEPS

    return {
        "tvb, Montbrio-Pazo-Roxin": case(models.MontbrioPazoRoxin(variables_of_interest=["r"]), [0.0, -2.0]),
        "tvb, Wilson-Cowan": case(models.WilsonCowan(variables_of_interest=["E"]), [0.1, 0.1]),
    }


TARGETS = {("vbinfer, mixed, 64 draws", f"tvb, {name}"): 50.0 for name in ("Montbrio-Pazo-Roxin", "Wilson-Cowan")}


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        print(json.dumps(measure({"vbinfer": vbinfer, "tvb": tvb}[args.worker]())))
        return
    start = partial(worker, script=HERE, core=args.core)
    cases = {
        "vbinfer": partial(start, sys.executable, name="vbinfer"),
        "tvb": partial(start, environment(), name="tvb"),
    }
    about = f"two models, {N} regions, delays up to {LONGEST / SPEED:g} ms, dt = {DT:g} ms, Heun, one core"
    compare(f"{about}, {args.repeats} interleaved repeats", interleaved(cases, args.repeats), TARGETS, args.json)


if __name__ == "__main__":
    main()
