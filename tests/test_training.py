"""The training loop against NumPy: its steps, its stopping, its ensembles, and going on after an interruption."""

import conjugate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vbinfer.neural import estimator as ours
from vbinfer.neural import training
from vbinfer.neural.checkpoint import Checkpoint
from vbinfer.neural.densities import MDN
from vbinfer.neural.densities.base import stack
from vbinfer.neural.fit_info import contrastive_gain, has_converged
from vbinfer.neural.nle import NLE
from vbinfer.neural.training import Training, TrainingTask, train

KEY = jax.random.key(4)


class Line(eqx.Module):
    """y ~ N(slope c + shift, 1), with an array that is not trained."""

    slope: jax.Array
    shift: jax.Array
    order: jax.Array


def line(slope, shift):
    return Line(jnp.asarray(slope), jnp.asarray(shift), jnp.arange(3))


def loss(member, batch, key):
    return 0.5 * jnp.mean((batch[0][:, 0] - member.slope * batch[1][:, 0] - member.shift) ** 2)


def data(n, slope, shift, seed=0):
    rng = np.random.default_rng(seed)
    c = rng.normal(0.5, 1.0, (n, 1))
    return jnp.asarray(slope * c + shift + 0.1 * rng.normal(size=(n, 1))), jnp.asarray(c)


def test_steps_are_clipped_adam_with_decoupled_decay_and_a_cosine():
    """One batch an epoch, so that its order does not matter; Kingma & Ba 2015 and Loshchilov & Hutter 2019 by hand."""
    options = Training(max_epochs=12, batch_size=50, learning_rate=0.1, patience=12, weight_decay=0.3, clip_norm=0.7)
    fit, held = data(50, 3.0, -1.0), data(20, 3.0, -1.0, seed=1)
    trained = train(TrainingTask(stack([line(-2.0, 0.5)]), loss, fit, held, options), KEY)
    y, c = (np.asarray(value, float)[:, 0] for value in fit)
    w, m, v, train_losses, val = np.array([-2.0, 0.5]), np.zeros(2), np.zeros(2), [], []
    for t in range(12):
        error = y - w[0] * c - w[1]
        train_losses.append(0.5 * np.mean(error**2))
        gradient = np.array([-np.mean(error * c), -np.mean(error)])
        gradient *= min(1.0, 0.7 / np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        w = w - 0.1 * 0.5 * (1 + np.cos(np.pi * t / 12)) * (update + 0.3 * w)
        val.append(0.5 * np.mean((np.asarray(held[0])[:, 0] - w[0] * np.asarray(held[1])[:, 0] - w[1]) ** 2))
    np.testing.assert_allclose(trained.train[0], train_losses, rtol=1e-4)
    np.testing.assert_allclose(trained.val[0], val, rtol=1e-4)
    assert trained.best_epoch[0] == np.argmin(val) + 1 == 12
    np.testing.assert_allclose([trained.members.slope[0], trained.members.shift[0]], w, rtol=1e-4)
    np.testing.assert_array_equal(trained.members.order[0], [0, 1, 2])


def test_the_parameters_of_the_best_epoch_are_kept():
    """The draws pull the slope from 0 to 3, the held-out ones are best at 1."""
    options = Training(max_epochs=60, batch_size=25, learning_rate=0.05, patience=5, weight_decay=0.0)
    fit, held = data(100, 3.0, 0.0), data(100, 1.0, 0.0, 1)
    trained = train(TrainingTask(stack([line(0.0, 0.0)]), loss, fit, held, options), KEY)
    kept = line(trained.members.slope[0], trained.members.shift[0])
    assert float(loss(kept, data(100, 1.0, 0.0, 1), KEY)) == pytest.approx(trained.val.min(), rel=1e-4)
    assert 0.3 < float(kept.slope) < 1.3
    assert trained.best_epoch[0] == np.argmin(trained.val[0]) + 1
    assert trained.val.shape[1] == trained.best_epoch[0] + 5 < 60
    assert trained.converged
    already = train(TrainingTask(stack([line(1.0, 0.0)]), loss, fit, held, options), KEY)
    assert already.best_epoch[0] == 0
    assert float(already.members.slope[0]) == 1.0


def test_members_trained_as_one_program_are_those_trained_one_by_one():
    """One member stops long before the other; each has its own minibatches."""
    options = Training(max_epochs=40, batch_size=16, learning_rate=0.05, patience=4, weight_decay=0.0)
    members, fit, held = [line(0.0, 0.0), line(-6.0, 0.3)], data(64, 3.0, 0.0), data(64, 1.5, 0.0, 1)
    joint = train(TrainingTask(stack(members), loss, fit, held, options), KEY)
    keys = jax.random.split(KEY, 2)
    ends = []
    for i, member in enumerate(members):
        task, key = TrainingTask(stack([member]), loss, fit, held, options), keys[i : i + 1]
        state, val = training._start(key, task), []
        while len(val) < options.max_epochs and len(val) - int(state.best_epoch[0]) < options.patience:
            state, (_, now) = training._epoch(state, jnp.asarray(len(val)), jnp.array([True]), key, task)
            val.append(float(now[0]))
        ends.append(len(val))
        np.testing.assert_allclose(joint.val[i, : len(val)], val, rtol=2e-5)
        assert np.isnan(joint.val[i, len(val) :]).all()
        assert joint.best_epoch[i] == int(state.best_epoch[0])
        np.testing.assert_allclose(joint.members.slope[i], state.best.slope[0], rtol=2e-5)
    assert ends[0] + 3 < ends[1]
    assert joint.val.shape == (2, ends[1])


def interrupted(path, at, study, options, fit, held, members):
    def report(epoch, *losses):
        if epoch == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TrainingTask(members, loss, fit, held, options), KEY, report, Checkpoint(path, study, fit))


