"""Cells of vb.cable, Jaxley, NEURON and Arbor on one core: the squid axon's channels, dt = 0.025 ms.

1,024 single compartments with conductances and currents of their own for 100 ms, and for 10 ms the bundled pyramidal
cell in 622 compartments of at most 20 um, the channels everywhere: 64 draws, 16, one, and the gradient to ten
parameters of 16 draws with a checkpoint of two levels. vbinfer and Jaxley (`jax.vmap`, Crank-Nicolson, gates in their
steady state) in float32, NEURON (rates computed, not tabulated; backward Euler, its default) and Arbor in float64; one
cell after the other in NEURON, all in one simulation in Arbor. Compartments are as many as each makes of the rule.

Every repeat is a new process of each package, in turn, pinned to the same core; the first call, which compiles, is
apart. A step is one compartment of one draw, 0.025 ms further.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _peers import Case, compare, environment, measure
from _timing import interleaved, options, pin, worker

HERE = str(Path(__file__).resolve())
SWC = str(Path(__file__).resolve().parent.parent / "data" / "ca1_pyramidal" / "NMO_49821.swc")
DT, LONG, SHORT = 0.025, 100.0, 10.0
SINGLE, BATCH, GRADIENT = 1_024, 64, 16
LONGEST = 20.0
PATHS = ("all.hh.g_na", "all.hh.g_k", "all.hh.g_l", "all.hh.e_na", "all.hh.e_k", "all.hh.e_l")
OTHERS = ("radius_scale", "capacitance", "axial_resistivity")


def vbinfer() -> dict[str, Case]:
    """The bundled cell and single compartments."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    def forward(comp: Any, ms: float) -> Any:
        cell = vb.cable.Cell(comp, {"all": vb.cable.HH()}, sites={"soma": 0})
        monitors = {"v": vb.monitors.Subsample(1.0, var="V")}
        stimulus = vb.stimuli.Pulse(1.0, 200.0, 0.1)
        sim = vb.Simulator(cell, integrator=vb.Native(dt=DT), stimulus=stimulus, monitors=monitors)
        return vb.ForwardModel(sim, t1=ms, summary=lambda v: v[:, 0])

    def draws(comp: Any, n: int, ms: float) -> Case:
        model, keys = forward(comp, ms), jax.random.split(jax.random.key(0), n)
        theta = {"model.all.hh.g_na": jnp.linspace(0.1, 0.14, n), "stimulus.amplitude": jnp.linspace(0.05, 0.2, n)}
        return (lambda _: np.asarray(model.batch(theta, keys))), n * comp.n * round(ms / DT)

    def gradient(comp: Any) -> Case:
        sim = forward(comp, SHORT).sim
        names = [*(f"model.{p}" for p in (*PATHS, *OTHERS)), "stimulus.amplitude"]
        values = jnp.asarray([vb.paths(sim)[name].value for name in names])

        def loss(scale: Any) -> Any:
            bound = vb.bind(sim, dict(zip(names, scale * values, strict=True)))
            return jnp.mean(vb.simulate(bound, t1=SHORT, key=None, checkpoint=(20, 20)).ys["v"] ** 2)

        program = jax.jit(jax.vmap(jax.grad(loss)))
        at = jnp.linspace(0.97, 1.03, GRADIENT)[:, None] * jnp.ones(len(names))
        return (lambda _: np.asarray(program(at))), GRADIENT * comp.n * round(SHORT / DT)

    cell = vb.cable.compartments(vb.load_morphology("ca1-pyramidal"), max_length=LONGEST)
    return {
        "vbinfer, single": draws(vb.cable.single(20.0, 10.0), SINGLE, LONG),
        "vbinfer, cell, 64": draws(cell, BATCH, SHORT),
        "vbinfer, cell, 16": draws(cell, GRADIENT, SHORT),
        "vbinfer, cell, 1": draws(cell, 1, SHORT),
        "vbinfer, gradient": gradient(cell),
    }


