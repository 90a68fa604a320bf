"""Layers that learn: recursions and gradients of other software, in both modes and forward in time."""

import gzip
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import vbinfer as vb

S = vb.spiking
GOLDEN, GOLDEN2 = (np.load(Path(__file__).parent / "golden" / f"{name}.npz") for name in ("spiking", "spiking2"))
KEY = jax.random.key(0)
TAU, TAU_S = -1.0 / np.log(0.9), -1.0 / np.log(0.8)


def linear(weights):
    weights = jnp.asarray(weights)
    return eqx.tree_at(lambda s: s.weight, S.Linear(weights.shape[1], weights.shape[0], key=KEY), weights)


# --- norse: membrane 1/(100/s), synapse 1/(200/s), steps of 1 ms, forward Euler, hence these decays -------------------


def norse_layer(weights=None, recurrent=None, k=100.0):
    neuron = S.CubaLIF(tau=TAU, tau_s=TAU_S, surrogate=S.surrogates.SuperSpike(k))
    return S.Layer(linear(np.eye(4) if weights is None else weights), neuron, recurrent)


def test_recursions_are_those_of_norse():
    """Spikes equal; v and i to 1e-7, the precision of norse's parameters. And the same through a state that is kept."""
    with jax.enable_x64(True):
        x = GOLDEN["norse_x"]
        for name, layer in (
            ("ff", norse_layer()),
            ("rec", norse_layer(GOLDEN["norse_w_in"], linear(GOLDEN["norse_w_rec"]))),
        ):
            net = S.Network([layer])
            z, end = net(x)
            np.testing.assert_array_equal(z, GOLDEN[f"norse_{name}_z"])
            np.testing.assert_allclose(end[0].neuron.v, GOLDEN[f"norse_{name}_v"][-1], atol=1e-7)
            np.testing.assert_allclose(end[0].neuron.i, GOLDEN[f"norse_{name}_i"][-1], atol=1e-7)
            held = S.Stateful(net)
            np.testing.assert_array_equal(np.concatenate([held(x[:123]), held(x[123:124]), held(x[124:])]), z)
            held.reset()
            np.testing.assert_array_equal(held(x), z)
        y, _ = S.Network([S.Layer(linear(np.eye(4)), S.LI(tau=TAU, tau_s=TAU_S))])(x)
        np.testing.assert_allclose(y, GOLDEN["norse_li_v"], atol=1e-7)


def test_gradients_are_those_of_norse_in_both_modes():
    with jax.enable_x64(True):
        x = jnp.asarray(GOLDEN["norse_x"][:60])
        weight = jnp.linspace(1.0, 2.0, 60)[:, None]
        cell, synapse = norse_layer(k=1.0)._cell(), linear(np.eye(4))  # norse took its alpha as 1 there

        def cost(x):
            def step(state, c):
                state = cell.cell(state, c, 1.0)
                return state, (state.z, state.v)

            z, v = jax.lax.scan(step, cell.start_of((4,))._replace(since=None), synapse(3.0 * x)[0])[1]
            return (weight * z).sum() + 0.1 * (v**2).sum()

        np.testing.assert_allclose(cost(x), GOLDEN["norse_loss"], rtol=1e-6)
        reverse = jax.grad(cost)(x)
        direction = jnp.asarray(np.random.default_rng(0).standard_normal(x.shape))
        forward = jax.jvp(cost, (x,), (direction,))[1]
        np.testing.assert_allclose(reverse, GOLDEN["norse_grad_x"], atol=1e-6)
        np.testing.assert_allclose(forward, (reverse * direction).sum(), rtol=1e-11)


# --- a recurrent network with a readout: hand-written reverse mode = RTRL = torch, to 1e-14 ---------------------------


def cuba_net():
    w_in, w_rec, w_out = (GOLDEN2[f"cuba__W_{name}"] for name in ("in", "rec", "out"))
    hidden = S.CubaLIF(tau=TAU, tau_s=TAU_S, surrogate=S.surrogates.SuperSpike(10.0), learn=("tau", "tau_s", "v_th"))
    return S.Network([S.Layer(linear(w_in), hidden, linear(w_rec)), S.Layer(linear(w_out), S.LI(tau=TAU, tau_s=TAU_S))])


