"""Speed against vbi: the Montbrio-Pazo-Roxin network of 84 regions, stochastic Heun, on one core.

The same problem for both: dense random weights, J = 14.5, eta = -4.6, Delta = 0.7, tau = 1, dt = 0.01 tau, white noise
on r and V, a sample of both every 100 steps; with BOLD, one volume every 3,000 steps (300 ms, as vbi counts tau as
10 ms). vbi runs one simulation after the other, in float64; vbinfer runs 64 draws with a G and noise of their own, in
float32 (its default) or float64. Every repeat is a new process of each, in turn, pinned to the same core. The first
call is reported apart: it compiles (vbi's with BOLD finds the neural step compiled already). A network step is one Heun
step of all regions of one draw.
"""

import json
import subprocess
import sys
import venv
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _timing import finish, header, host, interleaved, median, options, pin, seconds, spread, table, worker

HERE = Path(__file__).resolve()
PEERS = HERE.parent.parent / ".venv-peers"
NEEDS = ("numba", "numpy", "scipy", "pandas", "scikit-learn", "tqdm", "rich", "matplotlib")
VBI = "vbi==0.4.4"
N, DT, BATCH, SAMPLE, VOLUME, CALLS = 84, 0.01, 64, 100, 3_000, 3
MPR = {"J": 14.5, "eta": -4.6, "tau": 1.0}
TARGET = 8.0


def environment() -> Path:
    """The Python of `.venv-peers`, made on first use: vbi and what its numba models import, so no torch."""
    python = PEERS / "bin" / "python"
    ready = PEERS / ".ready"
    want = "\n".join((VBI, *NEEDS))
    if not ready.exists() or ready.read_text() != want:
        print(f"making {PEERS} with {VBI}", flush=True)
        venv.create(PEERS, with_pip=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, *NEEDS], check=True)
        subprocess.run(["env", "SKIP_CPP=1", *pip, "--no-deps", VBI], check=True)
        ready.write_text(want)
    return python


def weights() -> Any:
    """Dense random weights `[N, N]` without self-connections; a region receives 1 in total on average."""
    import numpy as np

    w = np.random.default_rng(0).random((N, N))
    np.fill_diagonal(w, 0.0)
    return w / w.sum(axis=1).mean()


def vbi(bold: bool) -> dict[str, Any]:
    """Steps per second of vbi in this process; the number of steps is the one its loop takes, nt - 1."""
    import numpy as np
    from vbi.models.numba.mpr import MPR_sde

    eta = np.full(N, MPR["eta"])
    model = MPR_sde({**MPR, "eta": eta, "weights": weights(), "delta": 0.7, "dt": DT, "seed": 1, "rv_decimate": SAMPLE})
    span = {"t_cut": 0.0, "tr": 10.0 * VOLUME * DT, "RECORD_BOLD": bold}
    out: dict[str, Any] = {}

    def run(steps: int) -> None:  # t_end is given anew each time: run() divides by 10 what it finds
        out.update(model.run({**span, "t_end": 10.0 * steps * DT}))

    first = seconds(lambda: run(2 * VOLUME))
    speeds = []
    for _ in range(CALLS):
        took = seconds(lambda: run(20 * VOLUME))
        speeds.append((int(model.P.t_end / model.P.dt) - 1) / took)
    shapes = (len(out["rv_d"]), len(out["bold_d"]) if bold else 20)
    assert shapes == (20 * VOLUME // SAMPLE, 20), shapes
    assert np.isfinite(out["rv_d"]).all()
    return {"speed": median(speeds), "first": first, "version": version("vbi")}


def vbinfer(bold: bool) -> dict[str, Any]:
    """Draw-steps per second of vbinfer in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vbinfer as vb

    w, steps = weights(), 2 * VOLUME
    monitors = {"rv": vb.monitors.Subsample(period=SAMPLE * DT)}
    if bold:  # haemodynamics every 100 steps: the 10 ms default, on a clock on which tau is 10 ms
        monitors["bold"] = vb.monitors.BalloonWindkessel("r", period=VOLUME * DT, step=SAMPLE * DT)
    simulator = vb.Simulator(
        vb.models.MontbrioPazoRoxin(**MPR, Delta=0.7),
        vb.Connectome(w, np.zeros_like(w)),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Heun(dt=DT),
        noise=vb.noise.Additive(D={"r": 0.037, "V": 0.074}),
        monitors=monitors,
    )
    read = {"rv": lambda ys: jnp.concatenate([ys["r"].mean(0), ys["V"].mean(0)]), "bold": lambda y: y.mean(0)}
    forward = vb.ForwardModel(simulator, t1=steps * DT, summary={name: read[name] for name in monitors})
    theta = {"coupling.G": jnp.linspace(0.2, 0.8, BATCH)}

    def run(seed: int) -> Any:
        return jax.block_until_ready(forward.batch(theta, jax.random.split(jax.random.key(seed), BATCH)))

    first = seconds(lambda: run(0))
    speeds = [BATCH * steps / seconds(lambda i=i: run(i)) for i in range(1, CALLS + 1)]
    assert np.isfinite(run(1)).all()
    return {"speed": median(speeds), "first": first, "version": version("vbinfer")}


def main() -> None:
    args = options(__doc__)
    if args.worker:
        pin(args.core)
        measure = {"vbi": vbi, "vbinfer": vbinfer}[args.worker]
        print(json.dumps({"no BOLD": measure(False), "BOLD": measure(True)}))
        return
    peer, where = environment(), host()
    start = partial(worker, script=str(HERE), core=args.core)
    cases = {
        VBI: partial(start, peer, name="vbi"),
        "vbinfer": partial(start, sys.executable, name="vbinfer"),
        "vbinfer float64": partial(start, sys.executable, name="vbinfer", env={"JAX_ENABLE_X64": "1"}),
    }
    header(f"MPR, {N} regions, stochastic Heun, one core, {args.repeats} interleaved repeats", where)
    runs = interleaved(cases, args.repeats)
    rows, results = [], {}
    for what in ("no BOLD", "BOLD"):
        base = [run[what]["speed"] for run in runs[VBI]]
        for name, values in runs.items():
            speed, first = ([run[what][field] for run in values] for field in ("speed", "first"))
            ratio = median(speed) / median(base)
            paired = [a / b for a, b in zip(speed, base, strict=True)]
            results[f"{name}, {what}"] = {"steps_per_second": speed, "first_call": first, "ratio": ratio}
            cells = (f"{median(speed) / 1e3:,.0f}", spread(speed, 1e3), f"{median(first):.1f}")
            rows.append((f"{name}, {what}", *cells, f"{ratio:.1f}", spread(paired)))
    table(("", "k steps/s", "range", "first call s", "ratio to vbi", "range"), rows)
    best = results["vbinfer, no BOLD"]["ratio"], results["vbinfer, BOLD"]["ratio"]
    print(f"target: {TARGET:g} times vbi; here {best[0]:.1f} without and {best[1]:.1f} with BOLD")
    finish(args.json, where, {"target": TARGET, "peer": VBI, "results": results})


if __name__ == "__main__":
    main()