def jaxley() -> dict[str, Case]:
    """The same in Jaxley."""
    import jax
    import jax.numpy as jnp
    import jaxley as jx
    import numpy as np
    from jaxley.channels import HH

    def runner(module: Any, site: Any, ms: float) -> Any:
        module.insert(HH())
        module.set("v", -65.0)
        module.init_states()
        site.record(verbose=False)
        return runner_of(module, site, ms)

    def runner_of(module: Any, site: Any, ms: float, checkpoint: Any = None) -> Any:
        module.to_jax()
        steps = round(ms / DT)
        pulse = (jnp.arange(steps) >= round(1.0 / DT)).astype(float)

        def run(params: Any, amplitude: Any) -> Any:
            given = site.data_stimulate(amplitude * pulse, None)
            how = {"delta_t": DT, "t_max": ms, "solver": "crank_nicolson", "checkpoint_lengths": checkpoint}
            return jx.integrate(module, params=params, data_stimuli=given, **how)[0, :: round(1.0 / DT)]

        return run

    def draws(module: Any, run: Any, n: int, ms: float) -> Case:
        program = jax.jit(jax.vmap(lambda g, a: run([{"HH_gNa": g[None]}], a)))
        at = jnp.linspace(0.1, 0.14, n), jnp.linspace(0.05, 0.2, n)
        return (lambda _: np.asarray(program(*at))), n * len(module.nodes) * round(ms / DT)

    one = jx.Compartment()
    one.set("length", 20.0)
    one.set("radius", 10.0)
    single = runner(one, one, LONG)
    one.make_trainable("HH_gNa", verbose=False)
    cell = jx.read_swc(SWC, ncomp=1, max_branch_len=LONGEST)
    whole = runner(cell, cell.branch(0).comp(0), SHORT)
    cell.make_trainable("HH_gNa", verbose=False)
    found = {
        "jaxley, single": draws(one, single, SINGLE, LONG),
        "jaxley, cell, 64": draws(cell, whole, BATCH, SHORT),
        "jaxley, cell, 16": draws(cell, whole, GRADIENT, SHORT),
        "jaxley, cell, 1": draws(cell, whole, 1, SHORT),
    }
    cell.delete_trainables()
    names = [f"HH_{name}" for name in ("gNa", "gK", "gLeak", "eNa", "eK", "eLeak")]
    names += ["radius", "capacitance", "axial_resistivity"]
    for name in names:
        cell.make_trainable(name, verbose=False)
    nested = runner_of(cell, cell.branch(0).comp(0), SHORT, [20, 20])
    values = [next(iter(one.values())) for one in cell.get_parameters()]

    def loss(scale: Any) -> Any:
        params = [{name: scale[k] * value} for k, (name, value) in enumerate(zip(names, values, strict=True))]
        return jnp.mean(nested(params, 0.1 * scale[-1]) ** 2)

    program = jax.jit(jax.vmap(jax.grad(loss)))
    at = jnp.linspace(0.97, 1.03, GRADIENT)[:, None] * jnp.ones(len(names) + 1)
    work = GRADIENT * len(cell.nodes) * round(SHORT / DT)
    return found | {"jaxley, gradient": ((lambda _: np.asarray(program(at))), work)}


def _neuron(name: str, ms: float) -> dict[str, Case]:
    """All sections of this process in NEURON, a current into the first one or into each."""
    import math

    from neuron import h

    sections = list(h.allsec())
    for section in sections:
        section.insert("hh")
    h.usetable_hh = 0
    clamps = [h.IClamp(section(0.5)) for section in (sections if name.endswith("single") else sections[:1])]
    for k, clamp in enumerate(clamps):
        clamp.delay, clamp.dur, clamp.amp = 1.0, 200.0, 0.05 + 0.15 * k / len(clamps)

    def run(_: int) -> float:
        h.dt = DT
        h.finitialize(-65.0)
        for _ in range(round(ms / DT)):
            h.fadvance()
        assert math.isfinite(sections[0](0.5).v)
        return sections[0](0.5).v

    return {name: (run, sum(section.nseg for section in sections) * round(ms / DT))}


