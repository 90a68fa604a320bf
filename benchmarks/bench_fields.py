"""Fields on one core: diffusion on the sphere, and a surface of 10,242 vertices with 76 delayed regions.

Diffusion: 32 x 64 Gauss-Legendre points, 64 fields at once, float32, inside jit, against vbjax 0.0.19 (`make_shtdiff`,
mapped), ducc0 0.42 (analysis, filter, synthesis, one thread) and the square matrix product of this machine. Surface:
Generic2dOscillator, six neighbours each, Euler 0.1 ms, means of regions every 10 ms, against TVB 2.10. Of the peers
those that are installed beside vbinfer in the Python that runs this; all in one process, in turn, CPU seconds. Memory:
16 draws on two such surfaces, in a process of its own (`--worker memory` runs this alone).
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, peak, pin, spread, table, worker

LMAX, BATCH, CALLS = 31, 64, 20
ORDER, REGIONS, STEPS, TVB_STEPS, DT = 5, 76, 300, 20, 0.1

Cases = dict[str, tuple[Callable[[], Any], float]]
"""What to call, and how much work of its kind one call does."""


def diffusion() -> Cases:
    """Fields diffused per call."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    sphere = vb.fields.Sphere(LMAX, radius=1.0)
    op = vb.fields.LaplaceBeltrami(sphere, D=4e-4)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(sphere.n_nodes, BATCH)), jnp.float32)
    ours = jax.jit(lambda y: op(y))
    square = jnp.asarray(rng.normal(size=(512, 512)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    n_lat, orders = LMAX + 1, 2 * LMAX + 1
    # the flops of the transforms as products: along longitude and back, and one matrix per order between
    flops = BATCH * (2 * 2 * orders * 2 * n_lat * n_lat + 2 * orders * n_lat**2)
    cases: Cases = {
        "vbinfer": (lambda: ours(x).block_until_ready(), BATCH),
        "its matrix products": (lambda: product(square).block_until_ready(), BATCH * 2 * 512**3 / flops),
    }
    if find_spec("vbjax"):
        import vbjax

        theirs = jax.jit(jax.vmap(vbjax.make_shtdiff(n_lat, lmax=LMAX, D=4e-4)))
        grids = jnp.moveaxis(sphere.as_grid(x), -1, 0)
        cases["vbjax"] = (lambda: theirs(grids).block_until_ready(), BATCH)
    if find_spec("ducc0"):
        from ducc0 import sht

        degree = np.concatenate([np.arange(m, LMAX + 1) for m in range(LMAX + 1)])  # of a_lm, order after order
        gains = -4e-4 * degree * (degree + 1.0)
        fields = np.ascontiguousarray(np.moveaxis(np.asarray(sphere.as_grid(x)), -1, 0))[:, None]
        how = {"spin": 0, "lmax": LMAX, "geometry": "GL", "nthreads": 1}

        def ducc() -> None:
            for field in fields:
                alm = sht.analysis_2d(map=field, **how)
                sht.synthesis_2d(alm=(alm * gains).astype(alm.dtype), ntheta=n_lat, nphi=2 * n_lat, **how)

        cases["ducc0"] = (ducc, BATCH)
    return cases


def _surface(ball: Any) -> tuple[Any, ...]:
    """The simulator, and what TVB's is made of."""
    import numpy as np
    import scipy.sparse as sp

    import vbinfer as vb

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(REGIONS, 3))
    regions = np.argmax(ball.positions @ (centres / np.linalg.norm(centres, axis=1)[:, None]).T, axis=1)
    weights, lengths = rng.uniform(0.0, 1.0, (REGIONS, REGIONS)), rng.uniform(10.0, 150.0, (REGIONS, REGIONS))
    edges = ball.edges()
    local = sp.csc_matrix((np.full(edges.nnz, 1.0 / 6.0), edges.indices, edges.indptr), edges.shape)
    rmap = vb.fields.RegionMap(regions)
    sim = vb.Simulator(
        vb.models.Generic2dOscillator(),
        vb.Connectome(weights, lengths, 3.0),
        coupling=vb.coupling.Linear(G=0.01),
        delays=vb.Delays(),
        integrator=vb.integrators.Euler(DT),
        field=vb.fields.Field(ball, vb.fields.Local(local), 0.05, regions=rmap),
        monitors={"V": vb.monitors.OfRegions(vb.monitors.Subsample(10.0, "V"), rmap)},
    )
    return sim, regions, weights, lengths, local


def _batch(sim: Any) -> Callable[[], Any]:
    """16 draws together."""
    import jax
    import numpy as np

    import vbinfer as vb

    fwd = vb.ForwardModel(sim, t1=STEPS * DT, summary=lambda y: y.ravel())
    draws, keys = {"coupling.G": np.linspace(0.01, 0.02, 16)}, jax.random.split(jax.random.key(0), 16)
    return lambda: jax.block_until_ready(fwd.batch(draws, keys))


def memory() -> dict[str, float]:
    """Peaks of 16 draws on 20,484 vertices, MB, and the size of their delay buffers."""
    import jax
    import numpy as np

    import vbinfer as vb

    half = vb.fields.Mesh.icosphere(ORDER, 100.0)
    places, faces = np.asarray(half.vertices), np.asarray(half.triangles)
    pair = vb.fields.Mesh(
        np.concatenate([places, places + np.array([300.0, 0.0, 0.0])]), np.concatenate([faces, faces + half.n_nodes])
    )
    sim, *_ = _surface(pair)
    before = peak()
    _batch(sim)()
    final = vb.simulate(sim, t1=DT, key=None).final
    buffers = sum(leaf.nbytes for leaf in jax.tree.leaves(final.carry.buffers))
    return {"before": before, "peak": peak(), "buffers": 16 * buffers / 1e6}


def surface() -> Cases:
    """Steps of the surface per call."""
    import jax

    import vbinfer as vb

    ball = vb.fields.Mesh.icosphere(ORDER, 100.0)
    sim, regions, weights, lengths, local = _surface(ball)
    batch = _batch(sim)
    cases: Cases = {
        "vbinfer": (lambda: jax.block_until_ready(vb.simulate(sim, t1=STEPS * DT, key=None).ys), STEPS),
        "vbinfer, 16 draws": (batch, 16 * STEPS),
    }
    if find_spec("tvb"):
        run = _tvb(ball, regions, weights, lengths, local)
        cases["TVB"] = (lambda: run(n_steps=TVB_STEPS), TVB_STEPS)
    return cases


def _tvb(ball: Any, regions: Any, weights: Any, lengths: Any, local: Any) -> Callable[..., Any]:
    """Steps of TVB's simulator with the same surface."""
    import numpy as np
    from tvb.datatypes import connectivity, cortex, local_connectivity, region_mapping, surfaces
    from tvb.simulator import coupling, integrators, models, monitors, simulator

    network = connectivity.Connectivity(
        weights=weights,
        tract_lengths=lengths,
        speed=np.array([3.0]),
        region_labels=np.array([f"r{i}" for i in range(REGIONS)]),
        centres=np.zeros((REGIONS, 3)),
    )
    network.configure()
    sheet = surfaces.CorticalSurface(vertices=np.asarray(ball.vertices), triangles=np.asarray(ball.triangles, int))
    sheet.number_of_vertices = ball.n_nodes
    mapping = region_mapping.RegionMapping(array_data=regions, surface=sheet, connectivity=network)
    near = local_connectivity.LocalConnectivity(matrix=local, surface=sheet, cutoff=40.0)
    sim = simulator.Simulator(
        model=models.Generic2dOscillator(),
        connectivity=network,
        surface=cortex.Cortex(region_mapping_data=mapping, local_connectivity=near, coupling_strength=np.array([0.05])),
        coupling=coupling.Linear(a=np.array([0.01])),
        integrator=integrators.EulerDeterministic(dt=DT),
        monitors=[monitors.SubSample(period=10.0)],
    )
    sim.configure()
    return lambda n_steps: [None for _ in sim(n_steps=n_steps)]


def main() -> None:
    given = options(__doc__)
    if given.worker:
        pin(given.core)
        print(json.dumps(memory()))
        return
    where = host() | {"pinned": pin(given.core)}
    header((__doc__ or "").splitlines()[0], where)
    found: dict[str, dict[str, list[float]]] = {}
    for what, make, calls in (("diffusion, fields", diffusion, CALLS), ("surface, steps", surface, 1)):
        cases = make()
        for run, _ in cases.values():
            run()  # compiles

        def rate(run: Callable[[], Any], work: float, calls: int = calls) -> float:
            return calls * work / cpu_seconds(lambda: [run() for _ in range(calls)])

        timed = {name: (lambda run=run, work=work: rate(run, work)) for name, (run, work) in cases.items()}
        found[what] = interleaved(timed, given.repeats)
        print(f"\n{what} per CPU second")
        ours = found[what]["vbinfer"]
        table(
            ("", "per CPU s", "range", "vbinfer over it"),
            [
                (name, f"{median(v):,.0f}", spread(v), f"{median([a / b for a, b in zip(ours, v, strict=True)]):.2f}")
                for name, v in found[what].items()
            ],
        )
    used = worker(sys.executable, str(Path(__file__).resolve()), name="memory", core=given.core)
    print(f"\n16 draws on 20,484 vertices: peak {used['peak']:,.0f} MB, {used['before']:,.0f} MB of it before the run;")
    print(f"delay buffers of all draws {used['buffers']:.1f} MB")
    finish(given.json, where, {"about": __doc__, "rates": found, "memory": used})


if __name__ == "__main__":
    main()
