"""Tasks of cells: an exact posterior against its own likelihood, spikes under the prior, cells in study files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb


def test_the_exact_posterior_of_the_passive_cell_is_prior_times_likelihood():
    """Weights of draws, p(theta) L(theta) / q(theta), are constant: checked on a small grid by moments.

    The likelihood runs the cable simulation; the exact sampler does not.
    """
    task = vb.tasks.passive_cell()
    truth = np.array([0.2, np.log(1.3e-4), -67.0])
    x = task.simulator({"theta": jnp.asarray(truth)}, jax.random.key(3))
    draws = task.sample(x, n=20_000, key=jax.random.key(4)).theta["theta"][0]
    mean, cov = draws.mean(axis=0), np.cov(draws.T)
    axes = [m + np.linspace(-5.0, 5.0, 13) * s for m, s in zip(mean, np.sqrt(np.diag(cov)), strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    log_p = jax.jit(jax.vmap(lambda t: task.prior.log_prob({"theta": t}) + task.log_likelihood({"theta": t}, x)))
    w = np.exp(np.asarray(log_p(jnp.asarray(grid)), float) - float(log_p(jnp.asarray(mean[None]))[0]))
    w /= w.sum()
    exact = w @ grid
    np.testing.assert_array_less(np.abs(mean - exact), 0.06 * np.sqrt(np.diag(cov)))
    np.testing.assert_allclose((grid - exact).T @ (w[:, None] * (grid - exact)), cov, rtol=0.12, atol=0.03 * cov.max())
    assert np.abs(truth - mean).max() < 5.0


@pytest.mark.slow
def test_hodgkin_huxley_spikes_under_its_prior_and_has_no_likelihood():
    task = vb.tasks.hodgkin_huxley()
    theta = task.prior.sample(key=jax.random.key(0), n=16)
    typical = jnp.asarray([0.05, 0.005, 7e-5, 1e-4, 1000.0, -60.0, 0.05, -70.0])
    theta = {"theta": theta["theta"].at[0].set(typical)}
    x = np.asarray(task.simulator.batch(theta, jax.random.split(jax.random.key(1), 16)))
    assert np.isfinite(x).all()
    assert 3 <= x[0, 0] <= 30
    assert abs(x[0, 1] + 70.0) < 3.0
    assert np.unique(x[:, 0]).size > 2
    with pytest.raises(ValueError, match="no likelihood"):
        task.log_likelihood(theta, x[0])


CELL = """
[data]
recording = "v.npz"
[simulator]
integrator = {{ name = "{integrator}", dt = 0.05 }}
stimulus = {{ name = "Pulse", onset = 1.0, duration = 3.0, amplitude = 0.5, gain = [1.0, 0.0] }}
monitor = {{ name = "Subsample", period = 1.0, var = "V" }}
t1 = 5.0
[simulator.model]
name = "Cell"
swc = "cell.swc"
max_length = 30.0
channels = {{ soma = ["HH"], all = {{ name = "Leak", g = 2e-4 }} }}
sites = {{ soma = {{ region = "soma" }}, tip = {{ region = "dend", x = 1.0 }} }}
axial_resistivity = 120.0
{more}
[prior]
"model.soma.hh.g_na" = {{ name = "LogNormal", loc = -2.1, scale = 0.2 }}
"model.radius_scale" = {{ name = "LogNormal", loc = 0.0, scale = 0.1 }}
[summary]
rest = {{ name = "subthreshold", onset = 1.0, duration = 3.0 }}
[inference]
method = {{ name = "NPE" }}
draws = 100
seed = 0
[output]
dir = "out"
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "cell.swc").write_text("1 1 0 0 0 8 -1\n2 3 0 8 0 1 1\n3 3 0 90 0 0.8 2\n")
    np.savez(tmp_path / "v.npz", values=np.linspace(-70, -60, 20).reshape(10, 2), period=1.0)
    return tmp_path


def study(folder: Path, integrator="Native", more="") -> vb.Study:
    (folder / "study.toml").write_text(CELL.format(integrator=integrator, more=more))
    return vb.Study.from_toml(folder / "study.toml")


def test_a_study_file_has_the_cell_that_python_has(folder):
    comp = vb.cable.compartments(vb.cable.read_swc(folder / "cell.swc"), max_length=30.0)
    sites = {"soma": comp.site("soma"), "tip": comp.site("dend", 1.0)}
    channels = {"soma": vb.cable.HH(), "all": vb.cable.Leak(g=2e-4)}
    cell = vb.cable.Cell(comp, channels, sites=sites, axial_resistivity=120.0)
    for integrator, own in (("Native", vb.Native(dt=0.05)), ("BackwardEuler", vb.cable.BackwardEuler(dt=0.05))):
        found = study(folder, integrator).forward.sim
        assert found.integrator == own
    expected = vb.Simulator(
        cell,
        integrator=vb.Native(dt=0.05),
        stimulus=vb.stimuli.Pulse(1.0, 3.0, 0.5, gain=[1.0, 0.0]),
        monitors={"monitor": vb.monitors.Subsample(1.0, var="V")},
    )
    found = study(folder).forward.sim
    np.testing.assert_array_equal(
        vb.simulate(found, t1=5.0, key=None).ys["monitor"], vb.simulate(expected, t1=5.0, key=None).ys["monitor"]
    )


def test_mistakes_in_the_table_of_a_cell_name_it(folder):
    from vbinfer.study.table import StudyError

    for more, words in (
        ("swcc = 1", "swcc"),
        ('receptors = { ampa = { name = "ExpSin" } }', "ExpSin"),
        ("d_lambda = 0.1", "give one of max_length"),
        ("single = { length = 20.0, radius = 10.0 }", "one of swc, sections, single"),
    ):
        with pytest.raises(StudyError, match=words):
            study(folder, more=more)