def neuron_single() -> dict[str, Case]:
    """Single compartments in NEURON."""
    from neuron import h

    global _kept  # sections live as long as Python's names for them
    _kept = [h.Section(name=f"s{k}") for k in range(SINGLE)]
    for section in _kept:
        section.L, section.diam, section.cm, section.Ra = 20.0, 20.0, 1.0, 100.0
    return _neuron("neuron, single", LONG)


def neuron_cell() -> dict[str, Case]:
    """The bundled cell in NEURON."""
    import math

    from neuron import h

    h.load_file("import3d.hoc")
    reader = h.Import3d_SWC_read()
    reader.input(SWC)
    h.Import3d_GUI(reader, 0).instantiate(None)
    for section in h.allsec():
        section.cm, section.Ra, section.nseg = 1.0, 100.0, max(1, math.ceil(section.L / LONGEST))
    return _neuron("neuron, cell", SHORT)


def arbor() -> dict[str, Case]:
    """The bundled cell in Arbor, 64 of them and one."""
    import arbor as A

    class Recipe(A.recipe):
        def __init__(self, n: int) -> None:
            A.recipe.__init__(self)
            self.n, self.morphology = n, A.load_swc_neuron(SWC).morphology

        def num_cells(self) -> int:
            return self.n

        def cell_kind(self, gid: int) -> Any:
            return A.cell_kind.cable

        def cell_description(self, gid: int) -> Any:
            place = A.decor().set_property(Vm=-65.0 * A.units.mV, cm=0.01 * A.units.F / A.units.m2)
            place = place.set_property(rL=100.0 * A.units.Ohm * A.units.cm).paint("(all)", A.density("hh"))
            place = place.place("(location 0 0.5)", A.i_clamp(1.0 * A.units.ms, 200.0 * A.units.ms, 0.1 * A.units.nA))
            return A.cable_cell(self.morphology, place, None, A.cv_policy_max_extent(LONGEST * A.units.um))

        def global_properties(self, kind: Any) -> Any:
            return A.neuron_cable_properties()

    def case(n: int) -> Case:
        recipe = Recipe(n)
        simulation, ms = A.simulation(recipe, A.context(threads=1)), A.units.ms
        work = n * A.cv_data(recipe.cell_description(0)).num_cv * round(SHORT / DT)
        return (lambda _: (simulation.reset(), simulation.run(SHORT * ms, DT * ms))), work

    return {"arbor, cell, 64": case(BATCH), "arbor, cell, 1": case(1)}


TARGETS = {
    ("vbinfer, single", "jaxley, single"): 3.0,
    ("vbinfer, single", "neuron, single"): 12.0,
    ("vbinfer, cell, 64", "jaxley, cell, 64"): 3.0,
    ("vbinfer, cell, 64", "neuron, cell"): 8.0,
    ("vbinfer, cell, 64", "arbor, cell, 64"): 2.0,
    ("vbinfer, cell, 1", "jaxley, cell, 1"): 1.0,
    ("vbinfer, gradient", "jaxley, gradient"): 3.0,
    ("vbinfer, cell, 16", "vbinfer, gradient"): None,
}
WORKERS = {f.__name__: f for f in (vbinfer, jaxley, neuron_single, neuron_cell, arbor)}


def main() -> None:
    args = options(__doc__, repeats=3)
    if args.worker:
        pin(args.core)
        print(json.dumps(measure(WORKERS[args.worker]())))
        return
    start = partial(worker, script=HERE, core=args.core)
    cases = {"vbinfer": partial(start, sys.executable, name="vbinfer")}
    cases |= {name: partial(start, environment(), name=name) for name in WORKERS if name != "vbinfer"}
    about = f"cells, dt = {DT:g} ms, one core"
    compare(f"{about}, {args.repeats} interleaved repeats", interleaved(cases, args.repeats), TARGETS, args.json)


if __name__ == "__main__":
    main()
