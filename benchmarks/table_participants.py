"""The demo's estimator asked about all seven participants: the table of docs/results.md. Run `make demo` first.

For each participant, the correlation (upper triangle) of the mean functional connectivity simulated from the
posterior, from the prior, and of the structural connectome, with that of the segment that was explained and of the
whole recording.
"""

import warnings

import jax
import numpy as np

import vbinfer as vb

vb.use_cores(2)
from vbinfer.cli.main import DEMO  # noqa: E402
from vbinfer.study.study import Study  # noqa: E402  (after the devices are set)

N, OUT = 64, "runs/demo"
study = Study.from_toml(DEMO, out=OUT)
forward, upper = study.forward, np.triu_indices(80, k=1)
amortized = vb.load(f"{OUT}/estimator.npz")


def mean_fc(posterior: vb.Posterior, key: jax.Array) -> np.ndarray:
    """Mean simulated functional connectivity, upper triangle."""
    simulated = vb.posterior_predictive(posterior, forward, n=N, key=key, series=True)
    return np.mean([fc(y) for y in simulated.ys[simulated.valid]], axis=0)


def fc(y: np.ndarray) -> np.ndarray:
    """Functional connectivity of one recording, upper triangle."""
    return np.corrcoef(y, rowvar=False)[upper]


prior = {name: np.asarray(v)[None] for name, v in study.prior.sample(key=jax.random.key(1), n=N).items()}
from_prior = mean_fc(vb.Posterior(prior), jax.random.key(2))
assert study.connectome is not None
structure = np.asarray(study.connectome.weights)[upper]
print("| participant | G | w | posterior predictive | prior predictive | structure |")
print("|---|---|---|---|---|---|")
for participant in range(1, 8):
    whole = vb.load_recording("hcp-aal2", participant=participant)
    segment = whole.segments(259.2e3)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # features beyond the training draws: the page says so
        x_o = np.asarray(forward.summary["monitor"](segment.values))
        posterior = amortized.sample(x_o, n=2_000, key=jax.random.key(participant))
    predicted = mean_fc(posterior, jax.random.key(3))
    cells = [f"{v.mean():.3f} +- {v.std():.3f}" for v in posterior.theta.values()]
    for row in (predicted, from_prior, structure):
        cells.append(" / ".join(f"{np.corrcoef(row, fc(y))[0, 1]:.2f}" for y in (segment.values, whole.values)))
    print(f"| {participant} | " + " | ".join(cells) + " |", flush=True)
