"""The virtual epileptic patient of benchmarks/table_vep.py, with fewer regions."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

pytestmark = pytest.mark.slow
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
vep = importlib.import_module("table_vep")
sys.path.pop(0)


def test_input_of_the_network_is_that_of_the_coupling():
    weights = np.array([[0.0, 2.0, 0.5], [0.3, 0.0, 0.0], [0.0, 1.5, 0.0]])
    y = np.random.default_rng(0).normal(-1.0, 1.0, (5, 3))
    area = vb.features.area(intervals=[(0.0, 4e3)], pool="nodes")
    received = np.array([[sum(weights[i, j] * (row[j] - row[i]) for j in range(3)) for i in range(3)] for row in y])
    expected = 1e3 * (received[1:] + received[:-1]).sum(axis=0) / 2
    np.testing.assert_allclose(vep.NetworkInput(jnp.asarray(weights), area)(jnp.asarray(y)), expected, rtol=1e-5)


def test_a_smaller_patient_is_recovered_and_covered():
    """20 regions and 3,000 draws: nearly all of the prior's variance goes, and intervals hold what they say."""
    connectome = vb.Connectome.synthetic(20, key=jax.random.key(20), asymmetric=True).normalise("max")
    prior, forward = vep.patient(connectome)
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
