"""The whole study: right posteriors pass, each known fault is flagged, mistakes are named, a study can be resumed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from calibration_sources import FEATURES, MEAN, NAMES, PRIOR_COV, SOURCES, Altered, Exact, make_draws, prior_itself

import vbinfer as vb
from vbinfer.diagnostics.calibration import held_out, study

KEY = jax.random.key(21)
FAULTS = [name for name in SOURCES if name != "correct"]


def studies(name, seeds):
    return [vb.calibrate(SOURCES[name], make_draws(300, seed), key=jax.random.key(500 + seed)) for seed in seeds]


def flagged(found):
    return sum(not one.passed for one in found)


def test_right_posteriors_pass():
    assert flagged(studies("correct", range(1000, 1005))) <= 1  # P(2 or more of 5) = 2 %


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_flagged(name):
    assert flagged(studies(name, range(2000, 2005))) == 5


@pytest.mark.slow
def test_right_posteriors_pass_in_95_of_100_studies():
    assert 100 - flagged(studies("correct", range(3000, 3100))) >= 88  # binomial(100, 0.95): below 88 is p = 0.002


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_flagged_in_90_of_100_studies(name):
    assert flagged(studies(name, range(4000, 4100))) >= 90


def test_findings_name_the_fault_the_parameter_and_its_size():
    draws = make_draws(300, 5)
    low = vb.calibrate(Altered(lambda r, x, rng: r - np.array([0, 0.5 * 0.136, 0, 0, 0])), draws, key=KEY)
    assert low.findings[0].startswith("model.eta: the posterior lies too low, by about 0.")  # its posterior sd is 0.136
    shift = float(low.findings[0].split("about ")[1].split(" ")[0])
    assert shift == pytest.approx(0.5, abs=4 / np.sqrt(300))
    narrow = [
        s for s in vb.calibrate(Exact(scale=0.7), draws, key=KEY).findings if s.startswith("coupling.G: the post")
    ]
    assert float(narrow[0].split("about ")[1].split(" ")[0]) == pytest.approx(0.7, abs=4 * 0.7 / np.sqrt(600))
    ignored = vb.calibrate(SOURCES["feature ignored"], draws, key=KEY).findings[0]
    assert "coupling.G: x still tells where the truth lies" in ignored
    assert any(f"look at {feature} first" in ignored for feature in FEATURES[:8])  # the last two are noise alone


def test_ranks_alone_pass_a_posterior_that_ignores_a_feature():
    """What the study adds to plain ranks: location, width and shape are all right, x still tells."""
    found = vb.diagnostics.sbc(SOURCES["feature ignored"], make_draws(300, 6), key=KEY)
    lights = {row.quantity: row.status for row in found.tests if row.parameter == "coupling.G"}
    assert [lights[name] for name in ("location", "width", "shape")] == ["pass", "pass", "pass"]
    assert lights["location given x"] == found.verdict == "fail"
    assert "given x" in found.findings[0] or "x still tells" in found.findings[0]


def test_the_prior_is_reported_as_nothing_learned_whatever_the_tests_say():
    draws = make_draws(300, 7)
    informed = vb.calibrate(SOURCES["the prior"], draws, key=KEY)
    assert informed.verdict == "fail"  # x tells what this posterior ignores
    assert any("nothing learned" in sentence for sentence in informed.findings)
    noise = np.random.default_rng(0).normal(size=draws.x.shape)  # now the prior is the right answer, and useless
    useless = vb.Draws.from_arrays(draws.theta, noise, names=draws.names)
    found = vb.calibrate(Altered(prior_itself), useless, key=KEY)
    assert all(row.status == "pass" for row in found.tests)
    assert found.verdict == "warn"
    assert found.findings[0].startswith("nothing learned")
    assert max(row.moved for row in found.learned.rows) < 0.01


def test_one_parameter_of_several_may_teach_nothing():
    def one_unlearned(rows, x, rng):
        rows[:, :, 4] = rng.normal(MEAN[4], np.sqrt(PRIOR_COV[4, 4]), rows.shape[:2])
        return rows

    found = vb.calibrate(Altered(one_unlearned), make_draws(300, 8), key=KEY)
    assert any(sentence.startswith("nothing learned about noise.sigma") for sentence in found.findings)
    assert not any("nothing learned about coupling.G" in sentence for sentence in found.findings)


def test_recovery_and_information_gain_in_closed_form():
    draws = make_draws(2000, 9)
    found = vb.calibrate(Exact(), draws, key=KEY, num_posterior_samples=200)
    from calibration_sources import COV

    explained = 1.0 - np.diag(COV) / np.diag(PRIOR_COV)
    for row, share in zip(found.learned.rows, explained, strict=True):
        assert row.mean_shrinkage == pytest.approx(share, abs=0.06 * (1 - share) + 0.02)  # prior variance from 2,000
        assert row.r == pytest.approx(np.sqrt(share), abs=4 * (1 - share) / np.sqrt(2000) + 0.005)
        assert row.moved == pytest.approx(share, abs=0.06 * (1 - share) + 0.02)
        assert row.r2 == pytest.approx(share, abs=0.06)
        assert row.nrmse == pytest.approx(np.sqrt(1 - share), abs=0.03)
        assert row.z_sd == pytest.approx(1.0, abs=4 / np.sqrt(4000) + 0.01)
    assert found.learned.info_gain is None  # this source has no prior

    class WithPrior:
        prior = vb.Prior({name: dist.Normal(m, s) for name, m, s in zip(NAMES, MEAN, np.sqrt(np.diag(PRIOR_COV)),
                                                                          strict=True)})  # fmt: skip
        sample_batch, log_prob = Exact().sample_batch, Exact().log_prob

    gain = vb.calibrate(WithPrior(), draws, key=KEY, num_posterior_samples=50).learned
    # E log q - log p for p of independent normals: the entropies' difference
    expected = 0.5 * (np.log(np.diag(PRIOR_COV)).sum() - np.linalg.slogdet(COV)[1])
    assert gain.info_gain == pytest.approx(expected, abs=4 * gain.info_gain_se)
    assert gain.info_gain_se < 0.1


def test_calibration_by_posterior_mean_is_flat_and_by_truth_is_not():
    """A right posterior: scores are standard normal at any posterior mean, and shifted at extreme truths."""
    found = vb.calibrate(Exact(), make_draws(1000, 10), key=KEY, num_posterior_samples=100)
    by_mean = [row for row in found.local if row.name == "noise.sigma" and row.by == "posterior mean"]
    by_truth = [row for row in found.local if row.name == "noise.sigma" and row.by == "truth"]
    assert [row.n for row in by_mean] == [200] * 5
    assert max(abs(row.score_mean) for row in by_mean) < 4 / np.sqrt(200)
    assert by_truth[0].score_mean < -0.5
    assert by_truth[-1].score_mean > 0.5


def test_failed_simulations_are_left_out_and_counted():
    draws = make_draws(320, 11)
    x = draws.x.copy()
    x[::16] = np.nan
    some = vb.Draws.from_arrays(draws.theta, x, names=draws.names)
    found = vb.calibrate(Exact(), some, key=KEY, num_posterior_samples=50)
    assert (found.failed, len(found)) == (20, 300)
    assert any(s.startswith("20 of 320 held-out simulations failed and were left out") for s in found.findings)


def test_few_data_sets_warn_and_say_so():
    found = vb.calibrate(Exact(), make_draws(60, 12), key=KEY, num_posterior_samples=50)
    assert all(row.status == "pass" for row in found.tests)
    assert found.verdict == "warn"
    assert any("60 held-out data sets are few" in sentence for sentence in found.findings)


def test_autocorrelated_chains_are_thinned_and_their_worth_is_said():
    def chains(x_o, n, key):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        walk = rng.normal(size=(2, 10, 5)).repeat(40, axis=1)  # each of 10 independent draws stands 40 times
        theta = Exact()._mean(x_o[None]) + walk @ Exact().factor.T
        return vb.Posterior({name: theta[:, :, i] for i, name in enumerate(NAMES)})

    found = vb.calibrate(chains, make_draws(60, 13), key=KEY, num_posterior_samples=100)
    assert found.info["ess"] < 50
    assert any("autocorrelated" in sentence for sentence in found.findings)
    assert found.verdict != "pass"


def test_prior_simulator_and_number_and_a_callable_source():
    prior = vb.Prior({"w": dist.Normal(1.0, 2.0), "eta": dist.Normal(-1.0, 0.5).expand([2])})

    def simulator(theta, key):
        return jnp.append(theta["eta"], theta["w"]) + 0.5 * jax.random.normal(key, (3,))

    def exact(x_o, n, key):
        sd = np.array([0.5, 0.5, 2.0])
        gain = sd**2 / (sd**2 + 0.25)
        mean = np.array([-1.0, -1.0, 1.0])
        rows = mean + gain * (x_o - mean) + np.sqrt(1 - gain) * sd * np.asarray(jax.random.normal(key, (n, 3)))
        return vb.Posterior({"eta": rows[None, :, :2], "w": rows[None, :, 2]})  # in another order than the prior

    found = vb.calibrate(exact, (prior, simulator, 100), key=KEY, num_posterior_samples=100)
    assert found.names == ("w", "eta[0]", "eta[1]")
    assert found.verdict == "pass"
    assert [row.mean_shrinkage for row in found.learned.rows] == pytest.approx([16 / 17, 0.5, 0.5], abs=0.03)
    assert {"simulate", "sample", "test"} == set(found.info["seconds"])


@pytest.mark.slow
def test_a_neural_posterior_passes_and_its_density_is_used():
    prior = vb.Prior({"w": dist.Uniform(-1.0, 2.0), "eta": dist.Normal(-1.0, 0.5)})

    def simulator(theta, key):
        return jnp.stack([theta["w"], theta["eta"] * 2, theta["w"]]) + 0.4 * jax.random.normal(key, (3,))

    draws = vb.sample_prior_predictive(prior, simulator, n=3000, key=jax.random.key(1), progress=False)
    amortized, info = vb.NPE(
        vb.densities.MDN(components=1), ensemble=1, training=vb.densities.Training(max_epochs=30)
    ).fit(draws, prior, key=jax.random.key(2))
    found = vb.calibrate(amortized, (prior, simulator, 300), key=jax.random.key(3))
    assert found.info["density"]
    assert found.verdict != "fail"
    assert found.learned.info_gain == pytest.approx(info.info_gain, abs=0.2)


def test_truths_outside_the_prior_are_named_by_row():
    class Bounded(Exact):
        prior = vb.Prior({name: dist.Uniform(m - 9 * s, m + (2.2 if name == "model.w" else 9) * s)
                          for name, m, s in zip(NAMES, MEAN, np.sqrt(np.diag(PRIOR_COV)), strict=True)})  # fmt: skip

    draws = make_draws(300, 20)
    rows = np.flatnonzero(draws.theta["model.w"] > 2.2)
    x = draws.x.copy()
    x[rows[0]] = np.nan  # rows are counted in the draws as given, failed ones included
    some = vb.Draws.from_arrays(draws.theta, x, names=draws.names)
    with pytest.raises(
        ValueError, match=rf"row {rows[1]} of the draws has model\.w = 2\.\d+, outside the source's prior"
    ):
        vb.diagnostics.sbc(Bounded(), some, key=KEY)


def test_the_same_key_gives_the_same_study_and_saving_keeps_it(tmp_path):
    draws = make_draws(100, 14)
    first, again = (vb.calibrate(Exact(), draws, key=KEY, num_posterior_samples=50) for _ in range(2))
    assert first.tests == again.tests
    assert first.tests != vb.calibrate(Exact(), draws, key=jax.random.key(22), num_posterior_samples=50).tests
    first.save(tmp_path / "calibration.npz")
    read = vb.load(tmp_path / "calibration.npz")
    assert isinstance(read, vb.diagnostics.Calibration)
    assert str(read) == str(first)
    assert read.numbers == json.loads(json.dumps(first.numbers))
    assert read.local == first.local
    for name in ("ranks", "u"):
        assert np.array_equal(getattr(read, name), getattr(first, name))
    for name in ("f", "ecp", "alpha", "band", "atc"):
        assert np.array_equal(getattr(read.tarp, name), getattr(first.tarp, name))


def test_a_study_cut_short_goes_on_bit_for_bit(tmp_path):
    draws, asked = make_draws(200, 15), []

    class Counted:
        log_prob = Exact().log_prob

        def sample_batch(self, x, *, n, key):
            asked.append(len(x))
            if len(asked) == 3 and not (tmp_path / "go").exists():
                raise KeyboardInterrupt
            return Exact().sample_batch(x, n=n, key=key)

    whole = vb.calibrate(Exact(), draws, key=KEY, num_posterior_samples=50)
    with pytest.raises(KeyboardInterrupt):
        vb.calibrate(Counted(), draws, key=KEY, num_posterior_samples=50, store=tmp_path / "study")
    (tmp_path / "go").touch()
    asked.clear()
    resumed = vb.calibrate(Counted(), draws, key=KEY, num_posterior_samples=50, store=tmp_path / "study")
    assert len(asked) == 3  # of four chunks: the first is compared, the second is read
    assert resumed.tests == whole.tests
    assert np.array_equal(resumed.u, whole.u)
    with pytest.raises(
        ValueError, match=r"another study:\n  num_posterior_samples: the store has 50, this call has 60"
    ):
        vb.calibrate(Counted(), draws, key=KEY, num_posterior_samples=60, store=tmp_path / "study")
    retrained = Counted()
    retrained.sample_batch = Exact(scale=1.01).sample_batch
    with pytest.raises(ValueError, match=r"was begun with another source"):
        vb.calibrate(retrained, draws, key=KEY, num_posterior_samples=50, store=tmp_path / "study")


def changed(draws, **columns):
    return vb.Draws.from_arrays({**draws.theta, **columns}, draws.x, names=draws.names)


def test_mistakes_in_the_draws_are_named():
    draws = make_draws(100, 16)
    with pytest.raises(ValueError, match=r"49 of 49 held-out draws are valid; at least 50 are needed for a verdict"):
        vb.diagnostics.sbc(Exact(), make_draws(49, 0), key=KEY)
    with pytest.raises(ValueError, match=r"n=20 held-out simulations were asked for; at least 50 are needed"):
        vb.calibrate(Exact(), (vb.Prior({"g": dist.Normal(0.0, 1.0)}), None, 20), key=KEY)
    failed = vb.Draws.from_arrays(draws.theta, np.full_like(draws.x, np.nan))
    with pytest.raises(ValueError, match=r"all 100 held-out draws failed"):
        vb.diagnostics.coverage(Exact(), failed, key=KEY)
    with pytest.raises(ValueError, match=r"model\.w is 0\.25 in every held-out draw; a constant has no posterior"):
        vb.diagnostics.tarp(Exact(), changed(draws, **{"model.w": np.full(100, 0.25)}), key=KEY)
    other = vb.Draws.from_arrays({"G": draws.theta[NAMES[0]]}, draws.x)
    with pytest.raises(
        ValueError, match=r"the source's posteriors are over coupling\.G, .* but the draws have G: these"
    ):
        vb.calibrate(Exact(), other, key=KEY)
    with pytest.raises(TypeError, match=r"draws is a dict; expected held-out vb\.Draws: write vb\.sample_prior_pred"):
        held_out._usable(draws.theta)  # the suite's type checker would be first at vb.diagnostics.sbc
    with pytest.raises(TypeError, match=r"draws is \(int, int\); expected vb\.Draws, or \(prior, simulator, n\)"):
        study._simulated((1, 2), KEY, None)
    proposed = dataclasses.replace(draws, log_q=np.where(np.arange(100) < 30, np.nan, 0.0))
    with pytest.raises(ValueError, match=r"70 of 100 held-out draws came from a proposal, not from the prior"):
        vb.diagnostics.sbc(Exact(), proposed, key=KEY)

    class Trained(Exact):
        names = ("fcd.var", *FEATURES[1:])

    with pytest.raises(ValueError, match=r"they differ in fc\[0\], fcd\.var: these draws are of another study"):
        vb.diagnostics.sbc(Trained(), draws, key=KEY)


def test_mistakes_in_the_source_are_named():
    draws = make_draws(100, 17)
    one = lambda x_o, n, key: vb.Posterior({name: np.zeros((1, 1)) for name in NAMES})  # noqa: E731
    with pytest.raises(
        ValueError, match=r"the posterior of held-out data set 0 has 1 draw and num_posterior_samples=50"
    ):
        vb.diagnostics.sbc(one, draws, num_posterior_samples=50, key=KEY)
    with pytest.raises(ValueError, match=r"num_posterior_samples=1 was given; a rank among so few says little"):
        vb.diagnostics.sbc(Exact(), draws, num_posterior_samples=1, key=KEY)

    def broken(rows, x, rng):
        rows[(x == draws.x[70]).all(axis=1), 3] = np.inf
        return rows

    with pytest.raises(ValueError, match=r"the posterior of held-out data set 70 holds NaN or infinite draws"):
        vb.calibrate(Altered(broken), draws, key=KEY)
    with pytest.raises(TypeError, match=r"source is a int; expected an object with \.sample\(x_o, n=, key=\)"):
        vb.diagnostics.tarp(3, draws, key=KEY)
    with pytest.raises(TypeError, match=r"the source gave a dict for held-out data set 0; expected a vb\.Posterior"):
        vb.diagnostics.coverage(lambda x_o, n, key: {}, draws, key=KEY)

    class NoNumber(Exact):
        def log_prob(self, theta, x):
            return np.full(51, np.nan)

    with pytest.raises(ValueError, match=r"source\.log_prob is NaN for held-out data set 0"):
        vb.diagnostics.sbc(NoNumber(), draws, num_posterior_samples=50, key=KEY)


def test_a_store_of_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "posteriors").mkdir()
    (tmp_path / "posteriors" / "other.npz").write_text("x")
    with pytest.raises(ValueError, match=r"holds other files; give a new folder"):
        vb.calibrate(Exact(), make_draws(60, 1), key=KEY, store=tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "posteriors").write_text("x")
    with pytest.raises(ValueError, match=r"is a file; give the name of a folder"):
        vb.calibrate(Exact(), make_draws(60, 1), key=KEY, store=tmp_path / "taken")


def test_chunks_know_their_study_and_their_place(tmp_path):
    """A copied chunk was once taken for another; deleting a damaged study.npz, as the message says, did not help."""
    draws = make_draws(120, 1)

    def study(store):
        return vb.calibrate(Exact(), draws, key=KEY, num_posterior_samples=50, store=store)

    whole = study(tmp_path)
    place = tmp_path / "posteriors"
    chunks = sorted(place.glob("chunk-*.npz"))
    assert len(chunks) > 1
    (place / "study.npz").unlink()
    again = study(tmp_path)
    assert np.array_equal(again.ranks, whole.ranks)
    good = chunks[1].read_bytes()
    chunks[1].write_bytes(chunks[0].read_bytes())
    with pytest.raises(ValueError, match=r"chunk-\d+\.npz .*delete it, and repeat the call"):
        study(tmp_path)
    chunks[1].unlink()
    assert np.array_equal(study(tmp_path).ranks, whole.ranks)
    assert chunks[1].read_bytes() == good


def test_truths_without_density_are_said():
    class Cut(Exact):
        def log_prob(self, theta, x):
            value = super().log_prob(theta, x)
            value[0] = -np.inf if x[0] > limit else value[0]  # the truth comes first
            return value

    draws = make_draws(200, 18)
    limit = np.quantile(draws.x[:, 0], 0.96)
    found = vb.calibrate(Cut(), draws, key=KEY, num_posterior_samples=50)
    assert found.learned.impossible == int((draws.x[:, 0] > limit).sum()) == 8
    assert any(s.startswith("8 truths lie where their posterior has no density") for s in found.findings)


def test_data_that_tell_the_size_and_not_the_sign_are_no_nothing():
    """theta = sign * size, x tells the size: posterior means stay at 0, and only the density says what was learned."""
    rng = np.random.default_rng(19)
    theta = rng.normal(size=300)
    draws = vb.Draws.from_arrays({"w": theta}, np.abs(theta)[:, None] + 0.1 * rng.normal(size=(300, 1)))

    class TwoSided:
        prior = vb.Prior({"w": dist.Normal(0.0, 1.0)})

        def _parts(self, x):  # N(0, 1) times N(x; |w|, 0.1): a normal on either side
            return np.asarray(x, float)[..., 0] / 1.01, np.sqrt(0.01 / 1.01)

        def sample_batch(self, x, *, n, key):
            mean, sd = self._parts(x)
            rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
            return {"w": rng.choice([-1.0, 1.0], (len(x), n)) * (mean[:, None] + sd * rng.normal(size=(len(x), n)))}

        def log_prob(self, theta, x):
            (mean, sd), w = self._parts(x), np.asarray(theta["w"], float)
            both = np.logaddexp(-0.5 * ((w - mean) / sd) ** 2, -0.5 * ((w + mean) / sd) ** 2)
            return both - np.log(2 * sd * np.sqrt(2 * np.pi))

    found = vb.calibrate(TwoSided(), draws, key=KEY)
    assert found.learned.rows[0].nothing
    assert found.learned.info_gain > 1.0
    assert found.verdict == "pass"
    assert not any("nothing learned:" in sentence for sentence in found.findings)