def cuba_loss(y, w):
    return (w * y).sum() + 0.5 * (y**2).sum(axis=1).mean()


def against_golden(gradient, kind, rtol):
    hidden, readout = gradient.layers
    found = {
        "W_in": hidden.synapse.weight,
        "W_rec": hidden.recurrent.weight,
        "W_out": readout.synapse.weight,
        "a": hidden.neuron.tau / (0.9 / TAU**2),  # a = exp(-1/tau)
        "b": hidden.neuron.tau_s / (0.8 / TAU_S**2),
        "v_th": hidden.neuron.v_th,
    }
    for name, value in found.items():
        np.testing.assert_allclose(
            np.asarray(value), GOLDEN2[f"cuba__{kind}_{name}"], rtol=rtol, atol=rtol, err_msg=name
        )
    assert float(hidden.neuron.v_rest) == float(readout.neuron.tau) == 0.0  # not learned


def test_states_and_gradients_are_the_golden_ones():
    """By backpropagation, with checkpoints, forward in time, and without what recurrence carries."""
    with jax.enable_x64(True):
        net, x, w = cuba_net(), jnp.asarray(GOLDEN2["cuba__x"]), jnp.asarray(GOLDEN2["cuba__w"])
        z, _ = S.Network(net.layers[:1])(x)
        y, end = net(x)
        assert 0.1 < z.mean() < 0.4
        np.testing.assert_array_equal(z, GOLDEN2["cuba__z"])
        np.testing.assert_allclose(y, GOLDEN2["cuba__y"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(end[0].neuron.v, GOLDEN2["cuba__v"][-1], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(end[0].neuron.i, GOLDEN2["cuba__i"][-1], rtol=1e-9, atol=1e-12)
        for checkpoint in (False, True):
            slope = eqx.filter_jit(eqx.filter_grad(lambda net, c=checkpoint: cuba_loss(net(x, checkpoint=c)[0], w)))
            back = slope(net)
            against_golden(back, "grad", 1e-9)
        value, ahead = S.rtrl(net, cuba_loss)(x, w)
        np.testing.assert_allclose(value, cuba_loss(y, w), rtol=1e-12)
        against_golden(ahead, "grad", 1e-9)
        assert jax.tree.structure(ahead) == jax.tree.structure(eqx.filter(net, eqx.is_inexact_array))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ahead, back)
        _, cut = S.eprop(net, cuba_loss)(x, w)
        against_golden(cut, "grad_cut", 1e-9)
        one, other = (np.asarray(g.layers[0].synapse.weight) for g in (cut, back))
        assert np.linalg.norm(one - other) > 1e-2 * np.linalg.norm(other)


def test_memory_of_rtrl_is_flat_in_time():
    """Apart from inputs, outputs and errors, which the loss needs whole."""
    net = S.Network([S.Layer(S.Linear(2, 6, key=KEY), S.LIF(), S.Linear(6, 6, key=KEY))])

    def temporary(steps):
        grad = jax.jit(lambda xs: S.rtrl(net, lambda y, t: (y**2).sum() * t)(xs, 1.0)[1].layers[0].synapse.weight)
        return grad.lower(jnp.zeros((steps, 2))).compile().memory_analysis().temp_size_in_bytes

    series = 4 * (2 + 3 * 6)  # float32: xs, ys, their errors, and one more of ys
    assert temporary(4_000) - temporary(40) < 3_960 * series


# --- other cells ------------------------------------------------------------------------------------------------------

CELLS = {
    "LIF": (S.LIF(tau=8.0, learn=("tau", "v_reset")), 0.4),
    "ALIF": (S.ALIF(tau=8.0, tau_a=30.0, beta=0.5, learn=("beta", "tau_a")), 1.0),
    "CubaLIF": (S.CubaLIF(tau=8.0, learn=("v_th",)), 0.8),
    "LI": (S.LI(tau=8.0, learn=("tau",)), 1.0),
    "QIF": (S.QIF(tau=5.0, v_peak=2.0, v_reset=-1.0, learn=("eta",)), 1.0),
    "Izhikevich": (S.Izhikevich(learn=("a", "d")), 8.0),
    "AdEx": (S.AdEx(learn=("g_L",), surrogate=S.surrogates.Sigmoid(0.1)), 1500.0),
}


@pytest.mark.parametrize("name", CELLS)
def test_any_neuron_is_a_cell_whose_gradients_agree_in_both_modes(name):
    cell, gain = CELLS[name]
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        cell = jax.tree.map(lambda a: a.astype(float), cell)
        layer = S.Layer(
            linear(rng.uniform(0.2, 1.0, (5, 3)) * gain), cell, linear(0.1 * gain * rng.standard_normal((5, 5)))
        )
        net = S.Network([layer], dt=0.5)
        x = jnp.asarray(rng.uniform(0, 1.5, (60, 2, 3)))  # a batch of two

        def cost(net):
            ys, (end,) = net(x)
            return (ys * jnp.arange(60.0)[:, None, None]).sum() / 60 + (end.neuron.v**2).sum()

        learned, fixed = eqx.partition(net, eqx.is_inexact_array)
        fn = lambda learned: cost(eqx.combine(learned, fixed))  # noqa: E731
        direction = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), learned)
        back = jax.jit(jax.grad(fn))(learned)
        ahead = jax.jit(lambda a, d: jax.jvp(fn, (a,), (d,))[1])(learned, direction)
        ys, _ = net(x)
    if name != "LI":
        assert 0.01 < np.asarray(ys).mean() < 0.8
    total = sum(
        float((np.asarray(a) * np.asarray(b)).sum())
        for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(float(ahead), total, rtol=1e-9)
    for field in cell.learn:
        assert abs(float(getattr(back.layers[0].neuron, field))) > 1e-6


def test_izhikevich_cells_take_the_golden_euler_steps():
    with jax.enable_x64(True):
        n = 880
        t = np.arange(n) * 0.25
        current = np.where(t < 20.0, 0.0, np.where(t < 160.0, 10.0, 4.0))
        net = S.Network([S.Layer(linear([[1.0]]), S.Izhikevich(0.02, 0.2, -65.0, 8.0))], dt=0.25)
        (begin,) = net.start(jnp.zeros((1, 1)))
        begin = begin._replace(neuron=begin.neuron._replace(v=jnp.array([-70.0]), u=jnp.array([-14.0])))
        z, (end,) = net(current[:, None], (begin,))
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(z)[:, 0]) + 1, GOLDEN["izh_RS_euler_spike_steps"])
    np.testing.assert_allclose(end.neuron.v[0], GOLDEN["izh_RS_euler_dt0.25"][0, -1], rtol=1e-9)


