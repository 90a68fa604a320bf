"""What the documents show runs: the README's listing and study file, CONTRIBUTING's example model, how-to pages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.study.study import Study

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.documents


def block(document: str, marker: str, language: str = "python", index: int = 0) -> str:
    """The code block that follows `<!-- marker: ... -->` in a document."""
    text = (ROOT / document).read_text()
    after = text[re.search(rf"<!-- {marker}:", text).end() :]
    return re.findall(rf"```{language}\n(.*?)```", after, flags=re.DOTALL)[index]


AFTER = """
G = posterior.theta["coupling.G"]
folder = jax.config.jax_compilation_cache_dir
print(json.dumps([jax.local_device_count(), folder, G.shape, float(G.min()), float(G.max())]))
"""


def test_the_listing_of_the_readme_runs(tmp_path):
    """In a process of its own, as a reader runs it: cores and cache are chosen before the first array."""
    code = block("README.md", "listing")
    fast = (
        code.replace("n=1_000", "n=64")
        .replace("n=50", "n=8")
        .replace("t1=288e3, transient=28.8e3", "t1=216e3, transient=21.6e3")
    )
    assert fast.count("64") == 1
    assert "216e3" in fast
    assert "n=8" in fast
    home = Path(os.environ.get("VBINFER_TEST_CACHE") or ROOT / ".programs") / "home"
    home.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | {
        "HOME": str(home)
    }
    run = subprocess.run(
        [sys.executable, "-c", "import json\n" + fast + AFTER],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    devices, programs, shape, low, high = json.loads(run.stdout.splitlines()[-1])
    assert devices == 2
    assert Path(programs).parent == home / ".cache" / "vbinfer"
    assert any(Path(programs).glob("*-cache"))
    assert shape == [1, 4_000]
    assert low >= 0.0
    assert high <= 0.5
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "report.json").exists()


def test_sections_of_the_simulator_page_do_what_they_say():
    names: dict = {}

    def run(*markers):
        for marker in markers:
            exec(compile(block("docs/simulator.md", marker), f"docs/simulator.md {marker}", "exec"), names)

    run("projections", "loop", "conditions")
    fast, slow = names["rates"]
    assert fast.shape == (60, 20)
    assert float(abs(fast - slow).max()) > 1e-3
    alone, at_peak, at_trough = (
        np.asarray(a[500:]).mean(axis=0) for a in (names[k] for k in ("alone", "at_peak", "at_trough"))
    )
    assert at_trough[0] < 0.9 * alone[0] < 1.1 * alone[0] < at_peak[0]
    np.testing.assert_array_equal(at_peak[1:], alone[1:])
    spread = names["spread"]
    assert spread.shape == (64, 10)
    # of all regions the stimulated one gains most
    assert (spread.argmax(axis=1) == 3).mean() > 0.9
    assert names["fwd"].names[10] == "stimulate-3.level[0]"
    run("measurement")
    assert names["draws"].x.shape == (64, len(names["fwd"].names))


def test_the_sweep_of_its_page_is_drawn_with_facets():
    names: dict = {}
    exec(compile(block("docs/explore.md", "sweep"), "docs/explore.md", "exec"), names)
    assert dict(names["ds"]["sd"].sizes) == {"coupling.G": 6, "model.eta": 6, "noise.sigma.r": 2, "repeat": 2}
    sd = names["ds"]["sd"].mean(("coupling.G", "model.eta", "repeat"))
    assert float(sd[1] / sd[0]) > 1.5  # more noise
    assert names["picture"].axs.shape == (1, 2)


def test_the_branch_of_its_page_has_the_rhythms_of_jansen_and_rit():
    names: dict = {}
    exec(compile(block("docs/explore.md", "branch"), "docs/explore.md", "exec"), names)
    values, frequencies = zip(*sorted(names["rhythms"]), strict=True)
    np.testing.assert_allclose(values, [-0.01215, 0.08983, 0.31570], atol=1e-4)  # Grimbert & Faugeras 2006
    np.testing.assert_allclose(frequencies, [7.239, 10.377, 11.164], atol=1e-2)
    exec(compile(block("docs/explore.md", "ramps"), "docs/explore.md", "exec"), names)
    folds = [event.value for event in names["branch"].events if event.kind == "fold"]
    # between the folds rest and rhythm are both there; a little beyond they differ while the flow is slow
    assert min(folds) <= names["bistable"].min() < 0.0 < 0.1 < names["bistable"].max() <= max(folds) + 0.03
    exec(compile(block("docs/explore.md", "plane"), "docs/explore.md", "exec"), names)
    assert names["axes"].get_xlabel() == "r"


def test_fixed_points_maps_and_spectra_of_their_page():
    names: dict = {}
    for name in ("fixed points", "stability", "linear response"):
        exec(compile(block("docs/explore.md", name), "docs/explore.md", "exec"), names)
    assert names["points"].stable.tolist() == [True, False, True]
    assert names["bistable"].sum() > 1
    assert set(np.unique(names["ds"].n_fixed)) == {1, 3}
    psd = lambda G: vb.linearise(names["sim"], {"coupling.G": G}).psd(10.0)[0, 0]  # noqa: E731
    assert float(names["slope"]) == pytest.approx((psd(0.301) - psd(0.299)) / 2e-3, rel=5e-3)


def test_the_effective_connectivity_of_its_page_is_simulated_again():
    names: dict = {}
    exec(compile(block("docs/explore.md", "mou"), "docs/explore.md", "exec"), names)
    fit, x = names["fit"], vb.simulate(names["model"], t1=2e6, key=jax.random.key(0)).ys["raw"]["x"]
    assert fit.converged
    assert 0.2 < names["asymmetry"] < 5.0
    cov = np.cov(np.asarray(x)[500:].T)
    assert np.corrcoef(cov.ravel(), fit.covariance.ravel())[0, 1] > 0.98


def test_the_field_of_its_page_spreads_from_where_it_is_stimulated():
    names: dict = {}
    exec(compile(block("docs/fields.md", "field"), "docs/fields.md", "exec"), names)
    rates, other = names["rates"], vb.simulate(names["bound"], t1=20.0, key=None).ys["regions"]
    assert rates.shape == (20, 6)
    assert np.ptp(np.asarray(rates[9])) > 0.01
    assert np.abs(np.asarray(rates - other)).max() > 1e-3


def test_the_connectome_of_its_page_is_a_parameter():
    names: dict = {}
    exec(compile(block("docs/connectome-prior.md", "connectome"), "docs/connectome-prior.md", "exec"), names)
    lat, test = names["lat"], names["test"]
    assert repr(lat) == "ConnectomePrior(10 nodes, k=2, ppca, log1p: weights (45 edges))"
    assert lat.score(test) > vb.ConnectomePrior.fit(names["train"], k=0).score(test) + 0.1
    assert names["x"].shape == (10,)
    assert names["prior"].names == ("connectome.z[0]", "connectome.z[1]", "coupling.G")


def test_the_posterior_of_the_page_on_fields_is_that_of_linear_algebra():
    names: dict = {}
    exec(compile(block("docs/fields.md", "posterior"), "docs/fields.md", "exec"), names)
    fwd, y, start = names["fwd"], names["y"], names["start"]
    design = np.asarray(jax.jacfwd(lambda z: fwd({"start.z": z}, None))(jnp.zeros(16)), float)
    precision = np.eye(16) + design.T @ design / 0.01
    mean = np.linalg.solve(precision, design.T @ np.asarray(y, float) / 0.01)
    exact, found = np.asarray(start.field(mean)), np.asarray(names["fields"]).mean(axis=0)
    root = np.stack([np.asarray(start.field(e)) for e in np.eye(16)], axis=1)
    sd = np.sqrt(np.einsum("ik,kl,il->i", root, np.linalg.inv(precision), root))
    assert np.abs((found - exact) / sd).max() < 1.0  # 200 draws


def test_the_surface_of_its_page_is_simulated_with_points_and_regions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block("docs/how-to/my-surface-from-tvb.md", "surface"), "my-surface-from-tvb.md", "exec"), names)
    V = np.asarray(names["V"])
    assert V.shape == (40, 10)
    assert names["sim"].n_nodes == 644
    assert np.isfinite(V).all()
    assert V.std(axis=0).min() > 1e-3


def test_the_study_file_of_the_readme_is_sound(tmp_path):
    (tmp_path / "study.toml").write_text(block("README.md", "study", "toml"))
    rng = np.random.default_rng(0)
    vb.Connectome.synthetic(12, key=jax.random.key(0)).save_tvb(tmp_path / "connectivity.zip")
    np.savetxt(tmp_path / "bold.csv", rng.normal(100.0, 3.0, (400, 12)), delimiter=",")
    study = Study.from_toml(tmp_path / "study.toml")
    assert study.draws == 2_000
    assert study.recording.values.shape == (375, 12)
    assert study.out == tmp_path / "runs/example"


def test_the_gradient_route_of_the_readme_recovers_the_coupling():
    """The likelihood of the README with a deterministic two-node network whose exact output is the data, plus noise."""
    ode = vb.Simulator(
        vb.models.Linear(gamma=-0.05),
        vb.Connectome([[0.0, 1.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]]),
        coupling=vb.coupling.Linear(G=0.01, offset=0.01),
        integrator=vb.Heun(dt=2.0),
        monitors={"average": vb.monitors.TimeAverage(20.0, var="x")},
    )
    truth = vb.simulate(vb.bind(ode, {"coupling.G": 0.03}), t1=200.0, key=None).ys["average"]
    y = truth + 0.01 * jax.random.normal(jax.random.key(3), truth.shape)
    prior = vb.Prior({"coupling.G": dist.Uniform(0.0, 0.06), "sigma": dist.HalfNormal(0.05)})

    def log_likelihood(theta, y):
        mean = vb.simulate(vb.bind(ode, {"coupling.G": theta["coupling.G"]}), t1=200.0, key=None).ys["average"]
        return dist.Normal(mean, theta["sigma"]).log_prob(y).sum()

    posterior = vb.sample_mcmc(
        prior,
        log_likelihood,
        y,
        kernel=vb.sampling.NUTS(),
        num_warmup=300,
        num_samples=300,
        num_chains=2,
        key=jax.random.key(2),
    )
    # the exact posterior on a grid, sigma marginalised numerically
    G, sigma = np.linspace(0.0, 0.06, 241), np.linspace(0.002, 0.04, 200)
    means = jax.vmap(lambda g: vb.simulate(vb.bind(ode, {"coupling.G": g}), t1=200.0, key=None).ys["average"])(
        jnp.asarray(G)
    )
    sse = np.asarray(((y - means) ** 2).sum((1, 2)), float)[:, None]
    log_p = -y.size * np.log(sigma) - sse / (2 * sigma**2) - 0.5 * (sigma / 0.05) ** 2
    weight = np.exp(log_p - log_p.max()).sum(1)
    weight /= weight.sum()
    mean = (weight * G).sum()
    sd = np.sqrt((weight * (G - mean) ** 2).sum())
    draws = np.asarray(posterior.theta["coupling.G"])
    assert abs(draws.mean() - mean) < 4 * float(vb.diagnostics.mcse(posterior)["coupling.G"])
    assert draws.std() == pytest.approx(sd, rel=0.2)
    assert posterior.sample_stats["diverging"].sum() == 0


def test_the_model_of_contributing_runs_and_spikes():
    names: dict = {}
    for index in (0, 1):
        exec(compile(block("CONTRIBUTING.md", "model", index=index), "CONTRIBUTING.md", "exec"), names)
    v = np.asarray(names["v"])
    assert v.shape == (2_000, 3)
    rises = (np.diff(np.sign(v - 0.5), axis=0) > 0).sum(axis=0)
    assert rises[0] == 0
    assert rises[1] >= 4


def test_the_listing_of_the_simulator_page_runs():
    names: dict = {}
    exec(compile(block("docs/simulator.md", "simulator"), "docs/simulator.md", "exec"), names)
    assert names["run"].ys["eeg"].shape == (250, 4)
    assert names["more"].ts["fc"].tolist() == [1500.0, 2000.0]
    h = 1e-2
    numeric = (float(names["loss"](3.0 + h)) - float(names["loss"](3.0 - h))) / (2 * h)
    assert float(names["slope"]) == pytest.approx(numeric, rel=0.05)


def test_models_from_functions_and_mixed_networks_of_the_simulator_page_run():
    names: dict = {}
    for index in (0, 1):
        exec(compile(block("docs/simulator.md", "models", index=index), "docs/simulator.md", "exec"), names)
    x, sent = np.asarray(names["y"]), np.asarray(names["sent"])
    assert x.shape == (1_000, 3)
    # van der Pol: every node ends on a cycle of amplitude close to 2, whatever mu
    np.testing.assert_allclose(np.abs(x[150:]).max(axis=0), 2.0, atol=0.1)
    assert sent.shape == (1_000, 4)
    assert np.isfinite(sent).all()
    assert sent.std(axis=0).min() > 1e-4


def test_the_table_of_models_is_complete():
    listed = re.findall(
        r"`(\w+)(?:\(\w+=?\))?`",
        re.search(r"\| model \|.*?\n\n", (ROOT / "docs/simulator.md").read_text(), re.DOTALL)[0],
    )
    kinds = [
        (n, m) for n in dir(vb.models) if isinstance(m := getattr(vb.models, n), type) and not n.startswith("Abstract")
    ]
    classes = [n for n, m in kinds if issubclass(m, vb.models.AbstractModel)]
    assert sorted(set(listed) & set(classes)) == sorted(classes)


def pieces(page: str) -> list[str]:
    """Every Python block of a page of docs/how-to."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to" / page).read_text(), flags=re.DOTALL)


