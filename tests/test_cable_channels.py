"""Channels: golden trajectories, rates against 40 digits, calcium against exact solutions."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import vbinfer as vb

ARRAYS = dict(np.load(Path(__file__).parent / "golden" / "cable.npz"))
INFO = json.loads(str(ARRAYS["info"]))
C = vb.cable
CHANNELS = (C.HH, C.Na, C.K, C.Km, C.CaL, C.CaT, C.NaTa, C.NaTs2, C.NaP, C.KP, C.KT, C.SKv3, C.SK, C.Im, C.Ih)
CHANNELS += (C.CaHVA, C.CaLVA)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def pospischil():
    """V and gates of two cells as one batch over 25 ms, every 0.5 ms, by dt: tonic spikes, a rebound of calcium.

    They start where the golden trajectories are at 50 and at 290 ms.
    """
    with jax.enable_x64(True):
        cases, start = [INFO[name] for name in ("posp_rs", "posp_lts")], (100, 580)
        p = cases[0]["params"]
        channels = (C.Leak(e=p["e_leak"]), C.Na(), C.K(), C.Km(taumax=p["taumax"]), C.CaL(), C.CaT())
        cell = C.Cell(C.single(p["length"], p["diam"] / 2), {"soma": channels})
        path = lambda *names: jnp.asarray([c["params"]["_".join(names)] for c in cases])  # noqa: E731
        theta = {f"model.soma.{n}.g": path("g", n) for n in ("leak", "na", "k", "km", "cal", "cat")}
        theta |= {"model.soma.na.vt": path("vt"), "model.soma.k.vt": path("vt"), "model.soma.cat.vx": path("vx")}
        theta |= {"stimulus.onset": jnp.asarray([0.0, 10.0]), "stimulus.amplitude": jnp.asarray([0.75, 0.35])}
        names = ("V", *(f"soma_{g}" for g in ("na_m", "na_h", "k_n", "km_p", "cal_q", "cal_r", "cat_u")))
        at = [ARRAYS[f"{name}__y"][:, k] for name, k in zip(("posp_rs", "posp_lts"), start, strict=True)]
        theta |= {f"init.{v}": jnp.asarray([a[k] for a in at])[:, None] for k, v in enumerate(names)}
        found = {}
        for dt in (0.025, 0.0125):
            sim = vb.Simulator(
                cell,
                integrator=vb.Native(dt=dt),
                stimulus=vb.stimuli.Pulse(0.0, 100.0, 1.0),
                monitors={"x": vb.monitors.Subsample(0.5, var=names)},
            )
            fwd = vb.ForwardModel(sim, t1=25.0, summary=lambda x: jnp.stack([a[:, 0] for a in x.values()]).ravel())
            y = fwd.batch(theta, jax.random.split(jax.random.key(0), 2))
            found[dt] = np.asarray(y).reshape(2, 8, -1)
    return found


@pytest.mark.parametrize(("k", "name", "start"), [(0, "posp_rs", 100), (1, "posp_lts", 580)])
def test_pospischil_cells_converge_to_their_trajectories(pospischil, k, name, start):
    truth = ARRAYS[f"{name}__y"][:, start + 1 : start + 51]
    assert truth[0].max() > -20.0  # there is a spike
    coarse, fine = (np.abs(pospischil[dt][k, 0] - truth[0]).max() for dt in (0.025, 0.0125))
    assert np.log2(coarse / fine) > 1.9
    extrapolated = pospischil[0.0125][k, 0] + (pospischil[0.0125][k, 0] - pospischil[0.025][k, 0]) / 3.0
    assert np.abs(extrapolated - truth[0]).max() < 0.1 * fine
    slow = [4, 7]  # p and u hardly move within dt / 2, where they are recorded
    np.testing.assert_allclose(pospischil[0.0125][k, slow], truth[slow], atol=3e-3)


# Points where a formula of some channel is 0/0, those next to them, and far away.
HOLES = (-40.0, -55.0, -47.0, -20.0, -45.0, -27.0, -38.0, -66.0, -32.0, -60.0, -17.0, -64.4, -154.9)
POINTS = np.array([v + d for v in HOLES for d in (0.0, 1e-13, -1e-13, 1e-6, 0.3)] + [-250.0, -90.0, 30.0, 250.0])


@pytest.mark.parametrize("kind", CHANNELS, ids=lambda kind: kind.__name__)
def test_rates_and_their_derivatives_are_finite_everywhere(kind):
    def flat(V):
        return jnp.stack([a for pair in kind().rates(V, 1e-4 * jnp.ones_like(V)).values() for a in pair])

    V = jnp.asarray(POINTS)
    y, slope = jax.jit(lambda V: jax.jvp(flat, (V,), (jnp.ones_like(V),)))(V)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()
    steady, tau = y[::2], y[1::2]
    assert ((steady >= 0) & (steady <= 1)).all()
    assert (tau > 0).all()
    single = jax.jit(flat)(V.astype(jnp.float32))
    assert np.isfinite(single).all()
    # no jump at a hole: the value next to it, at a distance of 1e-6, is that of the tangent (KP's is a jump by itself)
    n = 5 * len(HOLES)
    at, near = np.asarray(y)[:, 0:n:5], np.asarray(y)[:, 3:n:5]
    tangent = at + 1e-6 * np.asarray(slope)[:, 0:n:5]
    assert (np.abs(near - tangent) <= 1e-9 * np.abs(at) + 1e-15).all()


def test_ratio_is_that_of_forty_digits():
    x = np.array([0.0, 1e-300, 1e-9, -1e-6, 0.0199, 0.0201, -0.02, 1.0, -7.0, 60.0, -300.0])
    mpmath.mp.dps = 40
    exact = [1.0 if v == 0 else float(mpmath.mpf(v) / mpmath.expm1(mpmath.mpf(v))) for v in x]
    np.testing.assert_allclose(C.ratio(jnp.asarray(x)), exact, rtol=1e-13)
    slope = [
        -0.5 if abs(v) < 1e-200 else float(mpmath.diff(lambda t: t / mpmath.expm1(t), mpmath.mpf(float(v)))) for v in x
    ]
    own = jax.vmap(jax.grad(C.ratio))(jnp.asarray(x))
    np.testing.assert_allclose(own, slope, rtol=1e-11, atol=1e-20)


# ---- calcium


def test_calcium_settles_exponentially_where_its_current_is_constant():
    """Voltage and gates clamped: ca = end + (ca_min - end) exp(-t / tau), end by Faraday's law; NaN-free at the end."""
    level = lambda v: vb.stimuli.Ramp(0.0, 1.0, v, v)  # noqa: E731
    clamps = tuple(C.Clamp(s, level(v)) for s, v in (("V", -20.0), ("soma_cal_q", 0.3), ("soma_cal_r", 0.4)))
    pump = C.CaPump(gamma=0.04, tau=30.0, depth=0.2, ca_min=2e-4)
    cell = C.Cell(C.single(20.0, 10.0), {"soma": (C.CaL(g=3e-4, e=100.0), pump)}, clamps=clamps)
    end = 2e-4 + 30.0 * 1e4 * 0.04 * 3e-4 * 0.3**2 * 0.4 * 120.0 / (2 * 96485.33212 * 0.2)
    for integrator in (vb.Native(dt=0.5), C.BackwardEuler(dt=0.5)):
        run = vb.simulate(vb.Simulator(cell, integrator=integrator), t1=40.0, key=None)
        exact = end + (2e-4 - end) * np.exp(-run.ts["raw"] / 30.0)
        np.testing.assert_allclose(run.ys["raw"]["soma_capump_ca"][:, 0], exact, rtol=1e-10)


