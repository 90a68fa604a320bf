"""Delays: TVB's numbers, closed forms of delay equations, and that neither pieces nor batches change anything."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

GOLDEN = Path(__file__).parent / "golden"
TVB = {p.stem.removeprefix("tvb_"): p for p in GOLDEN.glob("tvb_*.npz") if p.stem != "tvb_conventions"}
TVB_NAMES = {"Linear": {"a": "G", "b": "offset"}, "Difference": {"a": "G"}, "Kuramoto": {"a": "G"}}


def info(stored):
    return json.loads(str(stored["info"]))


DELAYED = [(n, c) for n in sorted(TVB) for c in info(np.load(TVB[n]))["cases"] if c.endswith("delayed")]


def tvb_run(name, case):
    """Trajectory `[T, V, N]` of a golden case with TVB's conventions, and the stored one."""
    stored = np.load(TVB[name])
    kind = getattr(vb.models, name)
    known = vb.paths(kind())
    given = info(stored)["cases"][case]
    renamed = TVB_NAMES.get(given["coupling"], {})
    sim = vb.Simulator(
        kind(**{k: v for k, v in json.loads(str(stored["params"])).items() if k in known}),
        vb.Connectome(stored["weights"], stored["tract_lengths"], float(stored["speed"])),
        coupling=getattr(vb.coupling, given["coupling"])(
            **{renamed.get(k, k): v for k, v in given["coupling_params"].items()}
        ),
        integrator=vb.Heun(dt=float(stored["dt"]), frozen_coupling=True),
        delays=vb.Delays(),
        monitors={"raw": vb.monitors.Subsample(float(stored["t"][0]))},
    )
    y = vb.simulate(sim, t1=float(stored["t"][-1]), key=None, init=sim.model.State(*stored["x0"])).ys["raw"]
    return np.stack([y[v] for v in sim.model.variables()], axis=1), stored[f"{case}__y"], given


def deviation(y, reference):
    """Largest error of a trajectory `[T, V, N]`, relative to the largest value of each state variable."""
    scale = np.abs(reference).max(axis=(0, 2))
    return (np.abs(y - reference).max(axis=(0, 2)) / np.where(scale == 0.0, 1.0, scale)).max()


@pytest.mark.parametrize(("name", "case"), DELAYED)
def test_equals_tvb(name, case):
    with jax.enable_x64(True):
        y, reference, _ = tvb_run(name, case)
    assert deviation(y, reference) < 1e-9
    still = np.abs(reference).max(axis=(0, 2)) == 0.0
    assert np.all(y[:, still] == 0.0)
