"""What a notebook does: a function stays, what it reads is assigned anew, and the numbers must be the new ones."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import vbinfer as vb
from vbinfer.io.live import renew
from vbinfer.sampling.chains import layout_of, programs_of
from vbinfer.sampling.problem import Problem, problem_of

KEY = jax.random.key(0)
PRIOR = vb.Prior({"a": dist.Normal(0.0, 1.0)})
CELL = """
import jax, jax.numpy as jnp, functools, vbinfer as vb, equinox as eqx
import numpyro.distributions as dist

y = 1.0
table = [1.0]
class options: scale = 1.0

def body(carry, _):
    return carry + y, None

def helper(a):
    return jax.lax.scan(body, a, None, length=1)[0]

@jax.jit
def jitted(a):
    return a + y

def by_name(theta, key): return theta["a"] + y + jnp.zeros(1)
def by_scan(theta, key): return helper(theta["a"]) + jnp.zeros(1)
def by_jit(theta, key): return jitted(theta["a"]) + jnp.zeros(1)
def by_list(theta, key): return theta["a"] + table[0] + jnp.zeros(1)
def by_class(theta, key): return theta["a"] + options.scale + jnp.zeros(1)

class Model(vb.AbstractVectorField):
    State = vb.models.Linear.State
    cvar: tuple = eqx.field(static=True, default=("x",))
    def init(self, n): return self.State(jnp.zeros(n))
    def dfun(self, t, x, c, u): return self.State(jnp.full_like(x.x, y))
"""


@pytest.fixture
def cell():
    """A module that stands for a notebook."""
    made = types.ModuleType("notebook")
    exec(compile(CELL, "notebook.py", "exec"), made.__dict__)
    return made


def change(cell):
    cell.y, cell.table[0], cell.options.scale = 10.0, 10.0, 10.0


WAYS = ["by_name", "by_scan", "by_jit", "by_list", "by_class"]


@pytest.fixture(scope="module")
def linear():
    return vb.Simulator(vb.models.Linear(gamma=-1.0), integrator=vb.Heun(dt=0.5), nodes=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_forward_model_does_not_keep_the_old_value_of_a_global(cell, linear, way):
    """Neither does a new one with the same summary."""
    summary = lambda y: getattr(cell, way)({"a": 0.0}, None)  # noqa: E731
    made = lambda: vb.ForwardModel(linear, t1=1.0, summary=summary)  # noqa: E731
    fwd, mark = made(), made().fingerprint()
    assert float(fwd({}, KEY)[0]) == 1.0
    change(cell)
    assert [float(f({}, KEY)[0]) for f in (fwd, made())] == [10.0, 10.0]
    assert fwd.fingerprint() != mark


def test_the_equations_of_a_users_class_follow_its_globals(cell):
    sim = vb.Simulator(cell.Model(), integrator=vb.Heun(dt=0.5), nodes=1)
    end = lambda: float(vb.simulate(sim, t1=1.0, key=None).ys["raw"]["x"][-1, 0])  # noqa: E731
    assert end() == 1.0
    change(cell)
    assert end() == 10.0


@pytest.mark.parametrize("way", WAYS)
def test_a_store_of_a_plain_function_is_refused_when_its_global_has_changed(cell, tmp_path, way):
    draw = lambda **more: vb.sample_prior_predictive(  # noqa: E731
        PRIOR, getattr(cell, way), n=64, key=KEY, progress=False, **more
    )
    old = draw(store=tmp_path)
    np.testing.assert_allclose(old.x[:, 0], old.theta["a"] + 1.0, rtol=1e-6)
    change(cell)
    with pytest.raises(ValueError, match="simulator"):
        draw(store=tmp_path)
    new = draw()
    np.testing.assert_allclose(new.x[:, 0], new.theta["a"] + 10.0, rtol=1e-6)


def learned(cell, run):
    """The value of the data that `run` takes from -(d - theta)^2 50, read by a helper that JAX keeps."""
    exec("def likelihood(theta, x): return -50.0 * (helper(0.0) - theta['a'])**2 + 0.0 * x", cell.__dict__)
    first = run(cell.likelihood)
    cell.y = 2.0
    return first, run(cell.likelihood)


def value(likelihood, x=0.0):
    return float(problem_of(PRIOR, likelihood, x).run(Problem.log_likelihood, jnp.zeros(1)))


def test_a_problem_does_not_keep_the_old_value_of_a_global(cell):
    assert learned(cell, value) == pytest.approx((-50.0, -200.0))


@pytest.mark.slow  # compiles two samplers, twice each
@pytest.mark.parametrize("kernel", [vb.NUTS(), vb.sampling.TemperedSMC()], ids=["NUTS", "TemperedSMC"])
def test_a_sampler_does_not_keep_the_old_value_of_a_global(cell, kernel):
    """The mean is y / 1.01, with a Monte-Carlo error of 0.1 / sqrt(300) = 0.006."""
    sizes = {"num_warmup": 100, "num_samples": 300, "num_chains": 2}

    def mean(likelihood):
        return float(vb.sample_mcmc(PRIOR, likelihood, 0.0, kernel=kernel, key=KEY, **sizes).theta["a"].mean())

    assert learned(cell, mean) == pytest.approx((1.0 / 1.01, 2.0 / 1.01), abs=0.03)


def test_programs_of_chains_are_made_anew(cell):
    """Also those that are kept by kernel, prior and likelihood."""

    def energy(likelihood):
        problem = problem_of(PRIOR, likelihood, 0.0)
        made = programs_of(vb.sampling.HMC(num_steps=2), PRIOR, problem.likelihood, 5, layout_of(1, shared=True))
        state = made.start(problem.x, jnp.zeros((1, 1)), jax.random.split(KEY, 1))
        leaves = jax.tree_util.tree_flatten_with_path(state)[0]
        return next(float(leaf[0]) for path, leaf in leaves if "potential_energy" in str(path[-1]))

    constant = 0.5 * np.log(2.0 * np.pi)  # of the prior
    assert learned(cell, energy) == pytest.approx((50.0 + constant, 200.0 + constant), rel=1e-5)


def programs():
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: events.append(name) if "backend_compile" in name else None
    )
    return events


def test_what_has_not_changed_compiles_nothing(cell, linear):
    """Also where a function counts its traces, and changes by itself what it reads."""
    exec("seen = []\ndef counting(y): seen.append(0.0); return jnp.zeros(1) + seen[0]", cell.__dict__)
    exec("def likelihood(theta, x): table.append(0.0); return -(theta['a'] - x)**2 * table[0]", cell.__dict__)
    fwd = vb.ForwardModel(linear, t1=1.0, summary=cell.counting)
    fwd({}, KEY), value(cell.likelihood, 0.5)
    events = programs()
    fwd({}, KEY), value(cell.likelihood, 0.7), fwd({}, KEY), value(cell.likelihood, 0.9)
    assert len(events) == 0


def test_what_has_no_content_is_known_by_identity(cell):
    """A lock among the globals neither raises nor has everything made anew."""
    exec("import threading; lock = threading.Lock()\ndef f(a):\n    with lock: return a + y", cell.__dict__)
    g = jax.jit(cell.f)
    renew(cell.f)
    assert float(g(0.0)) == 1.0
    events = programs()
    renew(cell.f)
    assert float(g(0.0)) == 1.0
    assert len(events) == 0
    cell.y = 3.0
    renew(cell.f)
    assert float(g(0.0)) == 3.0
