"""Mistakes of type, as a user meets them: without the runtime type checker of the suite, in a process of its own.

Each row is (what was written, the exception, words of the message that hold the remedy).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = """
import jax, jax.numpy as jnp, numpy as np, vbinfer as vb
import numpyro.distributions as dist
lin = vb.models.Linear()
net = vb.Connectome(np.ones((2, 2)), np.zeros((2, 2)))
prior = vb.Prior({"g": dist.Normal(0.0, 1.0)})
f = lambda theta, key: theta["g"] + jnp.zeros(2)
draws = vb.Draws.from_arrays({"g": np.zeros(50)}, np.zeros((50, 2)))
key = jax.random.key(0)
sim = vb.Simulator(lin, integrator=vb.Heun(dt=0.1))
noisy = vb.Simulator(lin, integrator=vb.Heun(dt=0.1), noise=vb.noise.Additive(0.1))
"""
MISTAKES = [
    ("vb.Simulator(lin, integrator='heun')", "TypeError", "integrator=vb.Heun(dt=0.1)"),
    ("vb.Simulator('Linear', integrator=vb.Heun(dt=0.1))", "TypeError", "one of vbinfer.models"),
    ("vb.Simulator(lin, integrator=vb.Heun(dt=0.1), monitors=vb.monitors.Raw())", "TypeError", '{"bold": monitor}'),
    ("vb.Simulator(lin, net, integrator=vb.Heun(dt=0.1))", "ValueError", "without a coupling"),
    (
        "vb.Simulator(lin, np.eye(2), coupling=vb.coupling.Linear(), integrator=vb.Heun(dt=1))",
        "TypeError",
        "vb.Connectome(",
    ),
    ("vb.Simulator(lin, net, coupling=vb.coupling.Linear, integrator=vb.Heun(dt=1))", "TypeError", "Linear(G=0.5)"),
    ("vb.Simulator(lin, integrator=vb.Heun(dt=1), noise=0.1)", "TypeError", "vb.noise.Additive(sigma=0.01)"),
    ("vb.Simulator(lin, integrator=vb.Heun(dt=1), monitors={})", "TypeError", "leave it out"),
    ("vb.Simulator(lin, integrator=vb.Heun(dt=1), nodes=0)", "ValueError", "whole number above 0"),
    ("vb.simulate(noisy, t1=1, key=0)", "TypeError", "jax.random.key(0)"),
    ("vb.simulate(sim, t1=float('nan'), key=None)", "ValueError", "finite"),
    ("vb.bind(sim, {'model.gamma': None})", "TypeError", "a number or an array"),
    ("vb.Heun(dt='0.1')", "TypeError", "Python number of milliseconds"),
    ("vb.Heun(dt=-0.1)", "ValueError", "must be positive"),
    ("vb.models.Linear(gamma='fast')", "TypeError", "a number or an array"),
    ("vb.models.Linear(gama=1.0)", "TypeError", "Linear has no parameter 'gama'. Did you mean 'gamma'?"),
    ("vb.coupling.Linear(g=1.0)", "TypeError", "Linear has no parameter 'g'. Known: G, offset."),
    ("vb.Simulator(lin, integrator=vb.Heun(dt=1), monitor={})", "TypeError", "Did you mean 'monitors'?"),
    ("vb.Connectome(np.ones((2, 2)), np.zeros((3, 3)))", "ValueError", "both must be [node, node]"),
    ("vb.Connectome(np.full((2, 2), np.nan), np.zeros((2, 2)))", "ValueError", "finite"),
    ("vb.Connectome(np.ones((2, 2)), -np.ones((2, 2)))", "ValueError", "must lie in [0, inf)"),
    ("vb.Prior({'g': 0.5})", "TypeError", "dist"),
    ("vb.Prior({})", "ValueError", "no parameter"),
    ("vb.Prior({'k': dist.Poisson(3.0)})", "(TypeError|ValueError)", "continuous"),
    ("vb.sample_prior_predictive(prior, 'simulator', n=10, key=key)", "TypeError", "expected a function"),
    ("vb.sample_prior_predictive(prior, f, n=0, key=key)", "ValueError", "positive whole number"),
    ("vb.sample_prior_predictive(prior, f, n=64, key=key, batch_size=10)", "ValueError", "batch_size=64"),
    ("vb.sample_prior_predictive(prior, f, n=64, key=key, executor='processes')", "TypeError", "vb.Local(workers=4)"),
    ("vb.NPE(density='maf')", "TypeError", "vb.densities.NSF"),
    ("vb.neural.SbiEstimator('SNPE')", "ValueError", "Did you mean 'NPE'"),
    ("vb.sampling.NUTS(engine='stan')", "ValueError", "numpyro"),
    ("vb.NPE().fit(draws, prior, key=0)", "TypeError", "jax.random.key(0)"),
    ("vb.densities.Training(max_epochs=0)", "ValueError", "max_epochs=0"),
    ("vb.NPE(training={'max_epochs': 50})", "TypeError", "vb.densities.Training(max_epochs="),
    ("vb.densities.Training(batch_size=2.5)", "ValueError", "such as batch_size=200"),
    ("vb.NLE(density=vb.densities.MAF)", "TypeError", "was given the class MAF; expected vb.densities.MAF(...)"),
    ("vb.NRE(classifier='mlp')", "TypeError", "vb.neural.RatioClassifier(width=..., depth=...)"),
    ("vb.densities.embeddings.Conv(shape=(10, 2), kernel=2.5)", "ValueError", "expected a whole number of at least 1"),
    ("vb.densities.embeddings.Conv(shape=20)", "ValueError", "expected two whole numbers (rows, columns)"),
    (
        "vb.NPE(embedding=vb.densities.embeddings.Conv)",
        "TypeError",
        "vb.densities.embeddings.Conv(shape=(time, channel))",
    ),
    (
        "vb.NPE().fit(vb.Draws.from_arrays({'g': np.zeros((50, 1))}, np.zeros((50, 2))), prior, key=key)",
        "ValueError",
        "[50, 1]",
    ),
    ("vb.sample_prior_predictive(prior, f, n=64, key=0)", "TypeError", "jax.random.key(0)"),
    ("vb.load('nowhere.npz')", "FileNotFoundError", "nowhere.npz"),
    ("vb.load_connectome('hcp-aal')", "ValueError", "Did you mean 'hcp-aal2'"),
    ("vb.load_recording('hcp-aal2', participant=8)", "ValueError", "7"),
    ("vb.Recording(np.ones((50, 2)), period=720.0)", "ValueError", "constant"),
    ("vb.Summary(period=720.0, fc=3)", "TypeError", "vb.features.fc_stat"),
    ("vb.features.fc_stat(only='mean')", "TypeError", "only=('mean',)"),
    ("vb.features.fc_stat(only=('men',))", "ValueError", "Did you mean 'mean'"),
    ("vb.diagnostics.shrinkage(prior, vb.Posterior({'g': np.zeros(5)}))", "ValueError", "chain"),
    ("vb.simulate(sim, t1=1.0, key=None, init=3)", "TypeError", "LinearState"),
    ("vb.simulate(sim, t1=1.03, key=None)", "ValueError", "not a multiple of dt"),
    ("vb.monitors.Subsample('x', 1.0)", "TypeError", "Subsample(10.0, var="),
    ("vb.monitors.Subsample('4')", "TypeError", "period=10.0"),
    ("vb.monitors.Subsample(1.0, 5)", "TypeError", 'var="x"'),
    ("vb.monitors.HRF(720.0, 'S')", "TypeError", "other monitors after it"),
    ("vb.monitors.HRF('x', 1.0, vb.monitors.GammaKernel)", "TypeError", "kernel=vb.monitors.GammaKernel(shape=3)"),
    ("vb.monitors.HRF('x', 1.0, 'gamma')", "TypeError", "kernel=vb.monitors.GammaKernel(shape=3)"),
    ("vb.monitors.HRF('x', 1.0, step=-3)", "ValueError", "must be positive"),
    ("vb.monitors.BalloonWindkessel('x', 1.0, step='fast')", "TypeError", "step=10.0"),
    ("vb.models.JansenRit(cvar='y1')", "TypeError", 'cvar=("y1",)'),
    ("vb.models.JansenRit(cvar=(0, 1))", "TypeError", 'cvar=("x", "y")'),
    ("vb.Heun(dt=True)", "TypeError", "Python number of milliseconds"),
    ("vb.Delays(max='80')", "ValueError", "expected a number of ms"),
]


@pytest.fixture(scope="module")
def outcomes():
    code = (
        SETUP
        + f"""
import json, sys
out = []
for text in {[row[0] for row in MISTAKES]!r}:
    try:
        eval(text)
        out.append(["nothing", ""])
    except Exception as error:
        out.append([type(error).__name__, str(error)])
print(json.dumps(out))
"""
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("row", range(len(MISTAKES)), ids=[row[0] for row in MISTAKES])
def test_mistake(outcomes, row):
    _, error, words = MISTAKES[row]
    kind, message = outcomes[row]
    assert kind in error.strip("()").split("|"), message
    assert words in message
