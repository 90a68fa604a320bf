"""Cells of Jaxley as forward models, against `jaxley.integrate`: `make test-parity`."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb

pytestmark = pytest.mark.parity
jx = pytest.importorskip("jaxley", reason="jaxley is not installed: make test-parity")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def cell():
    """Three branches of two compartments, two recordings, a stimulus shorter than the run, two groups of one name."""
    from jaxley.channels import HH

    made = jx.Cell([jx.Branch(jx.Compartment(), ncomp=2)] * 3, parents=[-1, 0, 0])
    made.insert(HH())
    made.branch(0).loc(0.0).stimulate(jx.step_current(1.0, 2.0, 0.3, 0.025, 4.0), verbose=False)
    made.branch(0).loc(0.0).record(verbose=False)
    made.branch(2).loc(1.0).record(verbose=False)
    made.branch(0).make_trainable("HH_gNa", verbose=False)
    made.branch("all").comp("all").make_trainable("radius", verbose=False)
    made.branch([1, 2]).make_trainable("HH_gNa", verbose=False)
    return made


@pytest.mark.parametrize("solver", ["bwd_euler", "crank_nicolson"])
def test_simulations_are_those_of_integrate(solver):
    module = cell()
    before = module.nodes.copy()
    fwd = vb.bridges.from_jaxley(module, t1=6.0, dt=0.025, solver=solver)
    assert fwd.parameters == {"HH_gNa": (1,), "radius": (6,), "HH_gNa_1": (2,)}
    theta = {"HH_gNa": jnp.asarray(0.2), "radius": jnp.linspace(0.8, 1.5, 6), "HH_gNa_1": jnp.asarray([0.1, 0.13])}
    y = fwd(theta, None)
    assert module.nodes.equals(before)
    params = [{"HH_gNa": jnp.asarray([0.2])}, {"radius": theta["radius"]}, {"HH_gNa": theta["HH_gNa_1"]}]
    theirs = jx.integrate(cell(), params=params, t_max=6.0, delta_t=0.025, solver=solver)
    np.testing.assert_allclose(y, theirs[:, 1 : fwd.n_steps + 1].T, rtol=0, atol=1e-10)
    assert np.ptp(y[:, 0]) > 50.0
    two = fwd.batch(jax.tree.map(lambda a: jnp.stack([0.9 * a, a]), theta), None)
    np.testing.assert_allclose(two[1], y, atol=1e-10)


def test_draws_gradients_and_names():
    summary = vb.Summary(period=0.025, v=vb.features.subthreshold(onset=1.0, duration=2.0, only=("mean", "std")))
    fwd = vb.bridges.from_jaxley(cell(), t1=5.0, summary=summary)
    assert fwd.names == ("v.mean", "v.std")
    leaves = {"HH_gNa": dist.LogNormal(-2.0, 0.3), "HH_gNa_1": dist.LogNormal(-2.0, 0.3).expand([2])}
    prior = vb.Prior({**leaves, "radius": dist.LogNormal(0.0, 0.1).expand([6])})
    draws = vb.sample_prior_predictive(prior, fwd, n=3, key=jax.random.key(0), progress=False)
    assert draws.x.shape == (3, 2)
    assert draws.valid.all()
    assert fwd.fingerprint() == vb.bridges.from_jaxley(cell(), t1=5.0, summary=summary).fingerprint()
    assert fwd.fingerprint() != vb.bridges.from_jaxley(cell(), t1=5.025, summary=summary).fingerprint()
    with pytest.raises(ValueError, match="Did you mean 'radius'"):
        fwd.check(vb.Prior({**leaves, "radiuss": dist.LogNormal(0.0, 0.1)}))
    with pytest.raises(ValueError, match=r"'radius' has shape \[\]"):
        fwd.check(vb.Prior({**leaves, "radius": dist.LogNormal(0.0, 0.1)}))
    with pytest.raises(ValueError, match="lacks"):
        fwd({"HH_gNa": 0.1}, None)


def test_what_cannot_be_carried_over_is_said():
    silent = jx.Compartment()
    with pytest.raises(ValueError, match="records nothing"):
        vb.bridges.from_jaxley(silent, t1=5.0)
    silent.record(verbose=False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        vb.bridges.from_jaxley(silent, t1=5.0)
    with pytest.raises(ValueError, match="solver='heun'"):
        vb.bridges.from_jaxley(cell(), t1=5.0, solver="heun")


def test_crank_nicolson_of_both_is_one_where_gates_start_in_their_steady_state():
    from jaxley.channels import HH

    one = jx.Compartment()
    one.insert(HH())
    for name, value in {"length": 20.0, "radius": 10.0, "v": -65.0}.items():
        one.set(name, value)
    one.init_states()
    one.stimulate(jx.step_current(1.0, 5.0, 0.3, 0.025, 10.0), verbose=False)
    one.record(verbose=False)
    one.make_trainable("HH_gNa", verbose=False)
    theirs = vb.bridges.from_jaxley(one, t1=10.0, solver="crank_nicolson")({"HH_gNa": jnp.asarray(0.11)}, None)
    own = vb.cable.Cell(vb.cable.single(20.0, 10.0), {"soma": vb.cable.HH(g_na=0.11)})
    sim = vb.Simulator(own, integrator=vb.Native(dt=0.025), stimulus=vb.stimuli.Pulse(1.0, 5.0, 0.3))
    y = vb.simulate(sim, t1=10.0, key=None).ys["raw"]["V"]
    assert y.max() > 20.0
    np.testing.assert_allclose(y, theirs, atol=1e-5)
