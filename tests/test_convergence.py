"""What `vb.diagnostics.convergence` says of chains whose trouble is known, and E-BFMI against a loop in float64."""

import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

RNG = np.random.default_rng(3)
OFFSET = np.array([5.0, -2.0])


def good(seed=0, chains=4, draws=1000):
    """Independent draws of two Gaussians, not around zero, and energies with independent increments."""
    rng = np.random.default_rng(seed)
    theta = {
        "coupling.G": 3.0 + rng.normal(size=(chains, draws)),
        "model.eta": OFFSET + rng.normal(size=(chains, draws, 2)),
    }
    stats = {
        "diverging": np.zeros((chains, draws), bool),
        "energy": rng.normal(size=(chains, draws)),
        "accept_prob": np.full((chains, draws), 0.8),
        "num_steps": np.full((chains, draws), 7),
        "step_size": np.broadcast_to(0.1 * np.arange(1, chains + 1)[:, None], (chains, draws)),
    }
    return theta, stats


def made(theta, stats):
    info = {"method": "NUTS", "kernel": {"max_tree_depth": 5, "target_accept": 0.8}}
    return vb.Posterior(theta, sample_stats=stats, info=info)


def test_good_chains_pass_and_the_numbers_are_those_of_arviz():
    posterior = made(*good())
    found = vb.diagnostics.convergence(posterior)
    assert found.passed
    assert found.verdict == "pass"
    assert found.unchecked == ()
    data = posterior.to_inference_data()
    for name in posterior.shapes:
        np.testing.assert_allclose(found.rhat[name], az.rhat(data)[name].values, rtol=1e-9)
        np.testing.assert_allclose(found.ess_bulk[name], az.ess(data, method="bulk")[name].values, rtol=1e-9)
        np.testing.assert_allclose(found.ess_tail[name], az.ess(data, method="tail")[name].values, rtol=1e-9)
        np.testing.assert_allclose(found.mcse[name], az.mcse(data)[name].values, rtol=1e-9)
    np.testing.assert_allclose(found.ebfmi, az.bfmi(data), rtol=1e-9)
    np.testing.assert_allclose(found.step_size, [0.1, 0.2, 0.3, 0.4])
    assert found.divergences.tolist() == [0, 0, 0, 0]
    assert json.loads(json.dumps(found.numbers))["ess_bulk"]["model.eta"] == found.ess_bulk["model.eta"].tolist()


def test_ebfmi_is_that_of_a_loop():
    energy = np.cumsum(RNG.normal(size=(3, 200)), 1) * np.array([[1.0], [5.0], [0.1]]) + 100.0
    energy[2] = 100.0 + RNG.normal(size=200)
    posterior = vb.Posterior({"a": energy}, sample_stats={"energy": energy.astype(np.float32)})
    for chain, value in enumerate(vb.diagnostics.ebfmi(posterior)):
        numbers = [float(e) for e in energy[chain].astype(np.float32)]
        centre = sum(numbers) / 200
        above = sum((numbers[i] - numbers[i - 1]) ** 2 for i in range(1, 200))
        assert value == pytest.approx(above / sum((e - centre) ** 2 for e in numbers), rel=1e-9)
    with pytest.raises(ValueError, match=r"no sample_stats\['energy'\].*kernel=vb\.sampling\.NUTS\(\)"):
        vb.diagnostics.ebfmi(vb.Posterior({"a": energy}))


def bimodal(theta, stats):
    theta["coupling.G"][2:] += 8.0


def shifted(theta, stats):
    theta["model.eta"][3, :, 1] += 0.35


def sticky(theta, stats):
    theta["coupling.G"][:] = 3.0 + np.repeat(np.random.default_rng(5).normal(size=(4, 84)), 12, axis=1)[:, :1000]


def one_divergence(theta, stats):
    stats["diverging"][1, 4] = True


def many_divergences(theta, stats):
    stats["diverging"] |= theta["model.eta"][..., 1] > OFFSET[1] + 1.5


def heavy(theta, stats):
    stats["energy"][2] = np.cumsum(np.random.default_rng(7).normal(size=1000))


def deep(theta, stats):
    stats["num_steps"][0, :100] = 31


def unadapted(theta, stats):
    stats["accept_prob"][1] = 0.3


def stuck(theta, stats):
    theta["model.eta"][1, :, 0] = 4.0


