"""Posterior: summaries against closed forms, exact files, ArviZ groups, and shapes that do not agree."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from vbinfer._arviz import arviz, ess
from vbinfer.io import npz
from vbinfer.posterior import Posterior, hdi
from vbinfer.priors.prior import Prior

PRIOR = Prior({"g": dist.Uniform(0.0, 6.0), "m": dist.Normal(1.0, 2.0).expand([2])})


def make(prior=PRIOR, chains=4, draws=1000, shift=0.0):
    rng = np.random.default_rng(1)
    m = np.array([1.0, -3.0]) + np.array([0.5, 1.0]) * rng.normal(size=(chains, draws, 2))
    g = rng.gamma(4.0, 0.25, size=(chains, draws)) + shift * np.arange(chains)[:, None]
    stats = {"diverging": np.zeros((chains, draws), bool), "accept_prob": rng.uniform(size=(chains, draws))}
    return Posterior({"m": m, "g": g}, rng.normal(size=(chains, draws)), stats, np.array([1.0, 2.0]), prior, -3.5)


def test_columns_follow_the_prior_and_rows_the_chains():
    posterior = make()
    assert posterior.names == PRIOR.names == ("g", "m[0]", "m[1]")
    assert (posterior.num_chains, posterior.num_samples) == (4, 1000)
    flat = posterior.ravel()
    assert np.array_equal(flat[:, 0], posterior.theta["g"].ravel())
    assert np.array_equal(flat[2 * 1000 + 5], [posterior.theta["g"][2, 5], *posterior.theta["m"][2, 5]])


@pytest.mark.smoke
def test_summary_against_closed_forms():
    table = make().summary(hdi_prob=0.9)
    mean, sd, n = {"g": 1.0, "m[0]": 1.0, "m[1]": -3.0}, {"g": 0.5, "m[0]": 0.5, "m[1]": 1.0}, 4000
    for row in table:
        assert abs(row.mean - mean[row.name]) < 4 * sd[row.name] / np.sqrt(n)
        assert abs(row.sd / sd[row.name] - 1) < 4 * np.sqrt(1.5 / n)  # kurtosis of the gamma included
        assert row.rhat < 1.01
        assert 0.7 * n < row.ess < 1.3 * n
    assert table["m[1]"].hdi_low == pytest.approx(-3 - 1.6449, abs=0.15)
    assert table["m[1]"].hdi_high == pytest.approx(-3 + 1.6449, abs=0.15)
    assert table["m[1]"].shrinkage == pytest.approx(1 - 1 / 4, abs=0.04)
    assert table["g"].shrinkage == pytest.approx(1 - 0.25 / 3, abs=0.02)
    text = str(table).splitlines()
    assert len(text) == 4
    assert "90%" in text[0]
    assert text[2].startswith("m[0]")
    assert len(set(map(len, text))) == 1
    with pytest.raises(KeyError, match="no row 'm'; its rows are g"):
        table["m"]


@pytest.mark.smoke
def test_hdi_is_the_shortest_interval_not_the_central_one():
    x = np.random.default_rng(0).exponential(size=(200_000, 1))
    low, high = hdi(x, 0.9)[:, 0]
    assert low < 0.01
    assert high == pytest.approx(-np.log(0.1), abs=0.03)


@pytest.mark.smoke
def test_chains_that_disagree_show_and_one_chain_shows_nothing():
    assert make(shift=2.0).summary()["g"].rhat > 1.5
    row = make(chains=1).summary()["g"]
    assert row.rhat is None
    assert row.ess is None
    assert row.shrinkage is not None
    assert make(prior=None).summary()["g"].shrinkage is None


@pytest.mark.smoke
def test_a_file_gives_everything_back_exactly(tmp_path):
    posterior = make()
    posterior.save(tmp_path / "p.npz")
    found = npz.load(tmp_path / "p.npz")
    assert list(found.theta) == list(posterior.theta)
    assert set(found.sample_stats) == set(posterior.sample_stats)
    for name, value in posterior.theta.items():
        assert found.theta[name].dtype == value.dtype
        assert np.array_equal(found.theta[name], value)
    assert found.sample_stats["diverging"].dtype == bool
    assert np.array_equal(found.log_prob, posterior.log_prob)
    assert np.array_equal(found.x_o, posterior.x_o)
    assert found.log_evidence == -3.5
    theta = {"g": jnp.array(2.5), "m": jnp.array([0.3, -4.0])}
    assert float(found.prior.log_prob(theta)) == float(PRIOR.log_prob(theta))
    bare = Posterior({"a": np.zeros((1, 3))})
    bare.save(tmp_path / "b.npz")
    found = npz.load(tmp_path / "b.npz")
    assert found.prior is found.log_prob is found.sample_stats is found.x_o is found.log_evidence is None


@pytest.mark.smoke
def test_inference_data_has_the_groups_and_names_of_arviz():
    posterior = make()
    data = posterior.to_inference_data(key=jax.random.key(0), num_prior=200)
    assert data["posterior"]["m"].dims == ("chain", "draw", "m_dim_0")
    assert np.array_equal(data["posterior"]["m"].values, posterior.theta["m"])
    assert np.array_equal(data["sample_stats"]["acceptance_rate"].values, posterior.sample_stats["accept_prob"])
    assert np.array_equal(data["sample_stats"]["lp"].values, posterior.log_prob)
    assert "diverging" in data["sample_stats"]
    assert np.array_equal(data["observed_data"]["x"].values, posterior.x_o)
    assert data["prior"]["m"].shape == (1, 200, 2)
    assert data["posterior"].attrs["inference_library"] == "vbinfer"
    groups = posterior.to_inference_data().groups
    assert "prior" not in " ".join(groups() if callable(groups) else groups)  # of ArviZ 0.2x and 1


@pytest.mark.smoke
def test_the_summary_of_arviz_is_ours():
    posterior = make()
    theirs = arviz().summary(posterior.to_inference_data(), round_to="none")
    bulk = dict(zip(posterior.names, np.hstack([*map(np.ravel, ess(posterior.theta, "bulk").values())]), strict=True))
    for row in posterior.summary():
        assert float(theirs.loc[row.name, "mean"]) == pytest.approx(row.mean, rel=1e-6)
        assert float(theirs.loc[row.name, "sd"]) == pytest.approx(row.sd, rel=1e-3)
        assert float(theirs.loc[row.name, "ess_bulk"]) == pytest.approx(bulk[row.name], rel=1e-6)


def test_built_by_hand_from_arrays_of_any_kind():
    posterior = Posterior({"a": jnp.arange(6.0).reshape(1, 6)}, log_prob=[[0.0] * 6], x_o=[1.0])
    assert isinstance(posterior.theta["a"], np.ndarray)
    assert posterior.log_prob.shape == (1, 6)
    assert posterior.x_o.tolist() == [1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta": {}}, "theta is empty"),
        (
            {"theta": {"a": np.zeros(5)}},
            r"theta\['a'\] has shape \[5\]; expected \[chain, draw, \.\.\.\]: write x\[None\]",
        ),
        (
            {"theta": {"a": np.zeros((2, 5)), "b": np.zeros((2, 4))}},
            r"theta\['b'\] is \[2, 4\], but the first leaf of theta is \[2, 5",
        ),
        ({"theta": {"a": np.zeros((2, 5))}, "log_prob": np.zeros((5, 2))}, r"log_prob is \[5, 2\], but"),
        (
            {"theta": {"a": np.zeros((2, 5))}, "sample_stats": {"e": np.zeros((2, 1))}},
            r"sample_stats\['e'\] is \[2, 1\], but",
        ),
        ({"theta": {"a": np.zeros((2, 5))}, "prior": PRIOR}, "theta has a but the prior has g, m"),
        (
            {"theta": {"g": np.zeros((2, 5)), "m": np.zeros((2, 5, 3))}, "prior": PRIOR},
            r"theta\['m'\] is \[2, 5, 3\]; this prior makes it \[chain, draw, 2\]",
        ),
    ],
)
def test_what_does_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        Posterior(**arguments)


@pytest.mark.smoke
def test_arviz_1_gets_a_data_tree_and_the_same_tails(monkeypatch):
    """Its `InferenceData` is another name of DataTree, which takes no groups; its tails are those of 11 % and 89 %."""
    from types import SimpleNamespace

    from vbinfer import _arviz

    asked = {}

    def ess(data, **options):
        asked.update(options)
        return data.mean()

    monkeypatch.setattr(_arviz, "arviz", lambda: SimpleNamespace(__version__="1.3.0", ess=ess))
    tree = _arviz.inference_data({"posterior": _arviz.dataset({"a": np.arange(6.0).reshape(2, 3)})})
    assert tree["posterior"]["a"].values.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert _arviz.ess({"a": np.arange(6.0).reshape(2, 3)}, "tail")["a"] == 2.5
    assert asked == {"method": "tail", "prob": (0.05, 0.95)}