def run(page: str, names: dict | None = None, fast: tuple[str, str] | None = None) -> dict:
    """The names that a page leaves behind; `fast` is a piece of its text and what is run instead."""
    names, pages = {"jax": jax, "np": np, "vb": vb, **(names or {})}, pieces(page)
    assert fast is None or any(fast[0] in code for code in pages)
    for code in pages:
        exec(compile(code if fast is None else code.replace(*fast), page, "exec"), names)
    return names


def test_the_index_of_the_how_to_pages_is_complete_and_its_links_lead_somewhere():
    folder = ROOT / "docs/how-to"
    linked = set(re.findall(r"\]\(([\w./-]+)\)", (folder / "README.md").read_text()))
    assert {path.name for path in folder.glob("*.md")} - {"README.md"} <= linked
    for page in folder.glob("*.md"):
        for link in re.findall(r"\]\(([\w./-]+)\)", page.read_text()):
            assert (folder / link).exists(), f"{page.name} links {link}"


@pytest.mark.slow
def test_the_page_on_bounded_priors_leaves_no_draw_outside():
    names = run("bounded-priors.md")
    assert names["outside"] == 0
    rate = names["posterior"].theta["rate"].ravel()
    assert rate.min() >= 0.0
    assert np.quantile(rate, 0.05) < 0.1  # the posterior does lean on the edge
    np.testing.assert_allclose([float(value) for value in names["z"].values()], 0.0, atol=1e-6)
    np.testing.assert_allclose(float(names["density_of_z"]), -np.log(2.0 * np.pi), rtol=1e-5)


