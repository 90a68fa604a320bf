"""What a new process waits for: the import, the first posterior of each route, the first batch of simulations.

Two tables. Wall seconds of `import vbinfer` and `vbinfer --help`, and the heavy packages they load: torch, sbi, dask
and matplotlib must not be among them, the exit status is 1 if one is. CPU seconds and compiled programs of a new
process on one core, import included: `vb.NPE().fit` of 5,000 draws with the first `sample` and `log_prob` (beside sbi's
MAF of the same draws), NUTS on two parameters, 64 simulations with BOLD; with an empty `vb.use_cache` folder, and once
more with what the first process left there.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers_sbi
from _timing import finish, header, host, interleaved, median, options, pin, seconds, spread, table, worker

FILE = str(Path(__file__).resolve())
DRAWS, PROBLEM = 5_000, "tanh"

HEAVY = ("jax", "equinox", "scipy", "numpyro", "flowjax", "optax", "xarray", "pandas", "sklearn", "arviz", "blackjax")
BANNED = ("torch", "sbi", "dask", "matplotlib")
NAMES = "import vbinfer as vb; vb.Simulator; vb.NPE; vb.Prior"
SHOW = f"import sys; print(*[m for m in {(*HEAVY, *BANNED)} if m in sys.modules])"
# the same command inside one Python, so that its modules can be counted when it exits
HELP = "import atexit, sys; atexit.register(lambda: exec(MODULES)); sys.argv = ['vbinfer', '--help']; "


def run(command: list[str]) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def npe() -> dict[str, float]:
    """Fit, first draws, first densities."""
    import jax
    import numpyro.distributions as dist

    import vbinfer as vb

    theta, x, _, _ = peers_sbi.draws(PROBLEM, DRAWS, 0)
    dim, edge = peers_sbi.BOX[PROBLEM]
    prior = vb.Prior({"theta": dist.Uniform(-edge, edge).expand([dim])})
    draws, clock = vb.Draws.from_arrays({"theta": theta}, x), [time.process_time()]
    amortized, info = vb.NPE().fit(draws, prior, key=jax.random.key(0))
    clock.append(time.process_time())
    posterior = amortized.sample(x[0], n=10_000, key=jax.random.key(1))
    clock.append(time.process_time())
    float(amortized.log_prob({"theta": theta[:1_000]}, x[:1_000]).mean())
    clock.append(time.process_time())
    stages = {
        name: end - start for name, start, end in zip(("fit", "sample", "log_prob"), clock[:-1], clock[1:], strict=True)
    }
    return {**stages, "gain": info.info_gain, "epochs": len(info.val), "mean": float(posterior.theta["theta"].mean())}


def nuts() -> dict[str, float]:
    """Four chains of 500 + 500."""
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist

    import vbinfer as vb

    prior = vb.Prior({"a": dist.Normal(0.0, 1.0), "s": dist.HalfNormal(1.0)})
    y = jnp.linspace(-1.0, 2.0, 20)
    run = vb.sample_mcmc(prior, lambda t, y: dist.Normal(t["a"], t["s"]).log_prob(y).sum(), y, key=jax.random.key(0))
    return {"mean": float(run.theta["a"].mean())}


def bold() -> dict[str, float]:
    """64 simulations of a minute of BOLD."""
    import jax
    import numpyro.distributions as dist

    import vbinfer as vb

    sim = vb.Simulator(
        vb.models.ReducedWongWang(),
        vb.Connectome.synthetic(40, key=jax.random.key(0)),
        coupling=vb.coupling.Linear(G=0.1),
        integrator=vb.Heun(dt=2.0),
        noise=vb.noise.Additive(0.01),
        monitors={"bold": vb.monitors.BalloonWindkessel("S", 720.0)},
    )
    fwd = vb.ForwardModel(sim, t1=57.6e3, summary=vb.Summary(period=720.0, fc=vb.features.fc_stat))
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.5)})
    draws = vb.sample_prior_predictive(prior, fwd, n=64, key=jax.random.key(1), progress=False)
    return {"mean": float(draws.x.mean())}


def maf() -> dict[str, float]:
    """The same as `npe` with sbi: its MAF, its training, 10,000 draws, 1,000 densities."""
    import torch
    from sbi.inference import NPE_C
    from sbi.utils import BoxUniform

    from vbinfer.neural.sbi.quiet import NullTracker

    torch.set_num_threads(1)
    torch.manual_seed(0)
    theta, x = (torch.tensor(value) for value in peers_sbi.draws(PROBLEM, DRAWS, 0)[:2])
    dim, edge = peers_sbi.BOX[PROBLEM]
    prior = BoxUniform(torch.full((dim,), -edge), torch.full((dim,), edge))
    trainer = NPE_C(prior=prior, density_estimator="maf", tracker=NullTracker(), show_progress_bars=False)
    start = time.process_time()
    trainer.append_simulations(theta, x).train()
    took, posterior = time.process_time() - start, trainer.build_posterior()
    drawn = posterior.sample((10_000,), x=x[0], show_progress_bars=False)
    with torch.no_grad():
        trainer._neural_net.log_prob(theta[:1_000][None], condition=x[:1_000]).mean()
    return {"fit": took, "mean": float(drawn.mean())}


FIRST: dict[str, Callable[[], dict[str, float]]] = {"import": lambda: {}, "NPE": npe, "NUTS": nuts, "BOLD": bold}


def first(name: str, folder: str) -> dict[str, Any]:
    """CPU seconds of this process so far, and what was compiled."""
    if name == "sbi MAF":
        return {**maf(), "cpu": time.process_time(), "programs": 0, "read": 0}
    import jax

    import vbinfer as vb

    vb.use_cache(folder)
    seen: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: seen.append(event))
    jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
    found = FIRST[name]()
    count = {part: sum(part in event for event in seen) for part in ("backend_compile", "cache_hits")}
    return {**found, "cpu": time.process_time(), "programs": count["backend_compile"], "read": count["cache_hits"]}


def first_posteriors(core: int) -> dict[str, dict[str, Any]]:
    """Every case in processes of its own: cold, then with what is kept."""
    env = {name: "" for name in os.environ if name.startswith("JAX_COMPILATION_CACHE")}
    out: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FIRST:
            for state in ("cold", "kept"):
                out[f"{name}, {state}"] = worker(sys.executable, FILE, f"{name}|{folder}", core, env)
        out["sbi MAF"] = worker(sys.executable, FILE, f"sbi MAF|{folder}", core, env)
    header("CPU seconds of a new process, import included", host())
    columns = ("", "CPU s", "programs", "of them read", "fit", "against sbi's")
    theirs = out["sbi MAF"]["cpu"]
    rows = [
        (
            *(name, f"{one['cpu']:.1f}", one["programs"], one["read"], f"{one['fit']:.1f}" if "fit" in one else ""),
            f"{one['cpu'] / theirs:.2f}" if name.startswith("NPE") else "",
        )
        for name, one in out.items()
    ]
    table(columns, rows)
    return out


def main() -> int:
    args = options(__doc__, repeats=7)
    if args.worker:
        pin(args.core)
        with contextlib.redirect_stdout(io.StringIO()):
            found = first(*args.worker.split("|"))
        print(json.dumps(found))
        return 0
    where, python = host(), sys.executable
    header(f"wall seconds from start to exit, median of {args.repeats} interleaved", where)
    script = str(Path(python).with_name("vbinfer"))
    help_ = f"MODULES = {SHOW!r}; {HELP}from vbinfer.cli.main import main; main()"
    commands = {
        "python -c pass": ([python, "-c", "pass"], [python, "-c", SHOW]),
        "import vbinfer": ([python, "-c", "import vbinfer"], [python, "-c", f"import vbinfer; {SHOW}"]),
        NAMES.removeprefix("import vbinfer as "): ([python, "-c", NAMES], [python, "-c", f"{NAMES}; {SHOW}"]),
        "vbinfer --help": ([script, "--help"], [python, "-c", help_]),
    }
    loaded = {name: run(show).splitlines()[-1].split() for name, (_, show) in commands.items()}  # and warms the disk
    took = interleaved({name: partial(seconds, partial(run, c)) for name, (c, _) in commands.items()}, args.repeats)
    rows = [(name, f"{median(s):.2f}", spread(s), " ".join(loaded[name]) or "-") for name, s in took.items()]
    table(("", "s", "range", "heavy modules"), rows)
    bad = sorted({module for modules in loaded.values() for module in modules} & set(BANNED))
    print(f"loaded and should not be: {', '.join(bad)}" if bad else f"absent, as they must be: {', '.join(BANNED)}")
    finish(args.json, where, {"seconds": took, "modules": loaded, "first": first_posteriors(args.core)})
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
