"""The virtual epileptic patient of benchmarks/table_vep.py, with fewer regions."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vbinfer as vb

pytestmark = pytest.mark.slow
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
vep = importlib.import_module("table_vep")
sys.path.pop(0)


def test_a_smaller_patient_is_recovered_and_covered():
    """20 regions and 3,000 draws: nearly all of the prior's variance goes, and intervals hold what they say."""
    connectome = vb.Connectome.synthetic(20, key=jax.random.key(20), asymmetric=True).normalise("max")
    task = vb.tasks.vep(connectome)
    prior, forward = task.prior, task.simulator
    draws = vb.sample_prior_predictive(prior, forward, 3_000, key=jax.random.key(1), progress=False)
    held = vb.sample_prior_predictive(prior, forward, 200, key=jax.random.key(2), progress=False)
    training = vb.densities.Training(max_epochs=30, learning_rate=4e-3)
    amortized, info = vb.NPE(density=vb.densities.Regional(20), training=training).fit(
        draws, prior, key=jax.random.key(3)
    )
    coverage, shrinkage, joint = vep.check(amortized, prior, held, n=300)
    assert 0.86 < coverage.mean() < 0.94  # binomial error 0.005 over 4,200 intervals
    assert np.median(shrinkage[1:]) > 0.9
    assert 0.8 < joint < 0.97  # binomial error 0.02 over 200 intervals
    assert info.info_gain > 25.0
