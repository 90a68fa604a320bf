"""Several projections between the same nodes, against a float64 loop."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbinfer as vb
from vbinfer.study.table import StudyError

N, DT, STEPS = 4, 0.1, 50
rng = np.random.default_rng(11)
W = {"exc": rng.uniform(0.0, 1.0, (N, N)), "inh": rng.uniform(0.0, 1.0, (N, N)) * (rng.random((N, N)) > 0.4)}
LENGTHS = {"exc": rng.uniform(0.0, 3.0, (N, N)), "inh": rng.uniform(0.0, 6.0, (N, N))}
SPEED = {"exc": 3.0, "inh": 5.0}


class PairState(NamedTuple):
    a: Any
    b: Any


class Pair(vb.models.AbstractVectorField):
    """Two variables that read different rows of c; a sends."""

    State: ClassVar = PairState
    cvar: tuple[str, ...] = eqx.field(static=True, default=("a",))

    def init(self, n):
        return PairState(jnp.linspace(-1.0, 2.0, n), jnp.linspace(0.5, -0.5, n))

    def dfun(self, t, x, c, u):
        return PairState(-x.a + jnp.tanh(c[0]) - x.b, 0.3 * (x.a - x.b) + c[1] * x.b)


def networks(sparse=(), names=("exc", "inh")):
    made = {name: vb.Connectome(W[name], LENGTHS[name], SPEED[name]) for name in names}
    return {name: c.sparse() if name in sparse else c for name, c in made.items()}


def build(sparse=(), names=("exc", "inh"), delays=None, **options):
    # couplings and delays in the other order: the connectomes say which row is which
    given = {
        "coupling": {"inh": vb.coupling.Linear(G=-0.4), "exc": vb.coupling.Difference(G=0.6)},
        "integrator": vb.Heun(DT),
        "delays": {"inh": vb.Delays(max=1.5), "exc": vb.Delays(max=2.0)} if delays is None else delays,
    }
    return vb.Simulator(Pair(), networks(sparse, names), **given | options)


def by_hand(
    G=0.6,
    inh=-0.4,
    speed=5.0,
    steps=STEPS,
    delayed=("exc", "inh"),
    swapped=False,
    lengths=LENGTHS,
    sent_by_inh=lambda v: v,
):
    """Heun, the loop over receivers and senders written out."""
    speeds = SPEED | {"inh": speed}
    lags = {
        k: np.round(np.float32(lengths[k]) / np.float32(speeds[k]) / np.float32(DT)).astype(int) * (k in delayed)
        for k in W
    }
    a, b = np.linspace(-1.0, 2.0, N), np.linspace(0.5, -0.5, N)
    sent, out = [], []

    def arriving(name, k, now, i):
        total = 0.0
        for j in range(N):
            lag = lags[name][i, j]
            value = now[j] if lag == 0 else sent[max(k - lag, 0)][j]
            total += W[name][i, j] * (value - now[i] if name == "exc" else sent_by_inh(value))
        return total * (G if name == "exc" else inh)

    def drift(k, a, b):
        da, db = np.zeros(N), np.zeros(N)
        for i in range(N):
            c = [arriving("exc", k, a, i), arriving("inh", k, a, i)]
            c = c[::-1] if swapped else c
            da[i] = -a[i] + np.tanh(c[0]) - b[i]
            db[i] = 0.3 * (a[i] - b[i]) + c[1] * b[i]
        return da, db

    for k in range(steps):
        sent.append(a.copy())
        f = drift(k, a, b)
        f2 = drift(k + 1, a + DT * f[0], b + DT * f[1])
        a, b = a + DT / 2 * (f[0] + f2[0]), b + DT / 2 * (f[1] + f2[1])
        out.append((a, b))
    return np.array(out)


def run(sim, steps=STEPS, **options):
    ys = vb.simulate(sim, t1=steps * DT, key=None, **options).ys["raw"]
    return np.stack([ys["a"], ys["b"]], axis=1)


@pytest.mark.parametrize("sparse", [(), ("inh",)])
def test_two_delayed_projections_equal_a_loop(sparse):
    np.testing.assert_allclose(run(build(sparse)), by_hand(), atol=1e-5)


@pytest.mark.parametrize("names", [("exc", "inh"), ("inh", "exc")])
def test_projections_that_send_the_same_keep_it_once(names):
    """Linear and Difference send the variables themselves, into one ring for the longer lag; tanh sends its own."""
    own = {"inh": vb.coupling.HyperbolicTangent(a=0.3, midpoint=0.2), "exc": vb.coupling.Difference(G=0.6)}
    for coupling, rings, G, sends in (
        (None, 1, -0.4, lambda v: v),
        ({"coupling": own}, 2, 1.0, lambda v: 0.3 * (1.0 + np.tanh(v - 0.2))),
    ):
        sim = build(names=names, **coupling or {})
        final = vb.simulate(sim, t1=1.0, key=None).final
        assert sum(buffer.ring is not None for buffer in final.carry.buffers) == rings
        expected = by_hand(inh=G, sent_by_inh=sends, swapped=names[0] == "inh")
        np.testing.assert_allclose(run(sim), expected, atol=1e-5)


def test_the_connectomes_say_which_row_is_which():
    sim = build(names=("inh", "exc"))
    expected = by_hand(swapped=True)
    assert np.abs(expected - by_hand()).max() > 0.1
    np.testing.assert_allclose(run(sim), expected, atol=1e-5)
    # binding takes the tree apart and puts it together again
    np.testing.assert_allclose(run(vb.bind(sim, {"coupling.exc.G": 0.6})), expected, atol=1e-5)


def test_a_projection_that_delays_leaves_out_is_instantaneous():
    np.testing.assert_allclose(run(build(delays={"inh": vb.Delays()})), by_hand(delayed=("inh",)), atol=1e-5)
    np.testing.assert_allclose(run(build(delays=vb.Delays())), by_hand(), atol=1e-5)  # one for all, each measured


def test_each_projection_is_drawn_by_its_own_paths():
    """A batch of as many draws as nodes, a speed of one projection and a strength of the other; pieces too."""
    fwd = vb.ForwardModel(build(("exc",)), t1=STEPS * DT, summary=lambda y: jnp.concatenate([y["a"][-1], y["b"][-1]]))
    speeds, G = np.array([4.5, 5.0, 6.0, 7.0]), np.array([0.1, 0.6, -0.2, 0.9])
    x = fwd.batch({"connectome.inh.speed": speeds, "coupling.exc.G": G}, jax.random.split(jax.random.key(0), N))
    for draw, (speed, strength) in enumerate(zip(speeds, G, strict=True)):
        np.testing.assert_allclose(x[draw], by_hand(strength, speed=speed)[-1].ravel(), atol=1e-5)
    sim = build()
    whole, first = vb.simulate(sim, t1=5.0, key=None), vb.simulate(sim, t1=2.3, key=None)
    second = vb.simulate(sim, t1=2.7, key=None, init=first.final)
    np.testing.assert_array_equal(whole.ys["raw"]["a"][23:], second.ys["raw"]["a"])
    import numpyro.distributions as dist

    prior = vb.Prior({"connectome.exc.speed": dist.Uniform(2.0, 4.0), "coupling.inh.G": dist.Normal(0.0, 1.0)})
    fwd.check(prior)
    other = vb.ForwardModel(build(("exc",), names=("inh", "exc")), t1=STEPS * DT, summary=fwd.parts[0])
    assert other.fingerprint() != fwd.fingerprint()


LONG = {name: lengths + SPEED[name] * 0.8 for name, lengths in LENGTHS.items()}


def with_long_lags(sparse, names=("exc", "inh")):
    made = {name: vb.Connectome(W[name], LONG[name], SPEED[name]) for name in names}
    return vb.Simulator(
        Pair(),
        {name: c.sparse() if name in sparse else c for name, c in made.items()},
        coupling={"exc": vb.coupling.Difference(G=0.6), "inh": vb.coupling.Linear(G=-0.4)},
        delays=vb.Delays(max=3.0),
        integrator=vb.Heun(DT),
    )


@pytest.mark.parametrize("sparse", [(), ("inh",), ("exc", "inh")])
def test_projections_whose_lags_are_read_in_blocks(sparse):
    """Lags of 8 steps and more: a batch reads both projections ahead, as far as the shorter of the two allows."""
    sim = with_long_lags(sparse)
    assert min(d.ahead for d in sim.delays.values()) >= 4
    fwd = vb.ForwardModel(sim, t1=STEPS * DT, summary=lambda y: jnp.concatenate([y["a"][-1], y["b"][-1]]))
    G = np.array([0.1, 0.6, -0.2, 0.9])
    x = fwd.batch({"coupling.exc.G": G}, jax.random.split(jax.random.key(0), N))
    for draw, strength in enumerate(G):
        np.testing.assert_allclose(x[draw], by_hand(strength, lengths=LONG)[-1].ravel(), atol=1e-5)


@pytest.mark.parametrize("drawn", ["exc", "inh"])
def test_a_drawn_speed_reads_the_ring_of_a_projection_that_is_read_in_blocks(drawn):
    """The mirrored slots are there for the other one; each in turn keeps the ring."""
    speeds = np.array([1.0, 1.1, 1.3, 2.0]) * SPEED[drawn]
    fwd = vb.ForwardModel(
        with_long_lags(("inh",), (drawn, "inh" if drawn == "exc" else "exc")),
        t1=STEPS * DT,
        summary=lambda y: jnp.concatenate([y["a"][-1], y["b"][-1]]),
    )
    x = fwd.batch({f"connectome.{drawn}.speed": speeds}, jax.random.split(jax.random.key(0), N))
    for draw, speed in enumerate(speeds):
        lengths = LONG | {drawn: LONG[drawn] * SPEED[drawn] / speed}
        expected = by_hand(lengths=lengths, swapped=drawn == "inh")[-1].ravel()
        np.testing.assert_allclose(x[draw], expected, atol=1e-5)


def test_the_density_of_a_path_through_two_projections():
    """log p of an Euler step: normal around x + dt f, with f the loop's."""
    noise = vb.noise.Additive(sigma=0.3)
    sim = build(("inh",), integrator=vb.integrators.Euler(DT), noise=noise, delays={"inh": vb.Delays(max=1.5)})
    ys = vb.simulate(sim, t1=20 * DT, key=jax.random.key(2)).ys["raw"]
    start = sim.model.init(N)
    path = {name: np.concatenate([np.asarray(getattr(start, name))[None], ys[name]]) for name in "ab"}
    lag = np.round(LENGTHS["inh"] / 5.0 / DT).astype(int)
    total = 0.0
    for k in range(20):
        a, b = path["a"][k].astype(float), path["b"][k].astype(float)
        for i in range(N):
            exc = 0.6 * sum(W["exc"][i, j] * (a[j] - a[i]) for j in range(N))
            inh = -0.4 * sum(W["inh"][i, j] * path["a"][max(k - lag[i, j], 0), j] for j in range(N))
            mean = a[i] + DT * (-a[i] + np.tanh(exc) - b[i]), b[i] + DT * (0.3 * (a[i] - b[i]) + inh * b[i])
            for m, new in zip(mean, (path["a"][k + 1, i], path["b"][k + 1, i]), strict=True):
                total += -0.5 * (new - m) ** 2 / (0.09 * DT) - 0.5 * np.log(2 * np.pi * 0.09 * DT)
    assert float(vb.likelihoods.transition_log_prob(sim, path)) == pytest.approx(total, rel=1e-4)