# --- resets ----------------------------------------------------------------------------------------------------------


def reset_oracle(kind, late, held, xs, weight):
    """v and z of a LIF cell in a scalar loop, and their derivatives by the weight."""
    a, v_rest, v_th, v_reset = np.exp(-1.0 / 9.0), 0.1, 0.8, -0.3
    v, z, dv, dz, out = v_rest, 0.0, 0.0, 0.0, []

    def jump(v, z, dv, dz):
        dz = 0.0 if held else dz
        if kind == "ToValue":
            return (v_reset if z else v), (0.0 if z else dv) + dz * (v_reset - v)
        if kind == "Subtract":
            return v - (v_th - v_reset if z else 0.0), dv - dz * (v_th - v_reset)
        return (0.0 if z else v), (0.0 if z else dv) - dz * v

    for x in xs:
        v, dv = v_rest + a * (v - v_rest) + weight * x, a * dv + x
        if late:
            v, dv = jump(v, z, dv, dz)
        z, dz = float(v > v_th), dv / (1.0 + 4.0 * abs(v - v_th)) ** 2
        if not late:
            v, dv = jump(v, z, dv, dz)
        out.append((v, z, dv, dz))
    return np.array(out).T


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["ToValue", "Subtract", "Mask"])
def test_resets_are_their_recursions(kind, late):
    """On 1,000 random steps; derivatives forward, with the reset differentiated and held constant."""
    xs, weight = np.random.default_rng(11).uniform(-0.2, 0.9, 1_000), 0.7
    for held in (False, True):
        with jax.enable_x64(True):
            reset = getattr(S.resets, kind)(late=late, held=held)
            cell = S.LIF(
                tau=9.0, v_rest=0.1, v_th=0.8, v_reset=-0.3, surrogate=S.surrogates.SuperSpike(4.0), resets=reset
            )

            @jax.jit
            def run(w, cell=cell):
                step = lambda state, x: ((new := cell.cell(state, w * x, 1.0)), (new.v, new.z))  # noqa: E731
                return jax.lax.scan(step, cell.start_of(()), jnp.asarray(xs))[1]

            found = jax.jvp(run, (weight,), (1.0,))
        v, z, dv, dz = reset_oracle(kind, late, held, xs, weight)
        assert 100 < z.sum() < 900
        for got, expected in zip(jax.tree.leaves(found), (v, z, dv, dz), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


# --- files -----------------------------------------------------------------------------------------------------------


def test_idx_files_are_read(tmp_path):
    images = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5) * 7
    head = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
    (tmp_path / "a.idx").write_bytes(head + images.tobytes())
    (tmp_path / "a.gz").write_bytes(gzip.compress(head + images.tobytes()))
    (tmp_path / "f.idx").write_bytes(bytes([0, 0, 13, 1, 0, 0, 0, 2]) + np.array([1.5, -2.0], ">f4").tobytes())
    for name in ("a.idx", "a.gz"):
        np.testing.assert_array_equal(S.read_idx(tmp_path / name), images)
    np.testing.assert_array_equal(S.read_idx(tmp_path / "f.idx"), [1.5, -2.0])
    (tmp_path / "short.idx").write_bytes(head + images.tobytes()[:-1])
    with pytest.raises(ValueError, match=r"has 45 bytes; an IDX file of shape \[2, 3, 5\] has 46"):
        S.read_idx(tmp_path / "short.idx")
    (tmp_path / "no.idx").write_bytes(b"PK..")
    with pytest.raises(ValueError, match="begins with 50 4b 2e 2e; an IDX file with 00 00"):
        S.read_idx(tmp_path / "no.idx")