@pytest.mark.slow
def test_the_page_on_fewer_simulations_keeps_its_budget_and_foretells():
    names = run("fewer-simulations.md")
    rows = names["fit"].history
    assert sum(row.seconds for row in rows) <= 0.5
    assert {row.fidelity for row in rows} == {0, 1}
    assert float(names["fit"].next_gain) >= 0.0
    assert names["info"].info_gain > 1.0


@pytest.mark.slow
def test_the_page_on_neural_flows_learns_the_rhythm_and_where_it_began():
    """On a course that it has not seen, three periods long, and at the unstable point that no trajectory shows."""
    names = run("a-neural-flow.md")
    known = vb.simulate(names["simulator"](names["true"], 1), t1=60.0, key=None, init={"v": 1.5, "w": 0.0}).ys["x"]["v"]
    error = np.asarray(names["course"] - known)
    assert np.sqrt((error**2).mean()) < 0.1 * float(np.std(known))
    here, there = names["here"], names["there"]
    assert here.found[0] == here.found.max()
    np.testing.assert_allclose([here.x.v[0, 0], here.x.w[0, 0]], [there.x.v[0, 0], there.x.w[0, 0]], atol=0.2)
    assert here.unstable[0] == there.unstable[0] == 2
    frequencies = [abs(points.eigenvalues[0, 0].imag) for points in (here, there)]
    assert frequencies[0] == pytest.approx(frequencies[1], rel=0.2)
    ys = vb.simulate(names["network"], t1=50.0, key=jax.random.key(0)).ys["raw"]["v"]
    assert np.isfinite(ys).all()