def dopamine(connectome, coupling):
    model = vb.models.DopaAdaptiveQIF(we=0.3, wi=0.2, wd=[1e-4, 0.0, 3e-4, 1e-4])
    return vb.Simulator(model, connectome, coupling=coupling, integrator=vb.Heun(0.01), delays=vb.Delays())


def test_dopamine_reads_three_projections_or_one_for_all():
    linear = vb.coupling.Linear(G=0.7)
    one = vb.Connectome(W["exc"], LENGTHS["exc"])
    names = ("exc", "inh", "dop")
    same = dopamine(dict.fromkeys(names, one), dict.fromkeys(names, linear))
    other = dopamine({"exc": one, "inh": vb.Connectome(W["inh"]), "dop": one}, dict.fromkeys(names, linear))
    alone, three, changed = (vb.simulate(s, t1=2.0, key=None).ys["raw"] for s in (dopamine(one, linear), same, other))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), alone, three)
    assert np.abs(changed["Sg"] - alone["Sg"]).max() > 1e-3


LINEAR = vb.coupling.Linear()
TWO = {"exc": LINEAR, "inh": LINEAR}


def simulator(connectome, coupling, model=None, **options):
    return vb.Simulator(model or Pair(), connectome, coupling=coupling, integrator=vb.Heun(DT), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulator(networks(), {"exc": LINEAR}), r"projections \['exc', 'inh'\], coupling is \['exc'\]"),
        (lambda: simulator(networks(), LINEAR), "coupling is Linear; give one coupling for each"),
        (lambda: simulator(networks()["exc"], TWO), "coupling is a mapping and connectome is not"),
        (
            lambda: simulator(networks()["exc"], LINEAR, delays={"exc": vb.Delays()}),
            "delays is a mapping and connectome",
        ),
        (lambda: simulator(networks(), TWO, delays={"ecx": vb.Delays()}), "Did you mean 'exc'"),
        (lambda: simulator(networks(), TWO, delays={"inh": vb.Delays(max=0.5)}), "longest delay is .* set max"),
        (lambda: simulator({}, {}), r"connectome names \[\]; give each projection a name"),
        (lambda: simulator({"e.x": networks()["exc"]}, {"e.x": LINEAR}), "a name without dots"),
        (lambda: simulator({"exc": W["exc"]}, {"exc": LINEAR}), "connectome was given as ndarray"),
        (
            lambda: simulator(networks() | {"inh": vb.Connectome(np.ones((3, 3)))}, TWO),
            "connectome 'inh' has 3 nodes and the first has 4",
        ),
        (
            lambda: simulator(networks(), TWO, vb.models.MontbrioPazoRoxin()),
            r"the projections send 2 row\(s\) of coupling input \('exc' 1, 'inh' 1\), MontbrioPazoRoxin .* reads 1",
        ),
        (lambda: simulator(networks(), TWO, vb.models.DopaAdaptiveQIF()), "send 2 .* DopaAdaptiveQIF .* reads 3"),
        (
            lambda: vb.models.DopaAdaptiveQIF(Ci=W["inh"]),
            "no parameter 'Ci' any more: inhibition and dopamine are proj",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_every_model_says_how_many_rows_it_reads():
    """A network that sends one row more than is read is refused by each."""
    for name in dir(vb.models):
        model = getattr(vb.models, name)
        if (
            not isinstance(model, type)
            or not issubclass(model, vb.models.AbstractVectorField)
            or model is vb.models.AbstractVectorField
        ):
            continue
        # a network of Mixed is read by each of its groups, Robinson reads a third row where there is one
        assert getattr(model, "rows", None) is not None or name in ("Mixed", "Robinson"), name


STUDY = """
[data]
connectome = { exc = "exc.npz", inh = "inh.npz", dop = "exc.npz" }
recording  = "rate.csv"
period     = 1.0

[simulator]
model        = { name = "DopaAdaptiveQIF", we = 0.3, wi = 0.2 }
coupling.exc = { name = "Linear", G = 0.7 }
coupling.dop = { name = "Linear", G = 0.1 }
coupling.inh = { name = "Linear", G = 0.9 }
delays.inh   = { max = 1.5 }
integrator   = { name = "Heun", dt = 0.05 }
monitor      = { name = "TimeAverage", var = "r", period = 1.0 }
t1           = 6.0
transient    = 1.0

[prior]
"connectome.inh.speed" = { name = "Uniform", low = 4.5, high = 6.0 }
"coupling.dop.G"       = { name = "Uniform", low = 0.0, high = 0.2 }

[summary]
level = { name = "moments" }

[inference]
method = { name = "NPE" }
draws  = 64
"""


def test_projections_may_stand_in_a_study_file(tmp_path):
    for name in W:
        np.savez(tmp_path / f"{name}.npz", weights=W[name], tract_lengths=LENGTHS[name], speed=SPEED[name])
    np.savetxt(tmp_path / "rate.csv", np.random.default_rng(0).normal(size=(5, N)), delimiter=",")
    (tmp_path / "study.toml").write_text(STUDY)
    study = vb.Study.from_toml(tmp_path / "study.toml")
    three = networks(names=("exc", "inh")) | {"dop": networks()["exc"]}
    sim = vb.Simulator(
        vb.models.DopaAdaptiveQIF(we=0.3, wi=0.2),
        three,
        coupling={name: vb.coupling.Linear(G=G) for name, G in {"exc": 0.7, "inh": 0.9, "dop": 0.1}.items()},
        delays={"inh": vb.Delays(max=1.5)},
        integrator=vb.Heun(dt=0.05),
        monitors={"monitor": vb.monitors.TimeAverage(1.0, "r")},
    )
    own = vb.ForwardModel(sim, t1=6.0, transient=1.0, summary=study.forward.parts[0])
    theta = {"connectome.inh.speed": 5.5, "coupling.dop.G": 0.05}
    np.testing.assert_array_equal(study.forward(theta, None), own(theta, None))
    assert list(study.forward.sim.connectome) == ["exc", "inh", "dop"]
    np.testing.assert_array_equal(study.connectome.weights, three["exc"].weights)
    (tmp_path / "study.toml").write_text(STUDY.replace("coupling.dop ", "coupling.dpo "))
    with pytest.raises(StudyError, match=r"coupling is .*'dpo'.*; give one coupling for each"):
        vb.Study.from_toml(tmp_path / "study.toml")