@pytest.mark.parametrize(
    ("spoil", "verdict", "words"),
    [
        (bimodal, "fail", "the chains disagree: R-hat of coupling.G is"),
        (shifted, "warn", "the chains disagree: R-hat of model.eta[1] is"),
        (sticky, "warn", "independent ones in the"),
        (one_divergence, "warn", "1 of 4000 transitions diverged (chains: 0, 1, 0, 0)"),
        (many_divergences, "fail", "divergences sit at high model.eta[1] (median"),
        (heavy, "fail", "chains move slowly between energies: E-BFMI is 0.0"),
        (deep, "warn", "2.5 % of the trajectories were cut at the largest tree depth, 5"),
        (unadapted, "warn", "acceptance is 0.30 in chain 1, its target 0.8"),
        (stuck, "fail", "chains [1] do not move in model.eta"),
    ],
)
def test_each_trouble_has_its_light_and_words(spoil, verdict, words):
    theta, stats = good()
    spoil(theta, stats)
    found = vb.diagnostics.convergence(made(theta, stats))
    assert found.verdict == verdict
    assert not found.passed
    assert any(words in sentence for sentence in found.findings)
    assert json.dumps(found.numbers, allow_nan=False)


def test_good_chains_are_seldom_warned_of():
    """Over 40 seeds; of independent draws R-hat is about 1 + 1 / draws, and E-BFMI 2."""
    assert sum(not vb.diagnostics.convergence(made(*good(seed))).passed for seed in range(40)) <= 2


def test_divergences_anywhere_are_not_located():
    theta, stats = good()
    stats["diverging"] = np.random.default_rng(8).random((4, 1000)) < 0.05
    found = vb.diagnostics.convergence(made(theta, stats))
    assert found.located == ()
    assert found.divergences.sum() > 100


@pytest.mark.slow
def test_divergences_of_a_funnel_sit_at_small_scale():
    """x_i ~ N(0, sigma), log sigma ~ N(0, 1.5), seen without data: the neck is where sigma is small (Neal 2003)."""
    prior = vb.Prior({"sigma": dist.LogNormal(0.0, 1.5), "x": dist.Normal(0.0, 3.0).expand([8])})

    def funnel(theta, _):
        return (dist.Normal(0.0, theta["sigma"]).log_prob(theta["x"]) + theta["x"] ** 2 / 18.0).sum()

    posterior = vb.sample_mcmc(prior, funnel, 0.0, kernel=vb.sampling.NUTS(max_tree_depth=6), key=jax.random.key(3))
    found = vb.diagnostics.convergence(posterior)
    assert found.verdict in ("warn", "fail")
    assert found.divergences.sum() >= 5
    assert found.located[0].name == "sigma"
    assert found.located[0].diverging < 0.7 * found.located[0].others
    assert any("divergences sit at low sigma" in sentence for sentence in found.findings)


def test_what_is_missing_is_said_and_the_rest_checked():
    theta, stats = good()
    found = vb.diagnostics.convergence(vb.Posterior(theta))
    assert found.verdict == "warn"
    assert "divergences" in found.unchecked
    assert "this posterior carries no sample_stats" in found.findings[0]
    assert max(np.max(value) for value in found.rhat.values()) < 1.01
    assert found.step_size is None
    bimodal(theta, stats)
    assert vb.diagnostics.convergence(vb.Posterior(theta)).verdict == "fail"
    one = vb.diagnostics.convergence(made(*good(chains=1)))
    assert one.verdict == "warn"
    assert one.rhat == {}
    assert "R-hat could not be checked: one chain has none to agree with" in one.findings[0]
    del stats["energy"]
    theta, _ = good()
    without = vb.diagnostics.convergence(made(theta, stats))
    assert without.passed
    assert "E-BFMI could not be checked" in without.findings[-1]


def test_mistakes():
    theta, _ = good(draws=1)
    with pytest.raises(ValueError, match=r"chains have 1 draws; expected at least 4 per chain"):
        vb.diagnostics.convergence(vb.Posterior(theta))
    theta, _ = good()
    theta["model.eta"][0, 5, 1] = np.nan
    with pytest.raises(ValueError, match=r"model\.eta is NaN or infinite in 1 of 8000 draws"):
        vb.diagnostics.convergence(vb.Posterior(theta))


def test_every_parameter_constant():
    found = vb.diagnostics.convergence(vb.Posterior({"a": jnp.ones((4, 100))}))
    assert found.verdict == "fail"
    assert found.findings[0].startswith("no chain moves in a")
