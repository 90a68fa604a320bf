"""Faults that users of neighbouring packages reported, tried here: one test for each kind, with the right value."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import vbinfer as vb
from vbinfer.neural.scaler import Standardise
from vbinfer.priors.spec import to_spec
from vbinfer.priors.transforms import WhitenedLeaf

KEY = jax.random.key(0)
PRIOR = vb.Prior({"a": dist.Normal(0.0, 1.0)})
RNG = np.random.default_rng(0)


# ---- priors


@pytest.mark.parametrize("ends", [(6.0, 6.5), (9.0, 12.0), (3.0, 3.5)])
def test_a_normal_cut_far_above_its_mean_is_the_mirror_image_of_one_cut_far_below(ends):
    """It was refused, with a message about low < high; SciPy in float64 is the oracle."""
    low, high = ends
    upper = vb.Prior({"a": dist.TruncatedNormal(0.0, 1.0, low=low, high=high)})
    lower = vb.Prior({"a": dist.TruncatedNormal(0.0, 1.0, low=-high, high=-low)})
    z = np.array([-2.0, 0.0, 1.5])
    theta, logdet = upper.constrain({"a": z})
    mirrored, other = lower.constrain({"a": -z})
    np.testing.assert_allclose(theta["a"], -mirrored["a"], rtol=1e-6)
    np.testing.assert_allclose(logdet, other, rtol=1e-5)
    # of the upper tail by its survival function, which keeps its digits
    mass = stats.norm.sf(low) - stats.norm.sf(high)
    np.testing.assert_allclose(theta["a"], stats.norm.isf(stats.norm.sf(low) - stats.norm.cdf(z) * mass), rtol=1e-4)
    expected = stats.norm.logpdf(np.asarray(theta["a"], float)) - np.log(mass)
    np.testing.assert_allclose(upper.log_prob(theta), expected, atol=2e-3)
    np.testing.assert_allclose(upper.log_prob(theta) + logdet, stats.norm.logpdf(z), atol=2e-3)
    drawn = np.asarray(upper.sample(key=KEY, n=50)["a"])
    assert (drawn > low).all()
    assert (drawn < high).all()


def test_a_prior_without_mass_between_its_ends_is_refused():
    """Every draw was 0.7025, above an upper end of -1, and `constrain` gave the lower end for every z."""
    with pytest.raises(ValueError, match="next to no mass between its ends"):
        vb.Prior({"a": dist.TruncatedNormal(1.35, 0.05, low=-20.0, high=-1.0)})


WHITENED = """
import jax, sys
{setting}
import numpyro.distributions as dist, numpy as np
from vbinfer.priors.spec import to_spec
from vbinfer.priors.transforms import WhitenedLeaf
leaf = WhitenedLeaf(dist.Dirichlet(np.array([2.0, 3.0, 4.0], np.float32)))
print(*np.asarray(leaf.mean, np.float64).tolist(), *np.asarray(leaf.factor, np.float64).ravel().tolist())
"""


def test_the_whitening_of_a_prior_without_a_cdf_does_not_depend_on_settings():
    """It moved by up to .06, and a network that was loaded under another setting was another density."""
    here = WhitenedLeaf(dist.Dirichlet(np.array([2.0, 3.0, 4.0], np.float32)))
    expected = np.concatenate([np.asarray(here.mean, float), np.asarray(here.factor, float).ravel()])
    settings = ("jax_enable_x64', True", "jax_default_prng_impl', 'rbg'", "jax_threefry_partitionable', False")
    code = "\n".join(f"jax.config.update('{setting})" for setting in settings)
    run = subprocess.run(
        [sys.executable, "-c", WHITENED.format(setting=code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose([float(word) for word in run.stdout.split()], expected, rtol=1e-5, atol=1e-6)


# ---- posteriors


def test_a_missing_number_is_no_observation_of_density_one():
    """`loo` counted it: 9 observations with se 1.296 for 8 with .569."""
    y = np.array([0.3, -0.2, 0.8, np.nan, 0.1, -0.9, 0.4, 1.1, -0.5])
    gaussian = vb.likelihoods.Gaussian(lambda theta: theta["a"] + jnp.zeros(9), sigma=1.0)
    theta = {"a": RNG.normal(0.1, 0.3, (1, 400))}
    whole = vb.diagnostics.loo(vb.Posterior(theta, x_o=y), gaussian.pointwise)
    kept = np.delete(y, 3)
    plain = vb.diagnostics.loo(vb.Posterior(theta, x_o=kept), lambda theta, y: dist.Normal(theta["a"], 1.0).log_prob(y))
    assert len(whole.pointwise) == 8
    assert (whole.elpd, whole.se) == pytest.approx((plain.elpd, plain.se), rel=1e-5)


def test_energies_that_are_not_finite_are_no_chain_that_stands_still():
    energy = RNG.normal(size=(2, 200))
    spoiled = energy.copy()
    spoiled[0, ::20] = np.inf
    theta = {"a": RNG.normal(size=(2, 200))}
    found = vb.diagnostics.convergence(vb.Posterior(theta, sample_stats={"energy": spoiled}))
    said = " ".join(found.findings)
    assert "not finite at 10 of 400 draws" in said
    assert "never changes" not in said
    left = np.delete(energy[0], np.s_[::20])
    expected = (np.diff(left) ** 2).sum() / ((left - left.mean()) ** 2).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = vb.diagnostics.ebfmi(vb.Posterior(theta, sample_stats={"energy": spoiled}))
    assert value[0] == pytest.approx(expected)


def test_one_draw_and_chains_of_three_have_no_spread_and_say_nothing_of_it(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        one = vb.Posterior({"a": np.array([[0.5]])}, prior=PRIOR).summary()["a"]
        few = vb.Posterior({"a": RNG.normal(size=(2, 3))}, prior=PRIOR).summary()["a"]
    assert (one.mean, np.isnan(one.sd)) == (0.5, True)
    assert np.isnan([few.rhat, few.ess]).all()
    assert not caplog.records


# ---- observations and features


def log_likelihood(theta, x):
    return dist.Normal(theta["a"], 1.0).log_prob(x).sum()


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite")])
@pytest.mark.parametrize("smc", [False, True], ids=["starts", "TemperedSMC"])
def test_an_observation_with_gaps_is_named_and_no_parameter_is_blamed(value, kind, smc):
    options = {"kernel": vb.sampling.TemperedSMC(), "num_samples": 20} if smc else {"num_chains": 1}
    with pytest.raises(ValueError, match=rf"x_o is {kind} at \[1\]"):
        vb.sample_mcmc(PRIOR, log_likelihood, np.array([1.0, value]), key=KEY, **options)


def test_a_feature_whose_level_hides_what_it_says_is_named():
    """1e6 + a / 2 in float32 was dropped in silence, and the posterior was the prior."""
    from vbinfer.neural.scaler import warn_of_lost

    x = np.stack([1e6 + RNG.normal(size=200) / 2, RNG.normal(size=200), np.full(200, 0.1)], 1)
    lost = Standardise.fit(x).lost(x)
    assert lost.tolist() == [True, False, False]
    with pytest.warns(UserWarning, match="'fc.mean' vary by less than 1e-6 of their level.*Subtract the level"):
        warn_of_lost(("fc.mean", "b", "c"), lost)


@pytest.mark.parametrize("name", ["fc_stat", "moments", "spectrum", "amplitude", "statistics", "kuramoto_order", "fc"])
@pytest.mark.parametrize("length", [0, 1])
def test_a_recording_of_no_or_one_sample_has_no_features(name, length):
    """0 in every draw, or an IndexError."""
    with pytest.raises(ValueError, match=rf"the recording has {length}"):
        getattr(vb.features, name)()(jnp.ones((length, 4)), 720.0)


# ---- what is refused at once, in words


SIM = vb.Simulator(vb.models.Linear(), integrator=vb.Heun(dt=0.1))
POSTERIOR = vb.Posterior({"a": RNG.normal(size=(1, 50))}, prior=PRIOR)
DRAWS = vb.Draws.from_arrays({"a": RNG.normal(size=60)}, RNG.normal(size=(60, 2)))
HOW = {
    "priors in the place of posteriors": (
        lambda: vb.diagnostics.shrinkage(POSTERIOR, PRIOR),
        TypeError,
        r"prior was given a Posterior; expected a Prior: write vb.diagnostics.shrinkage\(prior, posterior\)",
    ),
    "a list for a prior": (
        lambda: vb.sample_prior_predictive([1], log_likelihood, n=10, key=KEY),
        TypeError,
        r"prior was given a list; expected a Prior: write vb.Prior\(",
    ),
    "a list for a prior of a sampler": (
        lambda: vb.sample_mcmc([1], log_likelihood, 1.0, key=KEY),
        TypeError,
        "prior was given a list",
    ),
    "draws and prior exchanged": (lambda: vb.NPE().fit(PRIOR, DRAWS, key=KEY), TypeError, "draws was given a Prior"),
    "a list for the prior of a fit": (lambda: vb.NPE().fit(DRAWS, [1], key=KEY), TypeError, "prior was given a list"),
    "a simulator for a forward model": (
        lambda: vb.sample_prior_predictive(PRIOR, SIM, n=10, key=KEY),
        TypeError,
        r"is a Simulator; .* vb.ForwardModel\(sim, t1=",
    ),
    "a simulator for a forward model, predictive": (
        lambda: vb.posterior_predictive(POSTERIOR, SIM, n=10, key=KEY),
        TypeError,
        r"vb.ForwardModel\(sim, t1=",
    ),
    "a network of nobody": (lambda: vb.Connectome(np.zeros((0, 0))), ValueError, "a Connectome without nodes"),
    "half a node": (lambda: vb.Connectome.from_edges([0.5], [1.9], [1.0], n_nodes=3), ValueError, "number of a node"),
    "draws of nobody": (
        lambda: vb.Draws.from_arrays({"a": np.zeros(0)}, np.zeros((0, 2))),
        ValueError,
        r"x has shape \[0, 2\]: no draws",
    ),
    "a posterior without draws": (
        lambda: vb.Posterior({"a": np.zeros((1, 0))}),
        ValueError,
        "theta holds no draws",
    ),
    "no features": (
        lambda: vb.NPE().fit(vb.Draws.from_arrays({"a": RNG.normal(size=60)}, np.zeros((60, 0))), PRIOR, key=KEY),
        ValueError,
        "the draws have no features",
    ),
    "more steps than can be counted": (
        lambda: vb.simulate(SIM, t1=2e9, key=None),
        ValueError,
        "20,000,000,000 steps .* take a larger dt",
    ),
    "a threshold that everything exceeds": (
        lambda: vb.features.avalanches(threshold=0.0),
        ValueError,
        "threshold=0.0 was given; expected a positive number",
    ),
    "a stretch of no length": (
        lambda: vb.load_recording("hcp-aal2").segment(0.0, np.nan),
        ValueError,
        "length=nan",
    ),
    "a correlation matrix in a file": (
        lambda: to_spec(dist.LKJCholesky(3)),
        TypeError,
        "keep the prior in code, or write another family",
    ),
}


GAPS = np.array([1.0, np.nan])
FRONTS = {
    **{name: getattr(vb.approximate, name) for name in ("fit_map", "fit_laplace", "pathfinder", "fit_vi")},
    "ChainSampler": lambda *given, key: vb.sampling.ChainSampler(*given[:2]).sample(given[2], n=10, key=key),
}
HOW |= {
    f"an observation with gaps, {name}": (
        lambda front=front: front(PRIOR, log_likelihood, GAPS, key=KEY),
        ValueError,
        r"x_o is NaN at \[1\] .* take a likelihood that skips NaN",
    )
    for name, front in FRONTS.items()
}
HOW |= {
    "an observation with gaps, posterior_sbc": (
        lambda: vb.diagnostics.posterior_sbc(lambda *_: None, prior=PRIOR, simulator=log_likelihood, x_o=GAPS, key=KEY),
        ValueError,
        r"NaN or infinite values in x\[1\]",
    ),
    "a cohort of no nodes": (
        lambda: vb.Connectome.from_edges([], [], [], n_nodes=0),
        ValueError,
        "n_nodes=0 was given",
    ),
    "a band beyond what a recording can hold": (
        lambda: vb.features.bandpass(10.0, 100.0)(jnp.ones((50, 3)), 720.0),
        ValueError,
        "show nothing from 0.694444 Hz on",
    ),
}


@pytest.mark.parametrize("what", HOW)
def test_refused_with_what_to_write(what):
    call, error, words = HOW[what]
    with pytest.raises(error, match=words):
        call()


def test_a_connectome_without_lengths_serves_where_there_are_no_delays():
    weights = np.array([[0.0, 0.3], [0.8, 0.0]])
    sim = vb.Simulator(
        vb.models.Linear(gamma=-1.0),
        vb.Connectome(weights),
        coupling=vb.coupling.Linear(G=0.5),
        integrator=vb.Euler(dt=0.1),
    )
    x = np.asarray(vb.simulate(sim, t1=0.1, key=None, init={"x": jnp.array([1.0, -2.0])}).ys["raw"]["x"])[0]
    start = np.array([1.0, -2.0])
    np.testing.assert_allclose(x, start + 0.1 * (-start + 0.5 * weights @ start), rtol=1e-5)


def test_a_period_in_seconds_is_asked_about():
    with pytest.warns(UserWarning, match="period=1.8 ms of a BOLD signal.*write period=1800 if it is 1.8 s"):
        vb.monitors.BalloonWindkessel("x", 1.8)
    with pytest.warns(UserWarning, match="write period=720 if it is 0.72 s"):
        type(vb.load_recording("hcp-aal2"))(RNG.normal(size=(50, 2)), period=0.72)


def test_a_run_shorter_than_a_period_says_that_it_holds_no_sample():
    """It gave `[0, N]` without a word; a piece that goes on finishes the window."""
    averaged = vb.Simulator(
        vb.models.Linear(), integrator=vb.Heun(dt=0.5), monitors={"bold": vb.monitors.TimeAverage(4.0, var="x")}
    )
    with pytest.warns(UserWarning, match="'bold' has a sample every 4 ms and the run lasts 3 ms: it holds none"):
        first = vb.simulate(averaged, t1=3.0, key=None)
    assert first.ys["bold"].shape == (0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vb.simulate(averaged, t1=1.0, key=None, init=first.final).ys["bold"].shape == (1, 1)


def driven(stimulus, dt=0.1):
    return vb.Simulator(vb.models.Linear(), integrator=vb.Euler(dt=dt), stimulus=stimulus)


def test_a_pulse_that_steps_miss_or_stretch_is_told_and_how_long_it_acts():
    for onset, duration, acts in ((1.02, 0.05, 0.0), (1.02, 0.15, 0.1), (1.0, 0.25, 0.3)):
        with pytest.warns(UserWarning, match=f"a pulse of {duration} ms .* acts for {acts:g} ms in steps of 0.1 ms"):
            sim = driven(vb.stimuli.Pulse(onset, duration, 1.0))
        # what the sentence says is what happens: the dose of u, seen once per step
        t = np.arange(30) * 0.1
        seen = sum(float(sim.stimulus(jnp.asarray(one, jnp.float32), jnp.zeros(1))) for one in t) * 0.1
        assert seen == pytest.approx(acts, abs=1e-6)
    with pytest.warns(UserWarning, match="acts for 0.3 ms"):
        driven(vb.stimuli.PulseTrain(1.0, 0.25, 1.0, 1.0, count=3))


def test_edges_later_than_float32_knows_are_told():
    with pytest.warns(UserWarning, match="an edge at 600,100 ms may come a step of 0.1 ms early"):
        driven(vb.stimuli.Pulse(600e3, 100.0, 1.0))
    with pytest.warns(UserWarning, match="an edge at 600,110 ms"):
        driven(vb.stimuli.PulseTrain(100.0, 10.0, 100e3, 1.0, count=7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driven(vb.stimuli.Pulse(600e3, 100.0, 1.0), dt=0.5)
        driven(vb.stimuli.Pulse(10.0, 5.0, 1.0))
        driven(vb.stimuli.Pulse(1.02, 0.05, 1.0, rise=0.2))


@pytest.mark.parametrize("broken", [True, False])
def test_divergences_beside_a_likelihood_that_is_not_finite_name_it_and_no_step_size(broken):
    """It was answered with "raise target_accept"."""
    stats = {"diverging": RNG.random((2, 200)) < 0.1, "energy": RNG.normal(size=(2, 200))}
    if broken:
        stats["energy"][:, ::20] = np.inf
    found = vb.diagnostics.convergence(vb.Posterior({"a": RNG.normal(size=(2, 200))}, sample_stats=stats))
    (said,) = (sentence for sentence in found.findings if "transitions diverged" in sentence)
    assert "mend the likelihood where it is NaN or infinite" in said
    assert ("target_accept" in said) == (not broken)
