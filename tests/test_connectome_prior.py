"""Priors over connectomes against closed forms, dense Gaussians, golden numbers and known posteriors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal

import vbinfer as vb

GOLDEN = np.load(Path(__file__).parent / "golden" / "connectomes.npz")
fit = vb.ConnectomePrior.fit


def upper(w):
    rows, columns = np.triu_indices(w.shape[-1], 1)
    return np.asarray(w)[..., rows, columns]


def matrix(edges, n):
    w = np.zeros((*edges.shape[:-1], n, n))
    rows, columns = np.triu_indices(n, 1)
    w[..., rows, columns] = w[..., columns, rows] = edges
    return w


def cohort(subjects, n=7, k=2, seed=0, noise=0.2):
    """Positive connectomes whose log1p has k factors; edge 3 is in nobody."""
    rng = np.random.default_rng(seed)
    pairs = n * (n - 1) // 2
    mean, loadings = rng.uniform(1.0, 3.0, pairs), np.random.default_rng(9).normal(size=(pairs, k)) / 2
    logs = mean + rng.normal(size=(subjects, k)) @ loadings.T + noise * rng.normal(size=(subjects, pairs))
    edges = np.expm1(np.maximum(logs, 0.0))
    edges[:, 3] = 0.0
    return matrix(edges, n)


def dense(prior, names):
    """Mean and covariance of the edges of views, by dense algebra."""
    views = [prior.views[name] for name in names]
    mean, loadings, noise = (np.concatenate([getattr(v, a) for v in views]) for a in ("mean", "loadings", "noise"))
    return mean, loadings @ loadings.T + np.diag(noise)


@pytest.fixture(scope="module")
def golden_views():
    """Two views of 2,500 subjects, NaN where they are missing."""
    views = {name: GOLDEN[f"views__{name}"].astype(float) for name in ("sc", "fc")}
    for column, w in enumerate(views.values()):
        w[GOLDEN["views__missing"][:, column]] = np.nan
    return views, fit(views, k=2, transform=None)


# ---- one view


@pytest.mark.parametrize("k", [0, 1, 2, 3, 5])
def test_the_score_is_the_golden_one(k):
    prior = fit(GOLDEN["weights"], k, transform=None)
    assert prior.score(GOLDEN["test"]) == pytest.approx(GOLDEN[f"score_test_k{k}"], abs=1e-10)


def test_probabilistic_pca_is_the_golden_closed_form():
    prior = fit(GOLDEN["weights"], k=3, transform=None)
    view = prior.views["weights"]
    np.testing.assert_allclose(view.mean, GOLDEN["ppca__mean"], atol=1e-12)
    np.testing.assert_allclose(view.loadings @ view.loadings.T, GOLDEN["ppca__loadings_loadings_T"], atol=1e-12)
    np.testing.assert_allclose(view.noise, GOLDEN["ppca__sigma2"], rtol=1e-12)
    assert prior.score(GOLDEN["weights"]) == pytest.approx(GOLDEN["ppca__score_train"], abs=1e-12)
    eigenvalues = GOLDEN["ppca__eigenvalues"]
    np.testing.assert_allclose((view.loadings**2).sum(0), np.sort(eigenvalues)[:-4:-1] - view.noise[0], rtol=1e-10)


def test_encoding_and_reconstruction_are_the_posterior_of_the_golden_model():
    prior = fit(GOLDEN["weights"], k=3, transform=None)
    mean, cov = prior.encode(GOLDEN["test"])
    assert mean.shape == (60, 3)
    np.testing.assert_allclose(np.linalg.eigvalsh(cov[7]), GOLDEN["ppca__encode_cov_eigenvalues"], rtol=1e-10)
    one, its = prior.encode(GOLDEN["test"][7])
    np.testing.assert_allclose(one, mean[7], atol=1e-12)
    np.testing.assert_allclose(its, cov[7], atol=1e-12)
    # E[z | x] = L' S^-1 (x - mean), S the dense covariance: the other form of the same posterior
    centre, covariance = dense(prior, ["weights"])
    other = np.linalg.solve(covariance, (upper(GOLDEN["test"]) - centre).T).T @ prior.views["weights"].loadings
    np.testing.assert_allclose(mean, other, atol=1e-10)
    found = prior.reconstruct(GOLDEN["test"])
    np.testing.assert_allclose(upper(found), np.maximum(GOLDEN["ppca__reconstruct_test"], 0.0), atol=1e-10)
    np.testing.assert_allclose(prior.reconstruct(GOLDEN["test"][7]), found[7], atol=1e-12)
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))


def test_factor_analysis_is_the_golden_maximum():
    prior = fit(GOLDEN["fa__weights"], k=3, method="fa", transform=None)
    view = prior.views["weights"]
    np.testing.assert_allclose(view.noise, GOLDEN["fa__psi"], atol=1e-7)
    np.testing.assert_allclose(
        view.loadings @ view.loadings.T + np.diag(view.noise), GOLDEN["fa__covariance"], atol=1e-7
    )
    assert prior.score(GOLDEN["fa__weights"]) == pytest.approx(GOLDEN["fa__score_train"], abs=1e-10)
    assert prior.score(GOLDEN["fa__test"]) == pytest.approx(GOLDEN["fa__score_test"], abs=1e-7)
    pca = fit(GOLDEN["fa__weights"], k=3, transform=None).score(GOLDEN["fa__test"])
    assert pca == pytest.approx(GOLDEN["fa__ppca_score_test"], abs=1e-10)


@pytest.mark.parametrize("method", ["ppca", "fa"])
def test_the_score_is_that_of_a_dense_gaussian(method):
    prior = fit(cohort(40), k=2, method=method)
    test = cohort(9, seed=5)
    logs = np.delete(np.log1p(upper(test)), 3, axis=1)
    exact = multivariate_normal(*dense(prior, ["weights"])).logpdf(logs)
    assert prior.score(test) == pytest.approx(exact.sum() / logs.size, abs=1e-10)
    assert prior.score(test[4]) == pytest.approx(exact[4] / 20, abs=1e-10)


def test_with_fewer_subjects_than_edges_the_eigenvalues_are_those_of_the_dense_covariance():
    """45 edges, 12 subjects: by the Gram matrix here, by the covariance (divided by S) there."""
    w = cohort(12, n=10, k=3)
    logs = np.delete(np.log1p(upper(w)), 3, axis=1)
    values, vectors = np.linalg.eigh(np.cov(logs.T, bias=True))
    view = fit(w, k=3).views["weights"]
    sigma2 = values[:-3].sum() / (44 - 3)
    np.testing.assert_allclose(view.noise, sigma2, rtol=1e-10)
    top = vectors[:, -3:] * np.sqrt(values[-3:] - sigma2)
    np.testing.assert_allclose(view.loadings @ view.loadings.T, top @ top.T, atol=1e-10)


@pytest.mark.parametrize("transform", ["log1p", "sqrt", None])
def test_all_factors_reconstruct_every_subject(transform):
    w = cohort(12, n=8)
    prior = fit(w, k=11, transform=transform)
    np.testing.assert_allclose(prior.reconstruct(w), w, atol=1e-5 * w.max())
    assert prior.confusion(w) == 0.0
    assert np.isfinite(prior.score(w))


def test_confusion_counts_by_loops_and_falls_with_the_factors():
    w = cohort(30, noise=0.4)
    logs = np.log1p(upper(w))
    found = []
    for k in (0, 1, 2, 5):
        prior = fit(w, k)
        made = np.log1p(upper(prior.reconstruct(w)))
        nearest = [min(range(30), key=lambda t, m=m: float(((m - logs[t]) ** 2).sum())) for m in made]
        found.append(prior.confusion(w))
        assert found[-1] == np.mean([t != s for s, t in enumerate(nearest)])
    assert found[0] == pytest.approx(29 / 30)  # all reconstructions are the mean, nearest to one of them
    assert found[0] > found[1] > found[2] > found[3]


def test_cross_validation_finds_the_number_of_factors():
    prior = fit(GOLDEN["weights"], k="cv", transform=None)
    assert prior.k == 3
    assert max(prior.held_out, key=prior.held_out.get) == 3
    # nats per edge on other subjects, by folds of the training cohort
    assert prior.held_out[3] == pytest.approx(GOLDEN["score_test_k3"], abs=0.05)
    alone = fit(GOLDEN["weights"], k=3, transform=None)
    np.testing.assert_array_equal(prior.views["weights"].loadings, alone.views["weights"].loadings)
    assert fit(cohort(40, noise=0.1), k="cv", method="fa").k == 2


# ---- several views


def test_views_share_factors_and_missing_ones_are_no_hindrance(golden_views):
    """2,500 subjects, a fifth without structure, a third without function: loadings within 4 standard errors."""
    _, prior = golden_views
    true = {name: GOLDEN[f"views__loadings_{name}"] for name in ("sc", "fc")}
    noise = {name: float(GOLDEN[f"views__psi_{name}"]) for name in ("sc", "fc")}
    for a, b in (("sc", "sc"), ("sc", "fc"), ("fc", "fc")):
        found = prior.views[a].loadings @ prior.views[b].loadings.T
        product = true[a] @ true[b].T
        variance = [(true[v] ** 2).sum(1) + noise[v] for v in (a, b)]
        error = np.sqrt((np.outer(*variance) + product**2) / (0.48 * 2_500))  # subjects with both views
        assert np.abs((found - product) / error).max() < 4.0
    for name in ("sc", "fc"):
        there = ~GOLDEN["views__missing"][:, 0 if name == "sc" else 1]
        assert prior.views[name].noise[0] == pytest.approx(noise[name], rel=4.0 * np.sqrt(2.0 / (8 * there.sum())))


def test_function_predicts_structure(golden_views):
    _, prior = golden_views
    given = prior.condition(fc=GOLDEN["views__fc"][0].astype(float))
    np.testing.assert_allclose(
        np.linalg.eigvalsh(given.covariance_matrix), GOLDEN["views__z_given_fc0_cov_eigenvalues"], rtol=0.1
    )
    predicted = prior.to_paths("z")({"z": given.mean})["connectome.weights"]
    sd = np.sqrt(np.diag(GOLDEN["views__sc_given_fc0_cov"]))
    assert np.abs((upper(predicted) - GOLDEN["views__sc_given_fc0_mean"]) / sd).max() < 0.2
    covariance = prior.views["sc"].loadings @ np.asarray(given.covariance_matrix, float) @ prior.views["sc"].loadings.T
    np.testing.assert_allclose(
        covariance + np.diag(prior.views["sc"].noise), GOLDEN["views__sc_given_fc0_cov"], atol=0.003
    )
    vb.Prior({"connectome.z": given}).sample(key=jax.random.key(0))


def test_a_view_that_is_missing_is_predicted_and_the_diagonal_kept(golden_views):
    views, prior = golden_views
    subject = int(np.flatnonzero(GOLDEN["views__missing"][:, 1])[0])
    made = prior.reconstruct({name: w[subject] for name, w in views.items()})
    np.testing.assert_allclose(made["fc"], prior.reconstruct({"sc": views["sc"][subject]})["fc"], atol=1e-12)
    np.testing.assert_array_equal(np.diag(made["fc"]), 1.0)
    np.testing.assert_array_equal(np.diag(made["sc"]), 0.0)
    assert (made["fc"] < 0.0).any()  # correlations may be negative, connectomes not
    assert (made["sc"] >= 0.0).all()
    np.testing.assert_allclose(made["sc"], prior.reconstruct(views["sc"][subject]), atol=1e-12)


@pytest.mark.parametrize(("method", "n"), [("ppca", 4), ("ppca", 9), ("fa", 4)])
def test_the_fit_of_missing_views_is_a_maximum_of_the_dense_likelihood(method, n):
    """Slopes along random directions of mean, loadings and noise; n=9: fewer subjects than edges in the ppca case."""
    rng = np.random.default_rng(3)
    subjects = 60 if n == 4 else 16
    z, pairs = rng.normal(size=(subjects, 2)), n * (n - 1) // 2
    views = {}
    for name, level, noise in (("sc", 2.0, 0.3), ("fc", -0.5, 0.5)):
        edges = level + z @ rng.normal(size=(2, pairs)) + noise * rng.normal(size=(subjects, pairs))
        views[name] = matrix(edges, n)
    views["sc"][:5], views["fc"][5:12] = np.nan, np.nan
    prior = fit(views, k=2, method=method, transform=None)
    rows = np.concatenate([upper(w) for w in views.values()], axis=1)
    number = np.repeat([0, 1], pairs)
    mean, loadings, noise = (
        np.concatenate([getattr(v, a) for v in prior.views.values()]) for a in ("mean", "loadings", "noise")
    )

    def log_likelihood(mean, loadings, noise):
        covariance, total = loadings @ loadings.T + np.diag(noise), 0.0
        for x in rows:
            there = np.isfinite(x)
            total += multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(x[there])
        return total / np.isfinite(rows).sum()

    best = log_likelihood(mean, loadings, noise)
    assert prior.score(views) == pytest.approx(best, abs=1e-9)
    for _ in range(4):
        to = rng.normal(size=mean.shape), rng.normal(size=loadings.shape), rng.normal(size=noise.shape)
        log_noise = to[2] if method == "fa" else rng.normal(size=2)[number]
        for step in ((to[0], 0, 0), (0, to[1], 0), (0, 0, log_noise)):
            at = [
                log_likelihood(mean + h * step[0], loadings + h * step[1], noise * np.exp(h * step[2]))
                for h in (-1e-2, 1e-2)
            ]
            assert max(at) < best
            # the slope is far below what the same step costs by curvature
            assert abs(at[1] - at[0]) < 0.05 * (2.0 * best - sum(at))


# ---- in a prior, in a simulator


def test_new_subjects_have_the_mean_and_the_variances_of_the_cohort():
    """With the residual noise; 4,000 draws, errors of 4.5 standard errors allowed at 20 edges."""
    w = cohort(300, noise=0.3)
    prior = fit(w, k=2)
    drawn = np.asarray(prior.sample(key=jax.random.key(1), n=4_000))
    assert (drawn >= 0.0).all()
    np.testing.assert_array_equal(drawn, drawn.swapaxes(1, 2))
    np.testing.assert_array_equal(drawn[:, range(7), range(7)], 0.0)
    np.testing.assert_array_equal(upper(drawn)[:, 3], 0.0)
    logs, own = (np.delete(np.log1p(upper(a)), 3, axis=1) for a in (drawn, w))
    mean, covariance = dense(prior, ["weights"])
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(mean, own.mean(0), rtol=1e-12)
    np.testing.assert_allclose(np.trace(covariance), own.var(0).sum(), rtol=1e-10)
    clear = mean > 4.0 * sd  # of the others some are cut at 0
    assert clear.sum() >= 5
    assert np.abs((logs.mean(0) - mean) / sd)[clear].max() < 4.5 / np.sqrt(4_000)
    assert np.abs(logs.var(0) / sd**2 - 1.0)[clear].max() < 4.5 * np.sqrt(2.0 / 4_000)
    without = np.log1p(upper(prior.decode(np.random.default_rng(0).normal(size=(4_000, 2)))))
    assert np.all(np.delete(without, 3, axis=1).var(0)[clear] < 0.95 * sd[clear] ** 2)
    assert prior.sample(key=jax.random.key(1)).shape == (7, 7)


def test_weights_below_zero_are_zero_before_the_transform_is_undone():
    for transform in ("log1p", "sqrt", None):
        prior = fit(cohort(30), k=2, transform=transform)
        far = prior.decode(np.array([40.0, -30.0]))
        assert (far >= 0.0).all()
        edges = prior.views["weights"].mean + prior.views["weights"].loadings @ [40.0, -30.0]
        there = np.delete(upper(far), 3)
        np.testing.assert_array_equal(there == 0.0, edges <= 0.0)
        assert (edges < 0.0).any()


def network(prior, n=7, **how):
    sim = vb.Simulator(
        vb.models.Linear(gamma=-0.3),
        vb.Connectome(np.ones((n, n)) - np.eye(n)),
        coupling=vb.coupling.Linear(G=0.02),
        integrator=vb.integrators.Euler(dt=1.0),
    )
    start = {"x": jnp.linspace(0.5, 2.0, n)}
    return vb.ForwardModel(sim, t1=1.0, summary=lambda y: y["x"][-1], init=start, **how)


def test_the_connectome_takes_the_place_of_z_and_other_names_pass_through():
    prior = fit(cohort(30), k=2)
    fwd = network(prior, to_paths=prior.to_paths("connectome.z"))
    theta = {"connectome.z": jnp.array([[0.4, -1.2], [1.0, 0.3]]), "coupling.G": jnp.array([0.01, 0.03])}
    x = fwd.batch(theta, jax.random.split(jax.random.key(0), 2))
    start = np.linspace(0.5, 2.0, 7)
    for row, z, g in zip(x, theta["connectome.z"], theta["coupling.G"], strict=True):
        by_hand = start + (-0.3 * start + float(g) * np.asarray(prior.decode(np.asarray(z, float))) @ start)
        np.testing.assert_allclose(row, by_hand, rtol=2e-6)
    fwd.check(vb.Prior({**prior.parts("connectome.z"), "coupling.G": dist.Uniform(0.0, 0.1)}))
    with pytest.raises(ValueError, match=r"lacks 'connectome.z'"):
        fwd({"coupling.G": 0.1}, None)
    with pytest.raises(ValueError, match=r"expected \[..., 2\]"):
        fwd({"connectome.z": np.zeros(3)}, None)


def test_the_fingerprint_of_a_simulator_is_that_of_its_prior():
    same, other = [fit(cohort(30), k=2) for _ in range(2)], fit(cohort(30, seed=1), k=2)
    found = [network(p, to_paths=p.to_paths("connectome.z")).fingerprint() for p in (*same, other)]
    assert found[0] == found[1] != found[2]


def linear_problem():
    """One Euler step is linear in the weights, and without a transform these are linear in z: a Gaussian posterior."""
    prior = fit(cohort(60, noise=0.05), k=2, transform=None)
    fwd = network(prior, to_paths=prior.to_paths("connectome.z"))
    step = lambda z: np.asarray(fwd({"connectome.z": z}, None), float)  # noqa: E731
    offset = step(np.zeros(2))
    design = np.stack([step(e) - offset for e in np.eye(2)], axis=1)
    sigma, y = 0.02, step([0.7, -0.4]) + 0.02 * np.random.default_rng(0).normal(size=7)
    precision = np.eye(2) + design.T @ design / sigma**2
    mean = np.linalg.solve(precision, design.T @ (y - offset) / sigma**2)
    assert np.min(prior.decode(mean)[np.triu_indices(7, 1)][[0, 1, 2, *range(4, 21)]]) > 0.0  # nothing is cut at 0
    likelihood = vb.likelihoods.Gaussian(lambda theta: fwd(theta, None), sigma=sigma)
    return vb.Prior(prior.parts("connectome.z")), likelihood, y, mean, precision


def test_the_gradient_through_a_simulator_is_that_of_the_known_posterior():
    with jax.enable_x64(True):
        prior, likelihood, y, mean, precision = linear_problem()
        log_p = lambda z: likelihood({"connectome.z": z}, y) - 0.5 * jnp.sum(z**2)  # noqa: E731
        for z in (mean, mean + np.array([0.2, -0.1])):
            np.testing.assert_allclose(jax.grad(log_p)(jnp.asarray(z)), -precision @ (z - mean), atol=1e-5)
    assert prior.names == ("connectome.z[0]", "connectome.z[1]")


@pytest.mark.slow
def test_the_posterior_of_a_connectome_by_nuts_is_the_known_one():
    prior, likelihood, y, mean, precision = linear_problem()
    posterior = vb.sample_mcmc(
        prior, likelihood, y, num_warmup=300, num_samples=1_000, num_chains=4, key=jax.random.key(2)
    )
    z, cov = np.asarray(posterior.theta["connectome.z"]).reshape(-1, 2), np.linalg.inv(precision)
    sd = np.sqrt(np.diag(cov))
    assert np.abs((z.mean(0) - mean) / sd).max() < 0.1  # 4,000 draws, an effective size of 1,600 at least
    assert np.abs((np.cov(z.T) - cov) / np.outer(sd, sd)).max() < 0.12


# ---- files, faults


def test_a_saved_prior_is_the_same_prior(tmp_path, golden_views):
    views, prior = golden_views
    prior.save(tmp_path / "prior.npz")
    again = vb.load(tmp_path / "prior.npz")
    assert again.score(views) == prior.score(views)
    assert repr(again) == repr(prior)
    log = fit(cohort(30), k="cv", method="fa")
    log.save(tmp_path / "log.npz")
    again = vb.load(tmp_path / "log.npz")
    assert (again.k, again.method, again.transform, again.held_out) == (log.k, "fa", "log1p", log.held_out)
    np.testing.assert_array_equal(again.sample(key=jax.random.key(0)), log.sample(key=jax.random.key(0)))


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("weights/mean", np.full(20, np.nan), "NaN"),
        ("weights/diagonal", np.zeros(8), "do not fit"),
        ("weights/noise", np.zeros(20), "positive"),
        ("weights/loadings", None, "weights/loadings"),
    ],
)
def test_a_file_that_holds_no_prior_is_refused(tmp_path, part, value, reason):
    from vbinfer.io import npz

    fit(cohort(30), k=2).save(tmp_path / "prior.npz")
    kind, header, arrays = npz.read(tmp_path / "prior.npz")
    arrays = {name: a for name, a in arrays.items() if name != part} | ({} if value is None else {part: value})
    npz.write(tmp_path / "bad.npz", kind, header, arrays)
    with pytest.raises(ValueError, match=reason):
        vb.load(tmp_path / "bad.npz")


GOOD = cohort(12)


def changed(index, value, w=GOOD):
    w = w.copy()
    w[index] = value
    return w


@pytest.mark.parametrize(
    ("weights", "how", "remedy"),
    [
        (GOOD, {"k": 12}, "at most 11"),
        (GOOD[:, :4, :4], {"k": 8}, "at most 5"),
        (GOOD, {"k": -1}, "k=-1"),
        (GOOD, {"k": "many"}, 'k="cv"'),
        (GOOD[:1], {"k": 1}, "two subjects or more"),
        (np.tile(GOOD[:1], (12, 1, 1)), {"k": 1}, "all alike"),
        (GOOD[0], {"k": 1}, r"\[subject, node, node\]"),
        (GOOD[:, :, :5], {"k": 1}, r"\[subject, node, node\]"),
        (-GOOD, {"k": 1}, "transform=None"),
        (-GOOD, {"k": 1, "transform": "sqrt"}, "transform=None"),
        (changed((4, 0, 1), 3.7), {"k": 1}, r"subject 4; .*\(w \+ w.T\) / 2"),
        (changed(4, np.nan), {"k": 1}, "subject 4; leave them out, or give a mapping"),
        (changed(4, np.inf), {"k": 1}, "infinite values in subject 4"),
        ({"sc": GOOD, "fc": changed((4, [0, 1], [1, 0]), np.nan)}, {"k": 1}, "some edges of subject 4"),
        ({"sc": GOOD, "fc": GOOD[:7]}, {"k": 1}, "fc has 7 of 7 nodes"),
        ({"sc": GOOD, "fc": cohort(12, n=6)}, {"k": 1}, "fc has 12 of 6 nodes"),
        ({"sc": changed(3, np.nan), "fc": changed(3, np.nan)}, {"k": 1}, "subject 3 has no view"),
        ({"sc": GOOD, "fc": changed(slice(None), np.nan)}, {"k": 1}, "fc has no edge"),
        ({"sc": GOOD, "fc": changed(slice(1, None), np.nan)}, {"k": 1}, "fewer than two subjects"),
        ({}, {"k": 1}, "no view was given"),
        (GOOD, {"k": 1, "method": "pca"}, "'ppca', 'fa'"),
        (GOOD, {"k": 1, "transform": "none"}, "'log1p', 'sqrt', None"),
    ],
)
def test_what_cannot_be_fitted_gets_a_sentence(weights, how, remedy):
    with pytest.raises(ValueError, match=remedy):
        fit(weights, **how)


def test_what_a_prior_was_not_made_for_gets_a_sentence():
    prior = fit({"sc": GOOD, "fc": GOOD}, k=1)
    for call, remedy in (
        (lambda: prior.score(cohort(3, n=6)), "sc has 6 nodes; this prior has 7"),
        (lambda: prior.encode({"eeg": GOOD}), "no view 'eeg'"),
        (lambda: prior.condition(fcc=GOOD[0]), "Did you mean 'fc'"),
        (lambda: prior.condition(), r"condition\(sc=matrix\)"),
        (lambda: prior.encode(changed(2, np.nan)), "holds NaN in subject 2"),
        (lambda: prior.encode(-GOOD), "transform=None"),
        (lambda: prior.encode({"sc": GOOD, "fc": GOOD[:3]}), r"\[3, 12\] subjects"),
        (lambda: prior.encode({"sc": GOOD, "fc": GOOD[0]}), r"\[N, N\] or \[subject, N, N\]"),
        (lambda: prior.confusion(GOOD[0]), "two subjects or more"),
        (lambda: prior.sample(key=jax.random.key(0), n=0), "n=0"),
        (lambda: fit(GOOD, 0).parts("z"), "k=0"),
    ):
        with pytest.raises(ValueError, match=remedy):
            call()


def test_rounding_is_no_asymmetry():
    """What a file of six digits leaves of a symmetric matrix, and a correlation's own rounding."""
    rng = np.random.default_rng(0)
    rough = np.where(GOOD == 0.0, 0.0, GOOD * (1.0 + 1e-5 * rng.normal(size=GOOD.shape)))
    smooth = fit(GOOD, k=2)
    np.testing.assert_allclose(fit(rough, k=2).score(GOOD), smooth.score(GOOD), rtol=1e-3)