@pytest.mark.slow
def test_the_page_on_tuning_finds_the_best_of_its_trials():
    names = run("tune-a-network.md")
    assert names["gain"] == max(gain for gain, _ in names["trials"]) > 0.5


@pytest.mark.slow
def test_the_page_on_trust_asks_its_questions_and_the_odd_feature_is_named():
    names = run("can-i-believe-it.md", {"jnp": jnp, "dist": dist})
    assert names["fit_for_model"].passed
    assert not names["odd"].passed
    assert "x[4]" in " ".join(names["odd"].findings)
    assert names["calibration"].verdict in ("pass", "warn")
    assert names["around"].verdict in ("pass", "warn")
    assert names["check"].passed
    shrinkage = {row.name: row.shrinkage for row in names["posterior"].summary()}
    assert (
        shrinkage["coupling.G"] > 0.8 > 0.5 > shrinkage["model.eta"]
    )  # exact: 3 values with sd 1 against sd 0.3: 0.21


@pytest.mark.slow
def test_the_page_on_several_modes_shows_that_chains_disagree_and_weighs_the_modes():
    """Quadrature over (a, b): the share of a > 0 and the evidence, from the density written out anew."""
    names = run("multimodality.md")
    a, b = np.meshgrid(np.linspace(-4.0, 4.0, 1_601), np.linspace(0.2, 4.0, 1_200), indexing="ij")
    log_p = -0.5 * (a - 0.3) ** 2 - 0.5 * (np.log(b) / 0.3) ** 2 - np.log(b * 0.3) - np.log(2.0 * np.pi)
    for reading in (0.95, 1.1, 1.0):
        log_p += -0.5 * ((reading - a * a * b) / 0.1) ** 2 - np.log(0.1 * np.sqrt(2.0 * np.pi))
    weight = np.exp(log_p - log_p.max())
    positive = weight[a > 0].sum() / weight.sum()
    evidence = np.log(weight.sum()) + log_p.max() + np.log((a[1, 0] - a[0, 0]) * (b[0, 1] - b[0, 0]))
    assert vb.diagnostics.rhat(names["chains"])["a"] > 1.5
    assert len(names["best"].basins) == 2
    posterior, repeats = names["posterior"], len(names["share"])
    assert abs(names["share"].mean() - positive) < 4 * max(names["share"].std(ddof=1), 0.02) / np.sqrt(repeats)
    assert abs(posterior.log_evidence - evidence) < 4 * max(posterior.info["log_evidence_error"], 0.02)
    learned = names["learned"].theta["a"].ravel()
    assert abs((learned > 0).mean() - positive) < 0.12
    assert np.mean(np.abs(learned) < 0.5) < 0.1  # nothing is between the modes, and not much of it is drawn


