"""The pages for users of other packages: both halves of a page, where both packages are here, agree."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb

FOLDER = Path(__file__).parent.parent / "docs" / "for-users-of"


def run(page: str, marker: str, names: dict, small: tuple[tuple[str, str], ...] = ()) -> dict:
    """The names that a marked block of a page leaves behind; `small` are pieces of its text and what is run instead."""
    text = (FOLDER / page).read_text()
    after = text[re.search(rf"<!-- {marker}:", text).end() :]
    code = re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]
    for old, new in small:
        assert old in code, old
        code = code.replace(old, new)
    exec(compile(code, f"{page} {marker}", "exec"), names)
    return names


def test_every_page_is_in_the_index_and_says_its_version():
    index = (FOLDER / "README.md").read_text()
    pages = [path for path in FOLDER.glob("*.md") if path.name != "README.md"]
    assert len(pages) >= 5
    for path in pages:
        assert f"]({path.name})" in index
        assert re.search(r"^Written for [\w-]+ \d+\.\d+", path.read_text(), re.M), path.name


@pytest.mark.documents
def test_the_page_for_users_of_sbi_has_the_exact_posterior(monkeypatch, tmp_path):
    """Of x = theta + 1 + 0.1 noise under a wide uniform prior: N(x_o - 1, 0.1^2)."""
    monkeypatch.chdir(tmp_path)
    names = run("sbi.md", "vbinfer", {})
    draws = np.asarray(names["posterior"].theta["theta"])[0]
    np.testing.assert_allclose(draws.mean(axis=0), [-0.2, -0.4, 0.4], atol=0.03)
    np.testing.assert_allclose(draws.std(axis=0), 0.1, rtol=0.25)
    assert names["calibration"].verdict in ("pass", "warn")


@pytest.mark.slow
def test_the_lines_of_sbi_run(monkeypatch, tmp_path):
    import torch

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = run("sbi.md", "sbi", {}, small=(("num_simulations=2_000", "num_simulations=500"), ("(200,)", "(50,)")))
    draws = names["samples"].numpy()
    np.testing.assert_allclose(draws.mean(axis=0), [-0.2, -0.4, 0.4], atol=0.1)
    assert names["checks"]["ks_pvals"].shape == (3,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numpyro_and_both_forms_here_have_one_posterior():
    names = run("numpyro.md", "numpyro", {"np": np})
    run("numpyro.md", "vbinfer", names)
    theirs = {name: np.asarray(value) for name, value in names["mcmc"].get_samples(group_by_chain=True).items()}
    theirs = vb.Posterior(theirs, prior=names["prior"])
    run("numpyro.md", "both", names)
    kernel = names["NUTS"](names["mixed"])
    options = {"num_warmup": 300, "num_samples": 500, "num_chains": 2, "chain_method": "vectorized"}
    chains = names["MCMC"](kernel, progress_bar=False, **options)
    chains.run(jax.random.key(3), names["y"])
    sampled = chains.get_samples(group_by_chain=True)
    free = vb.Posterior({name: np.asarray(sampled[name]) for name in names["prior"].names})
    ours = names["posterior"]
    for name, truth in {"coupling.G": 0.5, "model.gamma": -1.2}.items():
        for other in (theirs, free):  # the free standard deviation is 0.1, too, and changes little
            error = np.hypot(vb.diagnostics.mcse(ours)[name], vb.diagnostics.mcse(other)[name])
            gap = ours.theta[name].mean() - other.theta[name].mean()
            assert abs(gap) < 4 * error + 0.1 * ours.theta[name].std(), name
        assert abs(ours.theta[name].mean() - truth) < 4 * ours.theta[name].std()


@pytest.mark.slow
def test_the_page_for_users_of_vbi_learns_the_coupling(monkeypatch, tmp_path):
    """In small: simulations of 42 s; and its units are those of the page on tvb-inversion, to a number."""
    monkeypatch.chdir(tmp_path)
    small = (
        ("n, t1, transient = 2_000, 300e3, 20.1e3", "n, t1, transient = 256, 42e3, 6e3"),
        ("window=60e3, step=5.1e3", "window=12e3, step=1.5e3"),
        ("key=k1, ", "key=k1, progress=False, "),
    )
    names = run("vbi.md", "vbinfer", {}, small)
    G = np.asarray(names["posterior"].theta["coupling.G"]).ravel()
    assert names["draws"].valid.mean() > 0.9
    assert G.var() < 0.7 * 100.0 / 12.0
    assert abs(G.mean() - 7.0) < 4 * G.std()


@pytest.mark.slow
def test_the_page_for_users_of_tvboptim_descends_to_the_coupling_and_has_a_posterior_around_it():
    small = (("t1, skip = 60_480.0", "t1, skip = 43_200.0"), ("dt=1.0", "dt=2.0"))
    names = run("tvboptim.md", "vbinfer", {}, small)
    assert abs(float(names["G"]) - 0.25) < 0.05
    assert float(names["value"]) < 0.3 * float(names["loss"](jnp.array(0.1))[0])
    run("tvboptim.md", "posterior", names, (("n=1_000, ", "n=256, progress=False, "),))
    G = np.asarray(names["posterior"].theta["coupling.G"]).ravel()
    assert abs(G.mean() - 0.25) < 4 * G.std()
    assert G.var() < 0.7 * 0.25 / 12.0


@pytest.mark.slow
def test_the_page_for_users_of_jaxley_has_the_exact_posterior_for_a_voltage_that_is_linear():
    """v(t) = -70 + 200 gNa t + 500 gK t^2 with noise of sd 2 at 21 times: normal, by the normal equations."""
    t = np.linspace(0.0, 1.0, 401)

    def voltage(theta):
        return -70.0 + 200.0 * theta["gNa"] * t + 500.0 * theta["gK"] * t**2

    names = {"jax": jax, "jnp": jnp, "voltage": voltage}
    run("jaxley.md", "vbinfer", names, (("n=2_000, ", "n=2_000, progress=False, "),))
    run("jaxley.md", "chains", names)
    design = np.stack([200.0 * t, 500.0 * t**2], axis=1)[::20]
    precision = design.T @ design / 4.0
    mean = np.linalg.solve(precision, design.T @ (np.asarray(names["x_o"]) + 70.0) / 4.0)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    for k, name in enumerate(("gNa", "gK")):
        for posterior, tolerance in ((names["chains"], 0.4), (names["posterior"], 0.8)):
            draws = np.asarray(posterior.theta[name])
            assert abs(draws.mean() - mean[k]) < tolerance * sd[k], name
            assert draws.std() == pytest.approx(sd[k], rel=0.4), name
