"""The sbi package behind our contract: the same known posterior, no leakage, nothing left behind."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from vbinfer.draws.draws import Draws
from vbinfer.io import npz
from vbinfer.neural.sbi import SbiEstimator, SbiPosterior
from vbinfer.priors import Prior

KEY = jax.random.key(1)
X_O = lg.OFFSET + np.array([0.3, 3.4, -1.6, 1.2, 0.7, 0.0])
QUICK = {"max_num_epochs": 3}


@functools.cache
def fitted():
    prior = lg.make_prior()
    return SbiEstimator("NPE", training={"stop_after_epochs": 10}).fit(lg.make_draws(prior, 5000), prior, key=KEY)


def test_linear_gaussian_posterior_is_recovered():
    amortized, info = fitted()
    posterior = amortized.sample(X_O, n=10_000, key=jax.random.key(2))
    flat, sd = posterior.ravel(), np.sqrt(np.diag(lg.COV))
    # network error with 5,000 draws: a quarter of a posterior sd in the mean, 15 % of the sd
    np.testing.assert_allclose((flat.mean(0) - lg.posterior_mean(X_O)) / sd, 0.0, atol=0.25)
    np.testing.assert_allclose(flat.std(0) / sd, 1.0, atol=0.15)
    np.testing.assert_allclose(np.corrcoef(flat.T), lg.COV / np.outer(sd, sd), atol=0.15)
    theta, x = lg.simulate(amortized.prior, jax.random.key(5), 3000)
    log_q = np.asarray(amortized.log_prob(theta, x))
    assert lg.EXPECTED_LOG_POSTERIOR - 0.15 < log_q.mean() < lg.EXPECTED_LOG_POSTERIOR + 3 * np.sqrt(1.5 / 3000)
    gain = (log_q - np.asarray(amortized.prior.log_prob(theta))).mean()
    assert info.info_gain == pytest.approx(gain, abs=4.0 * 1.8 / np.sqrt(info.num_val))
    assert info.num_train + info.num_val == 5000
    assert info.num_val == 500
    assert info.converged


def test_log_prob_is_that_of_the_draws_and_pairs_rows():
    amortized, _ = fitted()
    posterior = amortized.sample(X_O, n=300, key=jax.random.key(2))
    theta = {name: value[0] for name, value in posterior.theta.items()}
    np.testing.assert_allclose(amortized.log_prob(theta, X_O), posterior.log_prob[0], rtol=1e-5)
    rows = np.stack([X_O, X_O + 0.5])
    pair = {name: value[:2] for name, value in theta.items()}
    paired = amortized.log_prob(pair, rows)
    alone = amortized.log_prob({name: value[1] for name, value in pair.items()}, rows[1])
    assert float(paired[1]) == pytest.approx(float(alone), rel=1e-4)
    batch = amortized.sample_batch(rows, n=2000, key=KEY)
    assert batch["model.eta"].shape == (2, 2000, 2)
    for i in range(2):
        mean = np.asarray(amortized.prior.ravel(batch))[i].mean(0)
        np.testing.assert_allclose((mean - lg.posterior_mean(rows[i])) / np.sqrt(np.diag(lg.COV)), 0.0, atol=0.3)


def test_no_draw_leaves_a_bounded_prior():
    prior = Prior({"a": dist.Uniform(2.0, 3.0)})
    a = np.asarray(prior.sample(key=jax.random.key(0), n=800)["a"])
    x = a[:, None] + 0.2 * np.asarray(jax.random.normal(jax.random.key(1), (800, 1)))
    fit = SbiEstimator("NPE", network={"model": "mdn"}, training={"stop_after_epochs": 10})
    amortized, _ = fit.fit(Draws.from_arrays({"a": a}, x), prior, key=KEY)
    values = amortized.sample([2.05], n=4000, key=jax.random.key(2)).theta["a"].ravel()
    exact = st.truncnorm(-0.25, 4.75, 2.05, 0.2)
    assert values.min() >= 2.0
    assert values.max() <= 3.0
    assert abs(values.mean() - exact.mean()) < 0.25 * exact.std()
    outside = amortized.log_prob({"a": jnp.array([1.9, 2.2, 3.1])}, [2.5])
    assert np.isneginf(outside[jnp.array([0, 2])]).all()
    assert np.isfinite(outside[1])


@pytest.mark.parametrize("model", ["maf", "nsf", "mdn", "zuko_maf", "zuko_nsf"])
def test_saved_and_loaded_networks_are_equal_bit_for_bit(model, tmp_path):
    prior = lg.make_prior()
    fit = SbiEstimator("NPE", network={"model": model, "hidden_features": 20}, training=QUICK)
    amortized, _ = fit.fit(lg.make_draws(prior, 200), prior, key=KEY)
    amortized.save(tmp_path / "sbi.npz")
    loaded = npz.load(tmp_path / "sbi.npz")
    assert isinstance(loaded, SbiPosterior)
    assert loaded.info == amortized.info
    theta, x = lg.simulate(prior, jax.random.key(6), 50)
    np.testing.assert_array_equal(loaded.log_prob(theta, x), amortized.log_prob(theta, x))


def test_the_key_decides_and_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    import torch

    monkeypatch.chdir(tmp_path)
    prior = lg.make_prior()
    draws = lg.make_draws(prior, 200)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fits = [SbiEstimator("NPE", training=QUICK).fit(draws, prior, key=KEY) for _ in range(2)]
    np.testing.assert_array_equal(fits[0][1].val, fits[1][1].val)
    samples = [fit[0].sample(X_O, n=20, key=jax.random.key(3)).ravel() for fit in fits]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not fits[0][1].converged
    assert "raise max_num_epochs" in fits[0][1].sentence
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_importing_does_not_import_torch():
    code = "import sys, vbinfer.neural.sbi; sys.exit('torch' in sys.modules or 'sbi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}).returncode == 0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"the method 'NPEE'; this version has NPE, .*\. Did you mean 'NPE'\?"):
        SbiEstimator("NPEE")
    amortized, _ = fitted()
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'fc\.mean'"):
        amortized.sample(np.where(np.arange(6) == 0, np.nan, X_O), n=5, key=KEY)