def test_event_files_are_read_and_binned(tmp_path):
    """Bits of N-MNIST by hand: x, y, polarity and 23 bits of microseconds."""
    t, x, y, p = [300, 1_250, 70_001], [3, 0, 33], [2, 1, 0], [1, 0, 1]
    packed = [b for i in range(3) for b in (x[i], y[i], p[i] << 7 | t[i] >> 16, t[i] >> 8 & 255, t[i] & 255)]
    (tmp_path / "e.bin").write_bytes(bytes(packed))
    np.savez(tmp_path / "e.npz", t=np.array(t) / 1e3, x=x, y=y, p=p)
    for name in ("e.bin", "e.npz"):
        events = S.read_events(tmp_path / name)
        np.testing.assert_allclose(events.t, [0.3, 1.25, 70.001])
        for found, expected in zip(events[1:], (x, y, p), strict=True):
            np.testing.assert_array_equal(found, expected)
    frames = events.frames((34, 34), 1.0, 50)
    expected = np.zeros((50, 2, 34, 34))
    expected[0, 1, 2, 3] = expected[1, 0, 1, 0] = 1.0  # the third is later
    np.testing.assert_array_equal(frames, expected)
    assert events.frames((34, 34), 1.0).shape == (71, 2, 34, 34)
    with pytest.raises(ValueError, match=r"events reach row 2 and column 33; shape was given as \[34, 28\]"):
        events.frames((34, 28), 1.0)
    (tmp_path / "cut.bin").write_bytes(bytes(packed[:-1]))
    with pytest.raises(ValueError, match="has 14 bytes; events are 5 bytes each"):
        S.read_events(tmp_path / "cut.bin")
    np.savez(tmp_path / "less.npz", t=t, x=x)
    with pytest.raises(ValueError, match="has no y, p; expected arrays"):
        S.read_events(tmp_path / "less.npz")
    with pytest.raises(ValueError, match=r"is no \.bin of N-MNIST and no \.npz"):
        S.read_events(tmp_path / "e.aedat")


# --- convolutions ----------------------------------------------------------------------------------------------------