@pytest.mark.slow
def test_the_page_on_failures_narrows_the_prior_to_where_simulations_are_valid(capsys):
    """Simulations fail where p + q > 1, half of the prior."""
    prior = vb.Prior({"p": dist.Uniform(0.0, 1.0), "q": dist.Uniform(0.0, 1.0)})

    def simulator(theta, key):
        y = jnp.stack([theta["p"], theta["q"]]) + 0.1 * jax.random.normal(key, (2,))
        return jnp.where(theta["p"] + theta["q"] > 1.0, jnp.nan, y)

    draws = vb.sample_prior_predictive(prior, simulator, n=2_000, key=jax.random.key(0), progress=False)
    names = run("failed-simulations.md", {"prior": prior, "simulator": simulator, "draws": draws})
    assert capsys.readouterr().out.count("% of ") >= 10
    assert 0.45 < draws.valid.mean() < 0.55
    assert names["more"].valid.mean() > 0.95
    assert names["info"].info_gain > 1.0


@pytest.mark.slow
def test_the_page_on_rounds_comes_to_the_posterior(tmp_path, monkeypatch):
    """theta seen through two readings with sd 0.1 under a wide prior: N(mean of x_o, 0.1^2 / 2)."""
    monkeypatch.chdir(tmp_path)
    prior = vb.Prior({"p": dist.Uniform(-5.0, 5.0), "q": dist.Normal(1.0, 2.0)})

    def simulator(theta, key):
        return jnp.stack([theta["p"], theta["p"], theta["q"]]) + 0.1 * jax.random.normal(key, (3,))

    x_o = np.array([1.0, 1.1, 2.0])
    start = vb.sample_prior_predictive(prior, simulator, n=500, key=jax.random.key(5), progress=False)
    amortized, _ = vb.NPE(density=vb.densities.MDN()).fit(start, prior, key=jax.random.key(6))
    names = run(
        "sequential-rounds.md",
        {"prior": prior, "simulator": simulator, "x_o": x_o, "draws": start, "amortized": amortized},
        fast=("rounds=4, n=500", "rounds=2, n=500"),
    )
    p = names["posterior"].theta["p"].ravel()
    assert p.mean() == pytest.approx(1.05, abs=0.1 / np.sqrt(2.0))
    assert p.std() == pytest.approx(0.1 / np.sqrt(2.0), rel=0.5)
    assert 0.0 < names["region"].mass < 0.5


