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


VBJAX = {"network": 9, "jacobians": 6, "sweep": 46, "field": 12, "posterior": 12, "autoregression": 18}
"""Lines of code of the six examples in the README of vbjax at commit 010f669."""


def test_the_examples_of_vbjax_take_no_more_lines_here():
    text = (FOLDER / "vbjax.md").read_text()
    table = re.findall(r"^\| \[.*\| (\d+) \| (\d+) \|", text, re.M)
    assert len(table) == len(VBJAX)
    for (marker, most), (theirs, ours) in zip(VBJAX.items(), table, strict=True):
        code = re.search(rf"<!-- {marker}:.*?```python\n(.*?)```", text, re.DOTALL)[1]
        lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert (int(theirs), int(ours)) == (most, len(lines)), marker
        assert len(lines) <= most, marker


@pytest.fixture
def agg():
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")


def heun(x, n, dt, drift):
    for _ in range(n):
        first = drift(x)
        x = x + 0.5 * dt * (first + drift(x + dt * first))
    return x


def mpr(x, c, eta=-5.0, tau=1.0):
    r, V = x
    dV = V**2 + eta + 15.0 * tau * r + c - (np.pi * tau * r) ** 2
    return np.stack([1.0 / (np.pi * tau) + 2.0 * r * V, dV]) / tau


@pytest.mark.documents
def test_the_network_of_vbjax(agg):
    """Without its noise, of asymmetric states, as a loop over its equations in NumPy."""
    names = run("vbjax.md", "network", {})
    assert len(names["lines"]) == 32
    x = np.random.default_rng(0).normal([[0.3], [-1.5]], [[0.05], [0.3]], (2, 32))
    quiet = vb.bind(names["sim"], {"noise.sigma": 0.0})
    found = vb.simulate(quiet, t1=1.0, key=jax.random.key(0), init={"r": x[0], "V": x[1]}).final.state
    exact = heun(x, 100, 0.01, lambda x: mpr(x, 0.03 * x[0].sum()))
    np.testing.assert_allclose(np.stack(found), exact, rtol=2e-4, atol=2e-5)


@pytest.mark.documents
def test_the_jacobians_of_vbjax():
    """By hand: tau J = [[2 V, 2 r], [J tau - 2 pi^2 tau^2 r, 2 V]]."""
    found = np.sort(
        np.asarray(run("vbjax.md", "jacobians", {"jax": jax, "jnp": jnp, "np": np, "vb": vb})["rates"]), axis=1
    )
    r, V, taus = 0.1, -2.0, np.linspace(1.0, 2.0, 32)
    by_hand = lambda tau: np.array([[2.0 * V, 2.0 * r], [15.0 * tau - 2.0 * np.pi**2 * tau**2 * r, 2.0 * V]]) / tau  # noqa: E731
    exact = [np.sort(np.linalg.eigvals(by_hand(tau)).real) for tau in taus]
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    np.testing.assert_allclose(found[0], [-5.614, -2.386], atol=1e-3)


@pytest.mark.documents
def test_the_sweep_of_vbjax(agg):
    """Its points without noise are single runs of the equations; more noise spreads the rates."""
    names = run("vbjax.md", "sweep", {}, small=(("2.0), 32)", "2.0), 3)"), ("-4.0, 32)", "-4.0, 4)")))
    sd = names["sd"]
    assert dict(sd.sizes) == {"coupling.G": 3, "model.eta": 4, "noise.sigma": 4}
    for i, k in ((0, 3), (2, 1)):
        G, eta, x = float(sd["coupling.G"][i]), float(sd["model.eta"][k]), names["start"]
        drift = lambda x, G=G, eta=eta: mpr(x, G * x[0].sum(), eta)  # noqa: E731
        step = lambda x: np.stack([np.maximum(x[0], 0.0), x[1]])  # noqa: E731  # rates are kept at 0 or above
        rates = []
        for _ in range(1_000):
            first = drift(x)
            second = drift(step(x + 0.01 * first))
            x = step(x + 0.005 * (first + second))
            rates.append(x[0])
        assert float(sd[i, k, 0]) == pytest.approx(np.std(rates[400:]), rel=1e-2)
    assert float(sd[:, :, 3].mean()) > float(sd[:, :, 1].mean())
    assert names["picture"].axs.shape == (1, 4)


@pytest.mark.documents
def test_the_neural_field_of_vbjax(monkeypatch, tmp_path):
    """The Laplacian flattens harmonics of high degree up to lmax, and leaves those above as they are without it."""
    monkeypatch.chdir(tmp_path)
    names = run("vbjax.md", "field", {}, small=(("rates[::10]", "rates[::250]"),))
    assert (tmp_path / "field.gif").stat().st_size > 10_000
    sim, start = names["sim"], names["start"]
    init = {"r": start[0], "V": start[1]}
    alone = vb.simulate(vb.bind(sim, {"field.strength": 0.0}), t1=25.0, key=jax.random.key(0), init=init)
    fine = vb.fields.Sphere(lmax=20, n_lat=32, n_lon=64, radius=1.0)
    modes = np.asarray(fine.modes(441)[0]) * np.asarray(fine.areas)[:, None]

    def power(rates, low, high):
        return float(((np.asarray(rates[250:]) @ modes[:, low**2 : high**2]) ** 2).mean())

    apart = alone.ys["raw"]["r"]
    assert power(names["rates"], 10, 17) < 0.3 * power(apart, 10, 17)
    assert power(names["rates"], 17, 21) == pytest.approx(power(apart, 17, 21), rel=0.3)


@pytest.mark.documents
def test_the_posterior_of_vbjax_is_that_of_linear_algebra():
    names = run("vbjax.md", "forward", {"np": np})
    run("vbjax.md", "posterior", names)
    fwd, n = names["fwd"], names["sphere"].n_nodes
    design = np.asarray(jax.jacfwd(lambda x: fwd({"init.x": x}, None))(jnp.zeros(n)), float)
    covariance = np.linalg.inv(np.eye(n) + design.T @ design)
    mean, sd = covariance @ design.T @ np.asarray(names["y"], float), np.sqrt(np.diag(covariance))
    np.testing.assert_allclose([row.sd for row in names["table"]], sd, rtol=0.15)
    assert np.abs(([row.mean for row in names["table"]] - mean) / sd).max() < 0.3  # 1,000 draws, ESS above 100
    np.testing.assert_allclose(names["shrinkage"], 1.0 - sd**2, atol=0.1)
    assert np.abs(names["z"]).max() < 4.0


@pytest.mark.documents
def test_the_autoregressive_process_of_vbjax():
    """Exact where the noise is known; else with the error of least squares, trace of the inverse Gram matrix."""
    names = run("vbjax.md", "autoregression", {})
    A, xt = names["true_A"], np.asarray(names["xt"], float)
    assert np.square(8.0 * names["exact"] - A).mean() < 1e-9
    expected = 64.0 * np.trace(np.linalg.inv(xt[:-1].T @ xt[:-1])) / 8.0
    assert 0.5 * expected < np.square(8.0 * names["fit"].A[0] - A).mean() < 2.0 * expected