def test_convolutions_with_delays_are_explicit_sums():
    with jax.enable_x64(True):
        x = jnp.asarray(GOLDEN2["dconv__x"])
        conv = S.Conv(2, 3, 3, delays=(0, 1, 3), key=KEY)
        assert conv.weights.shape == GOLDEN2["dconv__W"].shape
        conv = eqx.tree_at(lambda c: c.weights, conv, jnp.asarray(GOLDEN2["dconv__W"]))
        np.testing.assert_allclose(conv(x)[0], GOLDEN2["dconv__y"], rtol=1e-10, atol=1e-12)
        # in a layer, in pieces, with a batch between time and channels and a threshold per channel
        net = S.Network([S.Layer(conv, S.LIF(tau=5.0, v_th=[0.5, 1.0, 2.0])), lambda z: z.reshape(*z.shape[:-3], -1),
                         S.Layer(S.Linear(27, 2, key=KEY), S.LI(tau=5.0))])  # fmt: skip
        batch = jnp.stack([x, 2.0 * x], axis=1)
        whole, _ = net(batch)
        first, state = net(batch[:5])
        np.testing.assert_allclose(jnp.concatenate([first, net(batch[5:], state)[0]]), whole, rtol=1e-12)
        np.testing.assert_allclose(net(x)[0], whole[:, 0], rtol=1e-12)
        assert np.abs(whole).max() > 0.01


@pytest.mark.parametrize("case", ["oja", "oja_wta", "hebb", "hebb_wta", "tied_wta"])
def test_hebbian_updates_are_loops_over_patches(case):
    with jax.enable_x64(True):
        rule = "hebb" if "hebb" in case else "oja"
        layer = S.HebbianConv(2, 3, 3, rate=0.25, rule=rule, winner_take_all="wta" in case, key=KEY)
        weights = GOLDEN2["hebb__W_tied" if case == "tied_wta" else "hebb__W"]
        layer = eqx.tree_at(lambda c: c.weight, layer, jnp.asarray(weights))
        np.testing.assert_allclose(layer(GOLDEN2["hebb__x"]), GOLDEN2[f"hebb__{case}__y"], rtol=1e-10, atol=1e-12)
        moved = layer.update(GOLDEN2["hebb__x"]).weights - layer.weights
        np.testing.assert_allclose(moved, 0.25 * GOLDEN2[f"hebb__{case}__dW"], rtol=1e-9, atol=1e-10)


def test_oja_finds_the_first_principal_component():
    """Of patches [2, 1, 1]: angle below 1 degree, norm 1."""
    rng = np.random.default_rng(5)
    root = np.array([[2.0, 0.3], [0.3, 0.5]])
    images = jnp.asarray(root @ rng.standard_normal((600, 2, 64)), jnp.float32).reshape(600, 2, 8, 8)
    layer = S.HebbianConv(2, 1, 1, rate=3e-4, key=KEY)
    layer = jax.jit(lambda layer, xs: jax.lax.scan(lambda a, x: (a.update(x), None), layer, xs)[0])(layer, images)
    w = np.asarray(layer.weight).ravel()
    first = np.linalg.eigh(root @ root.T)[1][:, -1]
    assert abs(np.linalg.norm(w) - 1.0) < 0.02
    assert np.degrees(np.arccos(min(1.0, abs(w @ first) / np.linalg.norm(w)))) < 1.0


# --- training --------------------------------------------------------------------------------------------------------


def cross_entropy(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs.mean(axis=0), labels).mean()


def patterns(n, rng):
    """Two classes of spike trains that differ in order, not in number."""
    label = rng.integers(0, 2, n)
    early = rng.random((n, 30, 4)) < np.where(np.arange(30) < 15, 0.3, 0.02)[:, None]
    return np.where(label[:, None, None] == 1, early[:, ::-1], early), label


