"""A study of five nodes, as files: what the command line is tested on."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import vbinfer as vb

METHOD = '{ name = "NPE", density = { name = "MDN" } }'
"""The quickest estimator to train and to ask."""
STUDY = """
[data]
connectome = "net.zip"
recording  = "signal.csv"
period     = 1.0
theta_true = {{ "coupling.G" = 0.6 }}

[simulator]
model      = {{ name = "Linear", gamma = {{ array = "gamma.npy" }} }}
coupling   = {{ name = "Linear", G = 0.5 }}
integrator = {{ name = "Heun", dt = 0.1 }}
noise      = {{ name = "Additive", sigma = 0.3 }}
monitor    = {{ name = "Subsample", var = "x", period = 1.0 }}
t1         = 220.0
transient  = 20.0

[prior]
"coupling.G" = {{ name = "Uniform", low = 0.0, high = 0.9 }}

[summary]
fc = {{ name = "fc_stat" }}
sc = {{ name = "fc_match", reference = "connectome" }}

[inference]
method = {{ name = "NPE", density = {{ name = "MDN" }} }}
draws  = 256
posterior_samples = 500
seed   = 3

[report]
predictive = 16
recovery = 8
compare_dt = 0.05

[output]
dir = "{out}"
"""


def make(place: Path) -> None:
    """Connectome, node-wise parameter, a recording simulated at G = 0.6 long enough for two segments, `study.toml`."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(5, 5)) * (1 - np.eye(5))
    weights /= np.abs(np.linalg.eigvals(weights)).max()
    gamma = -np.linspace(0.9, 1.2, 5)
    network = vb.Connectome(weights, 10 * weights, labels=tuple("abcde"))
    network.save_tvb(place / "net.zip")
    np.save(place / "gamma.npy", gamma)
    sim = vb.Simulator(
        vb.models.Linear(gamma=gamma),
        network,
        coupling=vb.coupling.Linear(G=0.6),
        integrator=vb.Heun(dt=0.1),
        noise=vb.noise.Additive(sigma=0.3),
        monitors={"x": vb.monitors.Subsample(1.0, var="x")},
    )
    x = vb.simulate(sim, t1=430.0, key=jax.random.key(9)).ys["x"]
    np.savetxt(place / "signal.csv", np.asarray(x), delimiter=",", header="a,b,c,d,e", comments="")
    (place / "study.toml").write_text(STUDY.format(out="results"))


def command(*args: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run `vbinfer` in a process of its own, which knows the compiled programs of the suite and nothing else."""
    programs = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
    }
    return subprocess.run(
        [sys.executable, "-c", "import sys; from vbinfer.cli.main import main; sys.exit(main())", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=500,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parent.parent), **programs},
    )