def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(tmp_path):
    options = Training(max_epochs=9, batch_size=16, learning_rate=0.05)
    fit, held, study = data(70, 3.0, -1.0), data(30, 3.0, -1.0, 1), {"a": 1}
    members, path = stack([line(0.0, 0.0), line(-1.0, 2.0)]), tmp_path / "fit.npz"
    whole = train(TrainingTask(members, loss, fit, held, options), KEY)
    interrupted(path, 3, study, options, fit, held, members)
    interrupted(path, 4, study, options, fit, held, members)  # and once more
    seen = []
    again = train(TrainingTask(members, loss, fit, held, options), KEY, lambda epoch, *_: seen.append(epoch),
                  Checkpoint(path, study, fit))  # fmt: skip
    assert seen == [5, 6, 7, 8, 9]
    for one, two in zip(jax.tree_util.tree_leaves(whole), jax.tree_util.tree_leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    done = train(TrainingTask(members, loss, fit, held, options), KEY, checkpoint=Checkpoint(path, study, fit))
    np.testing.assert_array_equal(done.val, whole.val)  # a finished fit is read


def test_an_interrupt_while_losses_are_fetched_repeats_no_epoch(tmp_path, monkeypatch):
    """The state of an epoch was kept without its row: the resumed fit took that epoch twice, and said nothing."""
    options = Training(max_epochs=6, batch_size=16, learning_rate=0.05)
    fit, held, members = data(70, 3.0, -1.0), data(30, 3.0, -1.0, 1), stack([line(0.0, 0.0)])
    task = TrainingTask(members, loss, fit, held, options)
    whole = train(task, KEY)
    run, calls = training._epoch, []

    class Interrupted:
        def __array__(self, *_, **__):
            raise KeyboardInterrupt

    def epoch(*arguments):
        state, losses = run(*arguments)
        calls.append(1)
        return state, Interrupted() if len(calls) == 3 else losses

    with monkeypatch.context() as patch:
        patch.setattr(training, "_epoch", epoch)
        with pytest.raises(KeyboardInterrupt):
            train(task, KEY, checkpoint=Checkpoint(tmp_path / "fit.npz", {}, fit))
    again = train(task, KEY, checkpoint=Checkpoint(tmp_path / "fit.npz", {}, fit))
    np.testing.assert_array_equal(again.train, whole.train)
    np.testing.assert_array_equal(again.members.slope, whole.members.slope)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    options = Training(max_epochs=2, batch_size=16)
    fit, held, members = data(40, 3.0, -1.0), data(30, 3.0, -1.0, 1), stack([line(0.0, 0.0)])
    path = tmp_path / "fit.npz"
    train(TrainingTask(members, loss, fit, held, options), KEY, checkpoint=Checkpoint(path, {"a": 1}, fit))
    before = path.read_bytes()
    for study, values in (({"a": 2}, fit), ({"a": 1}, (fit[0].at[3].add(1e-3), fit[1]))):
        with pytest.raises(ValueError, match=r"fit\.npz' holds a fit of another study:\n(.*\n)*Give another folder"):
            train(TrainingTask(members, loss, values, held, options), KEY, checkpoint=Checkpoint(path, study, values))
    assert path.read_bytes() == before


def test_a_loss_that_is_no_number_ends_in_the_last_good_parameters():
    options = Training(max_epochs=30, batch_size=32, learning_rate=1e30, patience=3, clip_norm=1e30, weight_decay=0.0)
    trained = train(
        TrainingTask(stack([line(0.5, 0.0)]), loss, data(64, 3.0, 0.0), data(64, 3.0, 0.0, 1), options), KEY
    )
    assert not np.isfinite(trained.val).any()
    assert trained.best_epoch[0] == 0
    assert float(trained.members.slope[0]) == 0.5
    assert not trained.converged


def test_a_report_hears_the_mean_of_the_members():
    heard = []
    options = Training(max_epochs=3, batch_size=50)
    members, fit, held = stack([line(0.0, 0.0), line(9.0, 1.0)]), data(50, 3.0, 0.0), data(20, 3.0, 0.0, 1)
    trained = train(TrainingTask(members, loss, fit, held, options), KEY, lambda *row: heard.append(row))
    np.testing.assert_allclose([row[1:] for row in heard], np.stack([trained.train, trained.val], 2).mean(0), rtol=1e-6)
    assert [row[0] for row in heard] == [1, 2, 3]


def test_a_loss_still_falling_at_the_cap_is_not_converged():
    falling, flat = np.linspace(3, 1, 20), np.r_[np.linspace(3, 1, 12), np.ones(8)]
    assert has_converged(flat, flat, 20)
    assert not has_converged(falling, falling, 20)
    assert not has_converged(falling - 0.04, falling, 20)
    assert has_converged(falling - 0.06, falling, 20)  # overfits already: draws are missing, not epochs
    assert has_converged(falling, falling, 21)  # ended by patience
    assert not has_converged(np.full(20, np.nan), np.full(20, np.nan), 20)


def test_epochs_follow_from_the_number_of_draws():
    """94 (1,000 / n)^0.6, within 25 to 120: a little more gradient steps for more draws."""
    assert [Training().epochs(n) for n in (500, 1_000, 5_000, 100_000)] == [120, 94, 36, 25]
    assert Training(max_epochs=7).epochs(100_000) == 7


def test_any_optimiser_of_optax_takes_the_steps():
    """Gradient descent by hand, one batch an epoch."""
    options = Training(max_epochs=5, batch_size=50, optimizer=optax.sgd(0.2))
    fit, held, w = data(50, 3.0, -1.0), data(20, 3.0, -1.0, seed=1), np.array([-2.0, 0.5])
    trained = train(TrainingTask(stack([line(*w)]), loss, fit, held, options), KEY)
    y, c = (np.asarray(value, float)[:, 0] for value in fit)
    for _ in range(5):
        error = y - w[0] * c - w[1]
        w = w + 0.2 * np.array([np.mean(error * c), np.mean(error)])
    np.testing.assert_allclose([trained.members.slope[0], trained.members.shift[0]], w, rtol=1e-4)


def test_an_optimiser_is_known_by_its_arithmetic(tmp_path):
    spec = lambda optimizer: Training(optimizer=optimizer).to_spec()["optimizer"]  # noqa: E731
    known = spec(optax.adam(1e-3))
    assert spec(optax.adam(1e-3)) == known
    decay = [optax.adam(optax.cosine_decay_schedule(1e-3, steps)) for steps in (100, 200)]
    others = [optax.adam(2e-3), optax.adam(1e-3, b1=0.8), optax.sgd(1e-3), optax.adamw(1e-3), *decay]
    assert len({known, *map(spec, others)}) == 1 + len(others)
    assert Training().to_spec()["optimizer"] is None
    prior, path = conjugate.make_prior(), tmp_path / "fit.npz"
    fits = [NLE(MDN(components=1, width=5), training=Training(max_epochs=1, optimizer=optax.sgd(rate)))
            for rate in (0.1, 0.1, 0.2)]  # fmt: skip
    for estimator in fits[:2]:
        estimator.fit(conjugate.make_draws(60), prior, key=KEY, checkpoint=path)
    with pytest.raises(ValueError, match=r"fit\.npz' holds a fit of another study"):
        fits[2].fit(conjugate.make_draws(60), prior, key=KEY, checkpoint=path)


@pytest.mark.parametrize(
    ("options", "error", "remedy"),
    [
        ({"max_epochs": 0}, ValueError, r"such as max_epochs=50"),
        ({"batch_size": -2}, ValueError, r"such as batch_size=200"),
        (
            {"patience": True},
            ValueError,
            r"patience=True was given; expected a positive whole number, such as patience=20",
        ),
        ({"learning_rate": 0.0}, ValueError, r"such as learning_rate=0\.005"),
        ({"learning_rate": float("nan")}, ValueError, r"learning_rate=nan was given"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay=-0\.1 was given; expected at least 0"),
        ({"clip_norm": -1.0}, ValueError, r"such as clip_norm=5\.0"),
        ({"validation_fraction": 1.0}, ValueError, r"such as validation_fraction=0\.1"),
        ({"optimizer": optax.adam}, TypeError, r"optimizer=adam was given; .*such as optax\.adam\(1e-3\)"),
        ({"optimizer": "adam"}, TypeError, r"such as optax\.adam\(1e-3\)"),
        ({"optimizer": optax.sgd(0.1), "clip_norm": 1.0}, ValueError, r"clip_norm=1\.0 .*write it there"),
    ],
)
def test_options_that_cannot_be_are_named(options, error, remedy):
    with pytest.raises(error, match=remedy):
        Training(**options)


def test_both_backends_have_one_rule_of_convergence_and_gain():
    from vbinfer.neural.sbi import estimator as theirs

    assert theirs.has_converged is training.has_converged is has_converged
    assert theirs.contrastive_gain is ours.contrastive_gain is contrastive_gain


def test_the_contrastive_gain_is_the_information_up_to_its_cap():
    """The exact likelihood gives the mutual information; a term of x alone changes nothing; log 512 is the most."""
    prior = conjugate.make_prior()
    draws = conjugate.make_draws(256)
    z = np.asarray(prior.ravel_z(prior.unconstrain(draws.theta)))
    exact = lambda z, x: conjugate.log_likelihood(prior.constrain(prior.unravel_z(jnp.asarray(z)))[0]["mu"], x)  # noqa: E731
    gain = contrastive_gain(exact, prior, z, draws.x, KEY)
    assert gain == pytest.approx(conjugate.MUTUAL_INFORMATION, abs=4 * 1.0 / np.sqrt(256))
    shifted = contrastive_gain(lambda z, x: exact(z, x) + 3.0 * x[:, 0], prior, z, draws.x, KEY)
    assert shifted == pytest.approx(gain, abs=1e-4)
    sure = contrastive_gain(lambda z, x: np.where((z == z[0]).all(1), 0.0, -1e3), prior, z, draws.x, KEY)
    assert sure == pytest.approx(np.log(512))