@pytest.mark.slow
def test_the_page_on_tvb_inversion_learns_the_coupling_and_its_change_of_units_is_exact(tmp_path, monkeypatch):
    """Without TVB and in small: 64 averages of 5 units in place of 290 of 100, 512 draws; both scores by formula."""
    monkeypatch.chdir(tmp_path)
    names, (_, same, inference, units) = {}, pieces("from-tvb-inversion.md")
    small = "period, t1, transient, window, n = 5.0, 340.0, 20.0, 60.0, 512"
    inference = re.sub(r"period, t1, .* = .*", small, inference).replace("n=n, ", "n=n, progress=False, ")
    assert small in inference
    for code in (same.replace("TimeAverage(100.0", "TimeAverage(5.0"), inference, units):
        exec(compile(code, "from-tvb-inversion.md", "exec"), names)
    G = np.asarray(names["posterior"].theta["coupling.G"]).ravel()
    assert names["draws"].valid.mean() > 0.9
    assert names["learned"]["coupling.G"] == pytest.approx(1.0 - G.var(ddof=1) / (1.1**2 / 12.0), abs=1e-3)
    assert names["distance"]["coupling.G"] == pytest.approx(abs(G.mean() - 0.7) / G.std(ddof=1), rel=1e-3)
    assert names["learned"]["coupling.G"] > 0.3
    assert names["distance"]["coupling.G"] < 4.0
    # in units of tau and in ms, with the same normals
    z = np.random.default_rng(0).normal(size=(2, 200, 80))
    start = np.random.default_rng(1).uniform([[0.01], [-2.0]], [[0.3], [-1.0]], (2, 80))
    runs = []
    for sim, rate, dt in ((names["sim"], 1.0, 0.01), (names["in_ms"], 0.1, 0.1)):
        sim = vb.Simulator(sim.model, sim.connectome, coupling=sim.coupling, integrator=sim.integrator, noise=sim.noise)
        init = sim.model.State(rate * start[0], start[1])
        y = vb.simulate(sim, t1=200 * dt, key=None, init=init, noise_path={"r": z[0], "V": z[1]}).ys["raw"]
        runs.append(np.stack([y["r"] / rate, y["V"]]))
    np.testing.assert_allclose(runs[0], runs[1], rtol=2e-3, atol=1e-4)


def test_the_drawing_of_the_house_is_that_of_the_code():
    done = subprocess.run([sys.executable, ROOT / "docs" / "house.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_files_of_the_walks_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text().partition("| one thing |")[2]
    named = re.findall(r"`((?:\w+/)*\w+\.py|\w+/)`", text)
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "vbinfer" / name).exists()] == []
