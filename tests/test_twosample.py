"""The classifier two-sample test: its limits are known for equal, for shifted and for disjoint distributions."""

import numpy as np
import pytest
import scipy.stats as st

import vbinfer as vb

N = 1000


def normals(seed, n=N, mean=(0.0, 0.0), cov=((1.0, 0.0), (0.0, 1.0))):
    return np.random.default_rng(seed).multivariate_normal(mean, cov, n)


def test_equal_distributions_are_told_apart_no_better_than_by_chance():
    cov = ((4.0, 1.5), (1.5, 1.0))
    accuracies = [vb.diagnostics.c2st(normals(s, mean=(3.0, -1.0), cov=cov), normals(s + 50, mean=(3.0, -1.0), cov=cov))
                  for s in (0, 1)]  # fmt: skip
    # binomial error of 2 N held-out labels, twice; a network that has learned noise is below 0.5 as often as above
    assert np.mean(accuracies) == pytest.approx(0.5, abs=4.0 * 0.5 / np.sqrt(2 * 2 * N))


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_two_normals_at_a_distance_give_the_accuracy_of_the_best_classifier(distance):
    direction = np.array([0.6, -0.8])
    scale, offset = np.array([3.0, 0.02]), np.array([100.0, -7.0])  # units do not matter: both are scaled by the first
    a, b = (offset + scale * normals(s, n=2000, mean=m) for s, m in ((2, (0.0, 0.0)), (3, distance * direction)))
    best = st.norm.cdf(distance / 2.0)
    error = np.sqrt(best * (1.0 - best) / 4000)
    assert best - 4.0 * error - 0.01 < vb.diagnostics.c2st(a, b) < best + 4.0 * error  # a network loses 0.01 of it


def test_what_only_the_dependence_tells_is_seen():
    rho = 0.8  # equal marginals; the best accuracy is 1/2 + arccos(sqrt(1 - rho^2)) / pi - ..., by Monte Carlo here
    joint, flat = st.multivariate_normal([0, 0], [[1, rho], [rho, 1]]), st.multivariate_normal([0, 0])
    points = joint.rvs(200_000, random_state=0), flat.rvs(200_000, random_state=1)
    best = 0.5 * sum(
        np.mean(sign * (joint.logpdf(p) - flat.logpdf(p)) > 0) for sign, p in zip((1, -1), points, strict=True)
    )
    found = vb.diagnostics.c2st(points[0][:N], points[1][:N])
    assert found == pytest.approx(best, abs=4.0 * 0.5 / np.sqrt(2 * N))
    assert best > 0.62


def test_disjoint_sets_give_one_and_the_seed_decides():
    a, b = normals(0, 40), normals(1, 40, mean=(0.4, 0.3))
    assert vb.diagnostics.c2st(a, b + 30.0) == 1.0
    assert (
        vb.diagnostics.c2st(a, b, seed=3, folds=2)
        == vb.diagnostics.c2st(a, b, seed=3, folds=2)
        != vb.diagnostics.c2st(a, b, seed=4, folds=2)
    )


def test_posteriors_are_compared_by_name_over_all_chains():
    rows, other = normals(0, 120), normals(1, 120, mean=(1.0, 0.0))
    as_chains = lambda x: {"a": x[:, 0].reshape(3, 40), "b": x[:, 1].reshape(3, 40)}  # noqa: E731
    first, second = vb.Posterior(as_chains(rows)), vb.Posterior(dict(reversed(as_chains(other).items())))
    plain = vb.diagnostics.c2st(rows, other)
    assert plain > 0.6
    assert vb.diagnostics.c2st(first, second) == plain == vb.diagnostics.c2st(rows, vb.Posterior(as_chains(other)))


def test_mistakes_are_named():
    rows = normals(0, 50)
    with pytest.raises(ValueError, match=r"give the same columns in both"):
        vb.diagnostics.c2st(rows, rows[:, :1])
    with pytest.raises(ValueError, match=r"the second set has shape \[50\]; expected \[n, D\]: write x\[:, None\]"):
        vb.diagnostics.c2st(rows[:, :1], rows[:, 0])
    with pytest.raises(ValueError, match=r"the second set has 9 draws; at least 10"):
        vb.diagnostics.c2st(rows, rows[:9])
    with pytest.raises(ValueError, match="the second set holds NaN or infinite numbers"):
        vb.diagnostics.c2st(rows, np.where(np.arange(50)[:, None] == 3, np.nan, rows))
    with pytest.raises(ValueError, match=r"columns \[1\] of the first set are constant"):
        vb.diagnostics.c2st(rows * [1.0, 0.0], rows)
    with pytest.raises(ValueError, match="folds=1 was given for 50 and 50 draws"):
        vb.diagnostics.c2st(rows, rows, folds=1)
    with pytest.raises(TypeError, match=r"the first set is a str; expected a vb\.Posterior or an array \[n, D\]"):
        vb.diagnostics.c2st("prior", rows)
    one, two = vb.Posterior({"G": rows[None, :, 0]}), vb.Posterior({"w": rows[None, :, 0]})
    with pytest.raises(ValueError, match=r"the first posterior has \{'G': \(\)\}, the second \{'w': \(\)\}"):
        vb.diagnostics.c2st(one, two)