def test_calcium_cell_is_of_second_order_and_rests_where_it_stays():
    """Calcium current with its Nernst potential, the current that calcium opens, and a pump, against halved steps."""
    channels = (C.Leak(e=-50.0), C.CaLVA(g=5e-3), C.CaPump(gamma=0.05, tau=20.0), C.Nernst(), C.SK(g=1e-3))
    cell = C.Cell(C.single(20.0, 10.0), {"soma": channels}, v_init=-80.0)
    ends = []
    for dt in (0.2, 0.1, 0.05):
        sim = vb.Simulator(cell, integrator=vb.Native(dt=dt), monitors={"x": vb.monitors.Subsample(20.0)})
        x = vb.simulate(sim, t1=20.0, key=None).ys["x"]
        ends.append([float(x["V"][0, 0]), 1e4 * float(x["soma_capump_ca"][0, 0])])
    assert ends[0][1] > 1.1  # calcium entered
    order = np.log2(np.abs(np.subtract(ends[0], ends[1])) / np.abs(np.subtract(ends[1], ends[2])))
    assert (order > 1.9).all()
    rest = cell.rest()
    sim = vb.Simulator(cell, integrator=vb.Native(dt=0.1), monitors={"x": vb.monitors.Subsample(50.0)})
    later = vb.simulate(sim, t1=50.0, key=None, init=rest).final.state
    np.testing.assert_allclose(later.V, rest.V, atol=1e-7)
    np.testing.assert_allclose(later.soma_capump_ca, rest.soma_capump_ca, rtol=1e-7)
    # by hand: the reversal potential that Nernst's equation gives
    potential = 1e3 * 8.31446261815324 * 279.45 / (2 * 96485.33212) * np.log(2.0 / 1.7e-4)
    np.testing.assert_allclose(C.Nernst().potential(jnp.asarray(1.7e-4)), potential, rtol=1e-12)


def test_the_channel_of_the_how_to_page_relaxes_as_written():
    """The page runs; then its gate against its own rates, at a voltage held by hand."""
    page = (Path(__file__).parent.parent / "docs/how-to/a-channel-of-your-own.md").read_text()
    found: dict = {}
    exec(page.split("```python\n")[1].split("```")[0], found)
    assert found["paths"] == ["model.soma.kv.g", "model.soma.kv.e"]
    alpha, beta = 0.18 * (x := -5.0 / 9.0) / (np.exp(x) - 1), 0.018 * -x / (np.exp(-x) - 1)
    steady, tau = found["Kv"]().rates(jnp.asarray(30.0), 0.0)["n"]
    np.testing.assert_allclose([steady, tau], [alpha / (alpha + beta), 1 / (alpha + beta)], rtol=1e-12)
    V, n = found["ys"]["V"][:, 0], found["ys"]["soma_kv_n"][:, 0]
    inf, tau = found["Kv"]().rates(V[:-1], 0.0)["n"]
    np.testing.assert_allclose(n[1:], inf + (n[:-1] - inf) * np.exp(-0.05 / tau), rtol=1e-10)
    assert n.max() > 2 * n[0]  # the pulse opens it
