"""The Montbrio-Pazo-Roxin network of 84 regions, stochastic Heun, on one core: vbi, vbjax and vbinfer.

The same problem for all: dense random weights, J = 14.5, eta = -4.6, Delta = 0.7, tau = 1, dt = 0.01 tau, white noise
on r and V that is each draw's own, a sample of both every 100 steps; with BOLD, one volume every 3,000 steps (300 ms,
as vbi counts tau as 10 ms). vbi runs one simulation after the other, in float64. vbinfer and vbjax run 64 draws with a
G of their own together, in float32 (vbinfer in float64 as well).

vbjax integrates noise that it is given, so there are three honest ways to use it for many draws: its `loop` with the
noise of the whole run (as its documentation does), its `loop` over stretches of 100 steps with their noise, and its
`step` in a scan that draws the noise of each step. All are mapped over draws with `vmap`, every draw with its own key;
a fourth way, with the draws as last axis of the state and no `vmap`, is not documented but possible.

Every repeat is a new process of each package, in turn, pinned to the same core. The first call is reported apart: it
compiles (vbi's with BOLD finds the neural step compiled already). A network step is one Heun step of all regions of one
draw. "Products only" is a scan with the two matrix products `[84, 84] x [84, 64]` of each Heun step and nothing else.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _peers import CALLS, Case, compare, environment, measure
from _timing import interleaved, options, pin, weights, worker

HERE = str(Path(__file__).resolve())
N, DT, BATCH, MANY, SAMPLE, VOLUME = 84, 0.01, 64, 256, 100, 3_000
MPR = {"J": 14.5, "eta": -4.6, "tau": 1.0}
DIFFUSION = {"r": 0.037, "V": 0.074}


def vbi() -> dict[str, Any]:
    """vbi without and with BOLD; the number of steps is the one its loop takes, nt - 1."""
    import numpy as np
    from vbi.models.numba.mpr import MPR_sde

    steps = 20 * VOLUME

    def case(bold: bool) -> Case:
        eta = np.full(N, MPR["eta"])
        how = {"weights": weights(N), "delta": 0.7, "dt": DT, "seed": 1, "rv_decimate": SAMPLE}
        model = MPR_sde({**MPR, **how, "eta": eta})
        span = {"t_cut": 0.0, "tr": 10.0 * VOLUME * DT, "RECORD_BOLD": bold}

        def run(_: int) -> None:  # t_end is given anew each time: run() divides by 10 what it finds
            out = model.run({**span, "t_end": 10.0 * steps * DT})
            assert round(model.P.t_end / model.P.dt) == steps, model.P.t_end
            assert (len(out["rv_d"]), len(out["bold_d"]) if bold else 20) == (steps // SAMPLE, 20)
            assert np.isfinite(out["rv_d"]).all()

        return run, steps - 1

    return measure({"vbi": case(False), "vbi, BOLD": case(True)})


def vbjax() -> dict[str, Any]:
    """vbjax in each of its forms: 64 draws together, and one simulation."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import vbjax as vb

    w, key = jnp.asarray(weights(N), jnp.float32), jax.random.key
    model = vb.mpr_default_theta._replace(**MPR, Delta=0.7)

    def start(*shape: int) -> Any:
        return jnp.stack([jnp.zeros(shape), jnp.full(shape, -2.0)])

    def build(x0: Any) -> tuple[Any, Any]:
        sigma = jnp.sqrt(2.0 * jnp.array(list(DIFFUSION.values()))).reshape(2, *(1 for _ in x0.shape[1:]))

        def network(x: Any, G: Any) -> Any:
            return vb.mpr_dfun(x, (G * (w @ x[0]), 0.0), model)

        return vb.make_sde(DT, network, lambda x, G: sigma, adhoc=vb.mpr_r_positive)

    def whole_run(steps: int, x0: Any, G: Any, key: Any) -> Any:
        return build(x0)[1](x0, vb.randn(steps, *x0.shape, key=key), G)[SAMPLE - 1 :: SAMPLE].mean(0)

    def stretches(steps: int, x0: Any, G: Any, key: Any) -> Any:
        def stretch(x: Any, key: Any) -> Any:
            x = build(x0)[1](x, vb.randn(SAMPLE, *x0.shape, key=key), G)[-1]
            return x, x

        return jax.lax.scan(stretch, x0, jax.random.split(key, steps // SAMPLE))[1].mean(0)

    def each_step(steps: int, x0: Any, G: Any, key: Any) -> Any:
        def one(x: Any, key: Any) -> Any:
            return build(x0)[0](x, vb.randn(*x0.shape, key=key), G), None

        def stretch(x: Any, key: Any) -> Any:
            x = jax.lax.scan(one, x, jax.random.split(key, SAMPLE))[0]
            return x, x

        return jax.lax.scan(stretch, x0, jax.random.split(key, steps // SAMPLE))[1].mean(0)

    def case(form: Any, steps: int, how: str) -> Case:
        single, G, draws = partial(form, steps), jnp.linspace(0.2, 0.8, BATCH), 1 if how == "one" else BATCH
        if how == "vmap":
            run = jax.jit(lambda key: jax.vmap(partial(single, start(N)))(G, jax.random.split(key, BATCH)))
        else:
            run = jax.jit(partial(single, start(N, BATCH), G) if how == "last" else partial(single, start(N), 0.5))
        return (lambda seed: _finite(np.asarray(run(key(seed))))), draws * steps

    return measure(
        {
            "vbjax, loop over the whole run": case(whole_run, 2_000, "vmap"),
            "vbjax, loop over 100 steps": case(stretches, 2_000, "vmap"),
            "vbjax, noise in the scan": case(each_step, 2_000, "vmap"),
            "vbjax, noise in the scan, draws last": case(each_step, 2_000, "last"),
            "vbjax, one, loop over the whole run": case(whole_run, 20_000, "one"),
            "vbjax, one, noise in the scan": case(each_step, 20_000, "one"),
        }
    )


def vbinfer(double: bool) -> dict[str, Any]:
    """vbinfer: 64 and 256 draws, with BOLD, one simulation, and what the matrix products alone would allow."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    w, key = weights(N), jax.random.key

    def simulator(bold: bool, noisy: bool = True) -> vb.Simulator:
        monitors: dict[str, Any] = {"rv": vb.monitors.Subsample(period=SAMPLE * DT)}
        if bold:  # haemodynamics every 100 steps: the 10 ms default, on a clock on which tau is 10 ms
            monitors["bold"] = vb.monitors.BalloonWindkessel("r", period=VOLUME * DT, step=SAMPLE * DT)
        parts = {"coupling": vb.coupling.Linear(G=0.5), "integrator": vb.Heun(dt=DT), "monitors": monitors}
        noise = vb.noise.Additive(D=dict(DIFFUSION)) if noisy else None
        model = vb.models.MontbrioPazoRoxin(**MPR, Delta=0.7)
        return vb.Simulator(model, vb.Connectome(w, np.zeros_like(w)), noise=noise, **parts)

    def draws(batch: int, steps: int, bold: bool = False, noisy: bool = True) -> Case:
        read = {"rv": lambda ys: jnp.concatenate([ys["r"].mean(0), ys["V"].mean(0)]), "bold": lambda y: y.mean(0)}
        sim = simulator(bold, noisy)
        forward = vb.ForwardModel(sim, t1=steps * DT, summary={name: read[name] for name in sim.monitors})
        theta = {"coupling.G": jnp.linspace(0.2, 0.8, batch)}
        run = lambda seed: _finite(np.asarray(forward.batch(theta, jax.random.split(key(seed), batch))))  # noqa: E731
        return run, batch * steps

    def one(steps: int) -> Case:
        sim = simulator(False)
        run = lambda seed: _finite(np.asarray(vb.simulate(sim, t1=steps * DT, key=key(seed)).ys["rv"]["r"]))  # noqa: E731
        return run, steps

    def products(steps: int) -> Case:
        matrix, x0 = jnp.asarray(w, jnp.result_type(float)), jnp.ones((N, BATCH))
        both = jax.jit(lambda x, s: jax.lax.scan(lambda x, _: (matrix @ (matrix @ x), None), x * s, None, length=steps))
        return (lambda seed: _finite(np.asarray(both(x0, 1.0 + seed)[0]))), BATCH * steps

    cases = {"vbinfer": draws(BATCH, 2 * VOLUME), "vbinfer, BOLD": draws(BATCH, 2 * VOLUME, bold=True)}
    if double:
        return {name.replace("vbinfer", "vbinfer float64"): value for name, value in measure(cases).items()}
    cases["vbinfer, 256 draws"] = draws(MANY, VOLUME)
    cases["vbinfer, no noise"] = draws(BATCH, 2 * VOLUME, noisy=False)
    cases["vbinfer, one simulation"] = one(20_000)
    return measure({**cases, "products only": products(2 * VOLUME)})


def _finite(x: Any) -> Any:
    """The result of a call, which must be there and be finite before the clock stops."""
    assert (abs(x) < float("inf")).all()
    return x


TARGETS = {
    ("vbinfer", "vbi"): 15.0,
    ("vbinfer, 256 draws", "vbi"): None,
    ("vbinfer, BOLD", "vbi, BOLD"): 20.0,
    ("vbinfer float64", "vbi"): None,
    ("vbinfer float64, BOLD", "vbi, BOLD"): None,
    ("vbinfer", "vbjax, loop over the whole run"): 6.0,
    ("vbinfer", "vbjax, loop over 100 steps"): 6.0,
    ("vbinfer", "vbjax, noise in the scan"): 6.0,
    ("vbinfer", "vbjax, noise in the scan, draws last"): None,
    ("vbinfer", "products only"): 0.45,
    ("vbinfer, no noise", "products only"): None,
    ("vbinfer, one simulation", "vbjax, one, loop over the whole run"): 1.0,
    ("vbinfer, one simulation", "vbjax, one, noise in the scan"): 1.0,
}


def main() -> None:
    args = options(__doc__)
    if args.worker:
        pin(args.core)
        kinds = {"vbi": vbi, "vbjax": vbjax, "vbinfer": partial(vbinfer, False), "double": partial(vbinfer, True)}
        print(json.dumps(kinds[args.worker]()))
        return
    peer, start = environment(), partial(worker, script=HERE, core=args.core)
    cases = {
        "vbi": partial(start, peer, name="vbi"),
        "vbinfer": partial(start, sys.executable, name="vbinfer"),
        # an empty XLA_FLAGS keeps vbjax from making one device per core of this machine
        "vbjax": partial(start, peer, name="vbjax", env={"XLA_FLAGS": ""}),
        "double": partial(start, sys.executable, name="double", env={"JAX_ENABLE_X64": "1"}),
    }
    runs = interleaved(cases, args.repeats)
    about = f"MPR, {N} regions, stochastic Heun, one core, {args.repeats} interleaved repeats of {CALLS} calls"
    compare(about, runs, TARGETS, args.json)


if __name__ == "__main__":
    main()
