"""The demo's estimator asked about all seven participants: the tables of docs/results.md. Run `make demo` first.

For each participant and each of three segments: whether the recording lies inside the prior predictive (p of
`misspecification`), the global coupling, and what was learned of each parameter. For the first segments, the
correlation (upper triangle) of the mean functional connectivity simulated from the posterior, from the prior, and of
the structural connectome, with the recording's. Then test and retest: spread within and between participants, and
their intraclass correlation.
"""

import time
import warnings

import jax
import numpy as np

import vbinfer as vb

vb.use_cores(2)
from vbinfer.cli.main import DEMO  # noqa: E402
from vbinfer.draws.sample import load_store  # noqa: E402
from vbinfer.study.study import Study  # noqa: E402  (after the devices are set)

N, OUT = 256, "runs/demo"
study = Study.from_toml(DEMO, out=OUT)
forward, upper = study.forward, np.triu_indices(80, k=1)
amortized = vb.load(f"{OUT}/estimator.npz")
draws = load_store(f"{OUT}/store")


def mean_fc(posterior: vb.Posterior, key: jax.Array) -> np.ndarray:
    """Mean simulated functional connectivity, upper triangle."""
    simulated = vb.posterior_predictive(posterior, forward, n=N, key=key, series=True)
    return np.mean([fc(y) for y in simulated.ys[simulated.valid]], axis=0)


def fc(y: np.ndarray) -> np.ndarray:
    """Functional connectivity of one recording, upper triangle."""
    return np.corrcoef(y, rowvar=False)[upper]


def asked(y: np.ndarray, key: jax.Array) -> tuple[vb.Posterior, float]:
    """The posterior, and p of the recording under the prior predictive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # features beyond the training draws: p says so
        x_o = np.asarray(forward.summary["monitor"](y))
        found = vb.diagnostics.misspecification(x_o, draws, key=jax.random.key(0))
        return amortized.sample(x_o, n=2_000, key=key), found.p_value


prior = {name: np.asarray(v)[None] for name, v in study.prior.sample(key=jax.random.key(1), n=N).items()}
from_prior = mean_fc(vb.Posterior(prior), jax.random.key(2))
assert study.connectome is not None
structure = np.asarray(study.connectome.weights)[upper]
names = study.prior.names
print(f"| participant, segment | p | G | shrinkage of {', '.join(names)} | r: posterior, prior, structure |")
print("|---|---|---|---|---|")
began, coupling, passed = time.process_time(), np.zeros((7, 3)), np.zeros((7, 3))
for participant in range(1, 8):
    for s, segment in enumerate(vb.load_recording("hcp-aal2", participant=participant).segments(259.2e3)[:3]):
        posterior, p = asked(segment.values, jax.random.key(10 * participant + s))
        G = posterior.theta["coupling.G"]
        coupling[participant - 1, s], passed[participant - 1, s] = G.mean(), p
        learned = vb.diagnostics.shrinkage(study.prior, posterior)
        cells = [f"{participant}, {s + 1}", f"{p:.3f}", f"{G.mean():.3f} +- {G.std():.3f}"]
        cells.append(" ".join(f"{float(np.mean(learned[name])):.2f}" for name in names))
        rows = (mean_fc(posterior, jax.random.key(3)), from_prior, structure) if s == 0 else ()
        cells.append(", ".join(f"{np.corrcoef(row, fc(segment.values))[0, 1]:.2f}" for row in rows))
        print("| " + " | ".join(cells) + " |", flush=True)
within, between = coupling.var(axis=1, ddof=1).mean(), 3 * coupling.mean(axis=1).var(ddof=1)
print(f"sd of G within participants {np.sqrt(within):.3f}, of their means {coupling.mean(axis=1).std(ddof=1):.3f}; "
      f"intraclass correlation ICC(1) {(between - within) / (between + 2 * within):.2f}")  # fmt: skip
for who, rows in (("1 to 4", passed[:4]), ("5 to 7", passed[4:])):
    inside = rows >= 0.05
    print(f"inside (p >= .05), participants {who}: first segments {inside[:, 0].sum()} of {len(rows)}, "
          f"later ones {inside[:, 1:].sum()} of {2 * len(rows)}")  # fmt: skip
print(f"{time.process_time() - began:.0f} CPU-seconds after loading")