def test_training_learns_order_and_changes_only_what_learns():
    rng, keys = np.random.default_rng(2), jax.random.split(KEY, 3)
    net = S.Network([
        S.Layer(S.Linear(4, 24, key=keys[0]), S.CubaLIF(tau=6.0, tau_s=6.0, v_th=0.3, learn=("v_th",)),
                S.Linear(24, 24, key=keys[1])),
        S.Layer(S.Linear(24, 2, key=keys[2]), S.LI(tau=60.0)),
    ])  # fmt: skip
    trained, info = S.fit(
        net, cross_entropy, patterns(256, rng), optimizer=optax.adam(2e-2), epochs=20, batch_size=32, key=KEY
    )
    xs, labels = patterns(200, rng)
    outputs, _ = trained(np.swapaxes(xs, 0, 1))
    assert info.loss[-1] < 0.5 * info.loss[0]
    assert info.steps == 160
    assert (np.argmax(outputs.mean(axis=0), axis=1) == labels).mean() > 0.9
    hidden = trained.layers[0].neuron
    assert float(hidden.v_th) != pytest.approx(0.3)
    assert float(hidden.tau) == pytest.approx(6.0)


def test_bad_input_is_answered_with_what_to_write():
    one, other = (S.Network([S.Layer(S.Linear(3, n, key=KEY), S.LIF())]) for n in (4, 5))
    x = np.ones((6, 3))
    with pytest.raises(ValueError, match=r"the state has shapes \[5\], \[5\]; this layer and input need \[4\], \[4\]"):
        one(x, other(x)[1])
    with pytest.raises(ValueError, match="the state is of another network: it has 2 layers, this network 1"):
        one(x, other(x)[1] * 2)
    with pytest.raises(ValueError, match="Linear of 3 features was given"):
        one(np.ones((6, 2)))
    with pytest.raises(ValueError, match=r"recurrent is \[4, 3\] in a layer of 4 neurons; write Linear\(4, 4"):
        S.Layer(S.Linear(3, 4, key=KEY), S.LIF(), S.Linear(3, 4, key=KEY))
    with pytest.raises(TypeError, match=r"resets was given as 'subtract'; expected vb\.spiking\.resets\.ToValue"):
        S.LIF(resets="subtract")
    with pytest.raises(TypeError, match="neuron was given as Linear"):
        S.Layer(S.Linear(3, 4, key=KEY), S.Linear(3, 4, key=KEY))
    fit = lambda loss, labels: S.fit(  # noqa: E731
        one, loss, (np.ones((8, 6, 3)), labels), optimizer=optax.sgd(0.1), epochs=1, batch_size=4, key=KEY
    )
    with pytest.raises(ValueError, match="7 targets were given for 8 samples"):
        fit(lambda y, t: y.sum(), np.zeros(7))
    with pytest.raises(ValueError, match="the loss is nan in epoch 1; take a smaller step"):
        fit(lambda y, t: jnp.log(-1.0 - y.sum() ** 2), np.zeros(8))
    with pytest.raises(ValueError, match="rule='stdp' was given; expected one of 'oja', 'hebb'"):
        S.HebbianConv(1, 1, 3, rule="stdp", key=KEY)


def bursts(n):
    """20 counts with a burst at a delay in (0, 1)."""
    rng = np.random.default_rng(4)
    delay, t = rng.uniform(0.0, 1.0, n), np.arange(20.0)
    return delay, rng.poisson(4.0 * np.exp(-0.5 * ((t - 20 * delay[:, None]) / 2.0) ** 2)).astype(float)


READER = [S.Layer(S.Linear(1, 8, key=KEY), S.LIF(tau=5.0)), S.Layer(S.Linear(8, 6, key=KEY), S.LI(tau=20.0))]


def test_a_network_is_an_embedding():
    from vbinfer.neural.embeddings import embed

    net, (_, x) = S.Network(READER), bursts(2)
    found, width = embed(net, KEY, 20)
    assert width == 6
    np.testing.assert_allclose(found(jnp.asarray(x[0])), net(x[0][:, None])[0].mean(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_a_network_embeds_for_neural_posteriors():
    """The posterior of the delay narrows, and lies around it."""
    delay, x = bursts(1_000)
    prior = vb.Prior({"delay": dist.Uniform(0.0, 1.0)})
    draws = vb.Draws.from_arrays({"delay": delay}, x)
    amortized, info = vb.NPE(embedding=S.Network(READER), ensemble=1).fit(draws, prior, key=KEY)
    assert info.info_gain > 0.2
    found = np.stack([amortized.sample(x[i], n=200, key=KEY).theta["delay"][0] for i in range(30)])
    assert np.corrcoef(found.mean(1), delay[:30])[0, 1] > 0.5
